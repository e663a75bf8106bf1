"""Draws: each token owns an interval of the uniform `v` that is as long as its probability, however small that is."""

import math
from collections.abc import Callable

import pytest
import torch

from lsd_sampler import LSDScheduler
from lsd_sampler.sampling.draws import draw_tokens, draw_uniforms, log_mass
from lsd_sampler.sampling.orders import ORDERS


VOCAB = 50_257
RARE = 1e-7
PLACES = [0, 1, 255, 256, VOCAB // 2, VOCAB // 256 * 256, VOCAB - 1]  # the last block has 81 tokens
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
BEFORE_ONE = math.nextafter(1.0, 0.0)


def rare_logits(dtype: torch.dtype, places: list[int], vocab: int = VOCAB) -> torch.Tensor:
    """Row r gives token `places[r]` a probability of about 1e-7. Shape `(1, R, V)`."""
    x = torch.randn(len(places), vocab, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    index = torch.tensor(places)[:, None]
    x = x.scatter(1, index, math.log(RARE) + x.scatter(1, index, -torch.inf).logsumexp(1, keepdim=True))
    return x.to(dtype)[None]


def probabilities(logits: torch.Tensor, beta: float = 1.0, excluded: int | None = None) -> torch.Tensor:
    """float64 softmax of the very logits that the sampler sees."""
    x = logits.double() * beta
    if excluded is not None:
        x[..., excluded] = -torch.inf
    return x.softmax(-1)


def first_v_above(draw: Callable[[torch.Tensor], torch.Tensor], token: torch.Tensor) -> torch.Tensor:
    """By bisection, for each row, the smallest v at which the drawn token is larger than `token` (1 if none is)."""
    low, high = torch.zeros(len(token), dtype=torch.float64), torch.ones(len(token), dtype=torch.float64)
    above_at_0 = draw(low) > token
    for _ in range(52):
        middle = (low + high) / 2
        above = draw(middle) > token
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(above_at_0, 0.0, high)


def owned(draw: Callable[[torch.Tensor], torch.Tensor], token: torch.Tensor) -> torch.Tensor:
    """Length of the interval of v in which `token` is drawn."""
    return first_v_above(draw, token) - first_v_above(draw, token - 1)


def draw_function(logits: torch.Tensor, **kwargs) -> Callable[[torch.Tensor], torch.Tensor]:
    rows = torch.arange(logits.shape[1])
    return lambda v: draw_tokens(logits, torch.zeros_like(rows), rows, v, **kwargs)[0]


@pytest.mark.parametrize("excluded", [None, 7, VOCAB])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rare_token_owns_its_interval(dtype: torch.dtype, excluded: int | None) -> None:
    columns = VOCAB + 1 if excluded == VOCAB else VOCAB
    places = PLACES if excluded is None else [*PLACES, 6, 8]
    logits = rare_logits(dtype, places, columns)
    p = probabilities(logits, excluded=excluded)[0, range(len(places)), places]
    assert (p / RARE - 1).abs().max() < 0.2  # in half precision a logit is off by a few percent; p is not
    got = owned(draw_function(logits, excluded=excluded), torch.tensor(places))
    assert (got - p).abs().max() < 1e-10


def all_alike(monkeypatch: pytest.MonkeyPatch, v: torch.Tensor) -> None:
    """Every uniform of row r, whatever it is for, is `v[r]`."""
    monkeypatch.setattr(
        "lsd_sampler.sampling.canvas.draw_uniforms",
        lambda batch_size, num, generator, device: v[:, None].expand(batch_size, num).clone(),
    )


@pytest.mark.parametrize("is_image", [False, True])
@pytest.mark.parametrize("order", ORDERS.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rare_token_through_step(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, order: str, is_image: bool
) -> None:
    places = [0, 256, VOCAB - 1]
    # (B, L, V) with the row of interest at position 1 of 2; the mask is a column in the middle
    rows = rare_logits(dtype, places)[0][:, None]
    logits = torch.cat([torch.zeros_like(rows), rows], dim=1)
    mask = 300
    p = probabilities(logits, excluded=mask)[range(len(places)), 1, places]
    if is_image:
        logits = logits.transpose(1, 2).unflatten(2, (1, 2)).contiguous()
    scheduler = LSDScheduler(mask_token_id=mask, order=order)
    canvas = torch.full((len(places), 1, 2) if is_image else (len(places), 2), mask)

    def draw(v: torch.Tensor) -> torch.Tensor:
        all_alike(monkeypatch, v)
        scheduler.set_timesteps(1)
        return scheduler.step(logits, scheduler.timesteps[0], canvas).prev_sample.flatten(1)[:, 1]

    assert (owned(draw, torch.tensor(places)) - p).abs().max() < 1e-10


@pytest.mark.parametrize("vocab", [2, 300, 1024, 1025, 5000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_impossible_tokens_are_never_drawn(dtype: torch.dtype, vocab: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 64, vocab, dtype=torch.float64, generator=generator).to(dtype)
    impossible = torch.rand(64, vocab, generator=generator) < torch.rand(64, 1, generator=generator)
    impossible[0], impossible[1], impossible[2] = True, True, False
    impossible[0, 0], impossible[1, -1] = False, False
    impossible[3:20, : vocab // 2] = True  # whole blocks, at either end
    impossible[20:40, vocab // 2 :] = True
    impossible[range(3, 64), torch.randint(vocab, (61,), generator=generator)] = False
    logits[0][impossible] = -torch.inf
    for v in (0.0, BEFORE_ONE, 0.5, *torch.rand(20, dtype=torch.float64, generator=generator).tolist()):
        for beta in (1.0, 0.0, 0.3, 4.0, math.inf):
            draw = draw_function(logits, inverse_temperature=beta)
            tokens = draw(torch.full((64,), v, dtype=torch.float64))
            assert not impossible[range(64), tokens].any()


def test_excluded_column_is_never_drawn() -> None:
    logits = torch.zeros(1, 4, 6)
    logits[0, range(4), [0, 2, 5, 3]] = 50.0  # the likeliest by far
    for excluded in (0, 2, 5):
        for v in (0.0, 0.3, 0.6, BEFORE_ONE):
            for beta in (0.0, 1.0, math.inf):
                draw = draw_function(logits, excluded=excluded, inverse_temperature=beta)
                assert not (draw(torch.full((4,), v, dtype=torch.float64)) == excluded).any()
    row = torch.zeros(1, dtype=torch.long)
    for outside in (-1, 6, 100):
        draw_tokens(logits, row, row, torch.tensor([0.5], dtype=torch.float64), excluded=outside)


@pytest.mark.parametrize("vocab", [3, 700, 1500])
@pytest.mark.parametrize("beta", [1.0, 0.0, 0.4, 2.5])
def test_inverse_cdf(vocab: int, beta: float) -> None:
    """At the middle of each token's interval, that token is drawn, and its log-probability is returned."""
    logits = torch.randn(1, 1, vocab, dtype=torch.float64)
    p = probabilities(logits, beta)[0, 0]
    v = p.cumsum(0) - p / 2
    zeros = torch.zeros(vocab, dtype=torch.long)
    tokens, log_probs = draw_tokens(logits, zeros, zeros, v, inverse_temperature=beta)
    assert torch.equal(tokens, torch.arange(vocab))
    torch.testing.assert_close(log_probs, p.log(), rtol=0, atol=1e-12)


def test_infinite_inverse_temperature_takes_the_likeliest() -> None:
    logits = torch.randn(3, 5, 2000)
    row, position = (x.flatten() for x in torch.meshgrid(torch.arange(3), torch.arange(5), indexing="ij"))
    v = torch.rand(15, dtype=torch.float64)
    tokens, log_probs = draw_tokens(logits, row, position, v, inverse_temperature=math.inf)
    assert torch.equal(tokens, logits.argmax(-1).flatten())
    assert torch.allclose(log_probs, logits.double().log_softmax(-1).amax(-1).flatten(), atol=1e-6)


def test_double_precision_logits_are_not_rounded() -> None:
    logits = torch.tensor([[[0.0, 1e-9]]], dtype=torch.float64)
    edge = first_v_above(draw_function(logits), torch.tensor([0]))
    assert abs(float(edge) - 1 / (1 + math.exp(1e-9))) < 1e-15


@pytest.mark.parametrize("vocab", [40, 3000])
def test_strided_logits_equal_contiguous_ones(vocab: int) -> None:
    images = torch.randn(2, vocab, 3, 4)
    strided = images.flatten(2).transpose(1, 2)
    row, position = (x.flatten() for x in torch.meshgrid(torch.arange(2), torch.arange(12), indexing="ij"))
    v = torch.rand(24, dtype=torch.float64)
    assert not strided.is_contiguous()
    a, b = (draw_tokens(x, row, position, v, excluded=1) for x in (strided, strided.contiguous()))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_rows_do_not_depend_on_their_company() -> None:
    """The chunks that rows are worked on in leave no trace."""
    logits = torch.randn(1, 40, 30_000)
    rows, v = torch.arange(40), torch.rand(40, dtype=torch.float64)
    together = draw_tokens(logits, torch.zeros_like(rows), rows, v)
    alone = [draw_tokens(logits, torch.zeros(1, dtype=torch.long), rows[i : i + 1], v[i : i + 1]) for i in range(40)]
    assert torch.equal(together[0], torch.cat([tokens for tokens, _ in alone]))
    assert torch.equal(together[1], torch.cat([log_probs for _, log_probs in alone]))


def test_logits_are_left_as_they_are() -> None:
    for x in (torch.randn(1, 2, 5), torch.randn(1, 2, 5, dtype=torch.float64), torch.randn(1, 5, 2).transpose(1, 2)):
        before, zeros = x.clone(), torch.zeros(2, dtype=torch.long)
        draw_tokens(x, zeros, torch.arange(2), torch.rand(2, dtype=torch.float64), excluded=1, inverse_temperature=2)
        log_mass(x, zeros, torch.arange(2), excluded=1, inverse_temperature=2)
        assert torch.equal(x, before)


def test_no_rows() -> None:
    none = torch.empty(0, dtype=torch.long)
    tokens, log_probs = draw_tokens(torch.randn(1, 2, 2000), none, none, torch.empty(0, dtype=torch.float64))
    assert (tokens.shape, tokens.dtype, log_probs.shape, log_probs.dtype) == ((0,), torch.int64, (0,), torch.float64)
    assert log_mass(torch.randn(1, 2, 5), none, none).shape == (0,)


@pytest.mark.parametrize("bad, what", [(math.nan, "NaN"), (math.inf, r"\+inf"), (-math.inf, "all -inf")])
def test_unusable_rows_raise(bad: float, what: str) -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 1] = bad
    good, poor = torch.tensor([0, 2]), torch.tensor([0, 1])
    zeros, v = torch.zeros(2, dtype=torch.long), torch.full((2,), 0.5, dtype=torch.float64)
    draw_tokens(logits, zeros, good, v)
    for call in (lambda: draw_tokens(logits, zeros, poor, v), lambda: log_mass(logits, zeros, poor)):
        with pytest.raises(ValueError, match=f"`model_output`.*{what}"):
            call()
    logits[0, 1, 1:] = 0  # one bad entry is enough, unless it is -inf or the mask's
    draw_tokens(logits, zeros, poor, v, excluded=0)
    if bad != -math.inf:
        with pytest.raises(ValueError, match="`model_output`"):
            draw_tokens(logits, zeros, poor, v)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("excluded", [None, 3])
def test_log_mass(beta: float, excluded: int | None) -> None:
    logits = torch.randn(2, 3, 5000) * 5
    logits[..., 10:20] = -torch.inf
    row, position = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    x = logits[row, position].double()
    if excluded is not None:
        x[:, excluded] = -torch.inf
    expected = torch.where(x > -torch.inf, beta * x, -torch.inf).logsumexp(-1)
    got = log_mass(logits, row, position, inverse_temperature=beta, excluded=excluded)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_uniforms_are_double_and_below_one() -> None:
    u = draw_uniforms(4, 1000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert u.dtype == torch.float64
    assert u.shape == (4, 1000)
    assert (u >= 0).all() and (u < 1).all()
    assert (u * 2**24 % 1 != 0).any()  # more than the 24 bits of float32


def test_one_generator_for_each_row() -> None:
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = draw_uniforms(2, 5, generators(3, 4), torch.device("cpu"))
    assert torch.equal(both[1:], draw_uniforms(1, 5, generators(4), torch.device("cpu")))
    with pytest.raises(ValueError, match="`generator` has 3 entries.* 2 rows"):
        draw_uniforms(2, 5, generators(1, 2, 3), torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_rare_token_owns_its_interval_on_gpu(dtype: torch.dtype) -> None:
    logits, rows = rare_logits(dtype, PLACES).cuda(), torch.arange(len(PLACES), device="cuda")
    p = probabilities(logits)[0, range(len(PLACES)), PLACES].cpu()
    got = owned(lambda v: draw_tokens(logits, torch.zeros_like(rows), rows, v.cuda())[0].cpu(), torch.tensor(PLACES))
    assert (got - p).abs().max() < 1e-10


@pytest.mark.gpu
def test_impossible_tokens_are_never_drawn_on_gpu() -> None:
    """Parallel sums may round in another order; a token of weight 0 must not slip in."""
    logits = torch.randn(1, 256, VOCAB)
    logits[torch.rand(logits.shape) < 0.5] = -torch.inf
    rows, on_gpu = torch.arange(256, device="cuda"), logits.cuda()
    for v in (0.0, BEFORE_ONE, *torch.rand(50).tolist()):
        uniforms = torch.full((256,), v, dtype=torch.float64, device="cuda")
        tokens, _ = draw_tokens(on_gpu, torch.zeros_like(rows), rows, uniforms)
        assert (logits[0, range(256), tokens.cpu()] > -torch.inf).all()
