"""Language models of transformers on disk: what is recognised, what is refused, and that what is saved comes back."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.masked_lms import edit, loaded
from helpers.tiny_language_models import BERT_TOKENS, MASKED_LMS, SIZES, save_without_mask
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, dynamic_module_utils

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cards import sampler_card as cards
from lsd_sampler.cli import evaluate, sample, train
from lsd_sampler.denoisers import DENOISERS, MaskedLMDenoiser, load_denoiser
from lsd_sampler.denoisers.files import Checkpoint
from lsd_sampler.sampling.learned_numbers import LearnedSampler, LearnedSteps


OWN_CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput


class MeanConfig(PretrainedConfig):
    model_type = "mean_of_neighbours"


class MeanModel(PreTrainedModel):
    config_class = MeanConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, 8)
        self.out = nn.Linear(8, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        return MaskedLMOutput(logits=self.out(x + x.mean(1, keepdim=True)))
"""


def same(a: MaskedLMDenoiser, b: MaskedLMDenoiser) -> bool:
    tokens = torch.randint(a.vocab_size + 1, (2, 9))
    with torch.no_grad():
        return a._options() == b._options() and a.defers_head == b.defers_head and torch.equal(a(tokens), b(tokens))


@pytest.mark.parametrize("name", MASKED_LMS)
@pytest.mark.parametrize("variant", [None, "ema"])
def test_round_trip_is_exact(tmp_path: Path, name: str, variant: str | None) -> None:
    MASKED_LMS[name](tmp_path / "first")
    model = loaded(tmp_path / "first", excluded_token_ids=[0, 3], length=9, dtype="bfloat16")
    model.save_pretrained(tmp_path / "second", variant=variant)
    # as diffusers' pipelines call it
    again = MaskedLMDenoiser.from_pretrained(
        tmp_path / "second", torch_dtype=None, device_map=None, variant=variant, use_safetensors=None
    )
    assert again.dtype == torch.bfloat16 and same(model, again)
    again.save_pretrained(tmp_path / "second", variant=variant)  # over the file that its weights may be mapped from
    assert same(model, MaskedLMDenoiser.from_pretrained(tmp_path / "second", variant=variant))
    assert not [path for path in (tmp_path / "second").iterdir() if path.is_dir()]
    if model.tokenizer is not None:
        assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()  # pyright: ignore[reportOptionalMemberAccess]


def test_saved_pipelines_come_back(tmp_path: Path) -> None:
    network = LlamaForCausalLM(LlamaConfig(vocab_size=20, max_position_embeddings=12, **SIZES))
    model = MaskedLMDenoiser(network, 7, shifted=True, frame=((1,), ()), reused_mask=True)
    MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config())).save_pretrained(tmp_path)
    pipeline = MaskedDiffusionPipeline.from_pretrained(tmp_path)
    assert isinstance(pipeline.denoiser, MaskedLMDenoiser)
    assert same(pipeline.denoiser, model) and same(loaded(tmp_path), model)


