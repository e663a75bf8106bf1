"""A sampler's files: `scheduler_config.json`, and `scheduler_model.safetensors` with it if it is a learned one."""

import inspect
import json
import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from diffusers.configuration_utils import ConfigMixin, FrozenDict
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from .atomic import write_atomically
from .checkpoint import TENSORS_NAME, TENSORS_PLACES, LearnedSampler, load_learned, read_at_most, save_learned
from .hub import admit_to_pipelines, check_announced, download, is_hub_id, upload_sampler


MAX_CONFIG_BYTES = 2**20
MAX_ENTRIES, MAX_TEXT, MAX_DEPTH = 256, 4096, 4

# what learned numbers depend on; and what else decides which tokens come out
_LEARNED_FOR = ("prediction_type", "noise_schedule", "noise_eps", "sigma_min", "sigma_max", "solver", "order", "count")
_MADE_FOR = (
    *_LEARNED_FOR, "mask_token_id", "vocab_size", "schedule", "sampling_eps", "draws", "confidence_temperature",
    "block_length",
)  # fmt: skip
_UNUSABLE = ("self", "dtype", "quantization_config")
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


class SamplerFiles(SchedulerMixin, ConfigMixin):
    """Loading, saving and sharing of a scheduler whose learned numbers lie beside its config."""

    learned_sampler: LearnedSampler

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        admit_to_pipelines(cls)

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
        `force_download`, ... All files of a Hub repo come from one commit, and hold what the Hub announced.

        Best, a sampler has a repo of its own. It may also lie in the `scheduler` folder of a pipeline's repo, if it
        came there with the pipeline (`pipe.push_to_hub`, `pipe.save_pretrained`): after `import lsd_sampler`,
        `DiffusionPipeline.from_pretrained` loads it from there, and so does this with `subfolder="scheduler"`. (One
        put there by its own `push_to_hub(..., subfolder="scheduler")` keeps diffusers from fetching the pipeline's
        weights, unless it is passed: `DiffusionPipeline.from_pretrained(..., scheduler=sampler)`.)

        Raises:
            OSError: if a file is missing or cannot be read; the message names it.
            ValueError: if a value in it is unusable, or the tensors are not those that were saved with the config; the
                message names the file and the key.
        """
        name = pretrained_model_name_or_path
        if not name or not isinstance(name, (str, os.PathLike)):
            raise ValueError(f"`pretrained_model_name_or_path` is missing, or no path: got {name!r}.")
        name = os.fspath(name)
        source = _Source(name, _check_subfolder(subfolder), {k: kwargs.pop(k) for k in _HUB_OPTIONS if k in kwargs})
        config_file = source.get(cls.config_name)
        config = cls._dict_from_json_file(config_file)
        try:
            pair: Any = cls.from_config(config, return_unused_kwargs=True, **kwargs)
        except ValueError as error:
            raise ValueError(f"{config_file}: {error}") from error
        scheduler, learned, sha256 = pair[0], config.get("learned", False), config.get("tensors_sha256")
        if not learned and (sha256 or config_file.with_name(TENSORS_NAME).exists()):
            raise ValueError(f"{config_file} does not say `learned`, but {TENSORS_NAME} belongs to it or is there.")
        if learned:
            fixed = sorted(set(_LEARNED_FOR) & set(kwargs))
            if fixed:
                raise ValueError(f"`{fixed[0]}` cannot be overridden: the numbers in {name} were learned for another.")
            defaults = inspect.signature(cls.__init__).parameters
            made_for = {key: config.get(key, defaults[key].default) for key in _MADE_FOR}
            scheduler.set_learned_sampler(load_learned(source.get(*TENSORS_PLACES), made_for, sha256))
            scheduler.register_to_config(tensors_sha256=sha256)
        return pair if return_unused_kwargs else scheduler

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """Reads a config, and checks it as far as that is possible without knowing what it is for."""
        path = Path(json_file)
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        data = read_at_most(path, MAX_CONFIG_BYTES)
        check_announced(path, data)
        try:
            config = json.loads(data.decode("utf-8"), parse_int=_parse_int, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON (truncated or damaged?): {error}") from error
        try:
            _check_entries(config)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        if not config.get("_class_name", "").endswith("Scheduler"):
            config["_class_name"] = cls.__name__  # diffusers would import whatever of its parts bears that name
        config.pop("_use_default_values", None)  # diffusers would not read the entries that this lists
        return config

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
                go to the subfolder `learned`: if they lay beside the config, diffusers would take them for weights of
                an unknown format, and fetch no safetensors at all of such a pipeline on the Hub.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"`save_directory` must be a folder, but {folder} is a file.")
        folder.mkdir(parents=True, exist_ok=True)
        # the tensors first: a config never points to tensors that are not there yet
        sha256, tensors = None, folder / TENSORS_PLACES[safe_serialization is not None]
        if self.learned_sampler:
            made_for = {key: self.config[key] for key in _MADE_FOR}
            sha256 = save_learned(self.learned_sampler, tensors, made_for)
        self.register_to_config(learned=bool(self.learned_sampler), tensors_sha256=sha256)
        write_atomically(folder / self.config_name, self.to_json_string().encode())
        for stale in {folder / place for place in TENSORS_PLACES} - ({tensors} if self.learned_sampler else set()):
            stale.unlink(missing_ok=True)
        if push_to_hub:
            self._upload(folder, kwargs.pop("repo_id", folder.absolute().name), **kwargs)

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
            return self._upload(Path(folder), repo_id, **kwargs)

    def _upload(self, folder: Path, repo_id: str, **kwargs: Any) -> str:
        # tensors of an earlier sampler do not stay with this one's config
        kwargs.setdefault("delete_patterns", [place for place in TENSORS_PLACES if not (folder / place).exists()])
        return upload_sampler(folder, repo_id, **kwargs)


class _Source:
    """Where a sampler's files are: a folder, or a Hub repo, of which all come from the commit of the first."""

    def __init__(self, name: str, subfolder: str, hub_options: dict[str, Any]):
        self.name, self.subfolder, self.hub_options = name, subfolder, hub_options
        self.is_local = Path(name).exists()
        if not self.is_local and not is_hub_id(name):
            raise FileNotFoundError(f"There is no folder {name!r}, and it is not a Hub id (owner/name).")

    def get(self, *filenames: str) -> Path:
        """The first of these files that is there; where none is, `OSError` or a path to the first."""
        if self.is_local:
            paths = [Path(self.name, self.subfolder, filename) for filename in filenames]
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


