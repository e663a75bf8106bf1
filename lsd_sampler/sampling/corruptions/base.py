"""What a corruption process is: how noise moves a token, and what follows for the reverse process."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from ..draws import Generators, draw_uniforms


class Corruption(ABC):
    """A Markov chain on tokens, run by the clock of a noise schedule: total noise n moves a token by `exp(n Q)`.

    Shape suffixes: R rows (positions of a batch), V states. All laws, scores and rates are float64. A *prediction* is,
    for each row, the probabilities of the clean token (`prediction_type` `"logits"`) or the concrete score
    `p_t(y) / p_t(x)` (`"log_score"`; its entry at x itself is not read).
    """

    name: ClassVar[str]
    absorbing: ClassVar[bool] = False
    """Whether noise only ever masks, so that a token is revealed once and then stays."""

    @abstractmethod
    def prior(self) -> torch.Tensor:
        """Law of a token at `t = 1`, `torch.DoubleTensor` of shape `(num_states,)`. It is the stationary law, except
        for gaussian corruption of an odd number of states.
        """

    @abstractmethod
    def forward_law(self, x_R: torch.Tensor, total: float) -> torch.Tensor:
        """Law of each token after that much noise: rows `x` of `exp(total Q)`. `(R, V)`."""

    @abstractmethod
    def score(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, prediction_type: str
    ) -> torch.Tensor:
        """The concrete score at states x, when the total noise is `total`; 1 at x itself. `(R, V)`."""

    @abstractmethod
    def reverse_rates(self, score_RV: torch.Tensor, x_R: torch.Tensor) -> torch.Tensor:
        """Rates of the reverse process at noise rate 1: `score_y Q(y, x)`, and 0 at x itself. `(R, V)`."""

    @abstractmethod
    def posterior(
        self, prediction_RV: torch.Tensor, x_R: torch.Tensor, total: float, total_next: float, prediction_type: str
    ) -> torch.Tensor:
        """Law of the token when the total noise is less, `total_next`, given x at `total` (Tweedie). `(R, V)`.

        If a score does not belong to a law, the rows need not sum to 1, and entries may be negative.
        """

    def corrupt(self, x_BL: torch.Tensor, total_B: torch.Tensor, generator: Generators) -> torch.Tensor:
        """The forward process from clean tokens: one draw for each, at the total noise `total_B` of its sequence."""
        uniforms_BL = draw_uniforms(x_BL.shape[0], x_BL.shape[1], generator, x_BL.device)
        rows = zip(x_BL, total_B.expand(len(x_BL)).tolist(), uniforms_BL, strict=True)
        return torch.stack([_draw(self.forward_law(x_L, total), u_L) for x_L, total, u_L in rows])

    def sample_prior(
        self, batch_size: int, seq_len: int, generator: Generators, device: torch.device | str
    ) -> torch.Tensor:
        """Independent draws from the prior, `torch.LongTensor` of shape `(batch_size, seq_len)`."""
        uniforms_BL = draw_uniforms(batch_size, seq_len, generator, torch.device(device))
        cdf_V = self.prior().cumsum(0).to(uniforms_BL.device)
        tokens_BL = torch.searchsorted(cdf_V, uniforms_BL * cdf_V[-1], right=True)
        return tokens_BL.clamp(max=len(cdf_V) - 1)


def _draw(law_RV: torch.Tensor, u_R: torch.Tensor) -> torch.Tensor:
    """Inverse CDF of each row's law at `u`."""
    cdf_RV = law_RV.cumsum(-1)
    target_R1 = u_R[:, None] * cdf_RV[:, -1:]
    return torch.searchsorted(cdf_RV, target_R1, right=True)[:, 0].clamp(max=law_RV.shape[1] - 1)
