"""What is kept of samples until all are drawn."""

import json
from pathlib import Path

import pytest

from lsd_sampler.cli.sample_file import SampleFile


SAMPLES = {2: {"text": "c"}, 0: {"text": "a\n"}, 1: {"text": "b"}}


def test_nothing_that_was_written_is_lost(tmp_path: Path) -> None:
    """At whatever byte a writer was killed, all whole lines are there."""
    file = SampleFile(tmp_path / "out", "same")
    file.add(SAMPLES)
    content = file.part.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for size in range(ends[0], len(content) + 1):
        file.part.write_bytes(content[:size])
        found = SampleFile(tmp_path / "out", "same", resume=True)
        num = sum(end <= size + 1 for end in ends) - 1  # without its line break a line is whole
        assert found.samples == dict(list(SAMPLES.items())[:num])
        found.add({7: {"text": "d"}})
        assert SampleFile(tmp_path / "out", "same", resume=True).samples == found.samples | {7: {"text": "d"}}


def test_the_output_is_in_order(tmp_path: Path) -> None:
    file = SampleFile(tmp_path / "new" / "out", "same")
    file.add(SAMPLES)
    file.finish(SAMPLES)
    assert [json.loads(line)["text"] for line in file.path.read_text().splitlines()] == ["a\n", "b", "c"]
    assert [path.name for path in file.path.parent.iterdir()] == ["out"]


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    SampleFile(tmp_path / "out", "same").add(SAMPLES)
    with pytest.raises(ValueError, match="unfinished run"):
        SampleFile(tmp_path / "out", "same")
    with pytest.raises(ValueError, match="other options"):
        SampleFile(tmp_path / "out", "another", resume=True)
    assert SampleFile(tmp_path / "out", "another", overwrite=True).samples == {}
