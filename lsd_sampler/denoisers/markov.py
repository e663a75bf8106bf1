"""First-order Markov chains: denoisers without any error, so that all error of a generation is the sampler's."""

import os
from pathlib import Path
from typing import Any, Self

import torch

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401

from ..sampling.logit_rows import rows_per_chunk
from .files import Checkpoint, check_tensors, read_json, read_tensors
from .oracle import Oracle, draw, uniforms
from .shadow import leave_one_out


MAX_TABLE_ENTRIES = 2**26
_TOLERANCE = 1e-8


class MarkovDenoiser(Oracle):
    r"""
    Exact posteriors of a Markov chain. They are float64, whichever dtype is asked for.

    With the nearest known tokens u, at distance a to the left, and w, at distance b to the right,
    `p(x_i = y | known) = (P^a)[u, y] (P^b)[y, w] / (P^(a+b))[u, w]` (Chapman-Kolmogorov gives the denominator).
    Without a left neighbour `(initial P^i)` replaces the row of `P^a`; without a right one its factors are 1.

    Evidence of probability 0 (parallel draws may produce it) has no posterior. The right neighbour is then ignored, so
    that every row is a distribution.

    Args:
        transition (`torch.Tensor` of shape `(vocab_size, vocab_size)`): P, rows sum to 1.
        initial (`torch.Tensor` of shape `(vocab_size,)`, *optional*): law of the first token; default: the stationary
            law, the limit of the uniform law under the lazy chain `(1 + P) / 2`.
        length (`int`): sequence length; shorter sequences are the chain's beginnings.

    Raises:
        ValueError: if an argument is no such thing, or the powers of P would need more than 512 MiB.
    """

    memory = 1
    transition: torch.Tensor
    initial: torch.Tensor
    _left_table: torch.Tensor
    _right_table: torch.Tensor

    def __init__(self, transition: torch.Tensor, initial: torch.Tensor | None = None, length: int = 256):
        transition = _check_transition(transition)
        V = len(transition)
        super().__init__(V, length)
        if (length + 1) * V * V > MAX_TABLE_ENTRIES:
            limit = MAX_TABLE_ENTRIES // (V * V) - 1
            raise ValueError(f"`length` must be in [1, {limit}] for {V} states, got {length}.")
        initial = stationary_law(transition) if initial is None else _check_initial(initial, V)
        self.register_buffer("transition", transition)
        self.register_buffer("initial", initial)
        left, right = _log_tables(transition, initial, length)
        self.register_buffer("_left_table", left, persistent=False)
        self.register_buffer("_right_table", right, persistent=False)

    @torch.no_grad()
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (nothing to defer)
        self, tokens: torch.Tensor, t: torch.Tensor | None = None, *, shadow: slice | None = None
    ) -> torch.Tensor:
        """Log-probabilities of the clean tokens; `-inf` where a token is impossible, one-hot at known positions.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): masked where equal to `mask_token_id`.
            t (*optional*): ignored.
            shadow (`slice`, *optional*): as for [`~lsd_sampler.denoisers.oracle.Oracle`].

        Returns:
            `torch.DoubleTensor` of shape `(batch_size, seq_len, vocab_size)`.
        """
        if shadow is not None:
            return leave_one_out(self.forward, tokens, shadow, self.hole_id)
        B, L = tokens.shape
        self._check_length(tokens)
        V, known_BL = self.vocab_size, tokens != self.mask_token_id
        out_NV = tokens.new_full((B * L, V), -torch.inf, dtype=torch.float64)
        known_K, masked_R = known_BL.flatten().nonzero()[:, 0], (~known_BL).flatten().nonzero()[:, 0]
        out_NV.view(-1)[known_K * V + tokens.flatten()[known_K]] = 0
        evidence_3R = [x.flatten()[masked_R] for x in self._evidence(tokens, known_BL)]
        # slabs that stay in the cache: one large temporary would cost more in page faults than the arithmetic does
        slab = rows_per_chunk(4 * V, tokens.device)
        for row, left, right, log_mass in zip(*(x.split(slab) for x in (masked_R, *evidence_3R)), strict=True):
            log_p = self._left_table.index_select(0, left)
            log_p += self._right_table.index_select(0, right)
            log_p -= log_mass[:, None]
            out_NV.index_copy_(0, row, log_p)
        return out_NV.view(B, L, V)

    def _evidence(
        self, tokens_BL: torch.Tensor, known_BL: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows of the two tables that describe each position's neighbours, and the log-probability of the right one.

        Row `a V + u` of the left table is `log (P^a)[u, :]`, rows `(length + 1) V + i` are `log initial P^i`.
        Row `b V + w` of the right table is `log (P^b)[:, w]`, its last row is 0.
        """
        V, L = self.vocab_size, tokens_BL.shape[1]
        index_L = torch.arange(L, device=tokens_BL.device)
        before_BL = torch.where(known_BL, index_L, -1).cummax(1).values
        after_BL = torch.where(known_BL, index_L, L).flip(1).cummin(1).values.flip(1)
        u_BL, w_BL = tokens_BL.gather(1, before_BL.clamp(min=0)), tokens_BL.gather(1, after_BL.clamp(max=L - 1))
        has_left, has_right, start = before_BL >= 0, after_BL < L, (self.length + 1) * V
        left_BL = torch.where(has_left, (index_L - before_BL) * V + u_BL, start + index_L)
        # the same row, but at the right neighbour: its entry w is the probability of w given what is on the left
        ahead_BL = torch.where(has_left, (after_BL - before_BL) * V + u_BL, start + after_BL).clamp(max=start + L - 1)
        log_mass_BL = self._left_table.view(-1)[ahead_BL * V + torch.where(has_right, w_BL, 0)]
        usable_BL = has_right & (log_mass_BL > -torch.inf)
        right_BL = torch.where(usable_BL, (after_BL - index_L) * V + w_BL, start)
        return left_BL, right_BL, torch.where(usable_BL, log_mass_BL, 0.0)

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Exact samples of the chain.

        Args:
            num (`int`): how many.
            generator (`torch.Generator`, *optional*): drawn from on its own device.

        Returns:
            `torch.LongTensor` of shape `(num, length)`.
        """
        u_LN = uniforms((num, self.length), generator, self.transition.device).T.contiguous()
        tokens = [draw(self.initial, u_LN[0])]
        for u_N in u_LN[1:]:
            tokens.append(draw(self.transition[tokens[-1]], u_N))
        return torch.stack(tokens, dim=1)

    def log_prob(self, sequences: torch.Tensor) -> torch.Tensor:
        self._check_length(sequences)
        x_NL = sequences.to(self.transition.device)
        return self.initial[x_NL[:, 0]].log() + self.transition[x_NL[:, :-1], x_NL[:, 1:]].log().sum(1)

    def ngram_law(self, n: int, length: int | None = None) -> torch.Tensor:
        law_V, total_V = self.initial, torch.zeros_like(self.initial)
        for _ in range((self.length if length is None else length) - n + 1):
            total_V, law_V = total_V + law_V, law_V @ self.transition
        law = total_V / total_V.sum()
        for _ in range(n - 1):
            law = law[..., None] * self.transition
        return law

    @classmethod
    def recognises(cls, checkpoint: Checkpoint) -> bool:
        return checkpoint.config.get("_class_name") == cls.__name__

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, variant: str | None = None) -> Self:
        V, length = checkpoint.config.get("vocab_size"), checkpoint.config.get("length")
        if not isinstance(V, int) or not isinstance(length, int):
            raise ValueError(
                f"{checkpoint.config_file} must hold integers 'vocab_size' and 'length', got {V!r} and {length!r}."
            )
        file = checkpoint.weights_file(variant)
        tensors = read_tensors(file)
        check_tensors({"transition": torch.empty(V, V), "initial": torch.empty(V)}, tensors, str(file))
        try:
            return cls(tensors["transition"], tensors["initial"], length)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def _config(self) -> dict[str, Any]:
        return {"_class_name": type(self).__name__, "vocab_size": self.vocab_size, "length": self.length}


