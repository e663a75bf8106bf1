"""Builds the documentation as HTML: the pages in this folder, and the API from its docstrings. Offline.

python docs/build.py site
"""

import argparse
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
    """The pages, that of the contents first."""
    return sorted(DOCS.glob("*.md"), key=lambda path: (path.name != "README.md", path.name))


def html_name(name: str) -> str:
    """The HTML file of a page: the contents are the index."""
    return "index.html" if name == "README.md" else name.removesuffix(".md") + ".html"


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


def with_html_links(html: str) -> str:
    """Links to pages become links to their HTML, links to the repository's other files plain text."""
    html = re.sub(r'(?<=href=")([\w-]+\.md)(?=["#])', lambda match: html_name(match[1]), html)
    return re.sub(r'<a href="\.\./[^"]*">(.*?)</a>', r"\1", html)


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
    links = [f'<a href="{html_name(path.name)}">{escape(title_of(text))}</a>' for path, text in pages.items()]
    nav = "<nav>" + "".join([*links, '<a href="api/index.html">API</a>']) + "</nav>"
    colours = "".join(
        f"@media (prefers-color-scheme: {scheme}) {{ {HtmlFormatter(style=style).get_style_defs('pre')} }}"
        for scheme, style in (("light", "default"), ("dark", "github-dark"))
    )
    md = renderer()
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in pages.items():
        body = with_html_links(md.render(text))
        html = PAGE.format(title=escape(title_of(text)), style=STYLE + colours, nav=nav, body=body)
        (folder / html_name(path.name)).write_text(html, encoding="utf-8")
    for picture in DOCS.glob("*.png"):
        (folder / picture.name).write_bytes(picture.read_bytes())
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
