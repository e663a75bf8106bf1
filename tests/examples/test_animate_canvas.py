"""The page of `examples/animate_canvas.py` in a real browser."""

import html
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import WIDTHS, both_widths, browse, needs_browser
from PIL import Image


EXAMPLE = Path(__file__).parents[2] / "examples" / "animate_canvas.py"
TOKENS = ["It", " was", " a", " dark", " night", ",", " \n\n", '"', "</script>", "<b>", "&amp;", " é"]
DATA = {
    "runs": [
        {"calls": 2, "tokens": TOKENS * 12, "steps": [0, 0] + [1, 2] * 71},
        {"calls": 5, "tokens": TOKENS * 12, "steps": [0, 0] + [1, 2, 3, 4, 5] * 28 + [5, 5]},
    ],
    "settings": ["model of a test", "seed 0"],
}
PRESS = 'const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));'
PROBE = (
    PRESS
    + """
const known = () => [...document.querySelectorAll(".canvas")].map(
  (canvas) => [...canvas.querySelectorAll(".token:not(.masked)")].map((token) => token.textContent).join(""));
const report = { width: innerWidth, overflow: document.documentElement.scrollWidth - innerWidth };
press("End"); report.end = known();
press("ArrowLeft"); report.last = [known(), document.querySelectorAll(".panel .new").length];
press("Home"); report.start = known();
press(" ");
setTimeout(() => { report.played = known(); parent.postMessage(report, "*"); }, 5000);
"""
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("animate_canvas", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    path = tmp_path_factory.mktemp("page") / "canvas.html"
    example.write_page(DATA, path)
    return path


def without_spaces(text: str) -> str:
    return re.sub(r"[\s¶]", "", text)


def test_the_page_is_complete(page: Path) -> None:
    """Nothing to fetch, and a policy that would refuse it; tokens that look like HTML stay text."""
    text = page.read_text()
    assert not re.search(r"https?://|\bsrc=|\bhref=|url\(|@import|fetch\(", text)
    assert "default-src 'none'" in text
    assert text.count("</script>") == 2


@needs_browser
def test_keys_and_playback(page: Path) -> None:
    dom, log = browse(both_widths(page, PROBE), "--dump-dom")
    assert "CONSOLE" not in log, log  # neither errors nor refused requests
    reports = json.loads(html.unescape(re.findall(r"<pre[^>]*>(.*?)</pre>", dom, re.DOTALL)[0]))
    assert sorted(report["width"] for report in reports) == list(WIDTHS)
    full = without_spaces("".join(TOKENS * 12))
    for report in reports:
        assert report["overflow"] <= 0
        assert [without_spaces(text) for text in report["end"]] == [full, full]
        assert report["start"] == ["Itwas", "Itwas"]
        done, nearly = report["last"][0]
        assert without_spaces(done) == full and len(nearly) < len(done)
        assert report["last"][1] == DATA["runs"][1]["steps"].count(4)  # only the text that is still being made
        assert report["played"] == report["end"]


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_screenshot(page: Path, dark: bool) -> None:
    picture = page.with_name("screen.png")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(both_widths(page, PRESS + 'press("Home"); press("ArrowRight");'), f"--screenshot={picture}", *scheme)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    phone, desk = pixels[:, : WIDTHS[0]], pixels[:, WIDTHS[0] :]
    for part in (phone, desk):
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 100
        assert (np.median(part) < 60) == dark and (np.median(part) > 200) == (not dark)
        red, green, blue = np.moveaxis(part, -1, 0)
        assert 0.001 < ((red - blue > 100) & (green > 150)).mean() < 0.2  # just revealed: amber
