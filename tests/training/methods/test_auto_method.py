"""Choosing method and order on held-out sequences: the better by exact KL wins, and everything says why."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.enumerated_paths import all_sequences, nats_in_order
from helpers.learned_tensors import same_learned
from helpers.small_distillations import pipeline_of, samples, seen_by

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import train
from lsd_sampler.denoisers import countdown, hamming, random_chain, sudoku4
from lsd_sampler.sampling.diffusers_calls import NO_MASK
from lsd_sampler.sampling.noise import LogLinear
from lsd_sampler.training.cost import network_calls
from lsd_sampler.training.methods import auto
from lsd_sampler.training.methods.auto import candidates
from lsd_sampler.training.teacher_plan import TeacherPlan


MODEL = "countdown:V=8,L=32"
BLIND = ("path_kl:random", "path_kl:halton", "lsd:random")
SMALL: dict[str, Any] = {
    "nfe": (2, 4), "num_sequences": 6, "held_out_sequences": 5, "coefficients": "plain", "search_evaluations": 500,
    "candidates": BLIND,
}  # fmt: skip


def choose(
    chain: torch.nn.Module, call: dict[str, Any] | None = None, **options: Any
) -> tuple[LSDScheduler, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    options.setdefault("coefficients", "plain")
    return distill(pipeline_of(chain), DistillConfig(**options), log=records.append, **(call or {})), records


def of(records: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [r for r in records if r["event"] == event]


def the_choice(records: list[dict[str, Any]]) -> tuple[str, str]:
    (choice,) = of(records, "choice")
    return choice["method"], choice["order"]


# ---- the choice ----


def test_the_better_by_exact_kl_wins() -> None:
    """Path KL of each learned sampler by enumeration of all sequences and orders. Means lie within 5 standard errors
    (false alarm: one in 1.7 million for each), and the exact differences are larger than that.
    """
    chain = random_chain(3, 4, seed=5)
    sequences, law = all_sequences(chain)
    options: dict[str, Any] = {"nfe": (2,), "num_sequences": 256, "batch_size": 1024}
    _, records = choose(chain, **options, held_out_sequences=1000, candidates=BLIND)
    exact: dict[tuple[str, str], float] = {}
    for method, order in (name.split(":") for name in BLIND):
        scheduler = distill(pipeline_of(chain), DistillConfig(method=method, order=order, **options))
        steps = scheduler.steps_for(2)
        counts = [0, round(4 * float(chain.noise.alpha(steps.timesteps[1]))), 4]
        betas = steps.log_score_coefficients.tolist()
        exact[method, order] = float((law * nats_in_order(chain, sequences, order, counts, betas)).sum()) / 4
    measured = {(r["method"], r["order"]): r for r in of(records, "candidate")}
    best = min(exact, key=exact.__getitem__)
    assert the_choice(records) == best
    for name, r in measured.items():
        assert abs(r["nats_per_token"] - exact[name]) < 5 * r["standard_error"]
        assert abs(r["difference"] - (exact[name] - exact[best])) <= 5 * r["difference_error"]
        assert name == best or exact[name] - exact[best] > 5 * r["difference_error"]
    assert len(measured) == 3


def test_countdown_is_revealed_far_apart() -> None:
    """Halton wins; what is returned is what its method learns alone, bit for bit, and is for its order."""
    options: dict[str, Any] = {"nfe": (4, 8), "num_sequences": 16, "num_states": 32, "candidates": BLIND}
    scheduler, records = choose(countdown(8, 32), **options)
    assert the_choice(records) == ("path_kl", "halton") and scheduler.config.order == "halton"
    alone, _ = choose(countdown(8, 32), **options, method="path_kl")
    assert same_learned(scheduler, alone)
    rows = of(records, "candidate")
    assert [(r["method"], r["order"], r["nfe"]) for r in rows] == [
        (*name.split(":"), M) for name in BLIND for M in (4, 8)
    ]
    for r in rows:
        own = (r["method"], r["order"]) == ("path_kl", "halton")
        assert (
            r["difference"] == r["difference_error"] == 0 if own else r["difference"] > 2 * r["difference_error"] > 0
        )
    (choice,) = of(records, "choice")
    assert "`path_kl` in `halton` order" in choice["reason"] and "`path_kl` in `random` order" in choice["reason"]
    json.dumps(records, allow_nan=False)


def test_the_winner_may_be_any_candidate() -> None:
    """Of one method; of methods that learn times; and the paper's, where it is the only one."""
    chain = random_chain(4, 16, seed=1)
    candidates = ("lsd:random", "lsd+:random", "jys:random", "path_kl:halton_maskgit")
    scheduler, records = choose(chain, **{**SMALL, "candidates": candidates}, epochs=2)
    measured = dict.fromkeys(f"{r['method']}:{r['order']}" for r in of(records, "candidate"))
    assert list(measured) == list(candidates)
    assert scheduler.config.order == the_choice(records)[1]
    for name in candidates[:3]:
        method = name.split(":")[0]
        scheduler, records = choose(chain, **{**SMALL, "candidates": (name,)}, epochs=2)
        alone, _ = choose(chain, **SMALL, method=method, epochs=2)
        assert the_choice(records)[0] == method and same_learned(scheduler, alone)
        assert not of(records, "candidate")


