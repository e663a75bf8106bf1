"""The judge against plain torch: windows, batches, words, precision."""

import math
from pathlib import Path

import pytest
import torch
from helpers.evaluation_fakes import character_tokenizer, tiny_gpt2
from tokenizers import Tokenizer, models
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from lsd_sampler.evaluation import JudgeError, JudgeNLL, perplexity
from lsd_sampler.evaluation.judge import count_words
from lsd_sampler.evaluation.tokens import same_token_ids


def direct_nll(model: GPT2LMHeadModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        log_p = model(ids).logits.double().log_softmax(-1)
    return -log_p[:, :-1].gather(2, ids[:, 1:, None])[..., 0]


def test_judge_equals_plain_torch_whatever_the_batches() -> None:
    model, ids = tiny_gpt2(), torch.randint(128, (7, 16), generator=torch.Generator().manual_seed(0))
    expected = direct_nll(model, ids)
    for max_logits in (1, 3 * 16 * 128, 1 << 25):
        scores = JudgeNLL(model, max_logits=max_logits).score_ids(ids)
        torch.testing.assert_close(scores.per_sequence, expected.mean(1), rtol=1e-5, atol=0)
        assert scores.mean == pytest.approx(float(expected.mean()), rel=1e-5)
        assert scores.num_tokens.tolist() == [15] * 7


def test_judge_scores_ragged_rows_each_by_itself() -> None:
    model = tiny_gpt2()
    rows = [[1, 2, 3, 4, 5], [7, 8], [9]]
    scores = JudgeNLL(model).score_ids(rows)
    for i in (0, 1):
        expected = direct_nll(model, torch.tensor([rows[i]])).sum()
        assert float(scores.nll[i]) == pytest.approx(float(expected), rel=1e-5)
    assert scores.num_tokens.tolist() == [4, 1, 0]
    assert scores.mean == pytest.approx(float(scores.nll.sum()) / 5)


def test_judge_slides_over_long_sequences() -> None:
    model, ids = tiny_gpt2(context=8), torch.randint(128, (2, 21), generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, dtype=torch.float64)
    scored = 1
    for begin in (0, 4, 8, 12, 16):
        window = direct_nll(model, ids[:, begin : begin + 8])  # entry j scores position begin + j + 1
        expected += window[:, scored - begin - 1 :].sum(1)
        scored = min(begin + 8, 21)
    torch.testing.assert_close(JudgeNLL(model).score_ids(ids).nll, expected, rtol=1e-5, atol=0)


def test_judge_in_bfloat16_is_close() -> None:
    model, ids = tiny_gpt2(), torch.randint(128, (4, 16), generator=torch.Generator().manual_seed(0))
    low = JudgeNLL(model, autocast_dtype=torch.bfloat16).score_ids(ids).mean
    assert low == pytest.approx(JudgeNLL(model).score_ids(ids).mean, abs=0.02)


def test_judge_from_a_folder_scores_by_id_where_tokenizers_agree(tmp_path: Path) -> None:
    tiny_gpt2().save_pretrained(tmp_path)
    character_tokenizer().save(str(tmp_path / "tokenizer.json"))
    judge = JudgeNLL.from_pretrained(str(tmp_path))
    fast = PreTrainedTokenizerFast(tokenizer_object=character_tokenizer(), bos_token="a")
    other = Tokenizer(models.BPE(vocab={chr(127 - i): i for i in range(128)}, merges=[]))
    assert judge.shares_tokenizer(character_tokenizer()) and judge.shares_tokenizer(fast)
    assert not judge.shares_tokenizer(other)
    ids = torch.tensor([[ord(c) for c in "hello"]])
    by_id = judge.score(ids, ["not looked at"], fast)
    by_text = judge.score(ids, ["hello"], other)
    assert by_id.nll.tolist() == pytest.approx(by_text.nll.tolist())
    assert not same_token_ids(object(), object())


def test_judge_errors_are_named(tmp_path: Path) -> None:
    judge = JudgeNLL(tiny_gpt2())
    with pytest.raises(ValueError, match="vocabulary of the judge"):
        judge.score_ids(torch.tensor([[1, 128]]))
    with pytest.raises(ValueError, match="two tokens"):
        judge.score_ids([[1]])
    with pytest.raises(ValueError, match="`tokenizer`"):
        judge.score_texts(["hello"])
    with pytest.raises(OSError):
        JudgeNLL.from_pretrained(str(tmp_path / "nowhere"))


def test_a_uniform_judge_is_as_surprised_as_its_vocabulary_is_large() -> None:
    model = tiny_gpt2(vocab_size=37)
    torch.nn.init.zeros_(model.transformer.wte.weight)  # tied to the head: all logits are 0
    scores = JudgeNLL(model).score_ids(torch.randint(37, (3, 16)))
    assert perplexity(scores.mean) == pytest.approx(37, rel=1e-6)
    assert perplexity(1e6) == math.inf


def test_perplexity_by_word_is_of_the_whole_likelihood() -> None:
    judge, texts = JudgeNLL(tiny_gpt2(), character_tokenizer()), ["one two", "three", " "]
    scores = judge.score_texts(texts)
    words = sum(map(count_words, texts))
    assert words == 4  # what has no word counts as one
    assert perplexity(scores.per_unit(words)) == pytest.approx(math.exp(float(scores.nll.sum()) / 4))


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_stride_sets_how_far_windows_move(stride: int) -> None:
    """With a stride of 1 each position sees all the context that the judge can take."""
    model, ids = tiny_gpt2(context=8), torch.randint(128, (2, 21), generator=torch.Generator().manual_seed(0))
    expected, scored, begin = torch.zeros(2, dtype=torch.float64), 1, 0
    while scored < 21:
        window = direct_nll(model, ids[:, begin : begin + 8])
        expected += window[:, scored - begin - 1 :].sum(1)
        scored, begin = min(begin + 8, 21), begin + stride
    torch.testing.assert_close(JudgeNLL(model, stride=stride).score_ids(ids).nll, expected, rtol=1e-5, atol=0)


def test_batch_size_changes_nothing_and_is_kept() -> None:
    model, ids, sizes = tiny_gpt2(), torch.randint(128, (7, 12)), []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    one, many = (JudgeNLL(model, batch_size=n).score_ids(ids).nll for n in (2, 100))
    torch.testing.assert_close(one, many, rtol=1e-6, atol=0)
    assert sizes == [2, 2, 2, 1, 7]


def test_features_are_mean_states_whatever_the_padding() -> None:
    model = tiny_gpt2(context=8)
    judge = JudgeNLL(model, character_tokenizer())
    texts = ["abc", "hello", "a long text that is cut"]
    features = judge.features(torch.empty(3, 0), texts)
    for text, row in zip(texts, features, strict=True):
        with torch.no_grad():
            states = model.transformer(torch.tensor([[ord(c) for c in text[:8]]])).last_hidden_state
        torch.testing.assert_close(row, states[0].mean(0), rtol=1e-4, atol=1e-5)


def test_weights_in_another_precision(tmp_path: Path) -> None:
    tiny_gpt2().save_pretrained(tmp_path)
    character_tokenizer().save(str(tmp_path / "tokenizer.json"))
    full, half = (JudgeNLL.from_pretrained(str(tmp_path), dtype=d) for d in (torch.float32, torch.bfloat16))
    assert half.model.dtype == torch.bfloat16 and full.model.dtype == torch.float32
    ids = torch.randint(128, (4, 16))
    assert half.score_ids(ids).mean == pytest.approx(full.score_ids(ids).mean, abs=0.05)


def test_lack_of_memory_names_the_batch_size_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: object, **__: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)  # more than there is

    judge = JudgeNLL(tiny_gpt2())
    monkeypatch.setattr(judge, "model", torch.nn.Linear(1, 1))
    monkeypatch.setattr(judge.model, "forward", forward)
    with pytest.raises(JudgeError, match="`--judge-batch-size 4`"):
        judge.score_ids(torch.zeros(8, 4, dtype=torch.long))
    with pytest.raises(JudgeError, match="a smaller judge"):
        judge.score_ids(torch.zeros(1, 4, dtype=torch.long))


@pytest.mark.parametrize(("name", "value"), [("stride", 0), ("stride", 16), ("batch_size", 0)])
def test_bad_options_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        JudgeNLL(tiny_gpt2(context=16), **{name: value})


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\nsize 9\n", b'{"version": "1.0", '])
def test_damaged_files_of_a_judge_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    tiny_gpt2().save_pretrained(tmp_path)
    character_tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match="^[^\n]*cannot be loaded[^\n]*$") as caught:
        JudgeNLL.from_pretrained(str(tmp_path))
    is_pointer = content.startswith(b"version")
    assert ("Git LFS pointer" in str(caught.value)) == is_pointer
    assert name in str(caught.value) or not is_pointer
