"""Images as grids of tokens: each patch of pixels is the nearest one of a codebook."""

import math
import os
from pathlib import Path
from typing import Self

import torch
from torch import nn

from .files import read_companion, write_tensors


CODEBOOK_NAME = "codebook.safetensors"
_ROWS = 2**14  # number of patches that are compared with the codebook at a time


class PatchCodebook(nn.Module):
    r"""
    Turns grey images into tokens, and tokens back into images: the decoder of a small image model.

    It lies beside the model's weights, in `codebook.safetensors`:

        codebook = PatchCodebook.from_pretrained("models/garments")
        images = codebook.decode(pipeline(class_labels=3, output_type="ids").sequences)

    Args:
        patches (`torch.Tensor` of shape `(vocab_size, height, width)`): the patches that tokens stand for, in [0, 1].

    Raises:
        ValueError: if `patches` has another number of axes, or none.
    """

    patches: torch.Tensor

    def __init__(self, patches: torch.Tensor):
        super().__init__()
        if patches.ndim != 3 or not patches.numel():
            raise ValueError(f"`patches` must have shape (vocab_size, height, width), got {tuple(patches.shape)}.")
        self.register_buffer("patches", patches.float())

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The nearest patches, row by row.

        Args:
            images (`torch.Tensor` of shape `(batch_size, H, W)`): in [0, 1].

        Returns:
            `torch.LongTensor` of shape `(batch_size, H / height * W / width)`.

        Raises:
            ValueError: if the patches do not tile the images.
        """
        pixels = self.cut(images, *self.patches.shape[1:])
        codes = self.patches.flatten(1)
        # of the squared distance, what depends on the code
        offset = codes.square().sum(1)
        parts = [(offset - 2 * part @ codes.T).argmin(1) for part in pixels.flatten(0, 1).split(_ROWS)]
        return torch.cat(parts).view(pixels.shape[:2])

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """The images of canvases.

        Args:
            tokens (`torch.LongTensor` of shape `(batch_size, rows, columns)`, or `(batch_size, n * n)`): in
                `[0, vocab_size)`.

        Returns:
            `torch.Tensor` of shape `(batch_size, rows * height, columns * width)`, in [0, 1].

        Raises:
            ValueError: if the shape is another, or a token is not in the codebook.
        """
        side = math.isqrt(tokens.shape[-1])
        if tokens.ndim == 2 and side * side == tokens.shape[1]:
            tokens = tokens.view(-1, side, side)
        if tokens.ndim != 3:
            raise ValueError(f"`tokens` must have shape (B, rows, columns) or (B, n * n), got {tuple(tokens.shape)}.")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(self.patches):
            raise ValueError(f"`tokens` must be in [0, {len(self.patches)}): is a mask left on the canvas?")
        pixels = self.patches[tokens]  # B, rows, columns, height, width
        return pixels.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    @staticmethod
    def cut(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The patches of images, `(batch_size, number, height * width)`, row by row.

        Raises:
            ValueError: if the patches do not tile the images.
        """
        if images.ndim != 3 or images.shape[1] % height or images.shape[2] % width:
            shape = tuple(images.shape)
            raise ValueError(f"`images` must have shape (B, H, W) with patches of {height} x {width}, got {shape}.")
        return images.unfold(1, height, height).unfold(2, width, width).flatten(3).flatten(1, 2)

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Writes `codebook.safetensors`."""
        write_tensors({"patches": self.patches}, Path(save_directory) / CODEBOOK_NAME)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **where: object) -> Self:
        """Reads `codebook.safetensors` of a folder or a Hub repository.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): the folder or repository of the model.
            where: `revision`, `subfolder`, `token`, `cache_dir`, `local_files_only`, `force_download`.

        Raises:
            OSError: if it is missing.
            ValueError: if it is damaged or holds something else; the message names the file.
        """
        tensors, file = read_companion(pretrained_model_name_or_path, CODEBOOK_NAME, **where)
        if set(tensors) != {"patches"}:
            raise ValueError(f"{file} must hold one tensor, 'patches', got {sorted(tensors)}.")
        try:
            return cls(tensors["patches"])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
