"""What every exact oracle offers: posteriors, samples and likelihoods of one known law."""

import torch

# diffusers looks for `ModelMixin` in this module when it reloads a pipeline
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401

from ..sampling.noise import LogLinear
from .base import Denoiser
from .precision import KeepsDtype
from .shadow import leave_one_out


class Oracle(KeepsDtype, Denoiser):
    r"""
    A denoiser without any error: its law of sequences is known, and all error of a generation is the sampler's.

    Posteriors are float64, whichever dtype is asked for. The mask is the token after the last one. Sequences shorter
    than `length` are beginnings.

    Attributes:
        clues (`int`): the number of random positions of a sequence that are given in an evaluation (`canvases`), and
            in the training of a sampler by `lsd-train`.
        memory (`int`, *optional*): the number of preceding tokens that a token's law depends on, where samples are
            judged as those of a chain; None where they are judged as elements of a set.
        num_valid (`int`, *optional*): the number of possible sequences, where it is counted.
        collision_probability (`float`, *optional*): the probability that two exact samples are equal, where it is
            known.
    """

    takes_shadow = True
    clues: int = 0
    memory: int | None = None
    num_valid: int | None = None
    collision_probability: float | None = None

    def __init__(self, vocab_size: int, length: int):
        super().__init__()
        if length < 1:
            raise ValueError(f"`length` must be at least 1, got {length}.")
        self.vocab_size = self.mask_token_id = vocab_size
        self.length = length
        self.noise = LogLinear()

    @torch.no_grad()
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (nothing to defer)
        self, tokens: torch.Tensor, t: torch.Tensor | None = None, *, shadow: slice | None = None
    ) -> torch.Tensor:
        """Log-probabilities of the clean tokens; `-inf` where a token is impossible, one-hot at known positions.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, seq_len)`): masked where equal to `mask_token_id`.
            t (*optional*): ignored.
            shadow (`slice`, *optional*): positions that are predicted once more, each from all tokens but its own.
                Their rows follow those of the canvas.

        Returns:
            `torch.DoubleTensor` of shape `(batch_size, seq_len, vocab_size)`.
        """
        if shadow is not None:
            return leave_one_out(self.forward, tokens, shadow, self.hole_id)
        self._check_length(tokens)
        canvas_UL, row_B = tokens.unique(dim=0, return_inverse=True)  # each different canvas once
        p_ULV = self._posterior(canvas_UL)
        known_ULV = (canvas_UL != self.mask_token_id)[..., None]
        token_V = torch.arange(self.vocab_size, device=tokens.device)
        p_ULV = torch.where(known_ULV, (canvas_UL[..., None] == token_V).double(), p_ULV / p_ULV.sum(-1, keepdim=True))
        return p_ULV.log()[row_B]

    def _posterior(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Probabilities of the clean tokens, up to a factor in each row: `(batch_size, seq_len, vocab_size)`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `_posterior`, or `forward`.")

    def log_prob(self, sequences: torch.Tensor) -> torch.Tensor:
        """Log-probability of whole sequences, or of their beginnings; `-inf` where one is impossible.

        Args:
            sequences (`torch.LongTensor` of shape `(num, seq_len)`): no mask left.

        Returns:
            `torch.DoubleTensor` of shape `(num,)`, in nats.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `log_prob`.")

    def ngram_law(self, n: int, length: int | None = None) -> torch.Tensor:
        """Law of `n` tokens in a row, averaged over their places in sequences of `length`: `(vocab_size,) * n`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `ngram_law`.")

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Exact samples.

        Args:
            num (`int`): how many.
            generator (`torch.Generator`, *optional*): drawn from on its own device.

        Returns:
            `torch.LongTensor` of shape `(num, length)`.
        """
        masked = torch.full((num, self.length), self.hole_id, device=self.device)
        return self.fill(masked, generator)

    @torch.no_grad()
    def fill(self, canvases: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Exact samples given the known tokens. One token is drawn in each call, from the left.

        Args:
            canvases (`torch.LongTensor` of shape `(num, seq_len)`): masked where equal to `mask_token_id`.
            generator (`torch.Generator`, *optional*): drawn from on its own device.
        """
        x_BL = canvases.to(self.device, copy=True)
        for i, u_B in enumerate(uniforms(x_BL.T.shape, generator, self.device)):
            hole_B = x_BL[:, i] == self.hole_id
            if bool(hole_B.any()):
                x_BL[hole_B, i] = draw(self(x_BL[hole_B])[:, i].exp(), u_B[hole_B])
        return x_BL

    def canvases(
        self, num: int, generator: torch.Generator | None = None, length: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random tasks: `clues` random positions of exact samples are given, the others masked.

        Args:
            num (`int`): how many.
            generator (`torch.Generator`, *optional*): drawn from on its own device.
            length (`int`, *optional*): length of the sequences; default: that of the oracle.

        Returns:
            the canvases and the samples behind them, two `torch.LongTensor`s of shape `(num, length)`.

        Raises:
            ValueError: if `clues` leave nothing to fill in.
        """
        truth_BL = self.sample(num, generator)[:, :length]
        if not 0 <= self.clues < truth_BL.shape[1]:
            raise ValueError(f"`clues` must be in [0, {truth_BL.shape[1] - 1}], got {self.clues}.")
        place_BL = uniforms(truth_BL.shape, generator, self.device).argsort(1).argsort(1)
        return torch.where(place_BL < self.clues, truth_BL, self.hole_id), truth_BL

    def _check_length(self, tokens_BL: torch.Tensor) -> None:
        if tokens_BL.shape[1] > self.length:
            raise ValueError(
                f"`tokens` has {tokens_BL.shape[1]} positions, but this oracle was made for at most {self.length}."
            )


def uniforms(
    shape: tuple[int, ...] | torch.Size, generator: torch.Generator | None, device: torch.device
) -> torch.Tensor:
    """Float64 uniforms, drawn on the generator's device."""
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=source).to(device)


def draw(p: torch.Tensor, u_N: torch.Tensor) -> torch.Tensor:
    """N indices by inversion, from weights of shape `(N, V)`, or `(V,)` for all. Shape `(N,)`."""
    cdf = p.cumsum(-1)
    scaled_N = u_N * cdf[..., -1]
    if p.ndim == 1:
        return torch.searchsorted(cdf, scaled_N, right=True).clamp(max=len(p) - 1)
    return torch.searchsorted(cdf, scaled_N[:, None], right=True)[:, 0].clamp(max=p.shape[-1] - 1)
