"""Heads and tokenizers of different size: what has no token is not drawn, and said once; what no judge can read is
named.
"""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ddit_checkpoints import RADD
from helpers.evaluation_fakes import tiny_gpt2
from helpers.tiny_language_models import BERT_TOKENS, SIZES, word_tokenizer
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from lsd_sampler import Denoiser, DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser
from lsd_sampler.cli import evaluate
from lsd_sampler.denoisers import RADDDenoiser
from lsd_sampler.evaluation import JudgeError, JudgeNLL, read_jsonl


ROWS = 64
BERT_SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
WORDS = [token for token in BERT_TOKENS if token not in BERT_SPECIAL.values()]
LETTERS = "abcdef "


class Uniform(Denoiser):
    """All tokens are as likely; with a head apart or without."""

    def __init__(self, vocab_size: int, mask_token_id: int, defers_head: bool, with_mask_column: bool):
        super().__init__()
        self.vocab_size, self.mask_token_id, self.length = vocab_size, mask_token_id, 20
        self.defers_head, self.num_columns = defers_head, vocab_size + with_mask_column
        self.log_probs = torch.zeros(self.num_columns)

    def forward(self, tokens: torch.Tensor, t: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
        hidden = torch.zeros(*tokens.shape, 1)
        return hidden if options.get("return_hidden_states") else self.head(hidden)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.log_probs.repeat(*hidden.shape[:-1], 1)


def words_of(pipe: MaskedDiffusionPipeline, **options: Any) -> list[list[str]]:
    pipe.set_progress_bar_config(disable=True)
    texts = pipe(length=20, num_samples=8, num_inference_steps=4, **options).texts
    return [text.split() for text in texts or []]


def save_network(folder: Path, kind: str) -> None:
    sizes = {**SIZES, "vocab_size": ROWS, "max_position_embeddings": 24}
    if kind == "bert":
        BertForMaskedLM(BertConfig(**sizes)).save_pretrained(folder)
    else:
        LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=2, eos_token_id=3, pad_token_id=0)).save_pretrained(folder)
    word_tokenizer(BERT_TOKENS, "[CLS] $A [SEP]", **BERT_SPECIAL).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_padded_rows_of_embeddings_are_not_drawn(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    save_network(tmp_path, kind)
    with caplog.at_level(logging.WARNING):
        pipe = MaskedDiffusionPipeline.from_pretrained(tmp_path)
        drawn = [word for words in words_of(pipe) + words_of(pipe, temperature=3.0) for word in words]
    assert len(drawn) == 2 * 8 * 20 and set(drawn) <= {*BERT_TOKENS} - {"[MASK]"}
    assert caplog.text.count("have no token in the tokenizer") == 1
    assert f"{ROWS - len(BERT_TOKENS)} of {ROWS} ids" in caplog.text
    assert bool((load_denoiser(tmp_path)(torch.tensor([[4, 5]]))[..., len(BERT_TOKENS) :] == -torch.inf).all())


def test_what_was_chosen_is_not_touched(tmp_path: Path) -> None:
    save_network(tmp_path, "bert")
    model = load_denoiser(tmp_path, excluded_token_ids=[5])
    logits = model(torch.tensor([[4, 6]]))
    assert (logits == -torch.inf).nonzero()[:, 2].unique().tolist() == [5]


@pytest.mark.parametrize("defers_head", [True, False])
@pytest.mark.parametrize("with_mask_column", [True, False])
@pytest.mark.parametrize("mask", [4, ROWS])
def test_a_pipeline_draws_what_its_tokenizer_has(
    defers_head: bool, with_mask_column: bool, mask: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the denoiser is; all that has a token is still drawn."""
    with_mask_column |= mask < ROWS
    denoiser = Uniform(ROWS, mask, defers_head, with_mask_column)
    tokenizer = word_tokenizer(BERT_TOKENS, **BERT_SPECIAL)
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()), tokenizer)
    words = words_of(pipe) + words_of(pipe)
    assert all(len(each) == 20 for each in words)
    expected = {*BERT_TOKENS} - ({"[MASK]"} if mask == 4 else set())
    assert {word for each in words for word in each} == expected
    assert caplog.text.count("have no token") == 1
    # a distillation runs the same pipeline
    sampler = distill(pipe, DistillConfig(method="path_kl", nfe=(2,), num_sequences=4, teacher_steps=20), length=20)
    cost = sampler.learned_sampler.step_error.table[0]  # pyright: ignore[reportOptionalMemberAccess]
    torch.testing.assert_close(cost, torch.full_like(cost, float(torch.tensor(len(expected)).double().log())))


def test_tokenizers_that_fit_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    denoiser = Uniform(len(BERT_TOKENS), len(BERT_TOKENS), True, False)
    drawn = []
    for tokenizer in (None, word_tokenizer(BERT_TOKENS, **BERT_SPECIAL)):
        pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()), tokenizer)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        drawn.append(pipe(num_samples=4, num_inference_steps=4, generator=generator).sequences)
    assert torch.equal(*drawn) and not caplog.records


def test_a_text_of_tokens_that_the_model_does_not_have_is_refused() -> None:
    denoiser = Uniform(8, 4, False, True)
    tokenizer = word_tokenizer(BERT_TOKENS, **BERT_SPECIAL)
    pipe = MaskedDiffusionPipeline(denoiser, LSDScheduler(**denoiser.scheduler_config()), tokenizer)
    with pytest.raises(ValueError, match="`prefix` holds 'mat', token 10 .* 9 ids"):
        pipe(prefix="the mat")


# ---- the judge ----


def letters() -> Tokenizer:
    return Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[]))


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A model with more rows than letters, a judge of the letters, and a text."""
    torch.manual_seed(0)
    RADDDenoiser(RADD | {"tokens": 2 * len(LETTERS)}).save_pretrained(tmp_path / "model")
    tiny_gpt2(vocab_size=len(LETTERS), context=8).save_pretrained(tmp_path / "judge")
    for name in ("model", "judge"):
        letters().save(str(tmp_path / name / "tokenizer.json"))
    ids = torch.randint(len(LETTERS), (800,), generator=torch.Generator().manual_seed(0))
    (tmp_path / "text.txt").write_text("".join(LETTERS[i] for i in ids))
    return {name: tmp_path / name for name in ("model", "judge", "text.txt", "out")}


def arguments(folders: dict[str, Path], *more: str) -> list[str]:
    where = ["--model", str(folders["model"]), "--judge", str(folders["judge"]), "--output-dir", str(folders["out"])]
    where += ["--reference", str(folders["text.txt"])]
    return [*where, "--nfe", "2", "--num-samples", "16", "--temperatures", "1", *more]


def test_an_evaluation_with_a_judge_goes_through(folders: dict[str, Path]) -> None:
    assert evaluate.main(arguments(folders)) == 0
    (row,) = read_jsonl(folders["out"] / "metrics.jsonl")
    assert 0 < row["judge_nll"] < 10


def test_an_error_of_the_judge_names_the_sample_and_keeps_what_was_done(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate.main(arguments(folders)) == 0
    inner, bad, scored = JudgeNLL.score, 5, []

    def spoilt(self: JudgeNLL, sequences: torch.Tensor, *rest: Any) -> Any:
        """As of a model that draws what the judge does not have; not of the floor, which comes first."""
        sequences = sequences.clone()
        if scored:
            sequences[bad, 2] = len(LETTERS)
        scored.append(1)
        return inner(self, sequences, *rest)

    monkeypatch.setattr(JudgeNLL, "score", spoilt)
    capsys.readouterr()
    assert evaluate.main(arguments(folders, "--nfe", "2", "4", "--resume")) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and f"sample {bad} holds {len(LETTERS)}" in last
    assert "1 finished rows are kept" in last and "--resume" in last and "`excluded_token_ids`" in last
    monkeypatch.undo()
    assert evaluate.main(arguments(folders, "--nfe", "2", "4", "--resume")) == 0


def test_scores_name_the_sample() -> None:
    ids = torch.zeros(4, 6, dtype=torch.long)
    ids[2, 3] = 128
    for error in (JudgeError, ValueError):
        with pytest.raises(error, match="sample 2 holds 128"):
            JudgeNLL(tiny_gpt2()).score_ids(ids)
