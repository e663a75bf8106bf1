"""Generation from prompts, block by block, with any scheduler.

Shape suffixes: B batch, L positions, S positions of a block.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..sampling.draws import Generators
from ..scheduling_lsd import LSDScheduler
from .block_prediction import BlockPredictor
from .prompts import PaddedPrompts, ended_at


def steps_of_blocks(num_inference_steps: int | None, blocks: Sequence[slice], learned: int | None) -> list[int]:
    """The number of steps for each block.

    Args:
        num_inference_steps (`int`, *optional*): steps in all. Blocks get equal shares of them, and the first blocks
            one more where they do not divide. Default: as many as were learned, for each block; or one a token.
        blocks (sequence of `slice`): their positions.
        learned (`int`, *optional*): the largest number of steps that the scheduler learned.

    Raises:
        ValueError: if there are more blocks than steps.
    """
    if num_inference_steps is None:
        return [learned or block.stop - block.start for block in blocks]
    share, rest = divmod(num_inference_steps, len(blocks))
    if not share:
        raise ValueError(
            f"`num_inference_steps` counts the steps of all blocks: {num_inference_steps} are too few for"
            f" {len(blocks)} blocks. Take more steps, or a larger `block_length`."
        )
    return [share + (i < rest) for i in range(len(blocks))]


class BlockGeneration:
    """A generation from prompts.

    Each step hands the scheduler the block alone, so that its schedule, order and counts hold within the block. A
    sequence whose block is complete waits for the others, if the scheduler lets sequences be complete at different
    steps. It is the same as if it were alone: its generator waits, too.

    Args:
        scheduler (`SchedulerMixin`): makes the steps.
        predictor ([`~lsd_sampler.denoisers.block_prediction.BlockPredictor`]): calls the network.
        prompts ([`~lsd_sampler.denoisers.prompts.PaddedPrompts`]): how the canvases begin.
        plan (list of `slice` and `int`): the positions of each block, and its number of steps.
        mask_token_id (`int`): the mask.
        step_kwargs (`dict`): passed to each step of the scheduler.
        timesteps_kwargs (`dict`): passed to its `set_timesteps`.
        stop_at (sequence of `int`): a sequence stops as soon as it holds one of these tokens and no mask before it.
            The rest of it is filled with that token.

    Attributes:
        sample (`torch.LongTensor` of shape `(batch_size, length)`): the canvases now. May be replaced between steps.

    Raises:
        ValueError: if the scheduler learned nothing for the steps or the length of a block.
    """

    def __init__(
        self,
        scheduler: Any,
        predictor: BlockPredictor,
        prompts: PaddedPrompts,
        plan: Sequence[tuple[slice, int]],
        mask_token_id: int,
        step_kwargs: dict[str, Any],
        timesteps_kwargs: dict[str, Any],
        stop_at: Sequence[int] = (),
    ):
        self.scheduler, self.predictor, self.plan, self.stop_at = scheduler, predictor, plan, stop_at
        self.mask_token_id, self.step_kwargs, self.timesteps_kwargs = mask_token_id, step_kwargs, timesteps_kwargs
        if isinstance(scheduler, LSDScheduler):
            self.timesteps_kwargs = {**timesteps_kwargs, "goes_on": True}
            _check_learned(scheduler, plan, predictor.device)
        self.start = prompts.start
        self.sample = prompts.canvas_BL.to(predictor.device)
        self._stopped_B = torch.zeros_like(self.sample[:, 0], dtype=torch.bool)

    def run(self, after_step: Callable[[torch.Tensor], bool], after_block: Callable[[slice], bool]) -> None:
        """Makes one step after the other.

        Args:
            after_step, after_block: called with the time of each step, and with the positions of each block, when it
                is over; they return whether to go on. `after_step` may replace `sample`.
        """
        scheduler = self.scheduler
        for block, num_steps in self.plan:
            self.predictor.begin(block)
            # here as `step`: with `goes_on` a scheduler belongs to a thread until that leaves the function
            scheduler.set_timesteps(num_steps, **self.timesteps_kwargs)
            waiting = _WaitingGenerators(self.step_kwargs.get("generator"))
            for k, t in enumerate(scheduler.timesteps):
                done_B = self._done(block)
                if bool(done_B.all()):
                    break
                waiting.wait(done_B)
                output, part_BS = self.predictor(self.sample, t, ~done_B), self.sample[:, block]
                if k == 0 and num_steps > 1 and self.predictor.first_token_alone:
                    # as in Fast-dLLM's code for Dream; at the last of the times, a step reveals all that it gets
                    output, t_or_last, given_BS = output[:, :1], scheduler.timesteps[-1], part_BS[:, :1]
                else:
                    t_or_last, given_BS = t, part_BS
                seen = {} if self.predictor.shadow is None else {"shadow_output": self.predictor.shadow}
                next_BS = scheduler.step(output, t_or_last, given_BS, **seen, **self.step_kwargs).prev_sample
                self._take(next_BS, block, done_B)
                if not after_step(t):
                    return
            waiting.go_on()
            if not after_block(block) or bool(self._stopped_B.all()):
                return

    def _done(self, block: slice) -> torch.Tensor:
        """The sequences that have stopped, or, where the scheduler allows it, have a complete block. `(B,)`."""
        if not self.predictor.skips_complete:
            return self._stopped_B
        return self._stopped_B | ~(self.sample[:, block] == self.mask_token_id).any(1)

    def _take(self, next_BN: torch.Tensor, block: slice, done_B: torch.Tensor) -> None:
        """Puts the tokens of a step, for the first positions of a block, into the sequences that are not done."""
        sample_BL, stop = self.sample.clone(), block.start + next_BN.shape[1]
        sample_BL[:, block.start : stop] = torch.where(done_B[:, None], sample_BL[:, block.start : stop], next_BN)
        self.sample = self._stopped_early(sample_BL) if self.stop_at else sample_BL

    def _stopped_early(self, sample_BL: torch.Tensor) -> torch.Tensor:
        """Marks the sequences that came to their end, and fills the rest of them."""
        new_BG = sample_BL[:, self.start :]
        end_B = ended_at(new_BG, self.stop_at)
        place_BG = torch.arange(new_BG.shape[1], device=new_BG.device).expand_as(new_BG)
        open_B = ((new_BG == self.mask_token_id) & (place_BG < end_B[:, None])).any(1)
        stops_B = (end_B < new_BG.shape[1]) & ~open_B & ~self._stopped_B
        self._stopped_B = self._stopped_B | stops_B
        last_B1 = new_BG.gather(1, end_B.clamp(max=new_BG.shape[1] - 1)[:, None])
        filled_BG = torch.where(stops_B[:, None] & (place_BG > end_B[:, None]), last_B1, new_BG)
        return torch.cat([sample_BL[:, : self.start], filled_BG], dim=1)


def _check_learned(scheduler: LSDScheduler, plan: Sequence[tuple[slice, int]], device: torch.device) -> None:
    """Raises `ValueError` now rather than after some blocks, if what was learned does not fit a later one."""
    dependence = scheduler.learned_sampler.dependence
    for length, num_steps in sorted({(block.stop - block.start, num_steps) for block, num_steps in plan}):
        try:
            scheduler.steps_for(num_steps)
            if dependence is not None:
                dependence.on((length,), device)
        except ValueError as error:
            raise ValueError(f"A block of {length} tokens in {num_steps} steps cannot be sampled: {error}") from error


class _WaitingGenerators:
    """Generators of sequences that wait, while steps draw from those of all: they go on from where they were."""

    def __init__(self, generator: Generators):
        self._generators = generator if isinstance(generator, list | tuple) else []
        self._states: dict[int, torch.Tensor] = {}

    def wait(self, done_B: torch.Tensor) -> None:
        """Notes the state of those that are done from now on."""
        for i in done_B.nonzero()[:, 0].tolist() if self._generators else []:
            self._states.setdefault(i, self._generators[i].get_state())

    def go_on(self) -> None:
        """Sets those that waited back."""
        for i, state in self._states.items():
            self._generators[i].set_state(state)
