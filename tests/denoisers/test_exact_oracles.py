"""Exact oracles against brute-force enumeration, and samplers of them against the enumerated law.

Random tests draw with fixed seeds and reject at p < 1e-6: with another seed, a right sampler fails one in a million.
"""

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.goodness_of_fit import p_value

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline, load_denoiser
from lsd_sampler.denoisers import (
    HiddenMarkovDenoiser,
    Oracle,
    TableDenoiser,
    brackets,
    colouring,
    hamming,
    hidden_chain,
    second_order_chain,
    sudoku4,
)


FALSE_ALARM = 1e-6
Weight = Callable[[tuple[int, ...]], float]


# ---- the laws, said in another way ----


def table() -> Oracle:
    rows = torch.tensor([[0, 1, 2, 0], [2, 1, 2, 0], [0, 1, 2, 0], [1, 1, 0, 1], [2, 2, 2, 2]])
    return TableDenoiser(rows, torch.tensor([1.0, 2.0, 0.5, 3.0, 0.0]), vocab_size=3)


def table_weight(x: tuple[int, ...]) -> float:
    return {(0, 1, 2, 0): 1.5, (2, 1, 2, 0): 2.0, (1, 1, 0, 1): 3.0}.get(x, 0.0)


def paths_weight(oracle: HiddenMarkovDenoiser, x: tuple[int, ...]) -> float:
    """The sum over all paths of hidden states, one by one."""
    total, (start, step, emit, end) = 0.0, (oracle.start, oracle.transition, oracle.emission, oracle.end)
    for z in itertools.product(range(len(start)), repeat=len(x)):
        p = start[z[0]] * end[z[-1]]
        for a, b in itertools.pairwise(z):
            p = p * step[a, b]
        for state, token in zip(z, x, strict=True):
            p = p * emit[state, token]
        total += float(p)
    return total


def second_order_weight(oracle: HiddenMarkovDenoiser, x: tuple[int, ...]) -> float:
    """By the law of a token after two others, read off the transitions of pairs; x has a token before it."""
    V, total = oracle.vocab_size, 0.0
    step = oracle.transition.view(V, V, V, V)  # (a, b) to (c, d): 0 unless c is b
    for before in range(V):
        p, a = float(oracle.start.view(V, V)[before, x[0]]), before
        for b, d in itertools.pairwise(x):
            p, a = p * float(step[a, b, b, d]), b
        total += p
    return total


def balanced(x: tuple[int, ...], kinds: int, depth: int) -> float:
    opened: list[int] = []
    for token in x:
        if token < kinds:
            opened.append(token)
        elif not opened or opened.pop() != token - kinds:
            return 0.0
        if len(opened) > depth:
            return 0.0
    return float(not opened)


def proper(x: tuple[int, ...], height: int, width: int) -> float:
    cells = itertools.product(range(height), range(width))
    pairs = [(r * width + c, s * width + d) for r, c in cells for s, d in ((r + 1, c), (r, c + 1))
             if s < height and d < width]  # fmt: skip
    return float(all(x[i] != x[j] for i, j in pairs))


def hamming_word(x: tuple[int, ...]) -> float:
    """Its three checks, each a parity of four bits."""
    return float(not any(sum(x[i] for i in check) % 2 for check in ((1, 2, 3, 4), (0, 2, 3, 5), (0, 1, 3, 6))))


