"""A Halton-MaskGIT network of a few thousand random parameters."""

from typing import Any

import torch

from lsd_sampler.denoisers import MaskGITDenoiser


# a head width that does not fill the model's: 4 heads of 4 in a width of 18
CONFIG: dict[str, Any] = {
    "input_size": 3, "hidden_dim": 18, "codebook_size": 7, "depth": 2, "heads": 4, "nclass": 5, "mlp_dim": 40,
    "register": 2,
}  # fmt: skip


def random_model(**changes: Any) -> MaskGITDenoiser:
    """Every parameter matters: none is 0 or 1, as norms and biases are at first."""
    model = MaskGITDenoiser({**CONFIG, **changes}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model
