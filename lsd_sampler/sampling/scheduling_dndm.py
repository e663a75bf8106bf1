"""DNDM and DNDM-k for translation, as their authors published them (https://huggingface.co/papers/2312.09193).

Shape suffixes: B rows, N columns, V vocabulary, K calls.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# diffusers reloads a saved pipeline only if `SchedulerMixin` is in the namespace of the scheduler's module
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput

from ..support.hub import admit_to_pipelines
from ..support.validation import check_choice, check_number
from .draws import Generators
from .transition_times import NO_TIME, draw_continuous_times, draw_times, times_of_calls


SPECIAL_LOGIT = -30.0
"""What the logits of special tokens become under multinomial noise."""

_NEVER_LOWEST = 1000.0


@dataclass
class DNDMSchedulerOutput(BaseOutput):
    """Output of [`DNDMScheduler.step`].

    Args:
        prev_sample (`torch.LongTensor` of shape `(batch_size, seq_len)`): the canvases for the next call.
        noise (`torch.BoolTensor` of that shape): which of their tokens are still noise.
        scores (`torch.FloatTensor` of that shape): log-probability of each token when it was revealed.
    """

    prev_sample: torch.Tensor
    noise: torch.Tensor
    scores: torch.Tensor


class DNDMScheduler(SchedulerMixin, ConfigMixin):
    r"""
    Samples translations as the released code of DNDM does, for models of absorbing and of multinomial noise.

    Each column of the batch has a transition time, drawn before the generation. The network is called once for each
    distinct time, the largest first. The most likely token is always taken. Special tokens are never noise, but they
    may be predicted, and then stay. (The solvers `dndm` and `dndm_k` of [`LSDScheduler`] draw tokens, and times for
    each row.)

    Args:
        mask_token_id (`int`, *optional*): `<unk>`, which absorbing noise turns tokens into; None: multinomial noise.
        training_steps (`int`, defaults to 50): S, the number of steps of training.
        corruption (`str`, defaults to `"absorbing"`): or `"uniform"`, for multinomial noise.
        top_k (`bool`, defaults to `True`): DNDM-k, whose times decide how many tokens are known: those with the
            highest scores. False: DNDM, which reveals each column at its own time (`--not-topk`).
        weights (`str`, defaults to `"beta"`): law of the times, `"linear_alpha"`, `"linear_lambda"`, `"cosine"` or
            `"beta"`.
        alpha, beta (`float`): constants of the Beta law.
        continuous (`bool`, defaults to `False`): DNDM-C: times are draws of Beta(`alpha`, `beta`) times `time_scale`,
            there is a call for each column, and the network is given the time itself.
        time_scale (`float`, *optional*): default: S, as in the released sampler. (A network that was trained with
            `--time-sampler-type continuous` saw times in [0, 1], which asks for 1.)
        special_token_ids (`list[int]`): tokens that are never noise.

    Raises:
        ValueError: for an option out of range.
    """

    order = 1

    if TYPE_CHECKING:  # diffusers types it too loosely

        @property
        def config(self) -> Any: ...

    @register_to_config
    def __init__(
        self,
        mask_token_id: int | None = 3,
        training_steps: int = 50,
        corruption: str = "absorbing",
        top_k: bool = True,
        weights: str = "beta",
        alpha: float = 3.0,
        beta: float = 3.0,
        continuous: bool = False,
        time_scale: float | None = None,
        special_token_ids: list[int] | None = None,
    ):
        check_number("training_steps", training_steps, integer=True, low=1)
        check_number("mask_token_id", mask_token_id, integer=True, low=0, optional=True)
        check_number("time_scale", time_scale, low=0, optional=True)
        check_choice("weights", weights, ("linear_alpha", "linear_lambda", "cosine", "beta"))
        check_choice("corruption", corruption, ("absorbing",) if mask_token_id is not None else ("uniform",))
        for name, value in (("top_k", top_k), ("continuous", continuous)):
            check_choice(name, value, (False, True))
        for name, value in (("alpha", alpha), ("beta", beta)):
            check_number(name, value, low=1e-3)
        self.register_to_config(special_token_ids=[*(special_token_ids or (0, 1, 2))])
        self.timesteps: torch.Tensor = torch.empty(0)
        self.num_inference_steps: int | None = None
        self.transition_times: torch.Tensor | None = None
        self._replayed: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: self.config[name] for name in ("weights", "alpha", "beta", "training_steps")}

    # ---- before a generation ----

    def replay(self, transition_times: torch.Tensor | None = None, first_canvas: torch.Tensor | None = None) -> None:
        """Makes the next generation of a pipeline begin with these, in place of what it would draw.

        Args:
            transition_times (`torch.Tensor` of shape `(num_columns,)`, *optional*): a time for each column.
            first_canvas (`torch.LongTensor` of shape `(num_rows, num_columns)`, *optional*): a canvas for each
                candidate of each source, in their order.
        """
        self._replayed = transition_times, first_canvas

    def take_replayed(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The times and canvases that were given to `replay`, once."""
        replayed, self._replayed = self._replayed, (None, None)
        return replayed

    def draw_transition_times(
        self, num_rows: int, num_columns: int, num_inference_steps: int, generator: Generators = None
    ) -> torch.Tensor:
        """Times of columns, `(num_rows, num_columns)`: int64, or float32 if they are continuous.

        Args:
            num_rows, num_columns (`int`): how many.
            num_inference_steps (`int`): T; continuous times have none.
            generator (`torch.Generator`, or a list of `num_rows` of them, *optional*): makes them reproducible.
        """
        if self.config.continuous:
            times = draw_continuous_times(num_rows, num_columns, self.config.alpha, self.config.beta, generator)
            return times * self._time_scale
        return draw_times(num_rows, num_columns, num_inference_steps, self._options, generator)

    @property
    def _time_scale(self) -> float:
        return float(self.config.training_steps if self.config.time_scale is None else self.config.time_scale)

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: str | torch.device | None = None,
        *,
        transition_times: torch.Tensor | None = None,
        num_columns: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the transition times, and `timesteps`: the network's time at each call, `(num_calls,)`, or `(num_calls,
        num_rows)` if rows have times of their own (-1 where a row needs no further call).

        Args:
            num_inference_steps (`int`): T, the number of steps that times are drawn from. There is a call for each
                distinct time, so at most T, and at most one for each column.
            device (`str` or `torch.device`, *optional*): the device of `timesteps`.
            transition_times (`torch.Tensor` of shape `(num_columns,)` or `(num_rows, num_columns)`, *optional*): times
                of the columns, from 0 to T, or from 0 up if they are continuous; -1 for none. Default: drawn.
            num_columns (`int`, *optional*): number of columns, if they are to be drawn.
            generator (`torch.Generator`, *optional*): draws them.

        Raises:
            ValueError: if an argument is missing or out of range.
        """
        check_number("num_inference_steps", num_inference_steps, integer=True, low=1)
        if transition_times is None:
            check_number("num_columns", num_columns, integer=True, low=1)
            assert num_columns is not None
            transition_times = self.draw_transition_times(1, num_columns, num_inference_steps, generator)[0]
        self._check_times(transition_times, num_inference_steps)
        self.num_inference_steps, self.transition_times = int(num_inference_steps), transition_times.to(device)
        self._time_BN = torch.atleast_2d(self.transition_times)
        self._call_BK = times_of_calls(self._time_BN, distinct=not self.config.continuous)
        timesteps_KB = self._network_times(self._call_BK).mT
        self.timesteps = timesteps_KB[:, 0] if transition_times.ndim == 1 else timesteps_KB
        self.noise: torch.Tensor | None = None
        self._calls_made = 0

    def _check_times(self, times: torch.Tensor, num_steps: int) -> None:
        most = torch.inf if self.config.continuous else num_steps
        fits = times.ndim in (1, 2) and times.numel() and bool(((times >= 0) & (times <= most) | (times == -1)).all())
        if not fits or not bool((times != NO_TIME).any(-1).all()):
            raise ValueError(
                "`transition_times` must have shape (num_columns,) or (num_rows, num_columns), with times from 0 to"
                f" {most} (-1 for none), got {times}."
            )

    def _network_times(self, time: torch.Tensor) -> torch.Tensor:
        if self.config.continuous:
            return time
        assert self.num_inference_steps is not None
        # in float32 and in this order, as in the authors' code: some quotients are rounded below an integer
        scaled = (time.float() / self.num_inference_steps * self.config.training_steps).long()
        return torch.where(time == NO_TIME, NO_TIME, scaled)

    # ---- one call ----

    def log_probs(self, model_output: torch.Tensor) -> torch.Tensor:
        """The log-probabilities that a step goes by, float32 of the shape of the logits: without `<unk>` under
        absorbing noise; special tokens at a logit of -30 under multinomial noise.
        """
        logits = model_output.float()
        if self.config.mask_token_id is None:
            ids = torch.tensor(self.config.special_token_ids, device=logits.device)
            return logits.index_fill(-1, ids, SPECIAL_LOGIT).log_softmax(-1)
        mask = torch.tensor([self.config.mask_token_id], device=logits.device)
        return logits.index_fill(-1, mask, -torch.inf).log_softmax(-1)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | int | torch.Tensor,
        sample: torch.Tensor,
        *,
        return_dict: bool = True,
    ) -> DNDMSchedulerOutput | tuple[torch.Tensor]:
        """Goes on after a call of the network.

        Args:
            model_output (`torch.Tensor` of shape `(batch_size, seq_len, vocabulary)`): raw logits.
            timestep: the entry of `timesteps` that the network was given. Steps are made in their order.
            sample (`torch.LongTensor` of shape `(batch_size, seq_len)`): the canvases.
            return_dict (`bool`, defaults to `True`): whether to return [`DNDMSchedulerOutput`] or a tuple.

        Raises:
            ValueError: if `set_timesteps` was not called, all steps are made, or shapes do not fit.
        """
        k = self._check_step(model_output, timestep, sample)
        free_BN = ~torch.isin(sample, torch.tensor(self.config.special_token_ids, device=sample.device))
        if self.noise is None:
            self.noise, self.scores = free_BN, torch.zeros(sample.shape, device=sample.device)
        t_B1 = self._call_BK[:, k : k + 1].to(sample.device)
        score_BN, token_BN = self.log_probs(model_output).max(-1)
        if self.config.mask_token_id is None:  # a special token is certain, and stays
            score_BN, token_BN = score_BN.where(free_BN, 0.0), token_BN.where(free_BN, sample)
        noise_BN = self._still_noise(free_BN, score_BN, t_B1)
        revealed_BN = self.noise & ~noise_BN
        next_BN = torch.where(revealed_BN, token_BN, sample)
        next_score_BN = torch.where(revealed_BN, score_BN, self.scores)
        if self.config.top_k and self.config.mask_token_id is not None:
            next_BN = next_BN.masked_fill(noise_BN, self.config.mask_token_id)
            next_score_BN = next_score_BN.masked_fill(noise_BN, -torch.inf)
        goes_on_B1 = t_B1 != NO_TIME
        prev_BN = torch.where(goes_on_B1, next_BN, sample)
        self.scores = torch.where(goes_on_B1, next_score_BN, self.scores)
        self.noise = torch.where(goes_on_B1, noise_BN, self.noise)
        self._calls_made = k + 1
        return DNDMSchedulerOutput(prev_BN, self.noise, self.scores) if return_dict else (prev_BN,)

    def _still_noise(self, free_BN: torch.Tensor, score_BN: torch.Tensor, t_B1: torch.Tensor) -> torch.Tensor:
        """Which tokens are noise after the call at time t. `(B, N)`."""
        time_BN = self._time_BN.to(free_BN.device)
        later_BN = free_BN & (time_BN < t_B1) & (time_BN != NO_TIME)
        if not self.config.top_k:
            return later_BN
        return free_BN & lowest_scores(score_BN.masked_fill(~free_BN, _NEVER_LOWEST), later_BN.sum(-1))

    def _check_step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> int:
        if self.num_inference_steps is None:
            raise ValueError("Call `set_timesteps` before `step`.")
        k = self._calls_made
        if k >= len(self.timesteps):
            raise ValueError(f"All {k} steps are made: call `set_timesteps` before the next generation.")
        due = self.timesteps[k]
        if not torch.equal(torch.as_tensor(timestep, device=due.device).to(due.dtype), due):
            raise ValueError(f"`timestep` must be {due.tolist()}, that of step {k} of `timesteps`, got {timestep}.")
        columns = self._time_BN.shape[1]
        if sample.ndim != 2 or model_output.shape[:2] != sample.shape or sample.shape[1] != columns:
            raise ValueError(
                f"`model_output` and `sample` must have shapes (B, {columns}, V) and (B, {columns}), for the"
                f" {columns} columns that have times, got {tuple(model_output.shape)} and {tuple(sample.shape)}."
            )
        return k


def lowest_scores(score_BN: torch.Tensor, num_B: torch.Tensor) -> torch.Tensor:
    """Which entries of each row are among its `num` lowest, by the rule of the authors' code in float32: below the
    next one plus 1e-10. So one more is flagged where that is not lost in rounding: among scores near 0. `(B, N)`.
    """
    score_BN = score_BN.float()
    return score_BN < score_BN.sort(-1).values.gather(1, num_B[:, None]) + 1e-10


admit_to_pipelines(DNDMScheduler)
