"""`--infill FILE`: canvases of any lengths, in the order of the file; and what of real text a model never predicts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.evaluation_fakes import character_tokenizer, tiny_gpt2
from helpers.json_lines import write
from helpers.tiny_language_models import WORDS

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.cli import evaluate, sample
from lsd_sampler.denoisers.oracle_names import make_oracle
from lsd_sampler.evaluation import (
    JudgeNLL,
    OracleMetrics,
    TextMetrics,
    TokenMetrics,
    denoiser_features,
    ngram_counts,
    read_jsonl,
)
from lsd_sampler.sampling.left_out import LEFT_OUT


CHAIN = "countdown:V=4,L=16"


# ---- lsd-sample ----


@pytest.mark.parametrize("more", [("--prefix", "a"), ("--suffix", "a"), ("--length", "3")])
def test_what_does_not_go_with_it_is_named(tmp_path: Path, more: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--model", CHAIN, "--infill", str(write(tmp_path / "a.txt", "4 4")), *more]) == 1
    assert f"leave `{more[0]}` out" in capsys.readouterr().err
    if more[0] == "--length":
        assert evaluate.main(["--model", CHAIN, "--infill", str(tmp_path / "a.txt"), *more]) == 1
        assert "leave `--length` out" in capsys.readouterr().err


# ---- lsd-eval ----


def evaluated(model: str | Path, file: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    arguments = ["--model", str(model), "--infill", str(file), "--output-dir", str(out), "--num-samples", "24"]
    assert evaluate.main([*arguments, "--batch-size", "5", "--nfe", "2", "4", *more]) == 0
    return read_jsonl(out / "metrics.jsonl")


def test_an_evaluation_fills_in_canvases_of_a_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where one token is masked, every sampler is exact: nothing is forbidden, and rows are of one sampler's worth."""
    file = write(tmp_path / "a.txt", "3 2 4 0 3", "2 4 0", "4 0 3 2 1 0 3")
    rows = evaluated(CHAIN, file, tmp_path / "out", "--baselines", "tweedie", "tweedie:halton")
    assert len(rows) == 4 and all(row["forbidden_share"] == 0 and row["length"] == 7 for row in rows)
    assert len({row["reverse_kl"] for row in rows}) == 1
    assert "teacher, one token a step" in capsys.readouterr().out
    assert evaluated(CHAIN, file, tmp_path / "out", "--baselines", "tweedie", "tweedie:halton", "--resume") == rows
    other = write(tmp_path / "b.txt", "3 2 4 0 3", "2 4 0", "4 0 3 2 1 0 4")
    again = evaluated(CHAIN, other, tmp_path / "out", "--baselines", "tweedie", "--resume")
    assert again[-1]["call_options"] != rows[0]["call_options"]


@pytest.mark.parametrize("with_reference", [True, False])
def test_an_evaluation_fills_in_texts(bert: Path, tmp_path: Path, with_reference: bool) -> None:
    file = write(tmp_path / "a.txt", "the [MASK] sat", "on a [MASK] [MASK] then it ran", "[MASK] me")
    more = ["--temperatures", "1", "--features", "denoiser"]
    if with_reference:
        more += ["--reference", str(write(tmp_path / "real.txt", *[" ".join(WORDS)] * 80))]
    rows = evaluated(bert, file, tmp_path / "out", *more)
    assert len(rows) == 2 and all(row["js_char_sum"] > 0 and row["length"] == 7 for row in rows)
    words = [text.split() for text in rows[0]["texts"]]
    assert words[0][::2] == ["the", "sat"] and len(words[1]) == 7


# ---- what is behind the end of a shorter sample, and what a model never predicts ----


def test_shorter_samples_count_as_far_as_they_go() -> None:
    """Each metric of padded samples is that of ragged ones."""
    rows = [[97, 98, 99, 97, 98], [98, 97, 98], [99, 99, 98, 97]]
    padded = torch.tensor([row + [LEFT_OUT] * (5 - len(row)) for row in rows])
    for n in (1, 2, 3):
        ragged, found = ngram_counts(rows, n), ngram_counts(padded, n)
        assert (ragged.keys == found.keys).all() and (ragged.counts == found.counts).all()
        assert (ragged.owners == found.owners).all()
    tokenizer, reference = character_tokenizer(), torch.randint(97, 100, (20, 5))
    metrics = TextMetrics(tokenizer, JudgeNLL(tiny_gpt2(), tokenizer), reference)
    values = metrics.compute(padded)
    texts = ["".join(map(chr, row)) for row in rows]
    judged = JudgeNLL(tiny_gpt2()).score_ids(rows)
    assert values["judge_nll"] == pytest.approx(judged.mean)
    assert values["js_char_sum"] == metrics.compute(padded, texts)["js_char_sum"] == metrics.verdict(padded)


