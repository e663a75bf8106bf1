"""LSDScheduler: the reverse process of a masked discrete diffusion model in a few learned steps."""

import functools
import logging
import numbers
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config

# diffusers reloads a saved pipeline only if `SchedulerMixin` is in the namespace of the scheduler's module
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401
from diffusers.utils.outputs import BaseOutput

from .learned.interpolation import interpolated_coefficients
from .learned.sampler_files import SamplerFiles
from .learned.tensor_file import FORMAT_VERSION
from .sampling.canvas import Canvas, DrawOptions, StepInput, as_rows, check_known_tokens
from .sampling.corruptions import CORRUPTIONS, Corruption, make_corruption
from .sampling.counts import COUNTS, PUBLISHED_COUNTS, check_count
from .sampling.diffusers_calls import (
    FROM_CONFIG,
    BlockPipelineMethods,
    check_strength,
    draw_temperature,
    follows_amused,
    position_temperatures,
    read_positional,
    resolve_mask,
    step_index,
)
from .sampling.draws import Generators
from .sampling.learned_numbers import LearnedSampler, LearnedSteps
from .sampling.logit_rows import ModelOutput
from .sampling.moves import Reverse, move_tokens
from .sampling.noise import make_noise_schedule
from .sampling.orders import ORDERS
from .sampling.ownership import Ownership, caller_of
from .sampling.plan import StepPlan
from .sampling.released_draws import check_draws, race
from .sampling.reveal import reveal
from .sampling.schedules import GRIDS, grid_from_counts
from .sampling.solvers import SOLVERS, OwnStep
from .support.validation import check_choice, check_number, check_text


# Shape suffixes: B batch, L positions, V vocabulary, R chosen rows; M steps. t = 1 is all masked, t = 0 is data.

logger = logging.getLogger(__name__)

PREDICTION_TYPES = ("logits", "log_score")
CERTAINTIES = ("untempered", "tempered")


