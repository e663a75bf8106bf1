"""How all figures look; matplotlib is an extra."""

from typing import Any


# Told apart by colour-blind readers, in print, and on light and dark ground; after Paul Tol's bright scheme.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#777777", "#000000")


def style_axes(ax: Any, title: str = "") -> None:
    """A heading, a light grid, and no frame above and on the right."""
    ax.set_title(title, fontsize=11)
    ax.grid(True, which="major", alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