def _parse_int(text: str) -> int | float:
    """Python refuses integers of thousands of digits, and checks of ranges cannot compare those of hundreds."""
    return int(text) if len(text) < 20 else float(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in content if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} appears twice")
    return content


def _check_entries(config: Any) -> None:
    """Raises `ValueError` naming the key (but not the file) of what diffusers or Python would stumble over."""
    if not isinstance(config, dict):
        raise ValueError(f"must hold a JSON object, got {type(config).__name__}.")
    if len(config) > MAX_ENTRIES:
        raise ValueError(f"has {len(config)} entries, more than any sampler's ({MAX_ENTRIES}).")
    for key, value in config.items():
        # entries become attributes of diffusers' dictionary, and arguments of its functions
        if hasattr(FrozenDict, key) or key in _UNUSABLE or (key.startswith("_") and "__" in key):
            raise ValueError(f"has an unusable key {key[:80]!r}.")
        _check_value(f"`{key[:80]}`", value, MAX_DEPTH)
    for key in ("_class_name", "base_model", "base_model_revision", "tensors_sha256"):
        value = config.get(key, "")
        if not isinstance(value, str) and (value is not None or key == "_class_name"):
            raise ValueError(f"has an unusable `{key}`: it must be a text, got {value!r}.")
    sha256 = config.get("tensors_sha256")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"has an unusable `tensors_sha256`: it must be 64 hexadecimal digits, got {sha256!r}.")


def _check_value(name: str, value: Any, depth: int) -> None:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"has a text of {len(value)} characters in {name}, longer than any sampler's ({MAX_TEXT}).")
    if isinstance(value, (list, dict)):
        if depth == 0:
            raise ValueError(f"has {name} nested too deeply.")
        for part in value.values() if isinstance(value, dict) else value:
            _check_value(name, part, depth - 1)
