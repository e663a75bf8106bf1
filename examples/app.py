"""Watch a masked diffusion model fill its canvas, beside the base solver with the same noise: an app in the browser.

    python examples/app.py
    python examples/app.py --model my-model owner/name --sampler my-sampler --port 7861

Choose a model, a sampler and a number of network calls, and press Run; the slider then shows what each call
revealed. The base solver gets as many calls and the same seed. The repository's models are there by themselves
(garments, molecules, sudokus, novels), and so are the learned samplers `models/NAME-default`. The app needs gradio
(`pip install lsd_sampler[app]`) and no internet. docs/app.md says how to put it on the Hub, as a Space.
"""

import argparse
import os
from html import escape
from pathlib import Path
from typing import Any

import torch
from app_frames import BASE, PLAIN, Pictures, Request, Run, Sudoku, Texts, compare, frames, load, samplers


HERE = Path(__file__).resolve().parent
MODELS = next((folder for folder in (HERE / "models", HERE.parent / "models") if folder.is_dir()), HERE / "models")
OURS = ("garments", "molecules", "sudoku", "books-radd")
MOST_CALLS, MOST_GUIDANCE = 256, 4.0
HEAD = """# Few network calls
A masked diffusion model fills its canvas: by the base solver, and by the sampler that you choose, with the same
noise."""
EMPTY = "<p>Press <b>Run</b>: the canvas fills here, step by step.</p>"


def side(view: Texts, asked: Request, name: str, run: Run) -> str:
    shown = frames(view, run)
    hidden = ["hidden"] * (len(shown) - 1) + [""]
    right, said = view.verdict(run.canvases[-1], asked)
    pages = "".join(f"<div class=frame {h}>{html}</div>" for h, html in zip(hidden, shown, strict=True))
    sign, kind = {True: ("✓ ", "right"), False: ("✗ ", "wrong"), None: ("", "")}[right]
    facts = f"{run.calls} network call{'s' * (run.calls != 1)} · {run.seconds:.2f} s"
    return (
        f"<section class=side><h3>{escape(name)}</h3><p class=facts>{facts}</p>"
        f'<div class=frames>{pages}</div><p class="verdict {kind}">{sign}{said}</p></section>'
    )


def player(asked: Request, folders: tuple[str, ...] = (), device: str = "cpu", **options: Any) -> str:
    """Both generations as HTML: all their frames, of which the last ones are shown, and a slider."""
    runs, view = compare(asked, folders, device, **options), load(asked.model, device)
    names = ("base solver", asked.sampler if asked.sampler != BASE else "base solver, again")
    sides = "".join(side(view, asked, name, run) for name, run in zip(names, runs, strict=True))
    last = len(runs[0].canvases) - 1
    legend = "".join(f'<li><span class="{kind}"></span>{escape(text)}</li>' for kind, text in view.legend.items())
    return (
        f'<div class="player {view.style} done"><div class=controls><button type=button>Play</button>'
        f'<input type=range min=0 max={last} value={last} aria-label="Steps made">'
        f"<output>step {last} of {last}</output></div>"
        f"<div class=sides>{sides}</div><ul class=legend>{legend}</ul></div>"
    )


def message(error: Exception) -> str:
    return f"<p role=alert class=error>{escape(str(error))}</p>"


