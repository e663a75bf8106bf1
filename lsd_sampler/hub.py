"""The Hub: what an id looks like, and uploads of sampler folders."""

import re
from pathlib import Path

from huggingface_hub import create_repo, upload_folder


_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form `owner/repository`. (A local folder of that name goes first.)"""
    return _HUB_ID.fullmatch(name) is not None


def upload_sampler(
    folder: Path, repo_id: str, *, private: bool | None = None, token: str | None = None, **kwargs: str
) -> str:
    """Uploads a folder to a repo (made if need be) and returns the address of the commit.

    Args:
        folder (`Path`): what `save_pretrained` or `lsd-train` wrote.
        repo_id (`str`): `user/name`.
        private, token (*optional*): as in huggingface_hub.
        kwargs: passed to `huggingface_hub.upload_folder`: `commit_message`, `revision`, `create_pr`, ...
    """
    repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    options: dict = {"commit_message": "Upload sampler", **kwargs}
    return str(upload_folder(repo_id=repo_id, folder_path=folder, token=token, **options))
