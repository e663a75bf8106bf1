"""LSDScheduler: the reverse process of a masked discrete diffusion model in a few learned steps."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config

# diffusers reloads a saved pipeline only if `SchedulerMixin` is in the namespace of the scheduler's module
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: F401
from diffusers.utils.outputs import BaseOutput

from .learned.sampler_files import check_description
from .learned.sampler_numbers import SamplerNumbers
from .sampling.canvas import Canvas, DrawOptions, StepInput, as_rows, check_known_tokens
from .sampling.certainty import check_certainty
from .sampling.corruptions import check_states
from .sampling.diffusers_calls import (
    FROM_CONFIG,
    BlockPipelineMethods,
    check_block_length,
    check_strength,
    draw_temperature,
    follows_amused,
    position_temperatures,
    read_positional,
    resolve_mask,
    step_index,
)
from .sampling.draws import Generators
from .sampling.forward_process import ForwardProcess
from .sampling.learned_numbers import LearnedSampler, LearnedSteps
from .sampling.logit_rows import ModelOutput
from .sampling.noise import make_noise_schedule
from .sampling.ownership import Ownership, caller_of
from .sampling.plan import StepPlan, check_prediction_type
from .sampling.rules import make_step_rule
from .sampling.schedules import base_grid
from .sampling.solvers import SOLVERS
from .support.validation import check_number


# Shape suffixes: B batch, L positions, V vocabulary, R chosen rows; M steps. t = 1 is all masked, t = 0 is data.

logger = logging.getLogger(__name__)


@dataclass
class LSDSchedulerOutput(BaseOutput):
    """Output of [`LSDScheduler.step`].

    Args:
        prev_sample (`torch.LongTensor` of the shape of `sample`): the canvas for the next step, less masked.
        pred_original_sample (*optional*): always None, because computing it would read every row.
        transfer_index (`torch.BoolTensor` of that shape, *optional*): what this step revealed.
        editing_transfer_index (`torch.BoolTensor` of that shape, *optional*): which known tokens this step changed or
            masked again; only baselines do, and only what they revealed themselves.
        sampled_tokens (`torch.LongTensor` of that shape, *optional*): the same as `prev_sample`.
        sampled_probs (`torch.FloatTensor` of that shape, *optional*): the probability with which a token that this
            step revealed was drawn, 0 elsewhere.
        pred_logits (*optional*): `model_output` as given.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None
    transfer_index: torch.Tensor | None = None
    editing_transfer_index: torch.Tensor | None = None
    sampled_tokens: torch.Tensor | None = None
    sampled_probs: torch.Tensor | None = None
    pred_logits: ModelOutput | None = None


