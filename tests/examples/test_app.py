"""The app: what its frames show, and the page in a real browser."""

import base64
import importlib
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.browser import WIDTHS, needs_browser
from helpers.live_browser import LivePage, live_page
from helpers.scripts import load_script
from helpers.tiny_garments import codebook, save_garments
from helpers.tiny_molecules import write_model
from PIL import Image

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline


ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
needs_models = pytest.mark.skipif(not (ROOT / "models" / "garments").exists(), reason="models/ is not in this copy")
KINDS = ("pictures", "molecules", "texts", "sudoku4", "countdown:L=12")
NO_GRADIO = "gradio is not installed: pip install lsd_sampler[app]"
SMILES = ["C", "c", "(", "=", ")", "O", "1", "N"]


@pytest.fixture(scope="module", autouse=True)
def examples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield


@pytest.fixture(scope="module")
def shown(examples: None) -> ModuleType:
    return importlib.import_module("app_frames")


@pytest.fixture(scope="module")
def app(examples: None) -> ModuleType:
    return importlib.import_module("app")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Kind -> a small model, random or exact."""
    root = tmp_path_factory.mktemp("models")
    save_garments(root / "pictures")
    write_model(root / "molecules", SMILES)
    write_model(root / "texts", list("ab<&>'"))
    return {kind: str(root / kind) if (root / kind).is_dir() else kind for kind in KINDS}


def masks(html: str) -> int:
    """Masked positions in a frame."""
    picture = re.search(r"base64,([^\"]+)", html)
    if picture is None:
        return html.count("<i></i>") + len(re.findall(r'<td class="[^"]*mask', html))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture[1]))))
    return int((pixels == (158, 178, 214)).all(-1).sum()) // 4  # patches of 2 x 2


def newly_known(html: str) -> int:
    """Positions of a frame that are marked as revealed by the latest call; of texts, each token is one character."""
    cells = len(re.findall(r'<td class="[^"]*\bnew\b', html))
    return cells + sum(len(unescape(text)) for text in re.findall(r'<span class="new">(.*?)</span>', html))


# ---- frames ----


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_sampler_on_both_sides_fills_the_same_canvas(
    shown: ModuleType, models: dict[str, str], kind: str
) -> None:
    asked = shown.Request(models[kind], shown.BASE, calls=3, seed=5, clues=4)
    base, again = shown.compare(asked)
    assert torch.equal(base.canvases, again.canvases)
    other, _ = shown.compare(shown.Request(models[kind], shown.BASE, calls=3, seed=6, clues=4))
    assert not torch.equal(base.canvases, other.canvases)


@pytest.mark.parametrize("kind", ["molecules", "texts", "sudoku4"])
def test_what_each_call_revealed_is_marked(shown: ModuleType, models: dict[str, str], kind: str) -> None:
    asked = shown.Request(models[kind], "halton", calls=3, seed=1, clues=4)
    view, run = shown.load(models[kind]), shown.compare(asked)[1]
    revealed = (run.canvases[1:] != run.canvases[:-1]).sum(1).tolist()
    assert sum(revealed) == int((run.canvases[0] == view.hole).sum())
    assert [newly_known(frame) for frame in shown.frames(view, run)] == [0, *revealed]


def test_one_frame_of_each_side_is_shown_at_first(app: ModuleType, shown: ModuleType) -> None:
    html = app.player(shown.Request("countdown:L=12", "halton", calls=3))
    assert re.findall(r"<div class=frame (\w*)>", html) == ["hidden", "hidden", "hidden", ""] * 2
    assert html.count("3 network calls · ") == 2 and "max=3 value=3" in html


@pytest.mark.parametrize("kind", KINDS)
def test_the_frames_are_what_the_pipeline_does(shown: ModuleType, models: dict[str, str], kind: str) -> None:
    """One for the canvas that is given and one for each call. What is known stays, and in the end all is known."""
    prefix = {"molecules": "C", "texts": "b"}.get(kind, "")
    asked = shown.Request(models[kind], "margin", calls=4, seed=2, label=1, guidance=1.5, clues=5, prefix=prefix)
    view = shown.load(models[kind])
    for name, run in zip((shown.BASE, "margin"), shown.compare(asked), strict=True):
        start, hole = run.canvases[0], view.hole
        assert len(run.canvases) == 5 and run.seconds > 0
        assert int((start != hole).sum()) == {"sudoku4": 5}.get(kind, len(prefix))
        for before, after in zip(run.canvases, run.canvases[1:], strict=False):
            assert ((before == hole) | (before == after)).all()
        assert not (run.canvases[-1] == hole).any()
        assert [masks(frame) for frame in shown.frames(view, run)] == (run.canvases == hole).sum(1).tolist()

        pipe = MaskedDiffusionPipeline.from_pretrained(models[kind])
        pipe.set_progress_bar_config(disable=True)
        order: Any = {"order": "margin", "schedule": "cosine"} if name == "margin" else {}
        pipe.scheduler = LSDScheduler(**pipe.denoiser.scheduler_config(), **order)
        options = {"class_labels": 1, "guidance_scale": 1.5} if kind == "pictures" else {}
        noise = torch.Generator().manual_seed(2)
        made = pipe(input_ids=start, num_inference_steps=4, generator=noise, output_type="ids", **options)
        assert torch.equal(made.sequences[0], run.canvases[-1]) and made.network_calls == run.calls


def test_a_picture_is_the_codebooks(shown: ModuleType, models: dict[str, str]) -> None:
    view = shown.load(models["pictures"])
    run = shown.record(view, shown.samplers(models["pictures"])["halton"], shown.Request("", "", calls=2))
    png = base64.b64decode(shown.frames(view, run)[-1].split("base64,")[1].split('"')[0])
    expected = 255 - (255 * codebook().decode(run.canvases[-1:])[0]).round()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png)))[..., 1], expected.numpy())


def test_tokens_that_look_like_html_stay_text(shown: ModuleType, models: dict[str, str]) -> None:
    view = shown.load(models["texts"])
    canvas = torch.tensor(view.pipe.tokenizer("a<b>&'").input_ids)
    assert view.frame(canvas, canvas, canvas) == '<p><span class="given">a&lt;b&gt;&amp;&#x27;</span></p>'


# ---- verdicts ----


SOLVED = torch.tensor([0, 1, 2, 3, 2, 3, 0, 1, 1, 0, 3, 2, 3, 2, 1, 0])


def test_a_sudoku_is_right_or_its_clashes_are_shown(shown: ModuleType) -> None:
    view, asked = shown.load("sudoku4"), shown.Request("sudoku4", "base")
    assert view.verdict(SOLVED, asked)[0] is True
    start = SOLVED.where(torch.arange(16) < 2, view.hole)
    assert view.frame(SOLVED, start, start).count("wrong") == 0
    wrong = SOLVED.clone()
    wrong[15] = 3  # as in three other cells: of its column, of its box, of its row
    right, said = view.verdict(wrong, asked)
    assert right is False and "4 cells" in said
    cells = re.findall(r'<td class="([^"]*)">(\d)</td>', view.frame(wrong, start, start))
    assert [i for i, (kind, _) in enumerate(cells) if "wrong" in kind] == [3, 10, 12, 15]
    assert [i for i, (kind, _) in enumerate(cells) if "given" in kind] == [0, 1]
    assert [int(digit) - 1 for _, digit in cells] == wrong.tolist()


def test_a_molecule_is_valid_and_drawn_or_not_valid(shown: ModuleType, models: dict[str, str]) -> None:
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    view, asked = shown.load(models["molecules"]), shown.Request("", "")
    for smiles, valid in (("CC(O)N", True), ("CC((=N", False), ("C1=CC1", True), ("c1CC=O", False)):
        right, said = view.verdict(torch.tensor([SMILES.index(token) for token in smiles]), asked)
        assert right is valid and ("<svg" in said) == valid


@needs_models
def test_the_end_of_a_molecule_is_shown(shown: ModuleType) -> None:
    view = shown.load(str(ROOT / "models" / "molecules"))
    ids = view.pipe.tokenizer.convert_tokens_to_ids(["C", "<end>", "<pad>", "Cl"])
    canvas = torch.tensor([*ids, view.hole])
    assert view.frame(canvas, canvas, canvas) == '<p><span class="given">C■·Cl</span><i></i></p>'


def test_a_picture_is_judged_by_the_classifier(shown: ModuleType, models: dict[str, str]) -> None:
    view = shown.load(models["pictures"])
    canvas = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 1])
    answers = [view.verdict(canvas, shown.Request("", "", label=label)) for label in range(5)]
    assert sum(right for right, _ in answers) == 1
    (seen,) = (label for label, (right, _) in enumerate(answers) if right)
    assert all(f"class {seen} (" in said for _, said in answers)


# ---- samplers and mistakes ----


def test_learned_samplers_are_offered_where_they_fit(shown: ModuleType, tmp_path: Path) -> None:
    """That beside the model by itself; others if they have its mask."""
    for folder, tokens in (("mine-small", "abcd"), ("other", "abc")):
        write_model(tmp_path / folder, tokens)
    LSDScheduler(mask_token_id=4, vocab_size=4, order="halton").save_pretrained(tmp_path / "mine-default")
    LSDScheduler(mask_token_id=3, vocab_size=3).save_pretrained(tmp_path / "third")
    folders = (str(tmp_path / "third"),)
    plain = [shown.BASE, *shown.PLAIN]
    assert list(shown.samplers(str(tmp_path / "mine-small"), folders)) == [*plain, "mine-default"]
    assert list(shown.samplers(str(tmp_path / "other"), folders)) == [*plain, "third"]
    learned, same_order = (
        shown.compare(shown.Request(str(tmp_path / "mine-small"), name, calls=2))[1]
        for name in ("mine-default", "halton")
    )
    assert torch.equal(learned.canvases, same_order.canvases)


@pytest.mark.parametrize("seed", [None, 1.5, -1, 2**70, "7"])
def test_a_bad_seed_is_named(shown: ModuleType, seed: Any) -> None:
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        shown.compare(shown.Request("countdown:L=12", "base", seed=seed))


def test_other_mistakes_are_named(shown: ModuleType, models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`sampler` must be one of .* got 'nothing'"):
        shown.compare(shown.Request("countdown:L=12", "nothing"))
    with pytest.raises((ValueError, OSError), match="no-such-model"):
        shown.compare(shown.Request(str(tmp_path / "no-such-model"), "base"))
    with pytest.raises(ValueError, match="prefix has 9 tokens"):
        shown.compare(shown.Request(models["texts"], "base", prefix="abababaab"))
    with pytest.raises(ValueError, match="`clues` must be an integer"):
        shown.compare(shown.Request("sudoku4", "base", clues=17))


def test_the_command_explains_itself(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["app.py", "--help"])
    with pytest.raises(SystemExit):
        app.main()
    out = capsys.readouterr().out
    assert all(word in out for word in ("--model", "--sampler", "--port", "pip install lsd_sampler[app]"))


def test_the_command_says_that_gradio_is_missing(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if not installed
    monkeypatch.setattr("sys.argv", ["app.py", "--model", "countdown:L=12"])
    with pytest.raises(SystemExit, match=r"pip install lsd_sampler\[app\]"):
        app.main()


def test_the_command_names_a_missing_model(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason=NO_GRADIO)
    monkeypatch.setattr("sys.argv", ["app.py", "--model", "no-such-folder"])
    with pytest.raises(SystemExit, match="Error: .*no-such-folder"):
        app.main()


# ---- the page ----


RUN = "[...document.querySelectorAll('button')].find((button) => button.textContent.trim() === 'Run')"
VISIBLE = """[...document.querySelectorAll(".frames")].map(
  (box) => [...box.children].findIndex((frame) => frame.getClientRects().length > 0))"""
PICTURES = """[...document.querySelectorAll(".frame:not([hidden]) img")].map(
  (image) => [image.complete ? image.naturalWidth : 0, image.getBoundingClientRect().width])"""
WATCH = """window.seen = new Set();
new MutationObserver(() => {
  const step = document.querySelector(".player output");
  if (step) seen.add(step.textContent);
}).observe(document.body, { childList: true, subtree: true, characterData: true });"""
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
PAST = """[...document.querySelectorAll("html, body *")].filter(
  (element) => element.getBoundingClientRect().right > innerWidth + 1
).map((element) => element.outerHTML.slice(0, 200))"""


def slide(page: LivePage, call: int) -> None:
    page.evaluate(
        f"(() => {{ const range = document.querySelector('.player input'); range.value = {call};"
        " range.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def write(page: LivePage, control: str, value: str) -> None:
    page.evaluate(
        f"(() => {{ const input = document.querySelector('input[aria-label={control}]'); input.value = '{value}';"
        " input.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def choose(page: LivePage, control: str, option: str) -> None:
    page.evaluate(f"document.querySelector('input[aria-label={control}]').focus()")
    page.wait_for(f"!!document.querySelector('li[aria-label={option}]')")
    press = "dispatchEvent(new MouseEvent('mousedown', { bubbles: true }))"
    page.evaluate(f"document.querySelector('li[aria-label={option}]').{press}")
    page.evaluate("document.activeElement.blur()")


@needs_browser
def test_one_click_makes_a_picture(app: ModuleType, models: dict[str, str], tmp_path: Path) -> None:
    """On a phone and on a desk: with its steps, without errors, and without a request to anybody else. Mistakes are
    messages.
    """
    pytest.importorskip("gradio", reason=NO_GRADIO)
    demo = app.build({"pictures": models["pictures"], "missing": str(tmp_path / "missing")})
    _, url, _ = app.launch(demo, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        with live_page() as page:
            page.width(WIDTHS[0])
            page.open(url)
            page.wait_for(f"!!{RUN} && !!document.querySelector('input[aria-label=Class]')")
            assert page.evaluate(PAST) == [] and page.evaluate(OVERFLOW) <= 0
            page.evaluate(WATCH)
            page.evaluate(f"{RUN}.click()")
            page.wait_for("seen.size === 9 && !!document.querySelector('.player.done')")  # it played: steps 0 to 8
            assert page.evaluate(VISIBLE) == [8, 8]
            for width in WIDTHS:
                page.width(width)
                assert page.evaluate(PAST) == [] and page.evaluate(OVERFLOW) <= 0
                assert all(pixels == 6 and wide > 100 for pixels, wide in page.evaluate(PICTURES))
            slide(page, 3)
            assert page.evaluate(VISIBLE) == [3, 3]
            assert page.evaluate("document.querySelector('.player output').textContent") == "step 3 of 8"
            page.screenshot(tmp_path / "screen.png")
            pixels = np.asarray(Image.open(tmp_path / "screen.png").convert("RGB"))
            assert 0.001 < (pixels == (158, 178, 214)).all(-1).mean() < 0.3  # masked patches

            write(page, "Seed", "-1")
            page.evaluate(f"{RUN}.click()")
            assert "`seed`" in page.wait_for("document.querySelector('.error')?.textContent")
            write(page, "Seed", "1")
            page.evaluate(f"{RUN}.click()")
            page.wait_for("!!document.querySelector('.player') && !document.querySelector('.error')")
            choose(page, "Model", "missing")
            assert "missing" in page.wait_for("document.querySelector('.error')?.textContent")
            assert page.complaints == []
            assert all(address.startswith((url, "data:", "blob:")) for address in page.requests)
    finally:
        demo.close()


# ---- as a Space ----


@needs_models
def test_the_folder_of_a_space_is_complete(tmp_path: Path) -> None:
    """By the commands and the files of the page: the app starts there, with the package and the models in it."""
    page = (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    copies = page[page.index("mkdir") :].partition("```")[0].replace("my-space", str(tmp_path / "space"))
    subprocess.run(["bash", "-ec", copies], cwd=ROOT, check=True)
    there = load_script(tmp_path / "space" / "app.py")
    assert there.MODELS == tmp_path / "space" / "models"
    assert all((there.MODELS / name / "config.json").exists() for name in there.OURS)
    names = {path.name for path in (tmp_path / "space").iterdir()}
    assert names >= {"app_frames.py", "app.css", "app.js", "lsd_sampler"}

    needed = page[page.index("```text\n") + 8 :].partition("```")[0].split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rdkit = [entry for entry in project["optional-dependencies"]["molecules"] if entry.startswith("rdkit")]
    assert needed == sorted(project["dependencies"] + rdkit)
    settings = yaml.safe_load(page.split("---\n")[1])
    assert (tmp_path / "space" / settings["app_file"]).exists() and settings["sdk"] == "gradio"
    assert f"gradio=={settings['sdk_version']}" in (ROOT / "constraints.txt").read_text().splitlines()
