"""The HTML report: what it says, and how a real browser shows it."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import WIDTHS, both_widths, browse, needs_browser
from helpers.example_report import METRICS, NAMES, example, row
from PIL import Image

from lsd_sampler.evaluation import Comparison
from lsd_sampler.evaluation.html import render
from lsd_sampler.evaluation.report import Report, as_text, make_report


PROBE = """
const boxes = [...document.querySelectorAll(".scroll")];
const outside = [...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll") && !e.closest("svg"));
const past = outside.filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.tagName);
const overflow = document.documentElement.scrollWidth - innerWidth, charts = document.querySelectorAll("svg").length;
const scrolls = boxes.map((box) => box.scrollWidth - box.clientWidth);
onload = () => parent.postMessage({ width: innerWidth, overflow, past, charts, scrolls }, "*");
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(example()).replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'"))
    return path


def test_the_page_is_complete_and_safe(page: Path) -> None:
    """Nothing to fetch, a policy that would refuse it, and names and texts that look like HTML stay text."""
    text = render(example())
    assert not re.search(r"https?://|\bsrc=|url\((?!#)|@import|<script|<link|<b>&amp;", text)
    assert set(re.findall(r'href="(.)', text)) <= {"#"}
    assert "default-src 'none'" in text
    assert "ours &lt;b&gt;&amp;amp;&lt;/b&gt;" in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids)


def test_the_same_run_gives_the_same_page() -> None:
    assert render(example()) == render(example())


def test_the_verdict_comes_first_then_all_that_belongs_to_it(page: Path) -> None:
    text = html.unescape(page.read_text())
    order = [
        "fewer calls",
        "base does not reach within 16 calls",
        "Quality against network calls",
        "JS 3-grams",
        "The frontier",
        "No perplexity without an entropy",
        "Samples side by side",
        "What is measured",
        "Protocol",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert text.count("<svg") == 2 + 3  # two metrics, and the frontier at three numbers of calls
    assert text.count("<blockquote>") == 2 * 4


def test_every_table_with_a_perplexity_has_an_entropy() -> None:
    report = example()
    headings = [re.findall(r"<th[^>]*>(.*?)</th>", table) for table in render(report).split("<table>")[1:]]
    assert len(headings) == 3
    for names in headings:
        assert any("entropy" in name for name in names)
    for entry in report.rows:
        entry.pop("unigram_entropy")
    for show in (render, as_text):
        with pytest.raises(ValueError, match="entropy"):
            show(report)


def test_without_a_base_or_a_frontier_the_rest_is_shown() -> None:
    report = example(base=None)
    bare = Report(report.title, Comparison(report.comparison.judged), report.metrics, winners=report.winners)
    text = render(bare)
    assert "fewer calls" not in text and "The frontier" not in text and "At 8 calls" in text


def test_nothing_is_claimed_that_chance_explains() -> None:
    judged = [row(name, nfe, (2 if name == "base" else 1.99) / nfe) for name in NAMES[:2] for nfe in (4, 8, 16)]
    text = render(make_report("x", Comparison(judged), METRICS, base="base"))
    assert "no calls saved" in text and "fewer calls" not in text


@needs_browser
def test_it_fits_a_phone_and_a_desk(page: Path) -> None:
    """Wide tables scroll inside their own box, and nothing else reaches past the window."""
    dom, log = browse(both_widths(page, PROBE), "--dump-dom")
    assert "CONSOLE" not in log, log
    reports = json.loads(html.unescape(re.findall(r"<pre[^>]*>(.*?)</pre>", dom, re.DOTALL)[0]))
    assert sorted(report["width"] for report in reports) == list(WIDTHS)
    for report in reports:
        assert report["overflow"] <= 0 and report["past"] == [] and report["charts"] == 5
    phone = min(reports, key=lambda report: report["width"])
    assert max(phone["scrolls"]) > 100


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark(page: Path, dark: bool) -> None:
    picture = page.with_name("screen.png")
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    browse(both_widths(page, ""), f"--screenshot={picture}", *scheme)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    for part in (pixels[:, : WIDTHS[0]], pixels[:, WIDTHS[0] :]):
        assert (np.median(part) < 60) == dark and (np.median(part) > 200) == (not dark)
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 100
        assert (np.ptp(part, axis=2) > 60).mean() > 0.001  # lines and headline in colour
