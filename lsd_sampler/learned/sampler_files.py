"""A sampler's files: `scheduler_config.json`, and `scheduler_model.safetensors` with it if it is a learned one."""

import hashlib
import inspect
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from ..sampling.diffusers_calls import translated
from ..sampling.learned_numbers import LearnedSampler
from ..support.atomic import replacing, write_atomically
from ..support.hub import admit_to_pipelines, check_announced, download, is_hub_id, upload_sampler, upload_saved
from ..support.validation import check_choice, check_number, check_text
from .tensor_file import (
    FORMAT_VERSION,
    TENSORS_NAME,
    TENSORS_PLACES,
    dump_learned,
    format_version,
    load_learned,
    read_at_most,
)


logger = logging.getLogger(__name__)

MAX_CONFIG_BYTES = 2**16

# entries that learned numbers depend on
_LEARNED_FOR = (
    "prediction_type", "noise_schedule", "noise_eps", "sigma_min", "sigma_max", "time_base", "time_exponential",
    "corruption", "rate_sigma", "q_sigma", "solver", "order", "count",
)  # fmt: skip
# entries that do not affect the tokens; the metadata of the tensors' file covers all others
_DESCRIPTIVE = ("base_model", "base_model_revision", "format_version", "learned", "tensors_sha256")
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


def check_description(config: Any) -> None:
    """Raises `ValueError` unless the entries of a sampler's config that say nothing about its tokens are usable."""
    check_choice("learned", config.learned, (True, False))
    check_number("format_version", config.format_version, integer=True, low=1)
    check_text("base_model", config.base_model)
    check_text("base_model_revision", config.base_model_revision)
    if config.format_version > FORMAT_VERSION:
        raise ValueError(
            f"`format_version` {config.format_version} is newer than this library reads ({FORMAT_VERSION}): upgrade"
            " lsd_sampler."
        )


