"""The Hub: what an id looks like, downloads that are what was announced, and uploads of sampler folders."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import create_repo, hf_hub_download, upload_folder
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/repository`. (A local folder of that name goes first.)"""
    return _HUB_ID.fullmatch(name) is not None


def download(repo_id: str, filename: str, *, revision: str | None = None, **options: Any) -> tuple[Path, str]:
    """Fetches one file, or finds it in the cache.

    Args:
        repo_id, filename (`str`): which; the name may begin with a subfolder.
        revision (`str`, *optional*): branch, tag or commit.
        options: `token`, `cache_dir`, `local_files_only`, `force_download`.

    Returns:
        the file in the cache, and the commit it is from.

    Raises:
        OSError: if there is no such repo, revision or file, or the Hub is out of reach; the message names it.
        ValueError: if an argument has the wrong form.
    """
    # git allows no such names, and the cache looks for files by them
    if revision is not None and (not isinstance(revision, str) or not re.fullmatch(r"(?!.*\.\.)[^/\x00].*", revision)):
        raise ValueError(f"`revision` must be the name of a branch, tag or commit, got {revision!r}.")
    try:
        file = Path(hf_hub_download(repo_id, filename, revision=revision, **options))
    except Exception as error:  # not all that the HTTP library underneath raises are OSErrors
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            raise
        where = f"{filename} of {repo_id!r}" + (f" at revision {revision!r}" if revision else "")
        raise OSError(f"Cannot get {where} from the Hub: {_reason(error)}") from error
    return file, file.parents[filename.count("/")].name


def check_announced(path: Path, data: bytes) -> None:
    """Raises `ValueError` if a file of the Hub's cache does not hold what the Hub announced.

    The cache links to blobs that bear the name which the Hub gave to the content: git's, or SHA-256 of large files.
    (Some mirrors give the plain SHA-1.) Files elsewhere, or of another kind of name, are not judged.
    """
    blob = Path(os.readlink(path)) if path.is_symlink() else path
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return
    digests = [hashlib.sha256(), hashlib.sha1(usedforsecurity=False), hashlib.sha1(usedforsecurity=False)]
    digests[-1].update(b"blob %d\0" % len(data))  # as git does
    for digest in digests:
        digest.update(data)
    if blob.name not in [digest.hexdigest() for digest in digests]:
        raise ValueError(
            f"{path} is not what the Hub announced: it was changed on the way, or in the cache. Load it again with"
            " `force_download=True`."
        )


def upload_sampler(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    subfolder: str | None = None,
    **kwargs: Any,
) -> str:
    """Uploads a folder to a repo (made if need be) and returns the address of the commit.

    Args:
        folder (`Path`): what `save_pretrained` or `lsd-train` wrote.
        repo_id (`str`): `user/name`.
        private, token (*optional*): as in huggingface_hub.
        subfolder (`str`, *optional*): where in the repo; default: its root.
        kwargs: passed to `huggingface_hub.upload_folder`: `commit_message`, `revision`, `create_pr`, ...

    Raises:
        OSError: if the Hub refuses, or is out of reach; the message names the repo.
        ValueError: if an argument has the wrong form.
    """
    options = {"commit_message": "Upload sampler", "path_in_repo": subfolder, **kwargs}
    try:
        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        return str(upload_folder(repo_id=repo_id, folder_path=folder, token=token, **options))
    except Exception as error:  # as above
        if isinstance(error, (ValueError, TypeError)) and not isinstance(error, OSError):
            raise
        raise OSError(f"Cannot upload to {repo_id!r} on the Hub: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One sentence, and what to do."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return (
            "there is no such repo, or this user may not touch it. Check the name; if it is private or gated, pass"
            " `token`, set HF_TOKEN, or log in with `hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return "`revision` must be a branch, tag or commit of it."
    if isinstance(error, LocalEntryNotFoundError):
        return (
            "it is not in the cache, and the Hub is out of reach or was not to be asked (`local_files_only`,"
            " HF_HUB_OFFLINE). Load it once while online."
        )
    if isinstance(error, EntryNotFoundError):
        return "the repo has no such file."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
