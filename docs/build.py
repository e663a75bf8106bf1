"""Builds the documentation as HTML: the pages in this folder and below it, and the API from its docstrings. Offline.

python docs/build.py site
"""

import argparse
import os
import re
from html import escape
from pathlib import Path
from typing import Any

import pdoc
from jinja2 import pass_context
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name


DOCS = Path(__file__).resolve().parent
API = (
    "lsd_sampler", "lsd_sampler.scheduling_lsd", "lsd_sampler.pipeline_masked_diffusion", "lsd_sampler.training",
    "lsd_sampler.evaluation", "lsd_sampler.sampling.solvers", "lsd_sampler.sampling.orders",
    "lsd_sampler.sampling.step_rule", "lsd_sampler.sampling.plan", "lsd_sampler.sampling.canvas",
    "lsd_sampler.sampling.schedules", "lsd_sampler.sampling.noise", "lsd_sampler.denoisers",
    "lsd_sampler.sampling.corruptions", "lsd_sampler.sampling.learned_numbers",
    "lsd_sampler.learned.tensor_file", "lsd_sampler.sampling.logit_rows", "lsd_sampler.support.registry",
)  # fmt: skip
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>{nav}{body}</body>
</html>
"""
STYLE = """
:root { color-scheme: light dark; }
body { max-width: 52rem; margin: 0 auto; padding: 1rem; font: 1rem/1.55 system-ui, sans-serif; }
nav { display: flex; flex-wrap: wrap; gap: 0 1.2rem; border-bottom: 1px solid #8884; padding-bottom: .6rem; }
pre, table { display: block; overflow-x: auto; font-size: .86rem; }
pre { background: #8881; padding: .7rem; border-radius: .3rem; line-height: 1.4; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8883; }
img { max-width: 100%; background: white; }
"""


def page_files() -> list[Path]:
    """The pages, folder by folder, that of the contents first."""
    return sorted(DOCS.rglob("*.md"), key=lambda path: (path.parent, path.name != "README.md", path.name))


def html_file(page: Path) -> Path:
    """The HTML file of a page, from the root of the site: the contents of a folder are its index."""
    name = "index.html" if page.name == "README.md" else f"{page.stem}.html"
    return page.relative_to(DOCS).with_name(name)


def title_of(text: str) -> str:
    """The first heading."""
    return text.partition("\n")[0].lstrip("# ")


def renderer() -> MarkdownIt:
    """GitHub's Markdown with `$...$` as MathML and anchors at headings."""
    md = MarkdownIt("gfm-like", {"linkify": False, "highlight": _highlighted})
    md.use(anchors_plugin, max_level=3)
    return md.use(dollarmath_plugin, renderer=_math)


def _math(formula: str, options: dict) -> str:
    return convert(formula, display="block" if options["display_mode"] else "inline")


def _highlighted(code: str, language: str, _: str) -> str:
    if language not in ("python", "bash"):
        return escape(code)
    return highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True))


def with_html_links(html: str, page: Path) -> str:
    """Links to pages become links to their HTML, links to the repository's other files plain text."""

    def link(match: re.Match) -> str:
        path, sharp, anchor = match[1].partition("#")
        if not path or ":" in path:
            return match[0]
        file = (page.parent / path).resolve()
        if file.suffix != ".md" or not file.is_relative_to(DOCS):
            return match[2]
        return f'<a href="{_relative(html_file(file), page)}{sharp}{anchor}">{match[2]}</a>'

    return re.sub(r'<a href="([^"]*)">(.*?)</a>', link, html, flags=re.DOTALL)


def _relative(file: Path, page: Path) -> str:
    """A path from the root of the site, as seen from a page."""
    return Path(os.path.relpath(file, page.relative_to(DOCS).parent)).as_posix()


def navigation(page: Path, titles: dict[Path, str]) -> str:
    """The pages at the top and the first page of each folder; on a page of a folder, the others of that folder too."""
    top = [path for path in titles if path.parent == DOCS or path.name == "README.md"]
    beside = [path for path in titles if path.parent == page.parent != DOCS]
    links = [(html_file(path), titles[path]) for path in top] + [(Path("api/index.html"), "API")]
    rows = [links, [(html_file(path), titles[path]) for path in beside]]
    return "".join(f"<nav>{_links(row, page)}</nav>" for row in rows if row)


def _links(row: list[tuple[Path, str]], page: Path) -> str:
    return "".join(f'<a href="{_relative(file, page)}">{escape(title)}</a>' for file, title in row)


def configure_api() -> None:
    """Reads docstrings as they are written here: references stand in brackets."""
    pdoc.render.configure(docformat="google", show_source=False, search=False)
    to_markdown = pdoc.render.env.filters["to_markdown"]

    @pass_context
    def without_brackets(context: Any, docstring: str) -> str:
        return to_markdown(context, re.sub(r"\[`~?([\w.]+)`\]", r"`\1`", docstring))

    pdoc.render.env.filters["to_markdown"] = without_brackets


def build(folder: Path) -> None:
    """Writes the whole site into a folder."""
    pages = {path: path.read_text(encoding="utf-8") for path in page_files()}
    titles = {path: title_of(text) for path, text in pages.items()}
    colours = "".join(
        f"@media (prefers-color-scheme: {scheme}) {{ {HtmlFormatter(style=style).get_style_defs('pre')} }}"
        for scheme, style in (("light", "default"), ("dark", "github-dark"))
    )
    md = renderer()
    for path, text in pages.items():
        body, nav = with_html_links(md.render(text), path), navigation(path, titles)
        html = PAGE.format(title=escape(titles[path]), style=STYLE + colours, nav=nav, body=body)
        file = folder / html_file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html, encoding="utf-8")
    for picture in DOCS.rglob("*.png"):
        (folder / picture.relative_to(DOCS)).write_bytes(picture.read_bytes())
    configure_api()
    pdoc.pdoc(*API, output_directory=folder / "api")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to")
    folder = parser.parse_args().folder
    build(folder)
    print(f"Open {folder / 'index.html'}.")


if __name__ == "__main__":
    main()