def test_what_does_not_suit_is_left_out_and_said() -> None:
    candidates = ("jys:random", "path_kl:random", "lsd:random")
    _, records = choose(random_chain(4, 8), nfe=(3,), num_sequences=4, candidates=candidates)
    (left_out,) = [r for r in of(records, "candidate") if "left_out" in r]
    assert left_out["method"] == "jys" and "powers of two" in left_out["left_out"]
    _, records = choose(random_chain(4, 8), **SMALL, teacher_solver="predictor_corrector", teacher_steps=32)
    left_out, *rest = of(records, "candidate")
    assert (left_out["method"], left_out["order"]) == ("path_kl", "halton")
    assert "`teacher_solver`" in left_out["left_out"] and len(rest) == 4
    _, records = choose(random_chain(4, 8), **SMALL, batch_size=1)
    assert "`batch_size` must be at least 2" in of(records, "candidate")[0]["left_out"]
    with pytest.raises(ValueError, match="None of `candidates` can be: .*powers of two"):
        choose(random_chain(4, 8), nfe=(3,), candidates=("jys:random",))


def test_too_few_sequences_leave_out_what_needs_more() -> None:
    options: dict[str, Any] = {"nfe": (2,), "num_sequences": 3, "held_out_sequences": 4}
    _, records = choose(random_chain(4, 8), **options, candidates=("path_kl:halton", "forced_kl:entropy"))
    (left_out,) = of(records, "candidate")
    assert left_out["order"] == "entropy" and "half of them would check what it finds" in left_out["left_out"]


def test_counts_that_are_drawn_leave_out_what_learns_them() -> None:
    options: dict[str, Any] = {**SMALL, "candidates": ("path_kl:random", "forced_kl:entropy")}
    _, records = choose(random_chain(4, 8), **options, count="bernoulli")
    (left_out,) = of(records, "candidate")
    assert left_out["order"] == "entropy" and "`count` must be 'exact'" in left_out["left_out"]


# ---- the rule, on costs that a test makes up ----


ORDERS_BY_SIMPLICITY = ("random", "halton", "halton_maskgit")


def choose_by(
    monkeypatch: pytest.MonkeyPatch, costs: dict[str, Callable[[torch.Tensor], torch.Tensor]], num: int = 128
) -> list[dict[str, Any]]:
    """A choice among orders whose sequences cost what a function of their indices says, per token."""

    def nats(runs: Any, scheduler: LSDScheduler, M: int, batches: Any, never: Any) -> torch.Tensor:
        index = torch.tensor([i for sequences, _ in batches for i in sequences]) - 2  # 2 were learned from
        return 6 * costs[scheduler.config.order](index.double())

    monkeypatch.setattr(auto, "held_out_nats", nats)
    names = tuple(f"path_kl:{order}" for order in ORDERS_BY_SIMPLICITY)
    return choose(random_chain(3, 6), nfe=(2,), num_sequences=2, held_out_sequences=num, candidates=names)[1]


