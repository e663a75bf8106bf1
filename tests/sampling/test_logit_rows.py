"""Rows of logits: the ones that are asked for, in any memory layout, and nothing done to the others."""

import pytest
import torch
from helpers.sampler_runs import seeded

from lsd_sampler.sampling.logit_rows import DeferredLogits, check_row_maximum, edit_rows, row_chunks, rows_per_chunk


ROWS, POSITIONS = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([2, 0, 2, 2, 1])


@pytest.mark.parametrize("size", [None, 1, 2, 100])
@pytest.mark.parametrize("kind", ["contiguous", "strided", "deferred"])
def test_chunks_are_the_chosen_rows(kind: str, size: int | None) -> None:
    logits = torch.randn(2, 3, 4, generator=seeded())
    expected = logits[ROWS, POSITIONS]
    expected[:, 1] = -torch.inf
    before = logits.clone()
    given = {
        "contiguous": logits,
        "strided": logits.transpose(1, 2).contiguous().transpose(1, 2),
        "deferred": DeferredLogits(logits / 2, lambda hidden: 2 * hidden, 4),
    }[kind]
    chunks = list(row_chunks(given, ROWS, POSITIONS, 1, size))
    assert torch.equal(torch.cat(chunks), expected)
    assert size is None or max(len(chunk) for chunk in chunks) <= size
    assert torch.equal(logits, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["contiguous", "strided", "deferred"])
def test_chunks_that_reuse_memory_are_the_chosen_rows_too(kind: str, dtype: torch.dtype) -> None:
    """Whatever is done to the chunk before, and never by writing into the logits themselves."""
    logits = torch.randn(2, 3, 4, generator=seeded()).to(dtype)
    expected = logits[ROWS, POSITIONS].to(torch.promote_types(dtype, torch.float32))
    expected[:, 1] = -torch.inf
    before = logits.clone()
    given = {
        "contiguous": logits,
        "strided": logits.transpose(1, 2).contiguous().transpose(1, 2),
        "deferred": DeferredLogits(logits, lambda hidden: 1 * hidden, 4),
    }[kind]
    seen = 0
    for chunk in row_chunks(given, ROWS, POSITIONS, 1, 2, reuse=True):
        assert torch.equal(chunk, expected[seen : seen + 2]) and chunk.dtype == expected.dtype
        seen += len(chunk.fill_(7.0))
    assert seen == len(ROWS) and torch.equal(logits, before)


def test_deferred_logits_are_those_of_their_head() -> None:
    hidden, offset = torch.randn(2, 3, 4, generator=seeded()), torch.tensor([0.0, 5.0])
    deferred = DeferredLogits(hidden, lambda hidden: 2 * hidden, 4, offset)
    expected = (2 * hidden + offset[:, None, None])[ROWS, POSITIONS]
    assert deferred.shape == (2, 3, 4) and torch.equal(deferred.rows(ROWS, POSITIONS), expected)
    assert torch.equal(deferred[1:].rows(torch.tensor([0]), torch.tensor([2])), 2 * hidden[1:, 2] + 5)
    doubled = DeferredLogits(hidden, lambda hidden: 2 * hidden, 4).edited(lambda rows: 2 * rows)
    assert torch.equal(doubled.rows(ROWS, POSITIONS), 4 * hidden[ROWS, POSITIONS])
    copy = deferred.clone()
    hidden.zero_()
    assert torch.equal(copy.rows(ROWS, POSITIONS), expected)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_an_edit_reaches_every_row_with_its_own_entry(requires_grad: bool) -> None:
    vocab = 2**17  # two rows at a time
    assert rows_per_chunk(vocab, torch.device("cpu")) == 2
    logits, others = torch.ones(1, 5, vocab), torch.arange(5.0)[None]
    if requires_grad:
        logits = torch.ones(1, 5, vocab, requires_grad=True) * 1
    edited = edit_rows(lambda rows, other: rows.mul_(other[..., None]), logits, others)
    assert edited is logits and torch.equal(edited[0, :, 0], others[0]) and torch.equal(edited[0, :, -1], others[0])


@pytest.mark.parametrize(
    ("bad", "what"), [(torch.nan, "hold NaN"), (torch.inf, "NaN or .inf"), (-torch.inf, "all -inf")]
)
def test_an_unusable_row_says_what_it_holds(bad: float, what: str) -> None:
    check_row_maximum(torch.tensor([0.0, -1e30]))
    with pytest.raises(ValueError, match=f"`model_output` is unusable: .*{what}"):
        check_row_maximum(torch.tensor([0.0, bad]))
