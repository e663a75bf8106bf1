"""A random model of strings of a few characters, as SMILES are."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from lsd_sampler.denoisers.radd import RADDDenoiser


def write_model(folder: Path, tokens: str) -> Path:
    """A random RADD model of these characters, 6 positions. Its law is far from uniform."""
    model = {"hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": 6, "dropout": 0.0}
    torch.manual_seed(0)
    denoiser = RADDDenoiser({"tokens": len(tokens), "model": model})
    torch.nn.init.normal_(denoiser.output_layer.linear.weight, std=0.7)
    denoiser.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")  # pyright: ignore
    tokenizer.decoder = decoders.Fuse()  # pyright: ignore
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
