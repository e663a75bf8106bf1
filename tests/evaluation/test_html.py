"""The HTML report: what it says, and how a real browser shows it."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import WIDTHS, both_widths, browse, needs_browser
from helpers.evaluation_fakes import character_tokenizer, text_metrics, tiny_gpt2
from PIL import Image

from lsd_sampler.evaluation import Comparison, JudgeNLL
from lsd_sampler.evaluation.html import render
from lsd_sampler.evaluation.report import Report, as_json, as_text, make_report


METRICS = text_metrics(JudgeNLL(tiny_gpt2(), character_tokenizer()))
NAMES = ("base", "ours <b>&amp;</b>", "a sampler of a rather long name, with options")
PROBE = """
const boxes = [...document.querySelectorAll(".scroll")];
const outside = [...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll") && !e.closest("svg"));
const past = outside.filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.tagName);
const overflow = document.documentElement.scrollWidth - innerWidth, charts = document.querySelectorAll("svg").length;
const scrolls = boxes.map((box) => box.scrollWidth - box.clientWidth);
onload = () => parent.postMessage({ width: innerWidth, overflow, past, charts, scrolls }, "*");
"""


def row(sampler: str, nfe: int | None, value: float, temperature: float = 1.0) -> dict[str, Any]:
    noise = np.random.default_rng([len(sampler), nfe or 0]).normal(size=100)
    values = {"js_char_sum": value, "judge_nll": 5 * value**0.2 * temperature, "unigram_entropy": 6 + temperature}
    replicates = {f"{key}_replicates": list(x + 0.01 * x * noise) for key, x in values.items()}
    ends = {f"js_char_sum_{end}": value * share for end, share in (("low", 0.98), ("high", 1.02))}
    more = {"js_char_3gram": value / 4, "js_char_4gram": 3 * value / 4, "perplexity": 60.0, "network_calls": nfe}
    texts = [f"A text of {sampler}.\n<script>alert(1)</script>", "word " * 60]
    size = {"num_samples": 64, "length": 128}
    return {"sampler": sampler, "nfe": nfe, "temperature": temperature, **values, **ends, **more, **size, **replicates,
            "texts": texts}  # fmt: skip


def example(**changes: Any) -> Report:
    judged = [row(name, nfe, 2 / nfe / (1 + i)) for i, name in enumerate(NAMES) for nfe in (4, 8, 16)]
    sweep = [row(name, nfe, 2 / nfe, t) for name in NAMES for nfe in (4, 8, 16) for t in (0.9, 1.0, 1.1)]
    comparison = Comparison(judged, sweep, row("real text", None, 0.02))
    options: dict[str, Any] = {"base": "base", "protocol": {"Model": "m", "Seeds": "0"}} | changes
    return make_report("Samplers of <model>", comparison, METRICS, **options)


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


def test_the_distance_that_decides_is_a_column() -> None:
    """And the sentences say what stands there."""
    table, *_ = as_text(example()).split("\n\n")
    headings, _, *lines = (re.split(r"  +", line.strip()) for line in table.splitlines())
    shown = {(line[0], line[1]): line[headings.index("JS 3+4")] for line in lines}
    for winner in example().winners:
        assert f"is closest ({shown[winner.sampler, str(winner.nfe)]})" in winner.sentence()


def test_without_a_base_or_a_frontier_the_rest_is_shown() -> None:
    report = example(base=None)
    bare = Report(report.title, Comparison(report.comparison.judged), report.metrics, winners=report.winners)
    text = render(bare)
    assert "fewer calls" not in text and "The frontier" not in text and "At 8 calls" in text


def test_nothing_is_claimed_that_chance_explains() -> None:
    judged = [row(name, nfe, (2 if name == "base" else 1.99) / nfe) for name in NAMES[:2] for nfe in (4, 8, 16)]
    text = render(make_report("x", Comparison(judged), METRICS, base="base"))
    assert "no calls saved" in text and "fewer calls" not in text


def test_all_of_it_as_json() -> None:
    found = json.loads(as_json(example()))
    assert [row["sampler"] for row in found["rows"]] == [name for name in NAMES for _ in range(3)]
    assert found["floor"]["sampler"] == "real text" and "texts" not in found["floor"]
    assert {entry["sampler"] for entry in found["calls_at_matched_quality"]} == set(NAMES[1:])
    assert found["calls_at_matched_quality"][0]["calls"] is None  # not within the calls that were tried
    assert len(found["frontier"]) == 9 and all(reading["entropy"] == 7.0 for reading in found["frontier"])


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