@dataclass
class LSDSchedulerOutput(BaseOutput):
    """Output of [`LSDScheduler.step`].

    Args:
        prev_sample (`torch.LongTensor` of the shape of `sample`): the canvas for the next step, less masked.
        pred_original_sample (*optional*): always None; it would cost the reading of every row.
        transfer_index (`torch.BoolTensor` of that shape, *optional*): what this step revealed.
        editing_transfer_index (`torch.BoolTensor` of that shape, *optional*): which known tokens this step changed or
            masked again; only baselines do, and only what they revealed themselves.
        sampled_tokens (`torch.LongTensor` of that shape, *optional*): the same as `prev_sample`.
        sampled_probs (`torch.FloatTensor` of that shape, *optional*): the probability with which a token that this
            step revealed was drawn, 0 elsewhere.
        pred_logits (*optional*): `model_output`, as it was given.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None
    transfer_index: torch.Tensor | None = None
    editing_transfer_index: torch.Tensor | None = None
    sampled_tokens: torch.Tensor | None = None
    sampled_probs: torch.Tensor | None = None
    pred_logits: ModelOutput | None = None


class LSDScheduler(BlockPipelineMethods, SamplerFiles):
    """Few-step sampler for masked discrete diffusion models, after "Learnable Sampler Distillation"
    (https://huggingface.co/papers/2509.19962).

    All randomness is drawn once per position when a fresh canvas arrives: `u` decides when a position is revealed, `v`
    which token it gets (inverse CDF in float64). So one generator gives related samples at every number of steps, and
    a step reads only the rows of logits that it reveals. (Orders that look at the logits, and baselines, are the
    exception: they draw anew, and most read all masked rows, at every step.)

    A learned sampler holds, for each number of steps M, `timesteps` (M + 1), `score_coefficients` (M: multiply the
    score, that is, how many tokens a step reveals) and `log_score_coefficients` (M: multiply the log-score; an inverse
    temperature), or a step-error table from which the best timesteps follow for any M. They come with
    [`from_pretrained`] or [`~lsd_sampler.distill`]. Without them, as after `LSDScheduler(...)` or `from_config`, it is
    the plain base solver: coefficients 1 on the base grid.

    It takes the place of the scheduler in diffusers' pipelines of masked models, as they are: `AmusedPipeline`, its
    image-to-image and inpainting siblings, and `LLaDA2Pipeline`, where the schedule holds for each block. It serves
    one thread at a time; give each a copy (`copy.deepcopy`).

    Args:
        mask_token_id (`int`, *optional*): id of the mask; needed before `step`. A column of that index is never drawn.
        prediction_type (`str`, defaults to `"logits"`): `"logits"` (normalised denoiser: logits or log-probabilities
            of the clean token) or `"log_score"` (SEDD: log concrete score).
        noise_schedule (`str`, defaults to `"log_linear"`): `"log_linear"`, `"cosine"` or `"cosine_squared"` (constant
            `noise_eps`), `"geometric"` or `"linear"` (`sigma_min`, `sigma_max`), or `"exponential"` (`time_base`,
            `time_exponential`).
        solver (`str`, defaults to `"tweedie"`): `"tweedie"` or `"euler"`; or a baseline that chooses positions itself
            (see [`~lsd_sampler.sampling.solvers`]), to which `order` and `count` say nothing.
        solver_options (`dict`, *optional*): constants of such a baseline, by name; the others have their defaults.
        order (`str`, defaults to `"random"`): which masked positions come first: `"random"`, `"halton"` (far apart),
            `"halton_maskgit"` (that of Halton-MaskGIT), or those of which the network is surest: by the drawn token
            (`"confidence"`, as MaskGIT), the lead of the most likely one (`"margin"`), or `"entropy"`.
        count (`str`, defaults to `"exact"`): `"exact"` (of L masked positions `round(alpha L)` are known after a step
            of `tweedie`; a coefficient or another solver scales what the step adds) or `"bernoulli"` (independent
            reveals, as in the CTMC). Or as in the code of LLaDA (`"llada"`: equally many a step, the remainder in the
            first steps) and Dream (`"dream"`: shares of what is masked, rounded down in float32; its last time is a
            `sampling_eps` of 1e-3), whose schedule is `"uniform"`, and for which nothing is learned.
        schedule (`str`, defaults to `"uniform"`): base grid, where nothing was learned: `"uniform"`, `"cosine"` or
            `"arccos"`.
        sampling_eps (`float`, defaults to 1e-4): the last time of the base grid.
        corruption (`str`, defaults to `"absorbing"`): what noise does to a token: `"absorbing"` (masks it),
            `"uniform"` (replaces it by any), or `"gaussian"` (moves it to a near level; constants `rate_sigma`,
            `q_sigma`; not with `"log_score"`). Without a mask, `mask_token_id` stays None and `vocab_size` must be
            given; `order` and `count` have no meaning; and the last step takes away all noise that is left.
        draws (`str`, defaults to `"exact"`): or `"float32_eps1e-6"`, `"float32_eps1e-10"`: as in released code, whose
            single precision lowers the temperature and the number of reveals; see
            [`~lsd_sampler.sampling.released_draws`].
        confidence_temperature (`float`, defaults to 1.0): Gumbel noise of the orders that look at the logits, in the
            first step; it falls to 0 linearly. (`set_timesteps` may say otherwise.)
        certainty (`str`, defaults to `"untempered"`): which probabilities say how sure the denoiser is of a position,
            to orders and solvers that go by that: its own (`"untempered"`, as in LLaDA's and Fast-dLLM's code), or
            those that tokens are drawn with, after temperature, `top_p`, `top_k` and log-score coefficients
            (`"tempered"`, as in Dream's and LLaDA2's code; at a low temperature or `top_p` all positions look sure).
        block_length (`int`, defaults to 32): what `LLaDA2Pipeline` generates at a time, where its call does not say.
        vocab_size (`int`, *optional*): mask excluded; `model_output` must then have that many columns, or one more.
        base_model, base_model_revision (`str`, *optional*): the denoiser that the numbers were learned for.
        format_version (`int`), learned (`bool`), tensors_sha256 (`str`): of the files; set by the library.

    Raises:
        ValueError: for an unknown name or a constant out of range.
    """

    order = 1  # network calls for each of `timesteps`, whatever the solver; diffusers' pipelines read it

    @register_to_config
    def __init__(
        self,
        mask_token_id: int | None = None,
        prediction_type: str = "logits",
        noise_schedule: str = "log_linear",
        noise_eps: float = 1e-3,
        sigma_min: float = 1e-4,
        sigma_max: float = 20.0,
        time_base: float = 3.0,
        time_exponential: float = 100.0,
        solver: str = "tweedie",
        solver_options: dict[str, Any] | None = None,
        order: str = "random",
        count: str = "exact",
        schedule: str = "uniform",
        sampling_eps: float = 1e-4,
        corruption: str = "absorbing",
        rate_sigma: float = 6.0,
        q_sigma: float = 512.0,
        draws: str = "exact",
        confidence_temperature: float = 1.0,
        certainty: str = "untempered",
        block_length: int = 32,
        vocab_size: int | None = None,
        base_model: str | None = None,
        base_model_revision: str | None = None,
        format_version: int = FORMAT_VERSION,
        learned: bool = False,
        tensors_sha256: str | None = None,
    ):
        check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
        check_choice("certainty", certainty, CERTAINTIES)
        check_draws(draws, order, count, corruption, solver)
        check_choice("learned", learned, (True, False))
        check_number("mask_token_id", mask_token_id, integer=True, optional=True, low=0)
        check_number("block_length", block_length, integer=True, low=1)
        check_number("vocab_size", vocab_size, integer=True, optional=True, low=1)
        check_number("sampling_eps", sampling_eps, low=0, high=1, open_ends=True)
        check_number("confidence_temperature", confidence_temperature, low=0)
        check_number("format_version", format_version, integer=True, low=1)
        constants = {
            "noise_eps": noise_eps, "sigma_min": sigma_min, "sigma_max": sigma_max, "time_base": time_base,
            "time_exponential": time_exponential,
        }  # fmt: skip
        for name, value in {**constants, "rate_sigma": rate_sigma, "q_sigma": q_sigma}.items():
            check_number(name, value)
        check_text("base_model", base_model)
        check_text("base_model_revision", base_model_revision)
        if format_version > FORMAT_VERSION:
            raise ValueError(
                f"`format_version` {format_version} is newer than this library reads ({FORMAT_VERSION}):"
                " upgrade lsd_sampler."
            )
        self.noise = make_noise_schedule(noise_schedule, **constants)
        self._solver, self._order = SOLVERS[solver], ORDERS[order]
        self._options = self._solver.read_options(solver_options)
        if solver_options is not None:  # as JSON holds it, and a copy
            self.register_to_config(solver_options={name: self._options[name] for name in solver_options})
        self._reverse: Reverse | None = None
        if isinstance(self._solver, OwnStep) and order != "random":
            raise ValueError(
                f"`order` {order!r} has no meaning for the solver {solver!r}, which chooses positions itself."
            )
        check_count(
            count,
            schedule=(schedule, schedule == "uniform"),
            solver=(solver, self._solver.distillable),
            corruption=(corruption, CORRUPTIONS[corruption].absorbing),
        )
        if not CORRUPTIONS[corruption].absorbing:
            for argument, value, is_plain in (
                ("solver", solver, self._solver.distillable), ("order", order, order == "random")
            ):  # fmt: skip
                if not is_plain:
                    raise ValueError(
                        f"`{argument}` {value!r} is for absorbing noise; under {corruption} noise all tokens move."
                    )
            if corruption == "gaussian" and prediction_type == "log_score":
                raise ValueError(
                    "`prediction_type` 'log_score' cannot be used under gaussian noise: the last step needs the"
                    " probabilities of the clean token, which scores do not tell there. Use 'logits'."
                )
            self._reverse = Reverse(self.corruption, self.noise, self._solver, prediction_type)
        self._base_grid = GRIDS[schedule]
        # tensors do not travel in a config: from_config of a learned sampler gives the plain base solver
        self.register_to_config(learned=False, tensors_sha256=None, format_version=FORMAT_VERSION)
        self.learned_sampler = LearnedSampler()
        self.num_inference_steps: int | None = None
        self.timesteps: torch.Tensor = torch.empty(0)
        self.steps: LearnedSteps
        self._follows_amused = False
        self._ownership = Ownership()
        self._canvas: Canvas | None = None

    @property
    def corruption(self) -> Corruption:
        """The forward process.

        Raises:
            ValueError: if it needs a constant that the config lacks, such as `mask_token_id`.
        """
        if self._reverse is not None:
            return self._reverse.corruption
        names = ("mask_token_id", "vocab_size", "rate_sigma", "q_sigma")
        return make_corruption(self.config.corruption, **{name: self.config[name] for name in names})

    @property
    def skips_complete(self) -> bool:
        """Whether sequences may be complete at different steps, and need no network call from then on."""
        return isinstance(self._solver, OwnStep) and not self._solver.reads_known

    # ---- schedule ----

    @property
    def available_num_inference_steps(self) -> list[int] | None:
        """The numbers of steps that were learned, or `None` where any number can be had (step-error table, or nothing
        learned).
        """
        if self.learned_sampler.step_error is not None or not self.learned_sampler:
            return None
        return sorted(self.learned_sampler.steps)

    def can_do(self, num_inference_steps: int) -> bool:
        """Whether this sampler has numbers for so many steps."""
        step_error = self.learned_sampler.step_error
        if num_inference_steps in self.learned_sampler.steps or not self.learned_sampler:
            return True
        return step_error is not None and 1 <= num_inference_steps <= len(step_error.grid)

    def set_learned_sampler(self, learned_sampler: LearnedSampler) -> None:
        """Installs learned numbers.

        Raises:
            ValueError: if one of them is unusable.
        """
        learned_sampler.check("learned_sampler")
        if learned_sampler and not self._solver.distillable:
            raise ValueError(f"`solver` {self.config.solver!r} is a baseline, and nothing can be learned for it.")
        if learned_sampler and self.config.count in PUBLISHED_COUNTS:
            raise ValueError(
                f"`count` {self.config.count!r} fixes how many tokens each step reveals, so nothing can be learned for"
                f" it. Use one of {list(COUNTS)}."
            )
        self.learned_sampler = learned_sampler
        self.register_to_config(learned=bool(learned_sampler), tensors_sha256=None)

    def steps_for(self, num_inference_steps: int) -> LearnedSteps:
        """The numbers of the sampler with so many steps: learned, solved from the step-error table (with coefficients
        of the log-score interpolated between numbers of steps that were learned), or the plain base solver's.

        Raises:
            ValueError: if `num_inference_steps` is not positive, or this sampler has no numbers for it.
        """
        is_integer = isinstance(num_inference_steps, numbers.Integral) and not isinstance(num_inference_steps, bool)
        if not is_integer or num_inference_steps < 1:
            raise ValueError(f"`num_inference_steps` must be a positive integer, got {num_inference_steps!r}.")
        M = int(num_inference_steps)
        if M in self.learned_sampler.steps:
            return self.learned_sampler.steps[M]
        if self.learned_sampler.step_error is not None:
            counts, _ = self.learned_sampler.step_error.solve(M)
            steps = LearnedSteps.plain(grid_from_counts(counts, self.noise, self.config.sampling_eps))
            beta_M = interpolated_coefficients(self.learned_sampler.steps, steps.timesteps, self.noise)
            return replace(steps, log_score_coefficients=beta_M)
        if self.learned_sampler:
            raise ValueError(
                f"`num_inference_steps` must be one of {self.available_num_inference_steps}, which this sampler"
                f" learned, got {M}. Distil it for that number with `lsd-train --nfe`."
            )
        return LearnedSteps.plain(self._calls(M)[0])

    def _calls(self, num_calls: int) -> tuple[torch.Tensor, list[int]]:
        grid = functools.partial(self._base_grid, eps=self.config.sampling_eps)
        return self._solver.calls(grid, num_calls, self._options)

    def set_timesteps(
        self,
        num_inference_steps: int,
        *args: Any,
        device: str | torch.device | None = None,
        temperature: float | tuple[float, float] | None = None,
        block_length: int | None = None,
    ) -> None:
        """Sets `timesteps`: the M times, float32 and decreasing in (0, 1], at which the network is called.

        The last step reveals everything that is left, so the number of network calls is `num_inference_steps`.

        Args:
            num_inference_steps (`int`): M.
            args: `device`, or `temperature` and `device`, as pipelines pass them by position.
            device (`str` or `torch.device`, *optional*): where `timesteps` shall be.
            temperature (`float` or a pair, *optional*): Gumbel noise of orders that look at the logits, in the first
                and last step (a number falls to 0.01); others need none. Default: the config's, to 0.
            block_length (`int`, *optional*): says that a pipeline generates block by block, each by this schedule. The
                last masked position of a block then waits for the last step, so that a block of fewer than M masked
                positions takes M calls too (with exact counts).

        Raises:
            SchedulerInUse: if another thread is in the middle of a generation.
            ValueError: if an argument is out of range, this sampler has no numbers for so many steps, or aMUSEd's
                pipelines were called with a `strength` that leaves none of them.
        """
        device, temperature = read_positional(args, device, temperature)
        check_number("block_length", block_length, integer=True, optional=True, low=1)
        steps = self.steps_for(num_inference_steps)
        if not bool((steps.timesteps[:-1].float().diff() < 0).all()):
            raise ValueError(f"`num_inference_steps` {num_inference_steps} is too many: times coincide in float32.")
        annealed = (self.config.confidence_temperature, 0.0) if temperature is None else temperature
        caller = caller_of("set_timesteps")
        if follows_amused(args):
            check_strength(num_inference_steps, caller)
        with self._ownership.beginning(caller):
            self._follows_amused = follows_amused(args)
            self._position_temperatures = position_temperatures(annealed, num_inference_steps)
            self._in_blocks = block_length is not None
            self._use(steps)
            self.num_inference_steps = num_inference_steps
            self.timesteps = steps.timesteps[:-1].to(device=device, dtype=torch.float32)
            self._times = self.timesteps.tolist()
            self._canvas = None

    def _use(self, steps: LearnedSteps) -> None:
        t, s = steps.timesteps[:-1], steps.timesteps[1:]
        self.steps = steps
        # of a normalised denoiser: the same for all positions; the last step reveals all
        probabilities = steps.score_coefficients * self._solver.reveal_probability(self.noise, t, s)
        weights = steps.score_coefficients * self._solver.score_weight(self.noise, t, s)
        self._plan = StepPlan(
            self.noise,
            self.config.prediction_type,
            self.config.count,
            steps,
            reveal_probabilities=[*probabilities.clamp(0, 1).tolist()[:-1], 1.0],
            score_weights=weights.tolist(),
            position_temperatures=self._position_temperatures,
            places=self._calls(len(t))[1],
            in_blocks=self._in_blocks,
            options=self._options,
        )

    # ---- one step ----

    def step(
        self,
        model_output: ModelOutput,
        timestep: float | int | torch.Tensor,
        sample: torch.Tensor,
        *,
        temperature: float = 1.0,
        top_p: float | None = None,
        top_k: int | None = None,
        sampling_method: str = "auto",
        mask_token_id: int | None = FROM_CONFIG,
        starting_mask_ratio: float | torch.Tensor | None = None,
        threshold: float | None = None,
        editing_threshold: float | None = None,
        minimal_topk: int | None = None,
        prompt_mask: torch.Tensor | None = None,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> LSDSchedulerOutput | tuple[torch.Tensor, torch.Tensor | None]:
        """Reveals some masked positions: one step of the reverse process.

        Args:
            model_output (`torch.Tensor` of shape `(batch_size, seq_len, vocab_size)` or
                `(batch_size, vocab_size, height, width)`): the denoiser's logits or log-scores, in any floating dtype.
                May hold a column for the mask; it is never drawn. Or
                [`~lsd_sampler.sampling.logit_rows.DeferredLogits`].
            timestep (`float`, `int` or 0-d `torch.Tensor`): one of `timesteps`; or, an integer, the index of the step.
            sample (`torch.LongTensor` of shape `(batch_size, seq_len)` or `(batch_size, height, width)`): the canvas.
            temperature (`float`, defaults to 1.0): of the token draws, on top of what was learned; 0 takes the most
                likely token.
            top_p (`float`, *optional*): draw from the fewest tokens whose probabilities, at this temperature, add up
                to more than this, in (0, 1]. (Solvers of ReMDM go by its authors' rule: they add up to at most this.)
            top_k (`int`, *optional*): draw from the k most likely tokens. Like `top_p` it costs a sort of the rows
                that are revealed, no others.
            sampling_method (`str`, defaults to `"auto"`): `"greedy"` is `temperature` 0.
            mask_token_id (`int`, *optional*): the mask, where the config does not say.
            starting_mask_ratio: not needed: counts are shares of the positions that were masked at the start.
            threshold, editing_threshold, minimal_topk, prompt_mask: accepted for `LLaDA2Pipeline` and without effect;
                the schedule (or a baseline's own rule) says how many tokens a step reveals, and what is given stays.
            generator (`torch.Generator`, or a list of `batch_size` of them, *optional*): read when a fresh canvas
                arrives (and at each step by orders that look at the logits, and baselines). With a list, row i depends
                on generator i alone.
            return_dict (`bool`, defaults to `True`): whether to return [`LSDSchedulerOutput`] or a tuple.

        Raises:
            SchedulerInUse: if another thread uses this scheduler; each needs a copy of its own.
            ValueError: for shapes or dtypes that do not fit, a missing `mask_token_id`, a vocabulary mismatch, a time
                that is not among `timesteps`, or logits that hold NaN or +inf, or only -inf, in a row that is read.
        """
        if self.num_inference_steps is None:
            raise ValueError("Call `set_timesteps(num_inference_steps)` before `step`.")
        draws = DrawOptions(draw_temperature(temperature, sampling_method), top_p, top_k)
        with self._ownership.stepping(caller_of("step")), torch.no_grad():
            mask = resolve_mask(mask_token_id, self.config.mask_token_id, has_mask=self._reverse is None)
            out = self._step(model_output, timestep, sample, mask, draws, generator)
        return out if return_dict else (out.prev_sample, None)

    def _step(
        self,
        model_output: ModelOutput,
        timestep: Any,
        sample: torch.Tensor,
        mask: int,
        draws: DrawOptions,
        generator: Generators,
    ) -> LSDSchedulerOutput:
        k = step_index(timestep, self._times)
        logits_BLV, sample_BL = as_rows(model_output, sample, mask, self.config.vocab_size)
        masked_BL = sample_BL == mask if self._reverse is None else torch.ones_like(sample_BL, dtype=torch.bool)
        is_last, canvas = k == len(self._times) - 1, self._canvas
        if canvas is None or not canvas.goes_on(k, masked_BL, generator):
            check_known_tokens(sample_BL if self._reverse else sample_BL[~masked_BL], logits_BLV.shape[-1])
            if not bool(masked_BL.any()):
                logger.warning("Nothing on the canvas is masked. Is `mask_token_id` %s the pipeline's?", mask)
            # tokens that move again and again have no noise of their own
            order = self._order if self._reverse is None else None
            canvas = Canvas.draw(masked_BL, order, tuple(sample.shape[1:]), generator, start=k)
        canvas.last = k
        self._canvas = None if is_last else canvas  # no state outlives a generation
        tempered = self.config.certainty == "tempered"
        x = StepInput(k, is_last, logits_BLV, sample_BL, masked_BL, mask, canvas, draws, generator, tempered)
        prev_BL, probability_BL = self._advance(x)
        left_BL = prev_BL == mask
        self.masks_left = left_BL.any()
        # what is complete in blocks is a block
        if is_last and not self._in_blocks:
            self._ownership.finish()
        prev_sample = prev_BL.view(sample.shape)
        return LSDSchedulerOutput(
            prev_sample,
            transfer_index=(masked_BL & ~left_BL).view(sample.shape),
            editing_transfer_index=(~masked_BL & (prev_BL != sample_BL)).view(sample.shape),
            sampled_tokens=prev_sample,
            sampled_probs=probability_BL.view(sample.shape),
            pred_logits=model_output,
        )

    def _advance(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        """The next canvas, and the probability of each token revealed in it. Both `(B, L)`."""
        if isinstance(self._solver, OwnStep):
            return self._solver.advance(x, self._plan)
        if self.config.draws != "exact":
            return race(x, self._plan, self.config.draws)
        if self._reverse is None:
            return reveal(self._order, x, self._plan)
        phi, beta = (float(c[x.k]) for c in (self.steps.score_coefficients, self.steps.log_score_coefficients))
        t, s = self._plan.interval(x.k)
        return move_tokens(self._reverse, x, t, 0.0 if x.is_last else s, phi, beta)

    def add_noise(
        self,
        original_samples: torch.Tensor,
        timesteps: float | torch.Tensor,
        generator: Generators = None,
    ) -> torch.Tensor:
        """The forward process: corrupts each token; absorbing noise masks it with probability `1 - alpha(t)`.

        Args:
            original_samples (`torch.LongTensor` of shape `(batch_size, ...)`): token ids.
            timesteps (`float`, or `torch.Tensor` of shape `()` or `(batch_size,)`): times in [0, 1]. From aMUSEd's
                pipelines, which set a temperature by position, one of `timesteps` means the state after that step, as
                this sampler has it: the state before the first, for the last of them.
            generator: as for `step`.

        Raises:
            ValueError: if `mask_token_id` is missing or a time lies outside [0, 1].
        """
        corruption, B = self.corruption, original_samples.shape[0]
        times = torch.as_tensor(timesteps, dtype=torch.float64, device=original_samples.device).reshape(-1)
        if times.numel() not in (1, B) or not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError(f"`timesteps` must be one time in [0, 1], or one per row, got {timesteps}.")
        total, k = self.noise.total(times), self._step_of(timesteps)
        if k is not None:
            total = self._noise_before((k + 1) % len(self._times)).to(times)
        flat = original_samples.reshape(B, -1)
        return corruption.corrupt(flat, total, generator).view_as(original_samples)

    def _step_of(self, timesteps: Any) -> int | None:
        """The step that a pipeline of aMUSEd means by one of `timesteps`; None where a time is meant."""
        if not (self._follows_amused and isinstance(timesteps, torch.Tensor) and timesteps.ndim == 0):
            return None
        return next((k for k, t in enumerate(self._times) if abs(t - float(timesteps)) <= 1e-6), None)

    def _noise_before(self, k: int) -> torch.Tensor:
        """Total noise on the canvas as this sampler has it at the start of step k. `(1,)`."""
        if self._reverse is not None:
            return self.noise.total(self.steps.timesteps[k : k + 1])
        return -torch.log1p(-torch.tensor([self._plan.masked_before(k)], dtype=torch.float64))

    def sample_prior(
        self, batch_size: int, seq_len: int, generator: Generators = None, device: torch.device | str = "cpu"
    ) -> torch.Tensor:
        """The canvas that a generation begins with: masks, or random tokens. `(batch_size, seq_len)`."""
        return self.corruption.sample_prior(batch_size, seq_len, generator, device)
