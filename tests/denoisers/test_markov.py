"""The exact oracle against brute-force enumeration of all sequences."""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lsd_sampler.denoisers import MarkovDenoiser, countdown, load_denoiser, random_chain


def enumerate_posteriors(chain: MarkovDenoiser, tokens_L: torch.Tensor) -> torch.Tensor:
    """`p(x_i = y | known tokens)` by summing over all sequences, `(L, V)`; NaN for impossible evidence."""
    L, V = len(tokens_L), chain.vocab_size
    mass = torch.zeros(L, V, dtype=torch.float64)
    for x in itertools.product(range(V), repeat=L):
        if any(k not in (chain.mask_token_id, y) for k, y in zip(tokens_L.tolist(), x, strict=True)):
            continue
        p = chain.initial[x[0]] * torch.stack([chain.transition[a, b] for a, b in itertools.pairwise(x)]).prod()
        mass[torch.arange(L), torch.tensor(x)] += p
    return mass / mass.sum(-1, keepdim=True)


def all_canvases(V: int, L: int) -> torch.Tensor:
    """Every way to mask any positions of any sequence, `((V + 1)^L, L)`."""
    return torch.tensor(list(itertools.product(range(V + 1), repeat=L)))


def chain_of(kind: str) -> MarkovDenoiser:
    if kind == "stationary":
        return random_chain(3, 4, seed=1)
    p = torch.tensor([[0.0, 0.2, 0.8], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return MarkovDenoiser(p, torch.tensor([0.9, 0.1, 0.0], dtype=torch.float64), length=4)


@pytest.mark.parametrize("kind", ["stationary", "sparse, not stationary"])
def test_equals_enumeration_for_every_mask_pattern(kind: str) -> None:
    chain = chain_of(kind)
    canvases = all_canvases(chain.vocab_size, chain.length)
    expected = torch.stack([enumerate_posteriors(chain, tokens) for tokens in canvases])
    actual = chain(canvases).exp()
    possible = ~expected.isnan().any(-1).any(-1)
    assert possible.sum() > 90
    torch.testing.assert_close(actual[possible], expected[possible], atol=1e-12, rtol=0)


def test_short_sequences_are_beginnings() -> None:
    chain = chain_of("sparse, not stationary")
    canvases = all_canvases(chain.vocab_size, 2)
    expected = torch.stack([enumerate_posteriors(chain, tokens) for tokens in canvases])
    possible = ~expected.isnan().any(-1).any(-1)
    torch.testing.assert_close(chain(canvases).exp()[possible], expected[possible], atol=1e-12, rtol=0)


def test_every_row_is_a_distribution_even_after_impossible_evidence() -> None:
    chain = chain_of("sparse, not stationary")
    p = chain(all_canvases(chain.vocab_size, chain.length)).exp()
    torch.testing.assert_close(p.sum(-1), torch.ones_like(p[..., 0]))


def test_impossible_right_neighbour_is_ignored() -> None:
    chain = countdown(4, 8)
    mask = chain.mask_token_id
    # 3 goes to 2, then to 1: a 3 two places on is impossible
    assert chain(torch.tensor([[3, mask, 3]]))[0, 1].exp().tolist() == [0, 0, 1, 0]


def test_half_precision_casts_leave_it_alone() -> None:
    chain = countdown(4, 8)
    chain.to(torch.bfloat16)
    chain.half()
    assert chain.dtype == torch.float64
    assert chain.transition[0, 0] == 0.25
    tokens = torch.full((1, 8), 4)
    assert chain(tokens).dtype == torch.float64
    assert torch.equal(chain(tokens), chain(tokens, torch.rand(1)))


@pytest.mark.parametrize("V", [2, 5, 32])
def test_countdown_law(V: int) -> None:
    chain = countdown(V, 16)
    assert torch.equal(chain.transition[0], torch.full((V,), 1 / V, dtype=torch.float64))
    assert all(chain.transition[s, s - 1] == 1 for s in range(1, V))
    torch.testing.assert_close(chain.initial @ chain.transition, chain.initial, atol=1e-14, rtol=0)
    # state s is entered from s + 1 or by a jump, so its stationary weight is proportional to V - s
    weights = torch.arange(V, 0, -1, dtype=torch.float64)
    torch.testing.assert_close(chain.initial, weights / weights.sum(), atol=1e-13, rtol=0)


def test_samples_follow_the_law() -> None:
    chain = random_chain(3, 3, seed=2)
    x = chain.sample(40_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(x @ torch.tensor([9, 3, 1]), minlength=27).double()
    p = chain.initial[:, None, None] * chain.transition[:, :, None] * chain.transition[None]
    expected = 40_000 * p.flatten()
    assert ((counts - expected) ** 2 / expected).sum() < 54  # 99.9 % quantile of chi-square with 26 degrees


def test_samples_never_make_a_forbidden_step() -> None:
    chain = countdown(8, 32)
    x = chain.sample(100, torch.Generator().manual_seed(0))
    assert x.shape == (100, 32)
    assert ((x[:, 1:] == x[:, :-1] - 1) | (x[:, :-1] == 0)).all()
    assert torch.equal(x, chain.sample(100, torch.Generator().manual_seed(0)))


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_thousand_step_teacher_takes_seconds() -> None:
    chain = countdown()
    x = chain.sample(64, torch.Generator().manual_seed(0))
    x[torch.rand(x.shape) < 0.7] = chain.mask_token_id
    chain(x)
    seconds = []
    for _ in range(7):
        start = time.process_time()  # not the clock on the wall: the machine may be busy
        chain(x)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.03


def test_round_trip(tmp_path: Path) -> None:
    chain = chain_of("sparse, not stationary")
    chain.save_pretrained(tmp_path)
    for loaded in (MarkovDenoiser.from_pretrained(tmp_path, torch_dtype=torch.float16), load_denoiser(tmp_path)):
        assert isinstance(loaded, MarkovDenoiser)
        assert torch.equal(loaded.transition, chain.transition)
        assert torch.equal(loaded.initial, chain.initial)
        assert loaded.length == chain.length


def test_named_chains() -> None:
    chain = load_denoiser("countdown")
    assert (chain.vocab_size, chain.length, chain.mask_token_id) == (32, 256, 32)
    assert (chain.prediction_type, chain.time_conditioned, chain.tokenizer) == ("logits", False, None)
    chain = load_denoiser("countdown:V=16,L=64")
    assert (chain.vocab_size, chain.length, chain.name_or_path) == (16, 64, "countdown:V=16,L=64")
    a, b = load_denoiser("markov:V=3,L=3,seed=0"), load_denoiser("markov:V=3,L=3,seed=1")
    assert isinstance(a, MarkovDenoiser) and isinstance(b, MarkovDenoiser)
    assert a.transition.shape == (3, 3) and not torch.equal(a.transition, b.transition)


def test_chain_from_a_file(tmp_path: Path) -> None:
    p = [[0.5, 0.5], [0.25, 0.75]]
    (tmp_path / "a.json").write_text(json.dumps({"transition": p, "initial": [1, 0], "length": 7}))
    save_file({"transition": torch.tensor(p, dtype=torch.float64)}, tmp_path / "b.safetensors")
    a, b = load_denoiser(f"markov:{tmp_path}/a.json"), load_denoiser(f"markov:{tmp_path}/b.safetensors,L=9")
    assert isinstance(a, MarkovDenoiser) and isinstance(b, MarkovDenoiser)
    assert (a.length, b.length, a.initial.tolist()) == (7, 9, [1, 0])
    assert torch.equal(a.transition, b.transition)
    torch.testing.assert_close(b.initial, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    with pytest.raises(ValueError, match="b.safetensors lacks 'length'"):
        load_denoiser(f"markov:{tmp_path}/b.safetensors")
    with pytest.raises(OSError, match="c.json"):
        load_denoiser(f"markov:{tmp_path}/c.json")
    (tmp_path / "d.json").write_text('{"transition": [[0.5, 0.6], [1, 0]], "length": 3}')
    with pytest.raises(ValueError, match="d.json.*`transition`"):
        load_denoiser(f"markov:{tmp_path}/d.json")


@pytest.mark.parametrize(
    "spec", ["markov:V=3;L=3", "markov:x.txt", "countdown:seed=1", "countdown:V=x", "markov:V=1", "markov:L=0"]
)
def test_bad_spec(spec: str) -> None:
    with pytest.raises(ValueError, match="form is|`V`|`length`"):
        load_denoiser(spec)


def test_bad_arguments() -> None:
    eye = torch.eye(2)
    with pytest.raises(ValueError, match="`transition`"):
        MarkovDenoiser(torch.full((2, 2), float("nan")))
    with pytest.raises(ValueError, match="`transition`"):
        MarkovDenoiser(torch.ones(2, 3))
    with pytest.raises(ValueError, match="`initial`"):
        MarkovDenoiser(eye, torch.tensor([0.5, 0.6]))
    with pytest.raises(ValueError, match="`length`"):
        MarkovDenoiser(torch.eye(2000), length=1000)
    with pytest.raises(ValueError, match="`tokens`"):
        MarkovDenoiser(eye, length=3)(torch.zeros(1, 4, dtype=torch.int64))