def test_options_are_read_from_the_config_and_can_be_overruled(folder: Path) -> None:
    edit(folder, masked_diffusion={"excluded_token_ids": [1], "frame": [[2, 2], []]})
    options = loaded(folder, length=5)._options()
    assert (options["excluded_token_ids"], options["frame"], options["length"]) == ([1], [[2, 2], []], 5)
    assert loaded(folder, frame=False)._options()["frame"] == [[], []]
    assert loaded(folder, frame=True)._options()["frame"] == [[2], [3]]
    edit(folder, masked_diffusion={"framed": True})
    with pytest.raises(ValueError, match="config.json: `masked_diffusion`"):
        load_denoiser(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_token_id": len(BERT_TOKENS)}, "`mask_token_id`"),
        ({"frame": [2, 3]}, "`frame`"),
        ({"frame": ([2], [-1])}, "`frame`"),
        ({"excluded_token_ids": [99]}, "`excluded_token_ids`"),
        ({"length": 0}, "`length`"),
        ({"length": "9"}, "`length`"),
    ],
)
def test_bad_options_are_named(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_denoiser(folder, **options)
    with pytest.raises(TypeError, match="`shift`"):
        load_denoiser(folder, shift=True)


def test_shards(folder: Path) -> None:
    whole = loaded(folder)
    (folder / "model.safetensors").unlink()
    whole.network.save_pretrained(folder, max_shard_size="5KB")
    assert len([*folder.glob("model-*.safetensors")]) > 1
    assert same(whole, loaded(folder))


@pytest.mark.parametrize("damage", ["missing", "surplus", "shape", "truncated", "pickled"])
def test_weights_that_do_not_fit_are_named(folder: Path, damage: str) -> None:
    file, key = folder / "model.safetensors", "bert.encoder.layer.1.output.dense.bias"
    tensors = load_file(file)
    if damage == "missing":
        del tensors[key]
    elif damage == "surplus":
        key = "bert.encoder.layer.7.output.dense.bias"
        tensors[key] = torch.zeros(16)
    else:
        tensors[key] = torch.zeros(7)
    save_file(tensors, file, metadata={"format": "pt"})
    if damage == "truncated":
        key = "damaged"
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "pickled":
        file.rename(folder / "pytorch_model.bin")
        with pytest.raises(OSError, match="model.safetensors.*pickle"):
            load_denoiser(folder)
    else:
        with pytest.raises(ValueError, match=f"model.safetensors.*{key}"):
            load_denoiser(folder)


def test_the_commands_take_what_their_messages_ask_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask's id, further options, trust in code; and what is advised runs."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(cards, "_plot", lambda *_: False)
    save_without_mask(tmp_path / "bert", ["[PAD]", "[BLANK]", "[CLS]", "[SEP]", "[UNK]", *BERT_TOKENS[5:]])
    model = ["--model", str(tmp_path / "bert"), "--device", "cpu", "--nfe", "2"]
    small = ["--num-sequences", "4", "--method", "path_kl", "--output-dir", str(tmp_path / "out")]
    evaluation = ["--num-samples", "4", "--length", "4", "--temperatures", "1", "--output-dir", str(tmp_path / "eval")]
    for main, more in ((sample.main, []), (train.main, small), (evaluate.main, evaluation)):
        assert main([*model, *more]) == 1
        assert "`--mask-token-id`" in capsys.readouterr().err.splitlines()[-1]
        assert main([*model, *more, "--mask-token-id", "1"]) == 0
        assert main([*model, "--model-kwargs", '{"shift": 1}']) == 1
        assert "`shift`" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["run"]["mask_token_id"] == 1
    (snippet,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(snippet, namespace)
    assert namespace["pipe"].denoiser.mask_token_id == 1
    capsys.readouterr()

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=12))
    gpt2.save_pretrained(tmp_path / "gpt2")
    argv = ["--model", str(tmp_path / "gpt2"), "--device", "cpu", "--num-samples", "1", "--nfe", "2"]
    assert sample.main(argv) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "`--mask-token-id`, `--model-kwargs '{\"shifted\": ...}'`" in said
    assert sample.main([*argv, "--mask-token-id", "19", "--model-kwargs", '{"shifted": false}']) == 0

    save_own_code(tmp_path / "own")
    argv = ["--model", str(tmp_path / "own"), "--device", "cpu", "--num-samples", "1", "--nfe", "2", "--length", "6"]
    assert sample.main(argv) == 1
    assert "`--trust-remote-code`" in capsys.readouterr().err.splitlines()[-1]
    assert sample.main([*argv, "--trust-remote-code"]) == 1
    assert "`--model-kwargs '{\"length\": ...}'`" in capsys.readouterr().err.splitlines()[-1]
    assert sample.main([*argv, "--trust-remote-code", "--model-kwargs", '{"length": 6}']) == 0
    capsys.readouterr()
    for bad in (["--mask-token-id", "1"], ["--model-kwargs", '{"shifted": true}']):
        assert sample.main(["--model", "countdown:V=4,L=8", *bad]) == 1
        assert f"`{bad[0]}`" in capsys.readouterr().err
    assert sample.main([*argv, "--model-kwargs", '{"dtype": "float16"}']) == 1
    assert "`dtype` has a flag of its own" in capsys.readouterr().err


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt"])
def test_pointers_of_git_lfs_are_called_that(folder: Path, name: str) -> None:
    (folder / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer.*git lfs pull"):
        load_denoiser(folder)


@pytest.mark.parametrize("name", ["scheduler_config.json", "scheduler_model.safetensors"])
def test_pointers_in_place_of_a_sampler_are_called_that(tmp_path: Path, name: str) -> None:
    ones = torch.ones(2, dtype=torch.float64)
    scheduler = LSDScheduler(mask_token_id=4)
    scheduler.set_learned_sampler(LearnedSampler({2: LearnedSteps(torch.tensor([1, 0.5, 0.01]).double(), ones, ones)}))
    scheduler.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer"):
        LSDScheduler.from_pretrained(tmp_path)


def save_own_code(folder: Path) -> dict[str, torch.Tensor]:
    """A model of a class that only its own folder has."""
    folder.mkdir()
    (folder / "modeling_mean.py").write_text(OWN_CODE)
    config: dict[str, Any] = {
        "model_type": "mean_of_neighbours", "vocab_size": 12, "mask_token_id": 11,
        "auto_map": {"AutoConfig": "modeling_mean.MeanConfig", "AutoModelForMaskedLM": "modeling_mean.MeanModel"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"embedding.weight": torch.randn(12, 8), "out.weight": torch.randn(12, 8), "out.bias": torch.randn(12)}
    save_file(tensors, folder / "model.safetensors")
    return tensors


def test_code_of_a_repository_runs_only_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    tensors = save_own_code(folder)
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(ValueError, match="^[^\n]*'mean_of_neighbours'[^\n]*`trust_remote_code=True`[^\n]*$"):
        load_denoiser(folder, length=6)
    assert not (tmp_path / "modules").exists()
    model = loaded(folder, length=6, trust_remote_code=True)
    assert (model.mask_token_id, model.length, model.defers_head) == (11, 6, False)
    x = tensors["embedding.weight"][torch.tensor([[3, 11, 5]])]
    expected = (x + x.mean(1, keepdim=True)) @ tensors["out.weight"].T + tensors["out.bias"]
    torch.testing.assert_close(model(torch.tensor([[3, 11, 5]])), expected)
    model.save_pretrained(tmp_path / "saved")  # with its code
    assert same(loaded(tmp_path / "saved", trust_remote_code=True), model)
    config["auto_map"] = {"AutoConfig": "modeling_mean.MeanConfig", "AutoModel": "modeling_mean.MeanModel"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="`shifted`"):
        load_denoiser(folder, length=6, trust_remote_code=True)
    config["auto_map"]["AutoModel"] = "else/where--modeling_mean.MeanModel"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="another repository"):
        load_denoiser(folder, length=6, shifted=False, trust_remote_code=True)


def test_only_language_models_of_transformers_are_recognised(folder: Path) -> None:
    assert [name for name in DENOISERS.names() if DENOISERS[name].recognises(Checkpoint(folder))] == ["masked_lm"]
    mdlm = {"model_type": "mdlm", "auto_map": {"AutoModelForMaskedLM": "modeling_mdlm.MDLM"}}
    for config in (mdlm, {"model_type": "resnet"}, {"model_type": "bert", "_class_name": "Other"}, {"tokens": 5}, {}):
        (folder / "config.json").write_text(json.dumps(config))
        assert not MaskedLMDenoiser.recognises(Checkpoint(folder))
    for kind in ("llada", "Dream", "gpt2", "esm", "modernbert", "llama"):
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        assert MaskedLMDenoiser.recognises(Checkpoint(folder))
