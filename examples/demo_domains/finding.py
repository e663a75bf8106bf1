"""What a domain is asked for, and what it finds: a table, one sentence, and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsd_sampler.evaluation import format_table, plot_quality_vs_nfe, write_jsonl
from lsd_sampler.support.afterwards import optional_plot
from lsd_sampler.support.atomic import write_atomically


BASE, LEARNED, SLOW = "base", "learned", "one token a call"


@dataclass(frozen=True)
class Setting:
    """How a domain is to be run.

    Attributes:
        folder: of its files.
        models: the folder of models and learned samplers.
        quick: whether a few noisy samples are enough.
        samples: the number of samples of each row; None for the domain's own.
    """

    folder: Path
    models: Path
    quick: bool = False
    samples: int | None = None

    def model(self, name: str) -> Path:
        """The folder of a model.

        Raises:
            FileNotFoundError: if there is none.
        """
        if not (self.models / name / "config.json").exists():
            raise FileNotFoundError(f"No model in {self.models / name}: run the demo in a clone of the repository.")
        return self.models / name

    def number(self, full: int, quick: int) -> int:
        """The number of samples of a row, one of these unless the user has said."""
        return self.samples or (quick if self.quick else full)


@dataclass
class Finding:
    """What a domain has found.

    Attributes:
        domain: its name.
        rows: one for each sampler and number of calls, then what they are read against.
        key: the figure that counts. Rows hold it with the ends of its 95 % interval.
        figure: its name.
        lower_is_better: whether the least is the best.
        beside: further columns, key -> heading.
        headline_nfe: the number of calls of the sentence.
        notes: how it was done, and what was left out.
        files: what was written.
    """

    domain: str
    rows: list[dict[str, Any]]
    key: str
    figure: str
    lower_is_better: bool
    beside: Mapping[str, str] = field(default_factory=dict)
    headline_nfe: int = 8
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def table(self) -> str:
        """Sampler, calls, the figure with its interval, and what stands beside it."""
        columns = {"sampler": "sampler", "nfe": "calls", self.key: self.figure}
        columns |= {f"{self.key}_low": "low", f"{self.key}_high": "high", **self.beside, "num_samples": "samples"}
        return format_table(self.rows, columns)

    def sentence(self) -> str:
        """Ours beside the best of the others at one number of calls; empty where either was not measured."""
        here = [r for r in self.rows if r["nfe"] == self.headline_nfe and r.get(self.key) is not None]
        ours = [row for row in here if row["sampler"] == LEARNED]
        others = [row for row in here if row["sampler"] != LEARNED]
        if not ours or not others:
            return ""
        best = (min if self.lower_is_better else max)(others, key=lambda row: row[self.key])
        (low, high), (least, most) = ((row[f"{self.key}_low"], row[f"{self.key}_high"]) for row in (*ours, best))
        how = "the intervals overlap" if low <= most and least <= high else "the intervals do not overlap"
        both = f"learned {ours[0][self.key]:.3f}, best other {best[self.key]:.3f} ({best['sampler']})"
        return f"At {self.headline_nfe} calls, {self.figure}: {both}; {how}."

    def as_text(self) -> str:
        """Table, sentence and notes, as the terminal and `table.txt` have them."""
        return "\n".join([self.table(), "", *(line for line in (self.sentence(), *self.notes) if line)]) + "\n"

    def save(self, folder: Path, title: str) -> None:
        """Writes the table, the rows and a chart of the figure against network calls."""
        write_atomically(folder / "table.txt", self.as_text().encode())
        write_jsonl(folder / "metrics.jsonl", self.rows)
        self.files += [folder / "table.txt", folder / "metrics.jsonl"]
        drawn = [row for row in self.rows if row["nfe"] is not None and row.get(self.key) is not None]
        if drawn:
            floor = next((row for row in self.rows if row["nfe"] is None), None)
            with optional_plot(folder / "quality_vs_nfe.png"):
                plot_quality_vs_nfe(drawn, folder / "quality_vs_nfe.png", {self.key: self.figure}, title, floor)
                self.files.append(folder / "quality_vs_nfe.png")

    def summary(self) -> dict[str, Any]:
        """JSON-ready, without texts and replicates."""
        rows = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in self.rows]
        return {
            "figure": self.figure, "key": self.key, "lower_is_better": self.lower_is_better, "rows": rows,
            "sentence": self.sentence(), "notes": self.notes,
        }  # fmt: skip


def side_by_side(left: Sequence[str], right: Sequence[str], width: int) -> list[str]:
    """Two columns of lines as one."""
    longest = max(len(left), len(right))
    both = zip([*left, *[""] * (longest - len(left))], [*right, *[""] * (longest - len(right))], strict=True)
    return [f"{a:<{width}}  {b}".rstrip() for a, b in both]
