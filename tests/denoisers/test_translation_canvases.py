"""Sources, lengths, first canvases and candidates of translations."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.official_translation import MODELS, case, case_names, golden, official
from helpers.tiny_translation import save_translation

from lsd_sampler import load_denoiser
from lsd_sampler.denoisers.translation import TranslationDenoiser
from lsd_sampler.denoisers.translation_canvases import (
    LengthBeam,
    best_candidates,
    candidate_scores,
    first_canvases,
    framed,
    padded_sources,
    read_sources,
)
from lsd_sampler.sampling.draws import row_generators


@pytest.fixture
def denoiser(tmp_path: Path) -> TranslationDenoiser:
    loaded = load_denoiser(save_translation(tmp_path, diffusion_type="reparam-multinomial"))
    assert isinstance(loaded, TranslationDenoiser)
    return loaded


@pytest.mark.parametrize("model", MODELS)
def test_official_source_tokens(model: str) -> None:
    from helpers.official_translation import sources

    expected = golden(f"{model}.")["src_tokens"]
    assert torch.equal(padded_sources(read_sources(sources(model), official(model)), left=True), expected)


@pytest.mark.parametrize("name", [name for name in case_names() if not name.endswith("command_line")])
def test_official_lengths_of_candidates(name: str) -> None:
    settings, expected = case(name), golden(f"{name}.")["lengths"]
    length = golden(f"{name.split('.')[0]}.")["length"]
    assert torch.equal(LengthBeam(settings["beam"], settings["within"]).around(length, 48), expected)


@pytest.mark.parametrize("name", [name for name in case_names() if not name.endswith("command_line")])
def test_official_scores_of_candidates(name: str) -> None:
    expected = golden(f"{name}.")
    scores = candidate_scores(expected["scores"][-1], expected["canvases"][-1])
    torch.testing.assert_close(scores.view_as(expected["candidate_score"]), expected["candidate_score"])
    B, candidates = expected["candidate_score"].shape
    rows = best_candidates(scores, candidates)
    assert torch.equal(rows - torch.arange(B) * candidates, expected["best"])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ein us", [[0, 4, 6, 2]]),
        (["ein", "zzz us"], [[0, 4, 2], [0, 3, 6, 2]]),
        ([4, 6], [[0, 4, 6, 2]]),
        (torch.tensor([0, 4, 6, 2]), [[0, 4, 6, 2]]),
        ([[4], [0, 6, 5, 2]], [[0, 4, 2], [0, 6, 5, 2]]),
        (torch.tensor([[1, 0, 4, 2], [0, 6, 5, 2]]), [[0, 4, 2], [0, 6, 5, 2]]),
    ],
)
def test_sources_are_texts_or_ids(denoiser: TranslationDenoiser, prompt: Any, expected: list[list[int]]) -> None:
    assert read_sources(prompt, denoiser) == expected


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "`prompt` holds no text"),
        ([4, 99], r"token ids in \[0, 19\]"),
        ([[0.5]], "`prompt` must be a text"),
        ([None], "`prompt` must be a text"),
        (7, "`prompt` must be a text, token ids, or a list of either, got 7"),
        (torch.tensor(7), "`prompt` must be a text"),
        ([[{"role": "user", "content": "us"}]], "`prompt` must be a text"),
        (["us " * 13], r"`prompt` 0 has 15 tokens .* but the encoder has 14 positions"),
    ],
)
def test_an_unusable_source_is_refused(denoiser: TranslationDenoiser, prompt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_sources(prompt, denoiser)


def test_a_text_that_is_not_in_pieces_is_told(denoiser: TranslationDenoiser, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_sources("Haus gross", denoiser)
    assert "split into the pieces of the dictionary" in caplog.text


def test_padding_is_on_the_side_that_is_asked_for() -> None:
    sources = [[0, 4, 5, 2], [0, 2]]
    assert padded_sources(sources, left=True).tolist() == [[0, 4, 5, 2], [1, 1, 0, 2]]
    assert padded_sources(sources, left=False).tolist() == [[0, 4, 5, 2], [0, 2, 1, 1]]


def test_lengths_are_around_the_predicted_one_and_kept_in_bounds(caplog: pytest.LogCaptureFixture) -> None:
    assert LengthBeam(5, 1).around(torch.tensor([9]), 20).tolist() == [[7, 8, 9, 10, 11]]
    assert LengthBeam(2, 2).around(torch.tensor([9]), 20).tolist() == [[8, 9, 8, 9]]
    assert LengthBeam(5, 1).around(torch.tensor([3]), 20).tolist() == [[3, 3, 3, 4, 5]]
    assert not caplog.text
    assert LengthBeam(3, 1).around(torch.tensor([20]), 20).tolist() == [[19, 20, 20]]
    assert "cut to 20" in caplog.text


@pytest.mark.parametrize(("lengths", "within", "name"), [(0, 1, "length_beam"), (1, True, "beam_within_length")])
def test_a_beam_is_positive(lengths: int, within: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
        LengthBeam(lengths, within)


def test_canvases_are_framed() -> None:
    assert framed(torch.tensor([3, 5]), 6, 3).tolist() == [[0, 3, 2, 1, 1, 1], [0, 3, 3, 3, 2, 1]]


def test_tokens_of_multinomial_noise_are_different_and_follow_their_law(denoiser: TranslationDenoiser) -> None:
    """A token of weight w is among 3 of V with probability 3 / V for equal weights: 4000 rows, 5 standard errors."""
    length = torch.full((4000,), 5)
    generators = row_generators(0, range(4000))
    canvas = first_canvases(denoiser, length, [5] * 4000, 5, generators)[:, 1:-1]
    assert all(len({*row}) == 3 for row in canvas.tolist())
    counts = torch.bincount(canvas.flatten(), minlength=20).double()
    assert counts[:3].sum() == 0
    share = 3 / 17
    assert float((counts[3:] / 4000 - share).abs().max()) < 5 * (share * (1 - share) / 4000) ** 0.5


def test_a_row_s_noise_does_not_depend_on_the_others(denoiser: TranslationDenoiser) -> None:
    length = torch.tensor([4, 7])
    both = first_canvases(denoiser, length, [5, 8], 8, row_generators(0, [0, 1]))
    alone = first_canvases(denoiser, length[:1], [5], 5, row_generators(0, [0]))
    assert torch.equal(both[:1, :5], alone)


def test_a_score_counts_the_frame_and_leaves_padding_out() -> None:
    canvas = torch.tensor([[0, 5, 1, 6, 2, 1]])
    score = torch.tensor([[0.0, -2.0, -9.0, -4.0, 0.0, -7.0]])
    assert candidate_scores(score, canvas).tolist() == [-1.5]


def test_the_best_candidate_is_the_first_of_the_highest_score() -> None:
    assert best_candidates(torch.tensor([-3.0, -1.0, -1.0, -torch.inf, -2.0, -5.0]), 3).tolist() == [1, 4]
