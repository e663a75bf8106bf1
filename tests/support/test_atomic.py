"""A file is there whole, or it is as it was."""

import os
from pathlib import Path

import pytest

from lsd_sampler.support.atomic import remove_leftovers, replacing, write_atomically


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    """Folders on the way are made; the file has the permissions that any new file has."""
    path = tmp_path / "a" / "b" / "some.txt"
    for data in (b"one", b"two"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(28, os.strerror(28))])
def test_what_fails_on_the_way_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    """A full disk, of which the system says no name, names the file."""
    path = tmp_path / "some.txt"
    path.write_text("mine")
    with pytest.raises(type(error)) as caught, replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt" and path.read_text() == "mine"
        raise error
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)


def test_only_leftovers_old_enough_are_removed(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "none")
    (tmp_path / "mine").touch()
    with replacing(tmp_path / "x") as old, replacing(tmp_path / "x") as new:
        os.utime(old, (0, 0))
        remove_leftovers(tmp_path, older_than=3600.0)
        assert set(tmp_path.iterdir()) == {tmp_path / "mine", new}
        old.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "x"}
    (tmp_path / new.name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "x"}
