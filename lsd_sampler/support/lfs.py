"""Git LFS: a repository that is cloned without it holds pointers of a few lines instead of large files."""

from pathlib import Path


_BEGINNING = b"version https://git-lfs.github.com/spec/"


def check_no_pointer(path: Path) -> None:
    """Raises `ValueError`, naming the file, if it is a pointer of Git LFS. A missing file is no error."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        beginning = file.read(len(_BEGINNING))
    if beginning == _BEGINNING:
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or load it from"
            " the Hub."
        )