@pytest.mark.parametrize(
    ("means", "winner"),
    [
        ((1.0, 0.9, 0.8), "halton_maskgit"),  # by much more than chance
        ((1.0, 0.99, 0.98), "random"),  # 0.02 is less than two standard errors, 0.3 / sqrt(128)
        ((1.0, 0.9, 0.89), "halton"),
        ((0.8, 0.9, 1.0), "random"),
    ],
)
def test_the_simplest_within_two_standard_errors_is_taken(
    means: tuple[float, ...], winner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {
        order: (lambda index, m=mean, p=period: m + 0.15 * (2 * (index // p % 2) - 1))
        for order, mean, period in zip(ORDERS_BY_SIMPLICITY, means, (1, 2, 4), strict=True)
    }
    records = choose_by(monkeypatch, costs)
    assert the_choice(records) == ("path_kl", winner)
    (choice,) = of(records, "choice")
    cheapest = ORDERS_BY_SIMPLICITY[means.index(min(means))]
    assert ("so the simpler one is taken" in choice["reason"]) == (winner != cheapest)
    assert f"`path_kl` in `{winner}` order" in choice["reason"]


def test_what_few_sequences_rule_out_is_measured_no_further_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 sequences, then 64; nothing more is measured once only one is left."""
    later = {
        "random": lambda i: 1.0 + 0.01 * (i % 2),
        "halton": lambda i: 2.0 + 0.01 * (i // 2 % 2),  # at once
        "halton_maskgit": lambda i: 1.0 + 0.01 * (i // 4 % 2) + 0.5 * (i >= 16),  # by the second round
    }
    records = choose_by(monkeypatch, later)
    rows = {r["order"]: r for r in of(records, "candidate")}
    assert the_choice(records) == ("path_kl", "random") and rows.keys() == later.keys()
    assert [round(rows[order]["nats_per_token"], 1) for order in ("random", "halton")] == [1.0, 2.0]
    assert rows["halton_maskgit"]["nats_per_token"] == pytest.approx((16 * 1.005 + 48 * 1.505) / 64)
    assert rows["halton"]["difference"] == pytest.approx(1.0, abs=0.01)
    (choice,) = of(records, "choice")
    assert choice["reason"].startswith("64 held-out teacher sequences cost `path_kl` in `random` order the least")
    assert "next is `path_kl` in `halton_maskgit` order with 0.37" in choice["reason"]


# ---- what it picks on exact oracles ----


@pytest.mark.parametrize(("oracle", "calls", "winner"), [(sudoku4, 4, "adaptive"), (hamming, 2, "margin")])
def test_it_finds_the_order_that_a_problem_needs(oracle: Callable[[], Any], calls: int, winner: str) -> None:
    """Constraints of pairs; and parity, which pairs do not show, but which a fixed order meets. With a small budget,
    512 samples: half of the grids are valid in 4 calls (of simple orders, one in five), and all words in 2.
    """
    options: dict[str, Any] = {"nfe": (calls,), "num_sequences": 96, "search_evaluations": 8192}
    names = ("path_kl:random", "forced_kl:margin", "forced_kl:adaptive")
    scheduler, records = choose(oracle(), **options, candidates=names, held_out_sequences=64)
    assert the_choice(records) == ("forced_kl", winner)
    x = samples(oracle(), scheduler, calls, num=512)
    assert float(torch.isfinite(oracle().log_prob(x)).double().mean()) >= (0.5 if winner == "adaptive" else 1)


class Unmasked(Denoiser):
    """A model under uniform noise, that sees nothing but a token itself."""

    mask_token_id, vocab_size, length, corruption, noise, time_conditioned = None, 4, 8, "uniform", LogLinear(), True

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.one_hot(tokens, 4) + torch.arange(4.0)


def test_without_masks_it_is_lsd() -> None:
    options: dict[str, Any] = {"nfe": (2,), "num_sequences": 8, "teacher_steps": 8}
    scheduler, records = choose(Unmasked(), **options)
    assert the_choice(records) == ("lsd", "random")
    assert same_learned(scheduler, choose(Unmasked(), **options, method="lsd")[0])
    assert all("masks" in r["left_out"] for r in of(records, "candidate")) and len(of(records, "candidate")) == 5
    recipe = DistillConfig(**options).resolve(TeacherPlan(8, 1, 8, NO_MASK))
    assert of(records, "done")[0]["network_calls"] == network_calls(recipe)


def test_order_alone_narrows_the_choice() -> None:
    plan = TeacherPlan(16, 1, 16, 4)

    def names(**options: Any) -> list[str]:
        return list(candidates(DistillConfig(nfe=(2,), **options).resolve(plan))[0])

    looking = ["forced_kl:margin", "forced_kl:entropy", "forced_kl:adaptive"]
    assert names() == ["path_kl:random", "path_kl:halton", *looking, "lsd:random"]
    assert names(order="halton") == ["path_kl:halton"] and names(order="random") == ["path_kl:random", "lsd:random"]
    assert names(order="adaptive") == ["forced_kl:adaptive"] and names(order="entropy") == ["forced_kl:entropy"]
    assert names(order="halton_maskgit") == ["path_kl:halton_maskgit", "lsd:halton_maskgit"]
    # beside others `lsd` has to share the memory, alone it is as it would be
    sequences = [
        candidates(DistillConfig(candidates=each, batch_size=8, nfe=(2,)).resolve(plan))[0]["lsd:random"].num_sequences
        for each in (("lsd:random",), ("path_kl:halton", "lsd:random"))
    ]
    assert sequences == [64, 4]
    assert DistillConfig().method == "auto" and DistillConfig().order is None
    assert DistillConfig(method="path_kl").order == "halton" and DistillConfig(method="lsd").order == "random"
    assert DistillConfig() == DistillConfig(method="auto") == DistillConfig(**DistillConfig().to_dict())


@pytest.mark.parametrize(
    "candidates", [(), "path_kl:halton", ("path_kl",), ("auto:random",), ("path_kl:far",), ("path:random",), (3,), 3]
)
def test_candidates_are_methods_in_orders(candidates: Any) -> None:
    with pytest.raises(ValueError, match="`candidates`"):
        DistillConfig(candidates=candidates)


def test_one_sequence_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="`held_out_sequences`"):
        DistillConfig(held_out_sequences=1)


# ---- what it is measured on ----


def test_held_out_sequences_are_new_and_so_is_their_noise() -> None:
    """The teacher makes `held_out_sequences` more, of other seeds; and no run has the noise of another."""
    chain = countdown(4, 8)
    seen = seen_by(chain)
    choose(chain, nfe=(4,), num_sequences=6, held_out_sequences=16, candidates=("path_kl:random", "lsd:random"))
    # plan; path_kl: teacher and replay; lsd: teacher and pair; held out: teacher, and each candidate
    starts = [k for k, canvas in enumerate(seen) if bool((canvas == 4).all())]
    assert [len(seen[k]) for k in starts] == [6, 6, 6, 6, 12, 16, 16, 16]
    first = [(seen[k + 1] != 4) for k in starts]  # which positions come first
    teacher, held_out, forced = first[1], first[5], first[6]
    assert not torch.equal(teacher, held_out[:6]) and not torch.equal(held_out.int().argmax(1), forced.int().argmax(1))
    last = [seen[k + 3] for k in starts[6:]]  # before the last of 4 calls: tokens are those of the same sequences
    both = (last[0] != 4) & (last[1] != 4)
    assert bool(both.any()) and torch.equal(last[0][both], last[1][both])


def test_real_sequences_are_the_yardstick_where_there_are_some() -> None:
    """Those behind the ones that `path_kl` learns from; methods that need a teacher still have theirs."""
    chain = random_chain(4, 8, seed=2)
    teacher = MaskedDiffusionPipeline(chain, LSDScheduler(**chain.scheduler_config()))
    generator = torch.Generator().manual_seed(0)
    data = teacher(num_samples=30, num_inference_steps=8, output_type="ids", generator=generator).sequences
    results = []
    for end in (30, 11):  # more than 6 + 5 are not looked at
        _, records = choose(chain, {"data": data[:end]}, **SMALL)
        results.append([{k: v for k, v in r.items() if k != "seconds"} for r in records])
    assert results[0] == results[1]
    sources = [(r["candidate"], r["source"], r["sequences"]) for r in of(results[0], "teacher")]
    assert sources == [
        ("path_kl:random", "data", 6),
        ("path_kl:halton", "data", 6),
        ("lsd:random", "teacher", 6),
        ("held_out", "data", 5),
    ]
    assert "5 held-out real sequences" in of(results[0], "choice")[0]["reason"]
    with pytest.raises(ValueError, match="`data` has 10 sequences, fewer than 11"):
        choose(chain, {"data": data[:10]}, **SMALL)


# ---- cost, resume ----


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 4},
        {"order": "random", "count": "bernoulli", "teacher_steps": 20},
        {"order": "halton"},
        {"candidates": ("path_kl:halton", "lsd+:random"), "variant": "literal"},
    ],
)
def test_network_calls_are_known_before(options: dict[str, Any]) -> None:
    chain = countdown(4, 16)
    seen = seen_by(chain)
    config = DistillConfig(**{**SMALL, **options})
    _, records = choose(chain, **{**SMALL, **options})
    planned = network_calls(config.resolve(TeacherPlan(16, 1, config.teacher_steps_for(16, False), 4)))
    assert of(records, "done")[0]["network_calls"] == len(seen) == planned


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [3, 40, 70, 120, 150])
def test_a_killed_run_goes_on_to_the_same_result(after: int, tmp_path: Path) -> None:
    """In any candidate, and while they are compared."""
    options = {**SMALL, "batch_size": 4}
    whole, logged = choose(countdown(4, 12), **options)
    broken, calls = countdown(4, 12), itertools.count()

    def kill(*_: Any) -> None:
        if next(calls) == after:
            raise Killed

    broken.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        choose(broken, {"checkpoint_dir": tmp_path}, **options)
    resumed, again = choose(countdown(4, 12), {"checkpoint_dir": tmp_path, "resume": True}, **options)
    assert same_learned(whole, resumed) and whole.config.order == resumed.config.order
    logged, again = ([{k: v for k, v in r.items() if k != "seconds"} for r in rows] for rows in (logged, again))
    assert logged == again


# ---- command line and card ----


def test_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cost, result, folder and card; and Python's defaults are the command's."""
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
    monkeypatch.chdir(tmp_path)
    argv = ["--model", MODEL, "--nfe", "4", "8", "--num-sequences", "8", "--coefficients", "plain"]
    argv += ["--candidates", *BLIND, "--held-out-sequences", "16"]
    assert train.main([*argv, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["output_dir"] == "countdown-V8-L32-auto" and plan["memory_bytes"]["total"] > 0
    assert train.main(argv) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("Chosen: path_kl, order halton. 16 held-out teacher sequences cost")
    assert [line.split()[:2] for line in out[2:4]] == [["4", "calls:"], ["8", "calls:"]]
    assert out[4] == f"Network calls: {plan['network_calls']}. Saved to countdown-V8-L32-auto."
    loaded = LSDScheduler.from_pretrained("countdown-V8-L32-auto")
    options: dict[str, Any] = {"candidates": BLIND, "held_out_sequences": 16}
    in_python, records = choose(countdown(8, 32), nfe=(4, 8), num_sequences=8, **options)
    assert loaded.config.order == "halton" and same_learned(loaded, in_python)

    text = Path("countdown-V8-L32-auto", "README.md").read_text()
    assert f"# {MODEL}.path_kl-halton\n" in text and "- path_kl\n" in text and "auto" not in text.split("## Use")[0]
    assert "Method `path_kl`, solver `tweedie`, order `halton`" in text
    assert (
        f"8 teacher sequences of 32 steps, seed 0; {plan['network_calls']} network calls (of all candidates)" in text
    )
    section = text.split("## Why this method and this order\n\n")[1].split("\n## ")[0]
    assert section.startswith(of(records, "choice")[0]["reason"])
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    logged = of([json.loads(line) for line in Path("countdown-V8-L32-auto", "metrics.jsonl").open()], "candidate")
    for row, r in zip(rows, logged, strict=True):
        assert row[:3] == [f"`{r['method']}`", f"`{r['order']}`", str(r["nfe"])]
        assert row[3] == f"{r['nats_per_token']:.4f} ({r['standard_error']:.4f})"
        won = (r["method"], r["order"]) == ("path_kl", "halton")
        assert row[4] == ("(chosen)" if won else f"+{r['difference']:.4f} ({r['difference_error']:.4f})")


def test_memory_is_that_of_the_most_demanding_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", "sedd-small", "--dry-run", "--nfe", "4", "--device", "cpu", "--num-sequences", "8"]
    argv += ["--paths", "teacher", "--coefficients", "plain"]
    totals = []
    for method in ("auto", "path_kl", "lsd"):
        assert train.main([*(argv if method != "lsd" else argv[:-4]), "--method", method]) == 0
        memory = json.loads(capsys.readouterr().out)["memory_bytes"]
        totals.append(memory["total"] - memory["process"])
    assert totals[0] == max(totals[1:])


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--model", MODEL, "--output-dir", str(tmp_path / "out")]
    for more, words in (
        (["--candidates", "path_kl"], "`candidates` must each be METHOD:ORDER"),
        (["--candidates", "jys:random", "--nfe", "3"], "None of `candidates` can be"),
        (["--held-out-sequences", "1"], "`held_out_sequences`"),
    ):
        assert train.main([*argv, *more]) == 1
        assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
