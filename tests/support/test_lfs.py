"""A pointer of Git LFS is told from the file that it stands for."""

from pathlib import Path

import pytest

from lsd_sampler.support.lfs import check_no_pointer


def test_a_pointer_is_named_and_other_files_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    check_no_pointer(path)
    check_no_pointer(tmp_path)
    for content in (b"", b"version https://git-lfs", b"weights"):
        path.write_bytes(content)
        check_no_pointer(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="model.safetensors is a Git LFS pointer.*git lfs pull"):
        check_no_pointer(path)