def _log_tables(transition: torch.Tensor, initial: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    V = len(transition)
    powers = torch.eye(V, dtype=torch.float64, device=transition.device)[None]
    power = transition
    while len(powers) <= length:  # P^0..P^(n-1) times P^n gives as many again
        powers = torch.cat([powers, powers @ power])
        power = power @ power
    powers = powers[: length + 1]
    start = initial @ powers[:length]
    left = torch.cat([powers.flatten(0, 1), start]).log_()
    right = torch.cat([powers.mT.flatten(0, 1), torch.ones_like(start[:1])]).log_()
    return left, right


def stationary_law(transition: torch.Tensor) -> torch.Tensor:
    """The limit of the uniform law under the lazy chain `(1 + P) / 2`; it exists for every P. Shape `(V,)`."""
    V = len(transition)
    lazy = (torch.eye(V, dtype=torch.float64, device=transition.device) + transition.double()) / 2
    for _ in range(50):
        lazy = lazy @ lazy
        lazy /= lazy.sum(-1, keepdim=True)
    law = lazy.mean(0)
    return law / law.sum()


def _check_transition(transition: torch.Tensor) -> torch.Tensor:
    transition = torch.as_tensor(transition).detach().double()
    if transition.ndim != 2 or transition.shape[0] != transition.shape[1] or not len(transition):
        raise ValueError(f"`transition` must have shape (V, V), got {tuple(transition.shape)}.")
    return _check_laws(transition, "transition")


def _check_initial(initial: torch.Tensor, V: int) -> torch.Tensor:
    initial = torch.as_tensor(initial).detach().double()
    if initial.shape != (V,):
        raise ValueError(f"`initial` must have shape ({V},), got {tuple(initial.shape)}.")
    return _check_laws(initial, "initial")


def _check_laws(p: torch.Tensor, name: str) -> torch.Tensor:
    if not bool(((p >= 0) & (p <= 1 + _TOLERANCE)).all()) or not bool(((p.sum(-1) - 1).abs() <= _TOLERANCE).all()):
        raise ValueError(f"`{name}` must hold probabilities that sum to 1 along its last dimension.")
    return p.clone()


def countdown(num_states: int = 32, length: int = 256) -> MarkovDenoiser:
    """The *countdown* task: `s -> s - 1`, and 0 goes to any state alike. It starts from its stationary law."""
    transition = torch.zeros(num_states, num_states, dtype=torch.float64)
    transition[0] = 1 / num_states
    transition[1:, :-1] = torch.eye(num_states - 1, dtype=torch.float64)
    return MarkovDenoiser(transition, length=length)


def random_chain(num_states: int, length: int, seed: int = 0) -> MarkovDenoiser:
    """A chain whose rows are drawn from the flat Dirichlet law. It starts from its stationary law."""
    transition = random_laws(num_states, num_states, torch.Generator().manual_seed(seed))
    return MarkovDenoiser(transition, length=length)


def random_laws(num: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Laws from the flat Dirichlet law, `(num, size)`."""
    uniforms = torch.rand(num, size, generator=generator, dtype=torch.float64)
    exponential = -torch.log1p(-uniforms)
    return exponential / exponential.sum(-1, keepdim=True)


def read_chain(path: str | Path, length: int | None = None) -> MarkovDenoiser:
    """Reads a chain from one file with `transition`, perhaps `initial`, and `length` unless given here.

    The file is a JSON object, or holds tensors of these names (`length` then has one integer entry).

    Raises:
        OSError: if the file is missing.
        ValueError: if it holds no chain; the message names it.
    """
    path = Path(os.path.expanduser(path))
    content: dict[str, Any] = read_json(path) if path.suffix == ".json" else dict(read_tensors(path))
    if "transition" not in content:
        raise ValueError(f"{path} lacks 'transition'.")
    length = content.get("length") if length is None else length
    if length is None:
        raise ValueError(f"{path} lacks 'length'; give one with 'markov:{path},L=...'.")
    try:
        tensors = [_as_tensor(content.get(key)) for key in ("transition", "initial")]
        if tensors[0] is None:
            raise ValueError("`transition` is null.")
        return MarkovDenoiser(tensors[0], tensors[1], int(length))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _as_tensor(numbers: Any) -> torch.Tensor | None:
    return None if numbers is None else torch.as_tensor(numbers, dtype=torch.float64)