HIDDEN = hidden_chain(3, 4, num_states=2, seed=1)
CUT = hidden_chain(3, 4, num_states=3, num_successors=2, seed=2)
EPS = hidden_chain(3, 4, num_successors=1, eps=0.2, seed=3)
WEIGHTED = HiddenMarkovDenoiser(
    torch.tensor([2.0, 1.0]), torch.tensor([[0.0, 3.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
    torch.tensor([1.0, 0.5]), length=4,
)  # fmt: skip
SECOND = second_order_chain(2, 5, seed=1)
LAWS: dict[str, tuple[Oracle, Weight]] = {
    "table": (table(), table_weight),
    "hidden": (HIDDEN, functools.partial(paths_weight, HIDDEN)),
    "hidden, cut": (CUT, functools.partial(paths_weight, CUT)),
    "first order, smoothed": (EPS, functools.partial(paths_weight, EPS)),
    "weighted": (WEIGHTED, functools.partial(paths_weight, WEIGHTED)),
    "second order": (SECOND, functools.partial(second_order_weight, SECOND)),
    "brackets": (brackets(6, depth=2, num_kinds=1), lambda x: balanced(x, 1, 2)),
    "brackets of two kinds": (brackets(4, depth=2, num_kinds=2), lambda x: balanced(x, 2, 2)),
    "colouring": (colouring(2, 3, 3), lambda x: proper(x, 2, 3)),
    "hamming": (hamming(), hamming_word),
}
BOUND = ("table", "brackets", "brackets of two kinds", "colouring", "hamming")
"""Those that some sequences are impossible under."""


@functools.cache
def law(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All sequences, `(V^L, L)`, and their probabilities, `(V^L,)`."""
    oracle, weight = LAWS[name]
    sequences = list(itertools.product(range(oracle.vocab_size), repeat=oracle.length))
    p = torch.tensor([weight(x) for x in sequences], dtype=torch.float64)
    return torch.tensor(sequences), p / p.sum()


def some_canvases(oracle: Oracle, most: int = 2000) -> torch.Tensor:
    """Every way to mask any positions of any sequence, or a random part of them."""
    V, L = oracle.vocab_size, oracle.length
    if (V + 1) ** L > most:
        return torch.randint(V + 1, (most, L), generator=torch.Generator().manual_seed(0))
    return torch.tensor(list(itertools.product(range(V + 1), repeat=L)))


def disagreement(canvases: torch.Tensor, sequences: torch.Tensor, mask: int) -> torch.Tensor:
    return ((canvases[:, None] != sequences) & (canvases[:, None] != mask)).sum(-1)


def enumerated(canvases: torch.Tensor, sequences: torch.Tensor, p: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(sequences).double()
    mass = torch.einsum("cn,nlv->clv", fits * p, one_hot)
    return mass / mass.sum(-1, keepdim=True)


@pytest.mark.parametrize("name", LAWS)
def test_posteriors_equal_enumeration(name: str) -> None:
    oracle, (sequences, p) = LAWS[name][0], law(name)
    canvases = some_canvases(oracle)
    fits = disagreement(canvases, sequences, oracle.vocab_size) == 0
    possible = (fits * p).sum(1) > 0
    assert possible.sum() > 20
    expected = enumerated(canvases[possible], sequences, p, fits[possible])
    torch.testing.assert_close(oracle(canvases[possible]).exp(), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", BOUND)
def test_after_impossible_evidence_the_nearest_sequences_decide(name: str) -> None:
    """Those of positive weight that disagree with the fewest known tokens; a table's exactly, else in the limit."""
    oracle, (sequences, p) = LAWS[name][0], law(name)
    canvases = some_canvases(oracle, most=500)
    distance = disagreement(canvases, sequences, oracle.vocab_size)
    nearest = distance.masked_fill(p == 0, 99).min(1, keepdim=True).values
    impossible, masked = nearest[:, 0] > 0, canvases == oracle.vocab_size
    assert impossible.sum() > 5
    expected = enumerated(canvases, sequences, p, distance == nearest)
    actual = oracle(canvases).exp()
    torch.testing.assert_close(actual.sum(-1), torch.ones_like(actual[..., 0]))
    within = 1e-12 if isinstance(oracle, TableDenoiser) else 5e-3
    here = impossible[:, None] & masked
    torch.testing.assert_close(actual[here], expected[here], atol=within, rtol=0)
    known = ~masked
    assert (actual[known].gather(-1, canvases[known][:, None]) == 1).all()


@pytest.mark.parametrize("name", LAWS)
def test_probabilities_of_sequences_and_of_beginnings(name: str) -> None:
    oracle, (sequences, p) = LAWS[name][0], law(name)
    torch.testing.assert_close(oracle.log_prob(sequences).exp(), p, atol=1e-14, rtol=1e-12)
    for length in (1, oracle.length - 1):
        starts, place = sequences[:, :length].unique(dim=0, return_inverse=True)
        mass = torch.zeros(len(starts), dtype=torch.float64).index_add_(0, place, p)
        torch.testing.assert_close(oracle.log_prob(starts).exp(), mass, atol=1e-14, rtol=1e-12)
        # the posterior of the first token, nothing known, is that of longer sequences
        masked = torch.full((1, oracle.length), oracle.vocab_size)
        torch.testing.assert_close(oracle(masked[:, :length])[0, 0], oracle(masked)[0, 0])
    if oracle.num_valid is not None:
        assert oracle.num_valid == int((p > 0).sum())
    if oracle.collision_probability is not None:
        assert oracle.collision_probability == pytest.approx(float(p.square().sum()), rel=1e-12)


def counted(samples: torch.Tensor, vocab_size: int) -> torch.Tensor:
    radix = vocab_size ** torch.arange(samples.shape[1] - 1, -1, -1)
    return torch.bincount(samples @ radix, minlength=vocab_size ** samples.shape[1])


@pytest.mark.parametrize("name", LAWS)
def test_exact_samples_have_the_law(name: str) -> None:
    oracle, (_, p) = LAWS[name][0], law(name)
    for seed, make in enumerate((oracle.sample, functools.partial(Oracle.sample, oracle))):
        samples = make(20_000, torch.Generator().manual_seed(seed))
        assert p_value(counted(samples, oracle.vocab_size).numpy(), p.numpy()) > FALSE_ALARM


@pytest.mark.parametrize("order", ["random", "margin"])
@pytest.mark.parametrize("name", LAWS)
def test_one_token_a_call_is_the_law(name: str, order: str) -> None:
    oracle, (_, p) = LAWS[name][0], law(name)
    pipe = MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config(), order=order))
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    made = pipe(num_samples=20_000, num_inference_steps=oracle.length, generator=generator, output_type="ids")
    assert p_value(counted(made.sequences, oracle.vocab_size).numpy(), p.numpy()) > FALSE_ALARM


# ---- chains ----


def test_pairs_and_triples_of_a_hidden_chain() -> None:
    sequences, p = law("hidden")
    for n in (1, 2, 3):
        expected = torch.zeros((3,) * n, dtype=torch.float64)
        for first in range(4 - n + 1):
            expected.index_put_(tuple(sequences[:, first : first + n].T), p / (4 - n + 1), accumulate=True)
        torch.testing.assert_close(HIDDEN.ngram_law(n), expected, atol=1e-12, rtol=0)


def bisection_nats(oracle: Oracle, x_NL: torch.Tensor) -> tuple[torch.Tensor, int]:
    """What sequences cost, in nats, if each call reveals the middle of every gap; and how many calls that takes."""
    canvas, nats, calls = torch.full_like(x_NL, oracle.vocab_size), torch.zeros(len(x_NL), dtype=torch.float64), 0
    gaps = [(0, x_NL.shape[1])]
    while gaps:
        middles = [(low + high) // 2 for low, high in gaps]
        log_p = oracle(canvas)[:, middles].gather(-1, x_NL[:, middles, None])
        nats, calls = nats - log_p.sum((1, 2)), calls + 1
        canvas[:, middles] = x_NL[:, middles]
        parts = [part for (low, high), m in zip(gaps, middles, strict=True) for part in ((low, m), (m + 1, high))]
        gaps = [(low, high) for low, high in parts if low < high]
    return nats, calls


@pytest.mark.parametrize("length", [100, 128])
def test_bisection_solves_a_first_order_chain_in_log2_calls(length: int) -> None:
    chain = hidden_chain(9, length, num_successors=4, eps=1e-2, seed=5)
    x = chain.sample(8, torch.Generator().manual_seed(0))
    nats, calls = bisection_nats(chain, x)
    assert calls == math.floor(math.log2(length)) + 1
    torch.testing.assert_close(nats, -chain.log_prob(x), atol=0, rtol=1e-10)


@pytest.mark.parametrize(
    "oracle", [second_order_chain(4, 32, num_successors=2), hidden_chain(6, 32, num_states=4, num_successors=2)]
)
def test_it_does_not_solve_the_harder_controls(oracle: Oracle) -> None:
    x = oracle.sample(64, torch.Generator().manual_seed(0))
    nats, _ = bisection_nats(oracle, x)
    excess = nats + oracle.log_prob(x)
    assert excess.mean() > 0.3 and excess.mean() > 4 * excess.std() / 8


# ---- sets ----


@pytest.mark.parametrize("num_known", [0, 1, 3, 9])
def test_posteriors_of_sudoku_are_shares_of_grids(num_known: int) -> None:
    """Where many grids are left, and where few are."""
    oracle = sudoku4()
    x = oracle.sample(64, torch.Generator().manual_seed(0))
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).argsort(1) < num_known
    canvases = torch.where(known, x, 4)
    fits = disagreement(canvases, oracle.sequences, 4) == 0
    expected = enumerated(canvases, oracle.sequences, torch.ones(288).double(), fits)
    torch.testing.assert_close(oracle(canvases).exp(), expected, atol=1e-12, rtol=0)


# ---- names and files ----


@pytest.mark.parametrize("name", ["table", "hidden, cut", "weighted", "brackets"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    oracle = LAWS[name][0]
    canvases = some_canvases(oracle, most=50)
    MaskedDiffusionPipeline(oracle, LSDScheduler(**oracle.scheduler_config())).save_pretrained(tmp_path)
    for loaded in (load_denoiser(tmp_path), MaskedDiffusionPipeline.from_pretrained(tmp_path).denoiser):
        assert type(loaded) is type(oracle) and isinstance(loaded, Oracle)
        assert torch.equal(loaded(canvases), oracle(canvases)) and loaded.memory == oracle.memory
        assert loaded.half()(canvases).dtype == torch.float64


def test_bad_arguments() -> None:
    two, one = torch.zeros(1, 2, dtype=torch.int64), torch.ones(2)
    for arguments, word in (
        ((torch.zeros(2, 0),), "`sequences`"),
        ((torch.zeros(1, 2),), "`sequences`"),
        ((-two - 1,), "`sequences`"),
        ((two, one), "`weights`"),
        ((two, torch.tensor([math.nan])), "`weights`"),
        ((two, None, 0), "`vocab_size`"),
    ):
        with pytest.raises(ValueError, match=word):
            TableDenoiser(*arguments)
    for arguments, word in (
        ((one, torch.ones(2, 3)), "`transition`"),
        ((one, -torch.ones(2, 2)), "`transition`"),
        ((one, torch.ones(2, 2), torch.ones(3, 2)), "`emission`"),
        ((one, torch.ones(2, 2), None, torch.zeros(2)), "no sequence"),
        ((one, torch.ones(2, 2), None, None, 0), "`length`"),
    ):
        with pytest.raises(ValueError, match=word):
            HiddenMarkovDenoiser(*arguments)
    with pytest.raises(ValueError, match="`tokens`"):
        hamming()(torch.zeros(1, 8, dtype=torch.int64))