def test_a_chain_judges_shorter_samples() -> None:
    chain = make_oracle("markov:V=3,L=6,seed=0")
    metrics = OracleMetrics(chain.transition)
    whole = chain.sample(64, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(whole, (0, 3), value=LEFT_OUT)
    left, right = metrics.compute(whole), metrics.compute(padded)
    assert all(left[name] == right[name] for name in left if not name.startswith("bigram_tv"))
    padded[0, 2] = LEFT_OUT
    with pytest.raises(ValueError, match="states"):
        metrics.compute(padded)


def test_features_of_shorter_samples(bert: Path) -> None:
    denoiser = MaskedDiffusionPipeline.from_pretrained(bert).denoiser
    features = denoiser_features(denoiser)
    rows = torch.tensor([[5, 6, 7], [8, 9, LEFT_OUT], [7, 7, 5]])
    found = features(rows, [])
    torch.testing.assert_close(found[1:2], features(torch.tensor([[8, 9]]), []))
    torch.testing.assert_close(found[[0, 2]], features(rows[[0, 2]], []))


UNKNOWN = 99


def test_what_is_never_predicted_does_not_count() -> None:
    """Distance of samples from real text: of its n-grams only those without such a token count, and of what the floor
    is made from too.
    """
    generator = torch.Generator().manual_seed(0)
    real, samples = (torch.randint(97, 99, (200, 12), generator=generator) for _ in range(2))
    partly = real.masked_fill(torch.rand(real.shape, generator=generator) < 0.03, UNKNOWN)
    tokenizer, judge = character_tokenizer(), JudgeNLL(tiny_gpt2(), character_tokenizer())
    options: dict[str, Any] = {"never_predicted": [UNKNOWN]}
    pairs = [(TokenMetrics(real), TokenMetrics(partly, **options))]
    pairs += [(TextMetrics(tokenizer, judge, real), TextMetrics(tokenizer, judge, partly, **options))]
    for clean, found in pairs:
        key = clean.verdict_key
        assert found.verdict(samples) == pytest.approx(clean.verdict(samples), abs=0.005)
        assert found.compute(samples)[key] == pytest.approx(clean.compute(samples)[key], abs=0.005)
        counted = type(clean)(*([tokenizer, judge] if len(pairs) > 1 and clean is pairs[1][0] else []), partly)
        assert counted.verdict(samples) > clean.verdict(samples) + 0.02
        for name in ("unigram_entropy", "bigram_entropy", "sequence_entropy"):
            assert found.compute(partly)[name] == pytest.approx(found.compute(real)[name], abs=0.02)
    by_judge = pairs[1][1].compute(partly)["judge_nll"]
    assert by_judge == pytest.approx(pairs[1][1].compute(real)["judge_nll"], abs=0.1)


def test_an_evaluation_says_what_it_leaves_out(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (WORDS * 60)[:640]
    words[5::40] = ["UNHEARD"] * len(words[5::40])
    text = write(tmp_path / "real.txt", " ".join(words))
    arguments = [
        "--model",
        str(bert),
        "--reference",
        str(text),
        "--output-dir",
        str(tmp_path / "out"),
        "--length",
        "8",
    ]
    arguments += ["--num-samples", "16", "--nfe", "2", "--temperatures", "1"]
    assert evaluate.main(arguments) == 0
    err = capsys.readouterr().err
    assert err.count("left out of every sum") == 1 and "`--reference`: 2.5% of the tokens (16 of 640)" in err
    assert "'[UNK]'" in err
    (tmp_path / "real.txt").write_text(" ".join(words).upper())
    assert evaluate.main([*arguments, "--overwrite"]) == 1
    assert "never predicted" in capsys.readouterr().err.strip().splitlines()[-1]
