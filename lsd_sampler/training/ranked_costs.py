"""What every call of a sampler would cost, measured along forced runs. The cost of any shares follows from these
without another network call.

At each state of a run, the masked positions are ranked by a score (or an order that looks at the logits), and their
costs are kept by rank. A sampler that takes n positions at that state pays for the first n ranks. It is then assumed
to go on from the state of the run with as many known tokens. That ignores how the positions were chosen, so good
candidates are measured again (see [`~lsd_sampler.training.position_search`]).

Shape suffixes: B batch, L positions, G states, R rows (sequences by canvases), C candidates, M calls.
"""

from dataclasses import dataclass

import torch

from ..sampling import certainty
from ..sampling.canvas import StepInput
from ..sampling.left_out import is_predicted
from ..sampling.orders import AdaptiveOrder, SurestFirst
from .cross_entropy import cross_entropy
from .held_out import HeldOutRecorder


@dataclass
class StateCosts:
    """What was seen in one call. Ranks of open positions come first, in order.

    Args:
        nats_RL, entropy_RL (`torch.FloatTensor` of shape `(num_rows, seq_len)`): cost of the token, and entropy, by
            rank.
        open_R (`torch.LongTensor` of shape `(num_rows,)`): number of open positions; free ones come after them.
        masked_R (`torch.LongTensor` of that shape): number of masked positions.
    """

    nats_RL: torch.Tensor
    entropy_RL: torch.Tensor
    open_R: torch.Tensor
    masked_R: torch.Tensor