def build(models: dict[str, str], folders: tuple[str, ...] = (), device: str = "cpu") -> Any:
    """The app, a `gradio.Blocks`.

    Args:
        models: label -> folder or Hub id; the first is shown at once.
        folders: learned samplers.

    Raises:
        ImportError: without gradio.
        ValueError, OSError: if the first model or a sampler cannot be loaded.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    def settings(label: str) -> list[dict[str, Any]]:
        """What the controls offer for a model: sampler, calls, temperature, class, guidance, clues, beginning."""
        view, known = load(models[label], device), samplers(models[label], folders, device)
        is_pictures, is_sudoku = isinstance(view, Pictures), isinstance(view, Sudoku)
        has_prefix = not (is_pictures or is_sudoku) and view.pipe.tokenizer is not None
        best = [name for name in known if name not in (BASE, *PLAIN)] + [name for name in known if name == view.order]
        classes = [(name, i) for i, name in enumerate(view.classes)] if isinstance(view, Pictures) else [("none", 0)]
        return [
            {"choices": list(known), "value": [*best, BASE][0]},
            {"maximum": min(MOST_CALLS, view.length), "value": min(8, view.length)},
            {"value": view.temperature},
            {"choices": classes, "value": 0, "visible": is_pictures},
            {"visible": is_pictures},
            {"maximum": view.length, "value": view.length * 3 // 8, "visible": is_sudoku},
            {"value": "It was" if view.style == "prose" and has_prefix else "", "visible": has_prefix},
        ]

    def fit(label: str) -> list[Any]:
        try:
            return [*(gr.update(**values) for values in settings(label)), EMPTY]
        except (ValueError, OSError) as error:
            return [gr.skip()] * 7 + [message(error)]

    def run(label: str, *values: Any, progress: Any = gr.Progress()) -> str:  # noqa: B008  (gradio's way)
        asked = Request(models[label], *values)
        try:
            return player(asked, folders, device, tell=lambda step: progress((step, asked.calls), unit="calls"))
        except (ValueError, OSError) as error:
            return message(error)

    first = settings(next(iter(models)))
    with gr.Blocks(title="Few network calls", analytics_enabled=False) as app:
        gr.Markdown(HEAD)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                model = gr.Dropdown(list(models), label="Model", interactive=True)
                controls = [
                    gr.Dropdown(label="Sampler", interactive=True, **first[0]),
                    gr.Slider(1, step=1, label="Network calls", **first[1]),
                    gr.Slider(0, 1.5, step=0.05, label="Temperature", **first[2]),
                    gr.Dropdown(label="Class", interactive=True, **first[3]),
                    gr.Slider(0, MOST_GUIDANCE, 0.5, step=0.1, label="Guidance", **first[4]),
                    gr.Slider(0, step=1, label="Clues", **first[5]),
                    gr.Textbox(label="Begins with", max_length=500, **first[6]),
                ]
                seed = gr.Number(0, label="Seed")
                button = gr.Button("Run", variant="primary")
            with gr.Column(scale=3, min_width=320):
                result = gr.HTML(EMPTY, min_height=160)  # room for the progress
        sampler, calls, temperature, *rest = controls
        app.load(None, js=(HERE / "app.js").read_text(encoding="utf-8"))
        model.change(fit, model, [*controls, result], show_progress="hidden")
        asked = [model, sampler, calls, seed, temperature, *rest]
        # one at a time: a pipeline holds one scheduler
        button.click(run, asked, result, concurrency_limit=1).then(None, js="() => window.playCanvas()")
    return app


def launch(app: Any, **options: Any) -> Any:
    """Serves the app. Fonts are the system's, so that nothing is fetched."""
    import gradio as gr

    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    theme = gr.themes.Default(primary_hue="blue", **fonts).set(
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600", block_label_text_color="*body_text_color",
        block_title_text_color="*body_text_color",
    )  # fmt: skip
    return app.launch(css_paths=HERE / "app.css", theme=theme, footer_links=[], ssr_mode=False, **options)


def labelled(names: list[str]) -> dict[str, str]:
    """Label -> folder or Hub id: a folder's own name, where there is only one of that name."""
    paths = [Path(name).expanduser() for name in names]
    short = [path.resolve().name if path.is_dir() else name for path, name in zip(paths, names, strict=True)]
    return {text if short.count(text) == 1 else name: name for text, name in zip(short, names, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours = [str(MODELS / name) for name in OURS]
    parser.add_argument("--model", nargs="+", default=ours, help="folders or Hub ids, instead of the repository's")
    parser.add_argument("--sampler", nargs="+", default=[], help="folders or Hub ids of learned samplers")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="of the models; default here: %(default)s")
    parser.add_argument("--host", help="address to listen at; default: this machine only, or GRADIO_SERVER_NAME")
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860, or GRADIO_SERVER_PORT")
    args = parser.parse_args()
    try:
        app = build(labelled(args.model), tuple(args.sampler), args.device)
    except ImportError as error:
        raise SystemExit(f"The app needs gradio: `pip install lsd_sampler[app]` ({error}).") from error
    except (ValueError, OSError) as error:
        raise SystemExit(f"Error: {error}") from error
    launch(app, server_name=args.host, server_port=args.port)


if __name__ == "__main__":
    main()
