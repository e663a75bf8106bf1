"""Images as grids of tokens."""

import pytest
import torch

from lsd_sampler.denoisers.patch_codebook import PatchCodebook


def test_patches_tile_images() -> None:
    """Decoding puts each patch where encoding found it; an image made of patches comes back exactly."""
    generator = torch.Generator().manual_seed(0)
    codebook = PatchCodebook(torch.rand(11, 2, 3, generator=generator))
    tokens = torch.randint(11, (5, 4, 6), generator=generator)
    images = codebook.decode(tokens)
    assert images.shape == (5, 8, 18)
    torch.testing.assert_close(images[1, 2:4, 3:6], codebook.patches[tokens[1, 1, 1]])
    assert torch.equal(codebook.encode(images), tokens.flatten(1))
    square = PatchCodebook(torch.rand(4, 1, 1))
    assert square.decode(torch.zeros(2, 9, dtype=torch.long)).shape == (2, 3, 3)
    with pytest.raises(ValueError, match="is a mask left"):
        codebook.decode(torch.full((1, 2, 2), 11))
    with pytest.raises(ValueError, match="`tokens` must have shape"):
        codebook.decode(torch.zeros(2, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="patches of 2 x 3"):
        codebook.encode(torch.zeros(1, 28, 28))
    with pytest.raises(ValueError, match="`patches` must have shape"):
        PatchCodebook(torch.zeros(4, 4))
