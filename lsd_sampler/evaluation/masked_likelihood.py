"""The likelihood of a text under a masked language model, by LLaDA's Monte-Carlo estimate.

Shape suffixes: D draws, R masked positions of some draws, L positions, N positions of the text.
"""

import itertools
from collections.abc import Iterator

import torch

from ..denoisers.base import Denoiser
from ..sampling.logit_rows import ModelOutput, row_chunks


def log_likelihood(
    denoiser: Denoiser,
    given: torch.Tensor,
    text: torch.Tensor,
    *,
    num_draws: int = 128,
    batch_size: int = 32,
    guidance_scale: float = 0.0,
    generator: torch.Generator | None = None,
) -> float:
    r"""Estimates `log p(text | given)` in nats.

    A draw masks k of the N tokens of the text, at positions drawn evenly, and is worth `N / k` times the sum of the
    log probabilities of the masked tokens. The mean over k (even in 1 ... N) and positions is the bound that the
    network was trained on, and `log p` itself where its predictions are those of one law. As in LLaDA's evaluation
    (https://huggingface.co/papers/2502.09992, equation 6) the k of all draws are spread evenly from one that is drawn.
    The mask is never a possible token.

    Args:
        denoiser ([`~lsd_sampler.denoisers.Denoiser`]): of absorbing noise.
        given (`torch.LongTensor` of shape `(n,)`): what precedes the text; may be empty.
        text (`torch.LongTensor` of shape `(N,)`): what is scored; 0 of an empty one.
        num_draws (`int`): the variance falls as their inverse. For N = 1 a single one is exact.
        batch_size (`int`): draws in a network call. The draws do not depend on it.
        guidance_scale (`float`): of classifier-free guidance, against a canvas whose `given` is masked; 0 for none.
        generator (`torch.Generator`, *optional*): on the CPU; makes the draws reproducible.

    Raises:
        ValueError: if the denoiser has no mask, or both together are longer than its length.
    """
    if denoiser.mask_token_id is None:
        raise ValueError(f"A likelihood needs a denoiser with a mask, and {type(denoiser).__name__} has none.")
    if len(given) + len(text) > denoiser.length:
        raise ValueError(
            f"`given` and `text` have {len(given)} + {len(text)} tokens, more than {denoiser.length}, the denoiser's"
            " length."
        )
    if not len(text):
        return 0.0
    masked_DN = draw_masks(len(text), num_draws, generator)
    tokens_L = torch.cat([given, text])
    masked_DL = torch.cat([masked_DN.new_zeros(num_draws, len(given)), masked_DN], dim=1)
    parts = masked_DL.split(batch_size)
    worth_D = [_masked_log_probs(denoiser, tokens_L, part, len(given), guidance_scale) for part in parts]
    weight_D = len(text) / masked_DN.sum(1)
    return float((torch.cat(worth_D) * weight_D).mean())


def draw_masks(length: int, num_draws: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Which positions each draw masks, `(num_draws, length)`, bool. Each row has 1 to `length` of them, and every
    number is as likely.
    """
    first = int(torch.randint(1, length + 1, (), generator=generator))
    # rounded down: LLaDA's script rounds halves to even numbers, which then come too often
    num_D = (first - 1 + torch.arange(num_draws) * length // num_draws) % length + 1
    rank_DN = torch.rand(num_draws, length, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
    return rank_DN < num_D[:, None]


@torch.no_grad()
def _masked_log_probs(
    denoiser: Denoiser, tokens_L: torch.Tensor, masked_DL: torch.Tensor, start: int, guidance_scale: float
) -> torch.Tensor:
    """The sum of the log probabilities of the masked tokens of each draw, `(D,)`, float64."""
    masked_DL, hole = masked_DL.to(denoiser.device), denoiser.hole_id
    tokens_DL = tokens_L.to(denoiser.device).expand(masked_DL.shape).masked_fill(masked_DL, hole)
    share_D = masked_DL.sum(1).double() / (len(tokens_L) - start)
    t_D = denoiser.noise.inverse_alpha(1 - share_D.cpu()).to(denoiser.device, torch.float32)
    row_R, position_R = masked_DL.nonzero(as_tuple=True)
    logits = _rows(denoiser, tokens_DL, t_D, row_R, position_R)
    if guidance_scale:
        blind_DL = tokens_DL.clone()
        blind_DL[:, :start] = hole
        pairs = zip(logits, _rows(denoiser, blind_DL, t_D, row_R, position_R), strict=True)
        logits = (_guided(given, blind, guidance_scale) for given, blind in pairs)
    true_R = tokens_L.to(denoiser.device)[position_R]
    found, first = [], 0
    for logits_RV in logits:
        true_r = true_R[first : first + len(logits_RV)]
        found.append(logits_RV.log_softmax(-1).gather(1, true_r[:, None])[:, 0].double())
        first += len(logits_RV)
    return torch.zeros(len(masked_DL), dtype=torch.float64).index_add(0, row_R.cpu(), torch.cat(found).cpu())


def _rows(
    denoiser: Denoiser, tokens_DL: torch.Tensor, t_D: torch.Tensor, row_R: torch.Tensor, position_R: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Logits at chosen positions, some at a time; -inf at the mask."""
    output: ModelOutput
    if denoiser.defers_head:
        output = denoiser.deferred_logits(denoiser(tokens_DL, t_D, return_hidden_states=True), t_D)
    else:
        output = denoiser(tokens_DL, t_D)
    return row_chunks(output, row_R, position_R, denoiser.mask_token_id)


def _guided(given: torch.Tensor, blind: torch.Tensor, scale: float) -> torch.Tensor:
    mixed = blind + (1 + scale) * (given - blind)
    return torch.where(given == -torch.inf, given, mixed)  # where both are, the difference is NaN


def likelihood_windows(length: int, size: int) -> list[slice]:
    """Positions of a long text, `size` at a time; each window is scored by itself."""
    ends = [*range(0, length, size), length]
    return [slice(first, end) for first, end in itertools.pairwise(ends)]
