"""Hidden Markov chains and regular languages: denoisers without any error, by forward-backward sums."""

import math
from collections.abc import Iterator
from typing import Any, Self

import torch

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401

from .files import Checkpoint, check_tensors, read_tensors
from .oracle import Oracle, draw, uniforms


MAX_STATES = 4096
ENTRIES_AT_ONCE = 2**24
"""Forward weights that a call keeps: bounds its memory."""
MISREAD = 1e-4
"""The chance at which a known token is taken for misread, where what is known is impossible."""

_TOLERANCE = 1e-8


class HiddenMarkovDenoiser(Oracle):
    r"""
    Exact posteriors of a hidden chain, by forward-backward sums in which a masked token is a missing observation.

    `p(x) = sum over z of start[z_1] emission[z_1, x_1] transition[z_1, z_2] emission[z_2, x_2] ... end[z_L]`, up to a
    factor. It is a hidden Markov chain if its rows are laws and `end` is all ones, and a Markov chain if the emission
    is the identity too. It is an automaton if its weights are 0 and 1: every sequence that it accepts is equally
    likely. A call costs `batch_size * seq_len * S^2` for S states, once forth and once back.

    Parallel draws may make known tokens that are impossible together. Each known token is then taken for misread with
    probability 1e-4. The sequences that disagree with the fewest known tokens decide, and every row is a distribution.

    Args:
        start (`torch.Tensor` of shape `(S,)`): weights of the first state.
        transition (`torch.Tensor` of shape `(S, S)`): weights of a state after another.
        emission (`torch.Tensor` of shape `(S, vocab_size)`, *optional*): weights of a state's token; default: the
            state is the token.
        end (`torch.Tensor` of shape `(S,)`, *optional*): weights of the last state; default: 1.
        length (`int`): sequence length; shorter sequences are beginnings.

    Raises:
        ValueError: if an argument is no such thing, or no sequence has a weight.
    """

    start: torch.Tensor
    transition: torch.Tensor
    emission: torch.Tensor
    end: torch.Tensor
    _ends_LS: torch.Tensor

    def __init__(
        self,
        start: torch.Tensor,
        transition: torch.Tensor,
        emission: torch.Tensor | None = None,
        end: torch.Tensor | None = None,
        length: int = 256,
    ):
        start = _check_weights("start", start, (len(torch.as_tensor(start)),))
        S = len(start)
        if not 1 <= S <= MAX_STATES:
            raise ValueError(f"`start` must have 1 to {MAX_STATES} states, got {S}.")
        eye = torch.eye(S, dtype=torch.float64, device=start.device)
        emission = eye if emission is None else torch.as_tensor(emission)
        emission = _check_weights("emission", emission, (S, emission.shape[-1]))
        super().__init__(emission.shape[1], length)
        self.register_buffer("start", start)
        self.register_buffer("transition", _check_weights("transition", transition, (S, S)))
        self.register_buffer("emission", emission)
        self.register_buffer("end", _check_weights("end", torch.ones_like(start) if end is None else end, (S,)))
        ends, self._log_scales = self._endings()
        self.register_buffer("_ends_LS", ends, persistent=False)
        total = float(self.start @ (self.emission.sum(1) * ends[length - 1]))
        if not total > 0:
            raise ValueError(f"`start`, `transition` and `end` allow no sequence of {length} tokens.")
        self._log_total = math.log(total) + self._log_scales[-1]
        self._describe(shows_its_state=torch.equal(emission, eye))

    def _describe(self, shows_its_state: bool) -> None:
        """Sets how samples are to be judged."""
        rows = (self.start[None], self.transition, self.emission)
        if bool((self.end == 1).all()) and all(bool(((row.sum(-1) - 1).abs() < _TOLERANCE).all()) for row in rows):
            self.memory = 1 if shows_its_state else 2
        elif _is_automaton(self.start, self.transition, self.emission, self.end):
            self.num_valid = round(math.exp(self._log_total)) if self._log_total < 36 else None  # 2^52
            self.collision_probability = math.exp(-self._log_total)

    def _endings(self) -> tuple[torch.Tensor, list[float]]:
        """`ends[k, z]`: weight of all that may follow state z in k more tokens, and the logarithms of its units."""
        ends, log_scales, free_S = [self.end], [0.0], self.emission.sum(1)
        for _ in range(self.length - 1):
            following_S = self.transition @ (free_S * ends[-1])
            unit = following_S.max().clamp(min=torch.finfo(torch.float64).tiny)
            ends.append(following_S / unit)
            log_scales.append(log_scales[-1] + math.log(unit))
        return torch.stack(ends), log_scales

    def _posterior(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._smoothed(some_BL) for some_BL in self._batches(tokens_BL)])

    def _smoothed(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        seen_LBS = self._seen(tokens_BL)
        p_BLV, possible_B = self._forward_backward(seen_LBS)
        if not bool(possible_B.all()):
            misread_LBS = seen_LBS[:, ~possible_B] + MISREAD * self.emission.sum(1)
            p_BLV[~possible_B], _ = self._forward_backward(misread_LBS)
        # weights may be too small for any number where very much was misread
        return torch.where(p_BLV.sum(-1, keepdim=True) > 0, p_BLV, 1.0)

    def _batches(self, tokens_BL: torch.Tensor) -> Iterator[torch.Tensor]:
        yield from tokens_BL.split(max(1, ENTRIES_AT_ONCE // (tokens_BL.shape[1] * len(self.start))))

    def _seen(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Weight of what is known at a position, given its state; of all tokens where it is masked. `(L, B, S)`."""
        table_VS = torch.cat([self.emission.T, self.emission.sum(1)[None]])
        return table_VS[tokens_BL.T]

    def _forward(self, seen_LBS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of each state before its own token is seen, `(L, B, S)`; and the log-weight of all that is seen,
        with any ending, `(B,)`.
        """
        L, B, S = seen_LBS.shape
        ahead_LBS, ahead_BS = torch.empty_like(seen_LBS), self.start.expand(B, S)
        here_BS = ahead_BS
        log_B = self.start.new_zeros(B)
        for i, seen_BS in enumerate(seen_LBS):
            ahead_LBS[i] = ahead_BS
            here_BS = ahead_BS * seen_BS
            sum_B1 = here_BS.sum(-1, keepdim=True)
            log_B += sum_B1[:, 0].log()
            here_BS /= sum_B1.clamp(min=torch.finfo(torch.float64).tiny)
            if i < L - 1:
                ahead_BS = here_BS @ self.transition
        log_B += (here_BS @ self._ends_LS[self.length - L]).log() + self._log_scales[self.length - L]
        return ahead_LBS, log_B

    def _forward_backward(self, seen_LBS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of each token given what is seen elsewhere, `(B, L, V)`; and whether all is possible, `(B,)`."""
        ahead_LBS, log_B = self._forward(seen_LBS)
        L, B, S = seen_LBS.shape
        behind_BS = self._ends_LS[self.length - L].expand(B, S)
        for i in reversed(range(L)):
            ahead_LBS[i] *= behind_BS
            if i:
                behind_BS = (seen_LBS[i] * behind_BS) @ self.transition.T
                behind_BS = behind_BS / behind_BS.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        return (ahead_LBS @ self.emission).transpose(0, 1).contiguous(), log_B > -torch.inf

    @torch.no_grad()
    def log_prob(self, sequences: torch.Tensor) -> torch.Tensor:
        self._check_length(sequences)
        tokens_BL = sequences.to(self.device)
        log_B = torch.cat([self._forward(self._seen(some_BL))[1] for some_BL in self._batches(tokens_BL)])
        return log_B - self._log_total

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Exact samples: states forward, each weighted by all that may follow it, then their tokens."""
        u_2LN = uniforms((2, self.length, num), generator, self.device)
        free_S = self.emission.sum(1)
        tokens, law = [], self.start[None].expand(num, -1)
        for i, (u_N, v_N) in enumerate(zip(*u_2LN, strict=True)):
            state_N = draw(law * (free_S * self._ends_LS[self.length - 1 - i]), u_N)
            tokens.append(draw(self.emission[state_N], v_N))
            law = self.transition[state_N]
        return torch.stack(tokens, dim=1)

    def ngram_law(self, n: int, length: int | None = None) -> torch.Tensor:
        """Only chains have it; see [`Oracle`]."""
        if self.memory is None:
            raise ValueError("`ngram_law` is that of chains, whose rows are laws.")
        state_S, total_S = self.start, torch.zeros_like(self.start)
        for _ in range((self.length if length is None else length) - n + 1):
            total_S, state_S = total_S + state_S, state_S @ self.transition
        ahead = total_S / total_S.sum()
        for _ in range(n - 1):
            ahead = (ahead[..., None, :] * self.emission.T) @ self.transition
        return ahead @ self.emission

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        return checkpoint.config.get("_class_name") == cls.__name__

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        names = ("vocab_size", "length", "num_states")
        V, length, S = (checkpoint.config.get(name) for name in names)
        if not isinstance(V, int) or not isinstance(length, int) or not isinstance(S, int):
            raise ValueError(f"{checkpoint.config_file} must hold integers {', '.join(names)}.")
        file = checkpoint.weights_file(variant)
        tensors = read_tensors(file)
        shapes = {"start": (S,), "transition": (S, S), "emission": (S, V), "end": (S,)}
        check_tensors({name: torch.empty(shape) for name, shape in shapes.items()}, tensors, str(file))
        try:
            return cls(**tensors, length=length)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def _config(self) -> dict[str, Any]:
        sizes = {"vocab_size": self.vocab_size, "length": self.length, "num_states": len(self.start)}
        return {"_class_name": type(self).__name__, **sizes}


def _check_weights(name: str, weights: Any, shape: tuple[int, ...]) -> torch.Tensor:
    weights = torch.as_tensor(weights).detach().double()
    if weights.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {tuple(weights.shape)}.")
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError(f"`{name}` must hold finite weights of at least 0.")
    return weights.clone()


def _is_automaton(
    start_S: torch.Tensor, transition: torch.Tensor, emission: torch.Tensor, end_S: torch.Tensor
) -> bool:
    """Whether each sequence that is possible has one path, of weight 1."""
    parts = (start_S, transition, emission, end_S)
    zero_or_one = all(bool(((part == 0) | (part == 1)).all()) for part in parts)
    one_token = bool((emission.sum(1) == 1).all())
    one_start, one_successor = (bool((weights @ emission <= 1).all()) for weights in (start_S, transition))
    return zero_or_one and one_token and one_start and one_successor