class RankingRecorder(HeldOutRecorder):
    """Reveals the tokens of given sequences by an order that looks at the logits, a few a call, and keeps what each
    state costs by rank.
    """

    def visit(self, states: list[int], num_masked: int) -> None:
        """Makes the next runs call the network at about these numbers of known tokens, increasing from 0."""
        self.counts, self.num_masked = [*states, num_masked], num_masked

    def force(self, finals: list[torch.Tensor]) -> None:
        super().force(finals)
        self.seen: list[list[StateCosts]] = [[] for _ in finals]

    def record(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor]:
        final_BL = self._final(x)
        place_BL, free_BL, entropy_BL = self._ranked(x)
        row_R, position_R = (x.masked_BL & is_predicted(final_BL, self.never_predicted)).nonzero(as_tuple=True)
        nats_R = cross_entropy(x.logits_BLV, row_R, position_R, final_BL[row_R, position_R], x.mask_token_id)
        nats_BL = x.spread(row_R, position_R, nats_R, 0.0)
        # open positions by rank, then free ones
        index_BL = (
            torch.where(free_BL, place_BL.shape[1], place_BL)
            .masked_fill(~x.masked_BL, place_BL.shape[1] + 1)
            .argsort(dim=1, stable=True)
        )
        sorted_nats, sorted_entropy = (
            (value * x.masked_BL).gather(1, index_BL).float().cpu() for value in (nats_BL, entropy_BL)
        )
        open_B, masked_B = (x.masked_BL & ~free_BL).sum(1), x.masked_BL.sum(1)
        self.seen[self.canvas_index].append(StateCosts(sorted_nats, sorted_entropy, open_B.cpu(), masked_B.cpu()))
        start_B, L = x.canvas.masked_BL.sum(1), self.num_masked
        target_B = (self.counts[x.k + 1] * start_B + L - 1) // L
        take_B = target_B - (start_B - masked_B) - free_BL.sum(1)
        reveal_BL = free_BL | (x.masked_BL & ~free_BL & (place_BL < take_B[:, None]))
        return torch.where(reveal_BL, final_BL, x.sample_BL), reveal_BL.float()

    def _ranked(self, x: StepInput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Place of each open position, which positions are free, and the entropy of all masked ones. `(B, L)` each."""
        rule = self.rule
        if isinstance(rule, AdaptiveOrder):
            choice = self.steps.choice
            assert choice is not None
            seen = rule.look(x, choice)
            place_BL = rule.places(x, self.plan, choice, seen, seen.open_BL.sum(1))
            return place_BL, seen.free_BL, seen.entropy_BL
        assert isinstance(rule, SurestFirst)
        row_R, position_R = x.masked_BL.nonzero(as_tuple=True)
        _, choice_BL, _ = x.uniforms(3)  # as `reveals` draws them
        entropy_R = certainty.of_rows(certainty.entropy, x.logits_BLV, row_R, position_R, x.mask_token_id)
        entropy_BL = x.spread(row_R, position_R, entropy_R, 0.0)
        return rule.places(x, self.plan, choice_BL), torch.zeros_like(x.masked_BL), entropy_BL


@dataclass
class RankedCosts:
    """Costs by state and rank, of all rows, for one threshold below which positions are free.

    Args:
        nats_GRL, entropy_GRL (`torch.DoubleTensor` of shape `(num_states, num_rows, seq_len + 1)`): sums over the
            first open ranks.
        open_GR, known_GR (`torch.LongTensor` of shape `(num_states, num_rows)`): numbers of open and of known tokens.
        free_GR, free_nats_GR: number of free positions, and what they cost.
        start_R (`torch.LongTensor` of shape `(num_rows,)`): number of positions masked at the start.
    """

    nats_GRL: torch.Tensor
    entropy_GRL: torch.Tensor
    open_GR: torch.Tensor
    known_GR: torch.Tensor
    free_GR: torch.Tensor
    free_nats_GR: torch.Tensor
    start_R: torch.Tensor

    @classmethod
    def of(cls, states: list[StateCosts], free_below: float) -> "RankedCosts":
        """The costs if positions below this entropy, in nats, are free."""
        nats, entropy, opened, free, free_nats = [], [], [], [], []
        for state in states:
            rank_L = torch.arange(state.nats_RL.shape[1])
            masked_RL = rank_L < state.masked_R[:, None]
            is_open_RL = (rank_L < state.open_R[:, None]) & (state.entropy_RL >= free_below)
            index_RL = (~is_open_RL).int().argsort(dim=1, stable=True)
            parts = (value.double() * is_open_RL for value in (state.nats_RL, state.entropy_RL))
            sums = [torch.nn.functional.pad(part.gather(1, index_RL).cumsum(1), (1, 0)) for part in parts]
            nats.append(sums[0])
            entropy.append(sums[1])
            opened.append(is_open_RL.sum(1))
            free.append((masked_RL & ~is_open_RL).sum(1))
            free_nats.append((state.nats_RL.double() * (masked_RL & ~is_open_RL)).sum(1))
        start_R = states[0].masked_R
        known_GR = torch.stack([start_R - state.masked_R for state in states])
        nats_GRL, entropy_GRL, open_GR, free_GR, free_nats_GR = map(
            torch.stack, (nats, entropy, opened, free, free_nats)
        )
        return cls(nats_GRL, entropy_GRL, open_GR, known_GR, free_GR, free_nats_GR, start_R)

    def follow(self, shares_CM: torch.Tensor, budget: str) -> tuple[torch.Tensor, torch.Tensor]:
        """What candidates' shares cost, by following the measured states.

        A call begins at the latest measured state with no more known tokens. Those that are known besides are taken to
        be its first ranks. Positions that are free at a state are revealed, and paid for, when it is reached.

        Args:
            shares_CM (`torch.DoubleTensor` of shape `(num_candidates, M)`): the last is taken for 1.
            budget (`str`): what limits a call, one of [`~lsd_sampler.sampling.position_choice.BUDGETS`].

        Returns:
            nats of each row, `(C, R)`, and the number of known tokens after each call, `(C, R, M)`, float64.
        """
        C, M = shares_CM.shape
        G, R, _ = self.nats_GRL.shape
        row_CR = torch.arange(R).expand(C, R)
        known_RG = self.known_GR.T.contiguous()
        known_CR, nats_CR, after = torch.zeros(C, R, dtype=torch.long), torch.zeros(C, R, dtype=torch.float64), []
        before_CR, end_CR = torch.full((C, R), -1), known_CR
        for k in range(M):
            # the latest state with at most as many known tokens
            state_CR = torch.searchsorted(known_RG, known_CR.T.contiguous(), right=True).T - 1
            at, stays_CR = (state_CR, row_CR), state_CR == before_CR
            open_CR, free_CR = self.open_GR[at], self.free_GR[at].masked_fill(stays_CR, 0)
            done_CR = torch.where(stays_CR, end_CR, (known_CR - self.known_GR[at]).minimum(open_CR))
            left_CR = open_CR - done_CR
            if k == M - 1:
                take_CR = left_CR
            elif budget == "position_shares":
                take_CR = (shares_CM[:, k, None] * left_CR - 1e-9).ceil().long().clamp(min=0)
            else:
                limit_CR = shares_CM[:, k, None].expand(C, R)
                if budget == "entropy_shares":
                    limit_CR = limit_CR * (self.entropy_GRL[(*at, open_CR)] - self.entropy_GRL[(*at, done_CR)])
                take_CR = self._within(at, done_CR, open_CR, limit_CR) - done_CR
            take_CR = take_CR.minimum(left_CR)
            end_CR = done_CR + take_CR
            nats_CR += self.nats_GRL[(*at, end_CR)] - self.nats_GRL[(*at, done_CR)]
            nats_CR += self.free_nats_GR[at].masked_fill(stays_CR, 0)
            known_CR, before_CR = (known_CR + take_CR + free_CR).minimum(self.start_R), state_CR
            if k == M - 1:
                known_CR = self.start_R.expand(C, R)
            after.append(known_CR.double())
        return nats_CR, torch.stack(after, dim=2)

    def _within(
        self,
        at: tuple[torch.Tensor, torch.Tensor],
        done_CR: torch.Tensor,
        open_CR: torch.Tensor,
        nats_CR: torch.Tensor,
    ) -> torch.Tensor:
        """The first rank at which the entropies of those behind `done` add up to so many nats, or the last rank, by
        bisection. `(C, R)`.
        """
        limit_CR = self.entropy_GRL[(*at, done_CR)] + nats_CR - 1e-9
        low_CR, high_CR = done_CR, open_CR
        for _ in range(self.nats_GRL.shape[2].bit_length()):
            middle_CR = (low_CR + high_CR) // 2
            reached_CR = self.entropy_GRL[(*at, middle_CR)] >= limit_CR
            low_CR, high_CR = (
                torch.where(reached_CR, low_CR, middle_CR + 1),
                torch.where(reached_CR, middle_CR, high_CR),
            )
            low_CR = low_CR.minimum(high_CR)
        return high_CR
