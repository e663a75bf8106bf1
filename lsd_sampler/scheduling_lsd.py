"""LSDScheduler: the reverse process of a masked discrete diffusion model in a few learned steps."""

import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# diffusers reloads a saved pipeline only if `SchedulerMixin` is in the namespace of the scheduler's module
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from huggingface_hub import hf_hub_download
from typing_extensions import Self

from .checkpoint import FORMAT_VERSION, TENSORS_NAME, LearnedSampler, LearnedSteps, load_learned, save_learned
from .hub import upload_sampler
from .noise import make_noise_schedule
from .orders import ORDERS
from .random import draw_tokens, draw_uniforms, gumbel, log_mass
from .schedules import GRIDS, grid_from_counts
from .solvers import SOLVERS


# Shape suffixes: B batch, L positions, V vocabulary, R chosen rows; M steps. t = 1 is all masked, t = 0 is data.

Generators = torch.Generator | list[torch.Generator] | None
PREDICTION_TYPES = ("logits", "log_score")
COUNTS = ("exact", "bernoulli")


@dataclass
class LSDSchedulerOutput(BaseOutput):
    """Output of [`LSDScheduler.step`].

    Args:
        prev_sample (`torch.LongTensor` of the shape of `sample`): the canvas for the next step, less masked.
        pred_original_sample (`torch.LongTensor` of the shape of `sample`, *optional*): not computed, as it would read every row.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


@dataclass
class _Canvas:
    """The noise of one generation, drawn when its first canvas arrives."""

    masked_BL: torch.Tensor  # masked at the start
    rank_BL: torch.Tensor  # place in the order of revealing, among those
    u_BL: torch.Tensor  # when a position is revealed, sorted into that order
    v_BL: torch.Tensor  # which token it gets
    start: int
    last: int
    survival_BL: torch.Tensor | float = 1.0  # probability of still being masked, for unnormalised denoisers


class LSDScheduler(SchedulerMixin, ConfigMixin):
    """Few-step sampler for masked discrete diffusion models, after "Learnable Sampler Distillation"
    (https://huggingface.co/papers/2509.19962).

    All randomness is drawn once per position when a fresh canvas arrives: `u` decides when a position is revealed, `v` which token it
    gets (inverse CDF in float64). So one generator gives related samples at every number of steps, and a step reads only the rows of
    logits that it reveals.

    A learned sampler holds, for each number of steps M, `timesteps` (M + 1), `score_coefficients` (M: multiply the score, that is, how
    many tokens a step reveals) and `log_score_coefficients` (M: multiply the log-score; an inverse temperature), or a step-error table
    from which the best timesteps follow for any M. They come with [`from_pretrained`] or [`~lsd_sampler.distill`]. Without them, as
    after `LSDScheduler(...)` or `from_config`, it is the plain base solver: coefficients 1 on the base grid.

    Args:
        mask_token_id (`int`, *optional*): id of the mask; needed before `step`. A column of that index is never drawn.
        prediction_type (`str`, defaults to `"logits"`): `"logits"` (normalised denoiser: logits or log-probabilities of the clean token)
            or `"log_score"` (SEDD: log concrete score).
        noise_schedule (`str`, defaults to `"log_linear"`): `"log_linear"` (constant `noise_eps`) or `"geometric"` (`sigma_min`,
            `sigma_max`).
        solver (`str`, defaults to `"tweedie"`): `"tweedie"` or `"euler"`.
        order (`str`, defaults to `"random"`): which masked positions come first: `"random"`, `"halton"` (far apart) or `"confidence"`.
        count (`str`, defaults to `"exact"`): `"exact"` (`round(alpha L)` of the L masked positions are known after a step) or `"bernoulli"`
            (independent reveals, as in the CTMC).
        schedule (`str`, defaults to `"uniform"`): base grid, used where nothing was learned: `"uniform"` or `"cosine"`.
        sampling_eps (`float`, defaults to 1e-4): the last time of the base grid.
        confidence_temperature (`float`, defaults to 1.0): Gumbel noise of the `confidence` order in the first step; falls to 0 linearly.
        vocab_size (`int`, *optional*): mask excluded; when given, `model_output` must have that many columns, or one more.
        base_model (`str`, *optional*), base_model_revision (`str`, *optional*): the denoiser that the numbers were learned for.

    Raises:
        ValueError: for an unknown name or a constant out of range.
    """

    order = 1  # network calls per step; diffusers' pipelines read it

    @register_to_config
    def __init__(
        self,
        mask_token_id: int | None = None,
        prediction_type: str = "logits",
        noise_schedule: str = "log_linear",
        noise_eps: float = 1e-3,
        sigma_min: float = 1e-4,
        sigma_max: float = 20.0,
        solver: str = "tweedie",
        order: str = "random",
        count: str = "exact",
        schedule: str = "uniform",
        sampling_eps: float = 1e-4,
        confidence_temperature: float = 1.0,
        vocab_size: int | None = None,
        base_model: str | None = None,
        base_model_revision: str | None = None,
        format_version: int = FORMAT_VERSION,
        learned: bool = False,
    ):
        _check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
        _check_choice("count", count, COUNTS)
        _check_number("mask_token_id", mask_token_id, integer=True, optional=True, low=0)
        _check_number("vocab_size", vocab_size, integer=True, optional=True, low=1)
        _check_number("sampling_eps", sampling_eps, low=0, high=1, open_ends=True)
        _check_number("confidence_temperature", confidence_temperature, low=0)
        _check_number("format_version", format_version, integer=True, low=1)
        if not isinstance(learned, bool):
            raise ValueError(f"`learned` must be true or false, got {learned!r}.")
        for name, value in (("noise_eps", noise_eps), ("sigma_min", sigma_min), ("sigma_max", sigma_max)):
            _check_number(name, value)
        if format_version > FORMAT_VERSION:
            raise ValueError(
                f"`format_version` {format_version} is newer than this library reads ({FORMAT_VERSION}): upgrade lsd_sampler."
            )
        self.noise = make_noise_schedule(
            noise_schedule, noise_eps=noise_eps, sigma_min=sigma_min, sigma_max=sigma_max
        )
        self._solver = SOLVERS[solver]
        self._order = ORDERS[order]
        self._base_grid = GRIDS[schedule]
        # tensors do not travel in a config: from_config of a learned sampler gives the plain base solver
        self.register_to_config(learned=False, format_version=FORMAT_VERSION)
        self.learned_sampler = LearnedSampler()
        self.num_inference_steps: int | None = None
        self.timesteps: torch.Tensor = torch.empty(0)
        self.steps: LearnedSteps
        self._canvas: _Canvas | None = None

    # ---- schedule ----

    @property
    def available_num_inference_steps(self) -> list[int] | None:
        """The numbers of steps that were learned, or `None` where any number can be had (step-error table, or nothing learned)."""
        if self.learned_sampler.step_error is not None or not self.learned_sampler:
            return None
        return sorted(self.learned_sampler.steps)

    def set_learned_sampler(self, learned_sampler: LearnedSampler) -> None:
        """Installs learned numbers.

        Raises:
            ValueError: if one of them is unusable.
        """
        learned_sampler.check("learned_sampler")
        self.learned_sampler = learned_sampler
        self.register_to_config(learned=bool(learned_sampler))

    def steps_for(self, num_inference_steps: int) -> LearnedSteps:
        """The numbers of the sampler with so many steps: learned, solved from the step-error table, or the plain base solver's.

        Raises:
            ValueError: if `num_inference_steps` is not positive, or this sampler has no numbers for it.
        """
        M = num_inference_steps
        if isinstance(M, bool) or not isinstance(M, int) or M < 1:
            raise ValueError(f"`num_inference_steps` must be a positive integer, got {M!r}.")
        if M in self.learned_sampler.steps:
            return self.learned_sampler.steps[M]
        if self.learned_sampler.step_error is not None:
            counts, _ = self.learned_sampler.step_error.solve(M)
            return LearnedSteps.plain(grid_from_counts(counts, self.noise, self.config.sampling_eps))
        if self.learned_sampler:
            raise ValueError(
                f"`num_inference_steps` must be one of {self.available_num_inference_steps}, which this sampler learned, got {M}."
                " Distil it for that number with `lsd-train --nfe`."
            )
        return LearnedSteps.plain(self._base_grid(M, self.config.sampling_eps))

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Sets `timesteps`: the M times, float32 and decreasing in (0, 1], at which the network is called.

        The last step reveals everything that is left, so the number of network calls is `num_inference_steps`.

        Raises:
            ValueError: if `num_inference_steps` is not positive, or this sampler has no numbers for it.
        """
        steps = self.steps_for(num_inference_steps)
        if not bool((steps.timesteps[:-1].float().diff() < 0).all()):
            raise ValueError(f"`num_inference_steps` {num_inference_steps} is too many: times coincide in float32.")
        self._use(steps)
        self.num_inference_steps = num_inference_steps
        self.timesteps = steps.timesteps[:-1].to(device=device, dtype=torch.float32)
        self._times = self.timesteps.tolist()
        self._canvas = None

    def _use(self, steps: LearnedSteps) -> None:
        t, s = steps.timesteps[:-1], steps.timesteps[1:]
        self.steps = steps
        # of a normalised denoiser: the same for all positions; the last step reveals all
        reveal = steps.score_coefficients * self._solver.reveal_probability(self.noise, t, s)
        self._reveal_probabilities = [*reveal.clamp(0, 1).tolist()[:-1], 1.0]
        self._score_weights = (steps.score_coefficients * self._solver.score_weight(self.noise, t, s)).tolist()

    def _index(self, timestep: float | torch.Tensor) -> int:
        if self.num_inference_steps is None:
            raise ValueError("Call `set_timesteps(num_inference_steps)` before `step`.")
        try:
            time = float(timestep)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"`timestep` must be one of `timesteps`, got {timestep!r}.") from None
        index = min(range(len(self._times)), key=lambda k: abs(self._times[k] - time))
        if not abs(self._times[index] - time) <= 1e-6:
            raise ValueError(f"`timestep` must be one of `timesteps`, got {time}.")
        return index

    # ---- one step ----

    @torch.no_grad()
    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        *,
        temperature: float = 1.0,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> LSDSchedulerOutput | tuple[torch.Tensor, torch.Tensor | None]:
        """Reveals some masked positions: one step of the reverse process.

        Args:
            model_output (`torch.Tensor` of shape `(batch_size, seq_len, vocab_size)` or `(batch_size, vocab_size, height, width)`):
                the denoiser's logits or log-scores, in any floating dtype. May hold a column for the mask; it is never drawn.
            timestep (`float` or 0-d `torch.Tensor`): one of `timesteps`.
            sample (`torch.LongTensor` of shape `(batch_size, seq_len)` or `(batch_size, height, width)`): the canvas.
            temperature (`float`, defaults to 1.0): of the token draws, on top of what was learned; 0 takes the most likely token.
            generator (`torch.Generator`, or a list of `batch_size` of them, *optional*): read when a fresh canvas arrives (and at each step
                in `confidence` order). With a list, row i depends on generator i alone.
            return_dict (`bool`, defaults to `True`): whether to return [`LSDSchedulerOutput`] or a tuple.

        Raises:
            ValueError: for shapes or dtypes that do not fit, a missing `mask_token_id`, a vocabulary mismatch, a time that is not among
                `timesteps`, or logits that hold NaN or +inf, or only -inf, in a row that is read.
        """
        k = self._index(timestep)
        logits_BLV, sample_BL = self._check_inputs(model_output, sample)
        if not temperature >= 0:
            raise ValueError(f"`temperature` must be >= 0, got {temperature}.")
        masked_BL = sample_BL == self.config.mask_token_id
        canvas = self._canvas_at(k, masked_BL, sample_BL, logits_BLV.shape[-1], tuple(sample.shape[1:]), generator)
        if self._order.looks_at_logits:
            prev_BL = self._confident_step(k, canvas, logits_BLV, sample_BL, masked_BL, temperature, generator)
        else:
            row_R, position_R = self._reveal(k, canvas, logits_BLV, masked_BL).nonzero(as_tuple=True)
            v_R = canvas.v_BL[row_R, position_R]
            token_R, _ = self._draw(k, logits_BLV, row_R, position_R, v_R, temperature)
            prev_BL = sample_BL.index_put((row_R, position_R), token_R)
        if k == len(self._times) - 1:
            self._canvas = None  # no state outlives a generation
        prev_sample = prev_BL.view(sample.shape)
        return LSDSchedulerOutput(prev_sample) if return_dict else (prev_sample, None)

    def _check_inputs(self, model_output: torch.Tensor, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The canvas as `(B, L)` and the logits as `(B, L, V)`: views, nothing is copied."""
        mask_token_id, vocab_size = self.config.mask_token_id, self.config.vocab_size
        if mask_token_id is None:
            raise ValueError("`mask_token_id` is not set: build the scheduler with `LSDScheduler(mask_token_id=...)`.")
        if sample.dtype != torch.int64:
            raise ValueError(f"`sample` must hold int64 token ids, got {sample.dtype}.")
        if not model_output.is_floating_point():
            raise ValueError(f"`model_output` must be floating point, got {model_output.dtype}.")
        is_image = sample.ndim == 3
        expected = sample.shape if not is_image else (sample.shape[0], *sample.shape[1:])
        got = model_output.shape[:-1] if not is_image else (model_output.shape[0], *model_output.shape[2:])
        if sample.ndim not in (2, 3) or model_output.ndim != sample.ndim + 1 or tuple(got) != tuple(expected):
            raise ValueError(
                "`model_output` and `sample` must have shapes (B, L, V) and (B, L), or (B, V, H, W) and (B, H, W),"
                f" got {tuple(model_output.shape)} and {tuple(sample.shape)}."
            )
        logits_BLV = model_output.flatten(2).transpose(1, 2) if is_image else model_output
        columns = logits_BLV.shape[-1]
        if vocab_size is not None and columns not in (vocab_size, vocab_size + 1):
            raise ValueError(f"`model_output` has {columns} columns, but `vocab_size` is {vocab_size}: vocabulary mismatch.")
        # image models (aMUSEd) keep ids between their codebook and their mask; text models do not
        if vocab_size is None and not is_image and mask_token_id > columns:
            raise ValueError(
                f"`model_output` has {columns} columns, too few for `mask_token_id` {mask_token_id}: vocabulary mismatch."
            )
        return logits_BLV, sample.reshape(sample.shape[0], -1)

    def _canvas_at(
        self,
        k: int,
        masked_BL: torch.Tensor,
        sample_BL: torch.Tensor,
        columns: int,
        canvas_shape: tuple[int, ...],
        generator: Generators,
    ) -> _Canvas:
        """The noise of this generation; drawn now if the canvas is a fresh one."""
        canvas = self._canvas
        if canvas is not None and k > canvas.last and canvas.v_BL.shape == masked_BL.shape:
            canvas.last = k
            return canvas
        known = sample_BL[~masked_BL]
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < columns:
            raise ValueError(f"`sample` holds token ids outside the {columns} columns of `model_output`: vocabulary mismatch.")
        B, L = masked_BL.shape
        u_BL, v_BL, shift_B2 = draw_uniforms(B, 2 * L + 2, generator, sample_BL.device).split([L, L, 2], dim=1)
        keys_BL = self._order.keys(u_BL, shift_B2, canvas_shape).masked_fill(~masked_BL, torch.inf)
        rank_BL = keys_BL.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        u_BL = u_BL.masked_fill(~masked_BL, torch.inf).sort(dim=1).values.gather(1, rank_BL)
        self._canvas = _Canvas(masked_BL, rank_BL, u_BL, v_BL, start=k, last=k)
        return self._canvas

    def _target(self, k: int, canvas: _Canvas, logits_BLV: torch.Tensor, masked_BL: torch.Tensor) -> torch.Tensor:
        """Which of the positions masked at the start are due by the end of step k, were the order to go by rank. `(B, L)` bool."""
        if k == len(self._times) - 1:
            return canvas.masked_BL
        nominal = math.prod(1 - r for r in self._reveal_probabilities[canvas.start : k + 1])
        if self.config.count == "exact":
            # alpha(t_{k+1}) for tweedie where all coefficients are 1
            known = 1 - float(self.noise.masked(self.steps.timesteps[0])) * nominal
            due_B = (canvas.masked_BL.sum(1).double() * known).round()
            return canvas.masked_BL & (canvas.rank_BL < due_B[:, None])
        survival = nominal
        if self.config.prediction_type == "log_score":
            survival = canvas.survival_BL = canvas.survival_BL * (1 - self._jump(k, logits_BLV, masked_BL))
        return canvas.masked_BL & (canvas.u_BL < 1 - survival)

    def _jump(self, k: int, logits_BLV: torch.Tensor, masked_BL: torch.Tensor) -> torch.Tensor:
        """Probability that each masked position jumps in step k under an unnormalised score (0 elsewhere). `(B, L)` float64."""
        row_R, position_R = masked_BL.nonzero(as_tuple=True)
        beta = self._beta(k)
        mass_R = log_mass(
            logits_BLV, row_R, position_R, inverse_temperature=beta, excluded=self.config.mask_token_id
        ).exp()
        jump_BL = torch.zeros(masked_BL.shape, dtype=torch.float64, device=masked_BL.device)
        return jump_BL.index_put((row_R, position_R), (self._score_weights[k] * mass_R).clamp(max=1))

    def _reveal(self, k: int, canvas: _Canvas, logits_BLV: torch.Tensor, masked_BL: torch.Tensor) -> torch.Tensor:
        # at the last step whatever is still masked is due, even a position that a callback masked again
        return masked_BL if k == len(self._times) - 1 else masked_BL & self._target(k, canvas, logits_BLV, masked_BL)

    def _beta(self, k: int) -> float:
        return float(self.steps.log_score_coefficients[k])

    def _draw(
        self,
        k: int,
        logits_BLV: torch.Tensor,
        row_R: torch.Tensor,
        position_R: torch.Tensor,
        v_R: torch.Tensor,
        temperature: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return draw_tokens(
            logits_BLV,
            row_R,
            position_R,
            v_R,
            inverse_temperature=self._beta(k) / temperature if temperature else math.inf,
            excluded=self.config.mask_token_id,
        )

    def _confident_step(
        self,
        k: int,
        canvas: _Canvas,
        logits_BLV: torch.Tensor,
        sample_BL: torch.Tensor,
        masked_BL: torch.Tensor,
        temperature: float,
        generator: Generators,
    ) -> torch.Tensor:
        """Draws a candidate for every masked position and keeps the most confident: as many as are due by rank."""
        B, L = sample_BL.shape
        v_BL, w_BL, jump_u_BL = draw_uniforms(B, 3 * L, generator, sample_BL.device).split(L, dim=1)
        row_R, position_R = masked_BL.nonzero(as_tuple=True)
        token_R, log_prob_R = self._draw(k, logits_BLV, row_R, position_R, v_BL[row_R, position_R], temperature)
        candidate_BL = sample_BL.index_put((row_R, position_R), token_R)
        if k == len(self._times) - 1:
            return candidate_BL
        annealed = self.config.confidence_temperature * (1 - k / (len(self._times) - 1))
        score_BL = torch.full_like(v_BL, -torch.inf)
        score_BL[row_R, position_R] = log_prob_R + annealed * gumbel(w_BL[row_R, position_R])
        if self.config.count == "bernoulli" and self.config.prediction_type == "log_score":
            # positions are not revealed by their own `u` here, so jumps are drawn afresh at those still masked
            due_B = (jump_u_BL < self._jump(k, logits_BLV, masked_BL)).sum(1)
        else:
            known_B = (canvas.masked_BL & ~masked_BL).sum(1)
            due_B = self._target(k, canvas, logits_BLV, masked_BL).sum(1) - known_B
        place_BL = score_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
        return torch.where(masked_BL & (place_BL < due_B[:, None]), candidate_BL, sample_BL)

    def add_noise(
        self,
        original_samples: torch.Tensor,
        timesteps: float | torch.Tensor,
        generator: Generators = None,
    ) -> torch.Tensor:
        """The forward process: masks each token with probability `1 - alpha(t)`.

        Args:
            original_samples (`torch.LongTensor` of shape `(batch_size, ...)`): token ids.
            timesteps (`float`, or `torch.Tensor` of shape `()` or `(batch_size,)`): times in [0, 1].
            generator: as for `step`.

        Raises:
            ValueError: if `mask_token_id` is missing or a time lies outside [0, 1].
        """
        if self.config.mask_token_id is None:
            raise ValueError("`mask_token_id` is not set: build the scheduler with `LSDScheduler(mask_token_id=...)`.")
        B = original_samples.shape[0]
        times = torch.as_tensor(timesteps, dtype=torch.float64, device=original_samples.device).reshape(-1)
        if times.numel() not in (1, B) or not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError(f"`timesteps` must be one time in [0, 1], or one per row, got {timesteps}.")
        flat = original_samples.reshape(B, -1)
        uniforms = draw_uniforms(B, flat.shape[1], generator, flat.device)
        noisy = flat.masked_fill(uniforms < self.noise.masked(times)[:, None], self.config.mask_token_id)
        return noisy.view(original_samples.shape)

    # ---- files ----

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None = None,
        subfolder: str | None = None,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Loads a sampler from a folder or a Hub repo: `scheduler_config.json` and, if it is a learned one, `scheduler_model.safetensors`.

        Takes the keyword arguments of diffusers' schedulers: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, ...

        Raises:
            OSError: if a file is missing or cannot be read.
            ValueError: if a value in it is unusable; the message names the file and the key.
        """
        if pretrained_model_name_or_path is None:
            raise ValueError("`pretrained_model_name_or_path` is missing.")
        path = Path(pretrained_model_name_or_path)
        hub_kwargs = {
            name: kwargs[name] for name in ("cache_dir", "force_download", "token", "local_files_only") if name in kwargs
        }
        try:
            config, kwargs, commit_hash = cls.load_config(
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
        if not isinstance(config, dict):
            raise ValueError(f"{cls.config_name} of {path} must hold a JSON object.")
        try:
            scheduler, unused = cls.from_config(config, return_unused_kwargs=True, **kwargs)
        except ValueError as error:
            raise ValueError(f"{cls.config_name} of {path}: {error}") from error
        if config.get("learned", False):
            if path.exists():
                nested = path / subfolder / TENSORS_NAME if subfolder else path / TENSORS_NAME
                file = nested if nested.exists() else path / TENSORS_NAME
            else:
                file = hf_hub_download(
                    str(pretrained_model_name_or_path),
                    TENSORS_NAME,
                    subfolder=subfolder,
                    revision=commit_hash,
                    **hub_kwargs,
                )
            scheduler.set_learned_sampler(load_learned(file))
        return (scheduler, unused) if return_unused_kwargs else scheduler

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes `scheduler_model.safetensors` (if anything was learned) and `scheduler_config.json` to a folder.

        Args:
            save_directory (`str` or `os.PathLike`): made if it does not exist.
            push_to_hub (`bool`, defaults to `False`): whether to upload the folder too; keyword arguments as for `push_to_hub`, with
                `repo_id` falling back to the folder's name.
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

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
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


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}.")


def _check_number(
    name: str,
    value: Any,
    *,
    integer: bool = False,
    optional: bool = False,
    low: float = -math.inf,
    high: float = math.inf,
    open_ends: bool = False,
) -> None:
    if optional and value is None:
        return
    kind = int if integer else (int, float)
    inside = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    if not inside or (open_ends and value in (low, high)):
        what = "an integer" if integer else "a finite number"
        raise ValueError(f"`{name}` must be {what} in {'(' if open_ends else '['}{low}, {high}{')' if open_ends else ']'}, got {value!r}.")
