"""A sampler's files: `scheduler_config.json`, and `scheduler_model.safetensors` beside it if it is a learned one."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from huggingface_hub import hf_hub_download

from .checkpoint import TENSORS_NAME, LearnedSampler, load_learned, save_learned
from .hub import is_hub_id, upload_sampler


_LEARNED_FOR = {"prediction_type", "noise_schedule", "noise_eps", "sigma_min", "sigma_max", "solver", "order", "count"}


class SamplerFiles(SchedulerMixin, ConfigMixin):
    """Loading, saving and sharing of a scheduler whose learned numbers lie beside its config."""

    learned_sampler: LearnedSampler

    if TYPE_CHECKING:  # diffusers types these too loosely

        @property
        def config(self) -> Any: ...

        @classmethod
        def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Self: ...

        def set_learned_sampler(self, learned_sampler: LearnedSampler) -> None: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None = None,
        subfolder: str | None = None,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Loads a sampler from a folder or a Hub repo: `scheduler_config.json` and, if it is a learned one,
        `scheduler_model.safetensors`.

        With `return_unused_kwargs` a tuple of the sampler and the unused keyword arguments is returned. Takes the
        keyword arguments of diffusers' schedulers: `revision`, `token`, `cache_dir`, `local_files_only`,
        `force_download`, ...

        Raises:
            OSError: if a file is missing or cannot be read.
            ValueError: if a value in it is unusable; the message names the file and the key.
        """
        if pretrained_model_name_or_path is None:
            raise ValueError("`pretrained_model_name_or_path` is missing.")
        path = Path(pretrained_model_name_or_path)
        if not path.exists() and not is_hub_id(str(pretrained_model_name_or_path)):
            raise FileNotFoundError(
                f"There is no folder {str(path)!r}, and it is not a Hub id (owner/name) either: no sampler to load."
            )
        overridden = set(kwargs)
        hub_kwargs = {
            name: kwargs[name]
            for name in ("cache_dir", "force_download", "token", "local_files_only")
            if name in kwargs
        }
        try:
            loaded: Any = cls.load_config(
                str(path) if path.exists() else str(pretrained_model_name_or_path),
                subfolder=subfolder,
                return_unused_kwargs=True,
                return_commit_hash=True,
                **kwargs,
            )
        except OSError as error:  # diffusers says so of damaged files too
            if isinstance(error.__context__, (json.JSONDecodeError, UnicodeDecodeError)):
                raise ValueError(str(error)) from error
            raise
        config, kwargs, commit_hash = loaded
        if not isinstance(config, dict):
            raise ValueError(f"{cls.config_name} of {path} must hold a JSON object.")
        try:
            pair: Any = cls.from_config(config, return_unused_kwargs=True, **kwargs)
        except ValueError as error:
            raise ValueError(f"{cls.config_name} of {path}: {error}") from error
        scheduler, unused = pair
        learned, fixed = config.get("learned", False), sorted(_LEARNED_FOR & overridden)
        if learned and fixed:
            raise ValueError(f"`{fixed[0]}` cannot be overridden: the numbers in {path} were learned for another.")
        if path.exists():
            nested = path / (subfolder or "")
            file = (nested if (nested / cls.config_name).exists() else path) / TENSORS_NAME
            if file.exists() and not learned:
                raise ValueError(f"{cls.config_name} of {path} does not say `learned`, but {file} lies beside it.")
        else:
            file = None
        if learned:
            file = file or hf_hub_download(
                str(pretrained_model_name_or_path),
                TENSORS_NAME,
                subfolder=subfolder,
                revision=commit_hash,
                **hub_kwargs,
            )
            scheduler.set_learned_sampler(load_learned(file))
        return pair if return_unused_kwargs else scheduler

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes `scheduler_model.safetensors` (if anything was learned) and `scheduler_config.json` to a folder.

        Args:
            save_directory (`str` or `os.PathLike`): made if it does not exist.
            push_to_hub (`bool`, defaults to `False`): whether to upload the folder too; keyword arguments as for
                `push_to_hub`, with `repo_id` falling back to the folder's name.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"`save_directory` must be a folder, but {folder} is a file.")
        folder.mkdir(parents=True, exist_ok=True)
        # the tensors first: a config never points to tensors that are not there yet
        if self.learned_sampler:
            save_learned(self.learned_sampler, folder / TENSORS_NAME)
        self.register_to_config(learned=bool(self.learned_sampler))
        self.save_config(folder)
        if not self.learned_sampler:
            (folder / TENSORS_NAME).unlink(missing_ok=True)
        if push_to_hub:
            upload_sampler(folder, kwargs.pop("repo_id", folder.name), **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Uploads the sampler to a Hub repo of its own.

        Args:
            repo_id (`str`): `user/name`.
            kwargs: `commit_message`, `private`, `token`, `create_pr`, `revision`.

        Returns:
            the address of the commit.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_sampler(Path(folder), repo_id, **kwargs)