class LSDScheduler(BlockPipelineMethods, ForwardProcess, SamplerNumbers):
    """Few-step sampler for masked discrete diffusion models, after "Learnable Sampler Distillation"
    (https://huggingface.co/papers/2509.19962).

    All randomness is drawn once per position when a fresh canvas arrives: `u` decides when a position is revealed, `v`
    which token it gets (inverse CDF in float64). So one generator gives related samples at every number of steps, and
    a step reads only the rows of logits that it reveals. (Orders that look at the logits, and baselines, are
    exceptions: they draw anew at every step, and most read all masked rows.)

    A learned sampler holds, for each number of steps M, `timesteps` (M + 1), `score_coefficients` (M: multiply the
    score, that is, how many tokens a step reveals) and `log_score_coefficients` (M: multiply the log-score; an inverse
    temperature), or a step-error table from which the best timesteps follow for any M. For the order `"adaptive"` it
    holds what decides the positions of each step, and how strongly these depend on each other. They come with
    [`from_pretrained`] or [`~lsd_sampler.distill`]. Without them, as after `LSDScheduler(...)` or `from_config`, it is
    the plain base solver: coefficients 1 on the base grid.

    It replaces the scheduler in diffusers' unchanged pipelines of masked models: `AmusedPipeline`, its image-to-image
    and inpainting siblings, and `LLaDA2Pipeline`, where the schedule holds for each block. It serves one thread at a
    time; give each thread a copy (`copy.deepcopy`).

    Args:
        mask_token_id (`int`, *optional*): id of the mask; needed before `step`. A column of that index is never drawn.
        prediction_type (`str`, defaults to `"logits"`): `"logits"` (normalised denoiser: logits or log-probabilities
            of the clean token) or `"log_score"` (SEDD: log concrete score).
        noise_schedule (`str`, defaults to `"log_linear"`): `"log_linear"`, `"cosine"`, `"cosine_squared"`,
            `"cosine_offset"` or `"cosine_squared_offset"` (constant `noise_eps`), `"geometric"` or `"linear"`
            (`sigma_min`, `sigma_max`), or `"exponential"` (`time_base`, `time_exponential`).
        solver (`str`, defaults to `"tweedie"`): `"tweedie"` or `"euler"`; or a baseline that chooses positions itself
            and ignores `order` and `count` (see [`~lsd_sampler.sampling.solvers`]).
        solver_options (`dict`, *optional*): constants of such a baseline, by name; the others have their defaults.
        order (`str`, defaults to `"random"`): which masked positions come first: `"random"`, `"halton"` (far apart),
            `"halton_maskgit"` (that of Halton-MaskGIT), or those of which the network is surest: by the drawn token
            (`"confidence"`, as MaskGIT, or `"probability"`, as Dream; only their noise differs), the lead of the most
            likely one (`"margin"`), or `"entropy"`; or `"adaptive"`, which positions and how many as learned for a
            model (`"halton"` until something is learned); or level by level: `"dus"` (a dilated grid) or
            `"bisection"` (midpoints).
        count (`str`, defaults to `"exact"`): `"exact"` (`round(alpha L)` of L masked positions are known after a step
            of `tweedie`; a coefficient or another solver scales what the step adds) or `"bernoulli"` (independent
            reveals, as in the CTMC). `"llada"` and `"dream"` reveal as many tokens as the code of LLaDA (equally many
            a step, the remainder in the first steps) and of Dream (shares of what is masked, rounded down in float32;
            its last time is a `sampling_eps` of 1e-3). `"levels"` reveals one level of the orders `"dus"` and
            `"bisection"` in each step, and is done when there are no more. These need the schedule `"uniform"`, and
            nothing is learned for them.
        schedule (`str`, defaults to `"uniform"`): base grid, used if nothing was learned: `"uniform"`, `"cosine"` or
            `"arccos"`.
        sampling_eps (`float`, defaults to 1e-4): the last time of the base grid.
        corruption (`str`, defaults to `"absorbing"`): what noise does to a token: `"absorbing"` (masks it),
            `"uniform"` (replaces it by any), or `"gaussian"` (moves it to a near level; constants `rate_sigma`,
            `q_sigma`; not with `"log_score"`). Without a mask, `mask_token_id` stays None and `vocab_size` must be
            given; `order` and `count` have no meaning; and the last step takes away all noise that is left.
        draws (`str`, defaults to `"exact"`): `"exact"`; or `"float32_eps1e-6"` or `"float32_eps1e-10"`, as in released
            code, whose single precision lowers the temperature and the number of reveals; see
            [`~lsd_sampler.sampling.released_draws`].
        confidence_temperature (`float`, defaults to 1.0): Gumbel noise of the orders that look at the logits, in the
            first step; it falls to 0 linearly. (`set_timesteps` can override it.)
        certainty (`str`, defaults to `"untempered"`): the probabilities by which orders and solvers judge how sure the
            denoiser is of a position: its own (`"untempered"`, as in LLaDA's and Fast-dLLM's code), or those that
            tokens are drawn with, after temperature, `top_p`, `top_k` and log-score coefficients (`"tempered"`, as in
            Dream's and LLaDA2's code; at a low temperature or `top_p` all positions look sure).
        minimal_gap (`int`, defaults to 0): the least distance between the positions that one step reveals (DUS's
            filter of other samplers, https://huggingface.co/papers/2506.19037), for orders that rank positions by the
            logits and solvers that go by confidence; 0 for none. It shrinks to 2 as the canvas fills, and what it
            holds back waits for a later step.
        block_length (`int`, defaults to 32): tokens that `LLaDA2Pipeline` generates at a time, unless its call says
            otherwise.
        vocab_size (`int`, *optional*): mask excluded; `model_output` must then have that many columns, or one more.
        base_model, base_model_revision (`str`, *optional*): the denoiser that the numbers were learned for.
        format_version (`int`), learned (`bool`), tensors_sha256 (`str`): about the files; set by the library.

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
        minimal_gap: int = 0,
        block_length: int = 32,
        vocab_size: int | None = None,
        base_model: str | None = None,
        base_model_revision: str | None = None,
        format_version: int = 1,
        learned: bool = False,
        tensors_sha256: str | None = None,
    ):
        for check in (check_prediction_type, check_certainty, check_states, check_block_length, check_description):
            check(self.config)
        self.noise = make_noise_schedule(
            noise_schedule, noise_eps=noise_eps, sigma_min=sigma_min, sigma_max=sigma_max, time_base=time_base,
            time_exponential=time_exponential,
        )  # fmt: skip
        self.rule = make_step_rule(self.config, self.noise)
        self._solver, self._base_grid = SOLVERS[solver], base_grid(self.config)
        self._options = self._solver.read_options(solver_options)
        if solver_options is not None:  # as JSON holds it, and a copy
            self.register_to_config(solver_options={name: self._options[name] for name in solver_options})
        # tensors do not travel in a config: from_config of a learned sampler gives the plain base solver
        self.set_learned_sampler(LearnedSampler())
        self.num_inference_steps: int | None = None
        self.timesteps: torch.Tensor = torch.empty(0)
        self._follows_amused, self._goes_on = False, False
        self._ownership = Ownership()
        self._canvas: Canvas | None = None

    @property
    def skips_complete(self) -> bool:
        """Whether sequences may be complete at different steps, and need no network call from then on."""
        return self.rule.skips_complete

    @property
    def reads_shadow(self) -> bool:
        """Whether `step` needs `shadow_output`."""
        return self.rule.reads_shadow

    def set_timesteps(
        self,
        num_inference_steps: int,
        *args: Any,
        device: str | torch.device | None = None,
        temperature: float | tuple[float, float] | None = None,
        block_length: int | None = None,
        goes_on: bool = False,
    ) -> None:
        """Sets `timesteps`: the M times, float32 and decreasing in (0, 1], at which the network is called.

        The last step reveals everything that is left, so the number of network calls is `num_inference_steps`.

        Args:
            num_inference_steps (`int`): M.
            args: `device`, or `temperature` and `device`, as pipelines pass them by position.
            device (`str` or `torch.device`, *optional*): the device of `timesteps`.
            temperature (`float` or a pair, *optional*): Gumbel noise of orders that look at the logits, in the first
                and last step (a number falls to 0.01); others need none. Default: the config's, to 0.
            block_length (`int`, *optional*): says that a pipeline generates block by block, each by this schedule. The
                last masked position of a block then waits for the last step, so that a block of fewer than M masked
                positions takes M calls too (with exact counts).
            goes_on (`bool`, defaults to `False`): whether the function that makes the steps may set up more
                generations after this one. No other thread can begin one in between.

        Raises:
            SchedulerInUse: if another thread is in the middle of a generation.
            ValueError: if an argument is out of range, this sampler has no numbers for `num_inference_steps`, or an
                aMUSEd pipeline was called with a `strength` that leaves no step.
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
        with self._ownership.beginning(caller, goes_on):
            self._follows_amused, self._goes_on = follows_amused(args), goes_on
            self.plan = StepPlan(
                self._solver,
                self.noise,
                self.config.prediction_type,
                self.config.count,
                steps,
                position_temperatures(annealed, num_inference_steps),
                places=self._calls(len(steps.timesteps) - 1)[1],
                in_blocks=block_length is not None,
                options=self._options,
                minimal_gap=self.config.minimal_gap,
                dependence=self.learned_sampler.dependence,
            )
            self.num_inference_steps = num_inference_steps
            self.timesteps = steps.timesteps[:-1].to(device=device, dtype=torch.float32)
            self._times = self.timesteps.tolist()
            self._canvas = None

    @property
    def steps(self) -> LearnedSteps:
        """The numbers that `set_timesteps` took."""
        return self.plan.steps

    def use_steps(self, steps: LearnedSteps) -> None:
        """Goes on with other numbers for equally many steps: for trainers, which change them during a generation."""
        self.plan = replace(self.plan, steps=steps)

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
        shadow_output: ModelOutput | None = None,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> LSDSchedulerOutput | tuple[torch.Tensor, torch.Tensor | None]:
        """Reveals some masked positions: one step of the reverse process.

        Args:
            model_output (`torch.Tensor` of shape `(batch_size, seq_len, vocab_size)` or
                `(batch_size, vocab_size, height, width)`): the denoiser's logits or log-scores, in any floating dtype.
                May hold a column for the mask; it is never drawn. May also be
                [`~lsd_sampler.sampling.logit_rows.DeferredLogits`].
            timestep (`float`, `int` or 0-d `torch.Tensor`): one of `timesteps`, or the index of the step, an integer.
            sample (`torch.LongTensor` of shape `(batch_size, seq_len)` or `(batch_size, height, width)`): the canvas.
            temperature (`float`, defaults to 1.0): of the token draws, on top of what was learned; 0 takes the most
                likely token.
            top_p (`float`, *optional*): draw from the fewest tokens whose probabilities, at this temperature, add up
                to more than this, in (0, 1]. (Solvers of ReMDM go by its authors' rule: they add up to at most this.)
            top_k (`int`, *optional*): draw from the k most likely tokens. Like `top_p` it costs a sort of the rows
                that are revealed, no others.
            sampling_method (`str`, defaults to `"auto"`): `"greedy"` is `temperature` 0.
            mask_token_id (`int`, *optional*): the mask, if the config does not give it.
            starting_mask_ratio: ignored, because counts are shares of the positions that were masked at the start.
            threshold, editing_threshold, minimal_topk, prompt_mask: accepted for `LLaDA2Pipeline` and ignored. The
                schedule (or a baseline's own rule) says how many tokens a step reveals, and given tokens stay.
            shadow_output (as `model_output`, *optional*): the prediction of each position from all tokens but its own,
                for solvers that read it (`reads_shadow`).
            generator (`torch.Generator`, or a list of `batch_size` of them, *optional*): read when a fresh canvas
                arrives (and at each step by orders that look at the logits, and by baselines). With a list, row i
                depends on generator i alone.
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
            mask = resolve_mask(mask_token_id, self.config.mask_token_id, has_mask=self.rule.has_mask)
            out = self._step(model_output, timestep, sample, mask, draws, generator, shadow_output)
        return out if return_dict else (out.prev_sample, None)

    def _step(
        self,
        model_output: ModelOutput,
        timestep: Any,
        sample: torch.Tensor,
        mask: int,
        draws: DrawOptions,
        generator: Generators,
        shadow_output: ModelOutput | None,
    ) -> LSDSchedulerOutput:
        k = step_index(timestep, self._times)
        logits_BLV, sample_BL = as_rows(model_output, sample, mask, self.config.vocab_size)
        masked_BL = sample_BL == mask if self.rule.has_mask else torch.ones_like(sample_BL, dtype=torch.bool)
        is_last, canvas = k == len(self._times) - 1, self._canvas
        if canvas is None or not canvas.goes_on(k, masked_BL, generator):
            check_known_tokens(sample_BL[~masked_BL] if self.rule.has_mask else sample_BL, logits_BLV.shape[-1])
            if not bool(masked_BL.any()):
                logger.warning("Nothing on the canvas is masked. Is `mask_token_id` %s the pipeline's?", mask)
            # a token that may move at every step has no noise of its own
            keys = self.rule.keys if self.rule.has_mask else None
            canvas = Canvas.draw(masked_BL, keys, tuple(sample.shape[1:]), generator, start=k)
        canvas.last = k
        self._canvas = None if is_last else canvas  # no state outlives a generation
        tempered = self.config.certainty == "tempered"
        shadow_BLV = None
        if shadow_output is not None:
            shadow_BLV, _ = as_rows(shadow_output, sample, mask, self.config.vocab_size)
        x = StepInput(
            k, is_last, logits_BLV, sample_BL, masked_BL, mask, canvas, draws, generator, tempered, shadow_BLV
        )
        prev_BL, probability_BL = self.advance(x)
        left_BL = prev_BL == mask
        self.masks_left = left_BL.any()
        # with blocks, it is the block that is complete
        if is_last and not self.plan.in_blocks and not self._goes_on:
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

    def advance(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        """The next canvas, and the probability of each token revealed in it, both `(B, L)`. A scheduler that watches
        a pipeline overrides this.
        """
        return self.rule.advance(x, self.plan)
