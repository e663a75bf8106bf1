"""The page on LLaDA and Dream: its ten lines run, on a small network of the same family."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_answerers import tiny_answerer

from lsd_sampler import LSDScheduler


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "language_models.md").read_text(encoding="utf-8")


def test_the_ten_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    loaded = 'MaskedDiffusionPipeline.from_pretrained("llada-8b-instruct", dtype=torch.bfloat16).to("cuda")'
    assert loaded in code and "max_new_tokens=256" in code
    code = (
        code.replace(loaded, "load()")
        .replace("max_new_tokens=256", "max_new_tokens=16")
        .replace("length=32", "length=4")
    )
    exec(code, {"load": tiny_answerer})
    assert capsys.readouterr().out.startswith("[")


def test_the_samplers_of_the_tables_exist() -> None:
    """Each row's arguments of the scheduler, by themselves."""
    found = re.findall(r"scheduler: `([^`]+)`", PAGE)
    assert len(found) >= 8
    for arguments in found:
        config: dict[str, Any] = eval(f"dict({arguments})")
        LSDScheduler(mask_token_id=7, **config)
