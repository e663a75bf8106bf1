"""The size of a denoiser, read from it."""

import torch
from helpers.ddit_checkpoints import make

from lsd_sampler.denoisers.sizes import ModelSize


def test_the_size_of_a_loaded_denoiser() -> None:
    model = make("sedd").to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    model.rotary_emb.float()
    size = ModelSize.of(model)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert (size.bytes_per_parameter, size.weight_bytes) == (2, 2 * size.parameters)
    assert (size.length, size.columns) == (8, 8)
    assert (size.prediction_type, size.time_conditioned, size.defers_head) == ("log_score", True, True)


def test_the_widest_layer_is_not_the_head() -> None:
    class Wide(torch.nn.Module):
        vocab_size, length, prediction_type, time_conditioned, defers_head = 50, 4, "logits", False, False

        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.inner = torch.nn.Embedding(51, 8), torch.nn.Linear(8, 32)
            self.head = torch.nn.Linear(32, 50)

    assert ModelSize.of(Wide()).widest == 32