class SamplerFiles(SchedulerMixin, ConfigMixin):
    """Loading, saving and sharing of a scheduler whose learned numbers lie beside its config."""

    learned_sampler: LearnedSampler

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        admit_to_pipelines(cls)

    if TYPE_CHECKING:  # diffusers types these too loosely

        @property
        def config(self) -> Any: ...

        def set_learned_sampler(self, learned_sampler: LearnedSampler) -> None: ...

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Self:
        """A scheduler with the entries of a config, which may be another scheduler's; unknown entries are dropped.

        Keyword arguments replace them. The `masking_schedule` of diffusers' `AmusedScheduler` becomes `schedule`.
        Learned numbers do not come with a config.
        """
        config = translated(config) if isinstance(config, Mapping) else config
        made: Any = super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)
        return made

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
        `force_download`, ... All files of a Hub repo come from one commit, and hold what the Hub announced.

        A sampler should have a repo of its own. It may also lie in the `scheduler` folder of a pipeline's repo, if it
        was saved with the pipeline (`pipe.push_to_hub`, `pipe.save_pretrained`). `DiffusionPipeline.from_pretrained`
        then loads it after `import lsd_sampler`, and so does this method with `subfolder="scheduler"`. A sampler that
        was put there alone, by `push_to_hub(..., subfolder="scheduler")`, keeps diffusers from fetching the pipeline's
        weights, unless it is passed: `DiffusionPipeline.from_pretrained(..., scheduler=sampler)`.

        Raises:
            OSError: if a file is missing or cannot be read; the message names it.
            ValueError: if a value in it is unusable, or the tensors are not those that were saved with the config; the
                message names the file and the key.
        """
        name = pretrained_model_name_or_path
        if not name or not isinstance(name, (str, os.PathLike)):
            raise ValueError(f"`pretrained_model_name_or_path` is missing, or not a path: got {name!r}.")
        name = os.fspath(name)
        source = _Source(name, _check_subfolder(subfolder), {k: kwargs.pop(k) for k in _HUB_OPTIONS if k in kwargs})
        config_file = source.get(cls.config_name)
        config = cls._read_entries(config_file)
        try:
            pair: Any = cls.from_config(config, return_unused_kwargs=True, **kwargs)
        except ValueError as error:
            raise ValueError(f"{config_file}: {error}") from error
        scheduler, learned, sha256 = pair[0], config["learned"], config["tensors_sha256"]
        if not learned and (sha256 or any((config_file.parent / place).exists() for place in TENSORS_PLACES)):
            raise ValueError(f"{config_file} does not say `learned`, but {TENSORS_NAME} belongs to it or is there.")
        if learned:
            fixed = sorted(set(_LEARNED_FOR) & set(kwargs))
            if fixed:
                raise ValueError(f"`{fixed[0]}` cannot be overridden: the numbers in {name} were learned for another.")
            made_for = cls._made_for(config)
            scheduler.set_learned_sampler(load_learned(source.get(*TENSORS_PLACES), made_for, sha256))
            scheduler.register_to_config(tensors_sha256=sha256)
        return pair if return_unused_kwargs else scheduler

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """Reads a config; `load_config` comes here too.

        Raises:
            OSError: if the file is missing or cannot be read.
            ValueError: if it does not hold a JSON object, or is too large; the message names it.
        """
        path = Path(json_file)
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        data = read_at_most(path, MAX_CONFIG_BYTES)
        check_announced(path, data)
        try:
            config = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON (truncated or damaged?): {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"{path} must hold a JSON object, got {type(config).__name__}.")
        return config

    @classmethod
    def _read_entries(cls, file: Path) -> dict[str, Any]:
        """The entries of a config file, with defaults where it has none.

        Only arguments of the scheduler are kept. diffusers takes some other keys for names of its classes to import,
        of entries to skip, or of attributes to replace.
        """
        content = translated(cls._dict_from_json_file(file))
        defaults = {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
        unknown = sorted(key for key in content if key not in defaults and key[:1] != "_")
        if unknown:
            logger.warning("%s has entries that no sampler has, which are ignored: %s.", file, unknown)
        return {key: content.get(key, default) for key, default in defaults.items()}

    @classmethod
    def _made_for(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The entries that the learned numbers were made for."""
        return {key: config[key] for key in inspect.signature(cls).parameters if key not in _DESCRIPTIVE}

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        push_to_hub: bool = False,
        *,
        safe_serialization: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes `scheduler_model.safetensors` (if anything was learned) and `scheduler_config.json` to a folder.

        Args:
            save_directory (`str` or `os.PathLike`): made if it does not exist.
            push_to_hub (`bool`, defaults to `False`): whether to upload the folder too; keyword arguments as for
                `push_to_hub`, with `repo_id` falling back to the folder's name.
            safe_serialization (`bool`, *optional*): passed by pipelines that save their components. The tensors then
                go to the subfolder `learned.tensors`. Beside the config, diffusers would take them for weights of an
                unknown format, and would fetch none of the pipeline's safetensors from the Hub. (An older pipeline has
                `learned` there: rename that folder to load the pipeline with a `variant`.)
        """
        folder = Path(os.path.expanduser(save_directory))
        if folder.is_file():
            raise ValueError(f"`save_directory` must be a folder, but {folder} is a file.")
        folder.mkdir(parents=True, exist_ok=True)
        tensors, data, sha256 = folder / TENSORS_PLACES[safe_serialization is not None], None, None
        if self.learned_sampler:
            data = dump_learned(self.learned_sampler, str(tensors), self._made_for(self.config))
            sha256 = hashlib.sha256(data).hexdigest()
        version = format_version(self.learned_sampler)
        self.register_to_config(learned=data is not None, tensors_sha256=sha256, format_version=version)
        # both are written before either is replaced (a full disk harms neither), and the tensors are replaced first: a
        # config never points to tensors that are not there yet
        with replacing(folder / self.config_name) as config_file:
            config_file.write_bytes(self.to_json_string().encode())
            if data is not None:
                write_atomically(tensors, data)
        _remove_others(folder, tensors if data is not None else None)
        if push_to_hub:
            self._upload(upload_saved, folder, kwargs.pop("repo_id", folder.absolute().name), **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Uploads the sampler to a Hub repo of its own.

        Args:
            repo_id (`str`): `user/name`.
            kwargs: `commit_message`, `private`, `token`, `create_pr`, `revision` (a branch, made if need be),
                `subfolder`.

        Returns:
            the address of the commit.

        Raises:
            OSError: if the Hub refuses, or is out of reach; the message names the repo.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return self._upload(upload_sampler, Path(folder), repo_id, **kwargs)

    def _upload(self, upload: Callable[..., str], folder: Path, repo_id: str, **kwargs: Any) -> str:
        # tensors of an earlier sampler do not stay with this one's config
        kwargs.setdefault("delete_patterns", [place for place in TENSORS_PLACES if not (folder / place).exists()])
        return upload(folder, repo_id, **kwargs)


def _remove_others(folder: Path, kept: Path | None) -> None:
    """Removes tensors of an earlier sampler, and the folders they were in: one without a dot would stop diffusers."""
    for path in (folder / place for place in TENSORS_PLACES):
        if path != kept and path.exists():
            path.unlink()
            if path.parent != folder and not any(path.parent.iterdir()):
                path.parent.rmdir()


class _Source:
    """Where a sampler's files are: in a folder, or in a Hub repo, all from the commit of the first one fetched."""

    def __init__(self, name: str, subfolder: str, hub_options: dict[str, Any]):
        self.name, self.subfolder, self.hub_options = name, subfolder, hub_options
        self.folder = Path(os.path.expanduser(name))
        self.is_local = self.folder.exists()
        if not self.is_local and not is_hub_id(name):
            raise FileNotFoundError(f"There is no folder {name!r}, and it is not a Hub id (owner/name).")

    def get(self, *filenames: str) -> Path:
        """The first of these files that exists; if none does, raises `OSError` or returns a path to the first."""
        if self.is_local:
            paths = [Path(self.folder, self.subfolder, filename) for filename in filenames]
            return next((path for path in paths if path.exists()), paths[0])
        errors = []
        for filename in filenames:
            path = str(PurePosixPath(self.subfolder, filename))
            try:
                file, self.hub_options["revision"] = download(self.name, path, **self.hub_options)
                return file
            except OSError as error:
                errors.append(error)
        raise errors[0]


def _check_subfolder(subfolder: str | None) -> str:
    """The subfolder without `.` and doubled slashes; empty if there is none."""
    if subfolder is None:
        return ""
    path = PurePosixPath(subfolder) if isinstance(subfolder, str) else None
    if path is None or path.is_absolute() or ".." in path.parts or "\0" in subfolder or "\\" in subfolder:
        raise ValueError(f"`subfolder` must be a path inside the folder or repo, got {subfolder!r}.")
    return "" if subfolder == "" or str(path) == "." else str(path)
