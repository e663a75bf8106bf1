"""The Hub: the form of an id, downloads that are checked, and uploads of sampler folders."""

import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers.pipelines import pipeline_loading_utils
from huggingface_hub import create_branch, create_repo, hf_hub_download, snapshot_download, upload_folder
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects, validate_repo_id


_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/repository`. (A local folder of that name goes first.)"""
    return _HUB_ID.fullmatch(name) is not None


def download(repo_id: str, filename: str, *, revision: str | None = None, **options: Any) -> tuple[Path, str]:
    """Fetches one file, or finds it in the cache.

    Args:
        repo_id, filename (`str`): the repo and the file; the name may begin with a subfolder.
        revision (`str`, *optional*): branch, tag or commit.
        options: `token`, `cache_dir`, `local_files_only`, `force_download`.

    Returns:
        the file in the cache, and the commit it is from.

    Raises:
        OSError: if there is no such repo, revision or file, or the Hub is out of reach; the message names it.
        ValueError: if an argument has the wrong form.
    """
    with _failures(_not_had(repo_id, f"its {filename}", revision)):
        _check_revision(revision)
        file = Path(hf_hub_download(repo_id, filename, revision=revision, **options))
    return file, file.parents[filename.count("/")].name


def download_snapshot(repo_id: str, patterns: Sequence[str], *, revision: str | None = None, **options: Any) -> Path:
    """Fetches, or finds in the cache, the files of a repo whose names match a pattern, all of one commit.

    Args:
        repo_id (`str`), revision (`str`, *optional*), options: as for [`download`].
        patterns (`list[str]`): with wildcards, as in a shell; `*` matches slashes too.

    Returns:
        the folder in the cache.

    Raises:
        OSError: if there is no such repo or revision, or the Hub is out of reach; the message names it.
        ValueError: if an argument has the wrong form, or a file is not what was announced; the message names it.
    """
    with _failures(_not_had(repo_id, "it", revision)):
        _check_revision(revision)
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns), **options))
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for name in filter_repo_objects(names, allow_patterns=list(patterns)):
        check_announced(folder / name)
    return folder


@contextmanager
def fetching(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """For other libraries' downloads: turns their errors into an `OSError` like that of [`download_snapshot`]."""
    with _failures(_not_had(repo_id, "it", revision)):
        yield


def check_announced(path: Path, data: bytes | None = None) -> None:
    """Raises `ValueError` if a file of the Hub's cache does not hold what the Hub announced.

    The cache links to blobs that are named after their content: git's hash, or SHA-256 for large files. (Some mirrors
    give the plain SHA-1.) Files elsewhere, or with another kind of name, are not judged.

    Args:
        path (`Path`), data (`bytes`, *optional*): the file, and what was read from it; default: it is read here.
    """
    blob = Path(os.readlink(path)) if path.is_symlink() else path
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return
    size = path.stat().st_size if data is None else len(data)
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    digests = [hashlib.sha256()] if len(blob.name) == 64 else [git, hashlib.sha1(usedforsecurity=False)]
    with path.open("rb") if data is None else io.BytesIO(data) as file:
        while chunk := file.read(2**20):
            for digest in digests:
                digest.update(chunk)
    if blob.name not in [digest.hexdigest() for digest in digests]:
        raise ValueError(
            f"{path} is not what the Hub announced: it was changed on the way, or in the cache. Remove that file, or"
            " load it again with `force_download=True`."
        )


def make_repo(repo_id: str, *, private: bool | None = None, token: str | bool | None = None) -> str:
    """Makes a repo, unless it is there, and returns its full id (a name alone is one of the user's repos).

    Raises:
        OSError: if the Hub refuses, or is out of reach; the message names the repo.
        ValueError: if an argument has the wrong form.
    """
    with _failures(f"Cannot upload to {repo_id!r} on the Hub"):
        # `True`: must be there. Else it would only be missed when files are sent, if the repo exists
        token = True if token is None else token
        return create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id


def upload_sampler(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> str:
    """Uploads a folder to a repo (made if need be) and returns the address of the commit.

    Args:
        folder (`Path`): a folder of `save_pretrained` or `lsd-train`.
        repo_id (`str`): `user/name`.
        private, token (*optional*): as in huggingface_hub.
        subfolder (`str`, *optional*): where in the repo; default: its root.
        revision (`str`, *optional*): the branch, made if need be; default: `main`.
        kwargs: passed to `huggingface_hub.upload_folder`: `commit_message`, `create_pr`, ...

    Raises:
        OSError: if the Hub refuses, or is out of reach; the message names the repo.
        ValueError: if an argument has the wrong form.
    """
    folder = Path(os.path.expanduser(folder))
    options = {"commit_message": "Upload sampler", "path_in_repo": subfolder, **kwargs}
    repo_id = make_repo(repo_id, private=private, token=token)
    with _failures(f"Cannot upload to {repo_id!r} on the Hub"):
        _check_revision(revision)
        if revision is not None and not revision.startswith("refs/"):  # those of pull requests are the Hub's to make
            create_branch(repo_id, branch=revision, token=token, exist_ok=True)
        return str(upload_folder(repo_id=repo_id, folder_path=folder, token=token, revision=revision, **options))


def upload_saved(folder: Path, repo_id: str, **kwargs: Any) -> str:
    """[`upload_sampler`] for a folder that stays: an error says how to upload it later.

    Raises:
        OSError, ValueError, KeyboardInterrupt: as [`upload_sampler`], with that advice.
    """
    where = [kwargs["subfolder"]] if kwargs.get("subfolder") else []
    where += ["--revision", kwargs["revision"]] if kwargs.get("revision") else []
    command = shlex.join(["hf", "upload", repo_id, str(folder), *where])
    advice = f"The sampler is in {str(folder)!r}: upload it with `{command}`."
    try:
        return upload_sampler(folder, repo_id, **kwargs)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(advice.rstrip(".")) from error
    except (OSError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{str(error).strip()} {advice}") from error


def check_repo_id(name: str, flag: str) -> None:
    """Raises `ValueError`, naming the flag, unless `name` has the form of a repo's id. The Hub is not asked."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"`{flag}` {name!r} cannot be the name of a repo on the Hub: it must be USER/NAME, with letters, digits,"
            " `-`, `_` and `.` only, and 96 characters at most."
        ) from error


def admit_to_pipelines(component: type, *methods: str) -> None:
    """Lets diffusers load a class of ours as a component of a pipeline on the Hub.

    From local folders, diffusers takes components of any module that was imported. For a pipeline on the Hub it first
    looks for the module among those that it knows, and in the repo.

    Args:
        component (`type`): the class.
        methods (`str`): the names of those that save and load it, if it inherits from no class of diffusers.
    """
    saved = {component.__name__: [*methods]} if methods else {}
    getattr(pipeline_loading_utils, "LOADABLE_CLASSES", {}).setdefault(component.__module__, {}).update(saved)
    getattr(pipeline_loading_utils, "ALL_IMPORTABLE_CLASSES", {}).update(saved)


@contextmanager
def _failures(failure: str) -> Iterator[None]:
    """Turns errors inside into `OSError`: the HTTP library underneath raises other ones too."""
    try:
        yield
    except Exception as error:
        # where a download was forced, or part of an upload failed, the reason is only in the cause
        hides = type(error) in (ValueError, RuntimeError) and not isinstance(error.__cause__, ValueError)
        reason = error.__cause__ if hides and error.__cause__ else error
        about_an_argument = isinstance(reason, (ValueError, TypeError))
        if about_an_argument and not isinstance(reason, (OSError, json.JSONDecodeError)):
            raise
        raise OSError(f"{failure}: {_reason(reason)}") from error


def _not_had(repo_id: str, what: str, revision: str | None) -> str:
    """Advice for a name that is no folder, so that the Hub was asked: perhaps it should have been one."""
    at = f" at revision {revision!r}" if revision else ""
    return f"There is no folder {repo_id!r} here, and {what} cannot be had from the Hub{at}"


def _check_revision(revision: str | None) -> None:
    # git allows no such names, and the cache looks for files by them
    if revision is not None and (not isinstance(revision, str) or not re.fullmatch(r"(?!.*\.\.)[^/\x00].*", revision)):
        raise ValueError(f"`revision` must be the name of a branch, tag or commit, got {revision!r}.")


def _reason(error: BaseException) -> str:
    """The reason in one sentence, and what to do."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    log_in = "pass `token`, set HF_TOKEN, or log in with `hf auth login`."
    if isinstance(error, LocalTokenNotFoundError):
        return f"nobody is logged in: {log_in}"
    if isinstance(error, GatedRepoError):
        return f"the repo is gated. Ask for access on its page; then {log_in}"
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return f"there is no such repo, or this user may not touch it. Check the name; if it is private, {log_in}"
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
    return f"{lines[0] if lines else type(error).__name__} If the connection was to blame, try again."
