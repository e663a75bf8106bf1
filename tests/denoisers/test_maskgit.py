"""Halton-MaskGIT: the official numbers, its files, guidance, and its own order and schedule."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden_files import fixture_path
from helpers.tiny_maskgit import CONFIG, random_model
from safetensors.torch import load_file

from lsd_sampler import DistillConfig, distill
from lsd_sampler.cli import train
from lsd_sampler.denoisers import SHORT_NAMES, MaskGITDenoiser, auto, load_denoiser
from lsd_sampler.denoisers.files import Checkpoint
from lsd_sampler.pipeline_masked_diffusion import MaskedDiffusionPipeline
from lsd_sampler.sampling.orders import ORDERS
from lsd_sampler.sampling.pipeline_runs import PipelineRuns
from lsd_sampler.scheduling_lsd import LSDScheduler


SIZES = (4, 8, 16, 24)


def inputs(model: MaskGITDenoiser, batch_size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(model.vocab_size + 1, (batch_size, *model.canvas_shape))
    return tokens, torch.randint(model.num_classes, (batch_size,))


def release(model: MaskGITDenoiser, path: Path, wrapper: str = "", **changes: torch.Tensor | None) -> None:
    """Writes the authors' format; `changes` replace tensors, or leave them out."""
    state: dict[str, Any] = dict(model.state_dict())
    state |= {"head.weight": state["tok_emb.weight"], "head.bias": state.pop("head_bias")}
    state = {name: x for name, x in (state | changes).items() if x is not None}
    content = {"iter": 1, "global_epoch": 2, "model_state_dict": {wrapper + name: x for name, x in state.items()}}
    torch.save({**content, "optimizer_state_dict": None}, path)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# ---- numbers ----


@torch.no_grad()
def test_official_numbers() -> None:
    model = load_denoiser(fixture_path("halton_maskgit"))
    assert isinstance(model, MaskGITDenoiser)
    expected = load_file(fixture_path("halton_maskgit", "expected.safetensors"))
    code, label = expected["code"], expected["label"]
    dropped = torch.where(expected["drop_label"], model.num_classes, label)
    for name, out in {
        "logits": model(code, class_labels=dropped),
        "logits_cond": model(code.flatten(1), torch.rand(3), class_labels=label),
        "logits_uncond": model(code),
        "cfg_w2.logits": model(code, class_labels=label, guidance_scale=2.0),
    }.items():
        torch.testing.assert_close(out, expected[name], atol=5e-5, rtol=2e-5)


@torch.no_grad()
def test_guidance() -> None:
    model = random_model().double()
    tokens, labels = inputs(model)
    conditional, unconditional = model(tokens, class_labels=labels), model(tokens)
    assert torch.equal(model(tokens, class_labels=labels, guidance_scale=0.0), conditional)
    assert torch.equal(model(tokens, class_labels=torch.full_like(labels, model.num_classes)), unconditional)
    assert torch.equal(model(tokens, guidance_scale=3.0), unconditional)
    torch.testing.assert_close(model(tokens, class_labels=labels, guidance_scale=-1.0), unconditional)
    guided = model(tokens, class_labels=labels, guidance_scale=1.5)
    torch.testing.assert_close(guided, 2.5 * conditional - 1.5 * unconditional)
    assert not torch.allclose(guided, conditional, atol=1e-2)


@torch.no_grad()
def test_rows_of_a_batch_are_independent() -> None:
    model = random_model().double()
    tokens, labels = inputs(model)
    together = model(tokens, class_labels=labels, guidance_scale=2.0)
    for i in range(3):
        alone = model(tokens[i : i + 1], class_labels=labels[i : i + 1], guidance_scale=2.0)
        torch.testing.assert_close(alone[0], together[i])


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_selective_head(scale: float) -> None:
    """Deferred rows are the full path's, guidance included, and a generation gives the same tokens."""
    model = random_model(input_size=4).double()
    _, labels = inputs(model)
    kwargs = {"class_labels": labels, "guidance_scale": scale}
    tokens = torch.full((3, 4, 4), model.mask_token_id)
    full = model(tokens, **kwargs)
    row, position = torch.randint(3, (8,)), torch.randint(16, (8,))
    deferred = model.deferred_logits(model(tokens, return_hidden_states=True, **kwargs))
    torch.testing.assert_close(deferred.rows(row, position), full[row, position], atol=1e-12, rtol=1e-12)
    ends = []
    for defer in (False, True):
        scheduler = LSDScheduler(**model.scheduler_config(), order="halton_maskgit")
        scheduler.set_timesteps(5)
        sample, generator = tokens, torch.Generator().manual_seed(0)
        for t in scheduler.timesteps:
            out = model(sample, return_hidden_states=defer, **kwargs)
            out = model.deferred_logits(out) if defer else out
            sample = scheduler.step(out, t, sample, generator=generator).prev_sample
        ends.append(sample)
    assert torch.equal(*ends)


@pytest.mark.parametrize("labels", [[3, 0, 2], torch.tensor([3, 0, 2])], ids=["list", "tensor"])
@pytest.mark.parametrize("method", ["path_kl", "lsd"])
def test_one_sampler_is_distilled_for_several_classes(method: str, labels: Any) -> None:
    """Sequence i is of class `labels[i % 3]` in each call; a class alone is that of all."""
    model, seen = random_model(), []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["class_labels"].tolist()), with_kwargs=True
    )
    pipe = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config()))
    config = DistillConfig(method=method, nfe=(2,), num_sequences=8, batch_size=4, order="random")
    distill(pipe, config, class_labels=labels)
    classes = [3, 0, 2, 3, 0, 2, 3, 0]
    whole = [classes * 2] if method == "lsd" else [classes[:4], classes[4:]]  # lsd: teacher and student
    found = [batch for batch in seen if len(batch) == len(whole[0])]  # others leave out what did not change
    assert all(batch in found for batch in whole) and all(batch in whole for batch in found)
    seen.clear()
    distill(pipe, config, class_labels=3)
    assert all(set(batch) == {3} for batch in seen)


def test_rows_that_are_given_go_with_classes() -> None:
    model = random_model()
    pipe = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config()))
    canvases = [[k] + [model.mask_token_id] * 8 for k in range(2)]
    for call, expected in (
        ({"class_labels": [1, 2, 3]}, {"class_labels": [2, 3, 1], "num_samples": 3}),
        ({"class_labels": 4}, {"class_labels": 4, "num_samples": 3}),
        ({"class_labels": [1, 2, 3], "input_ids": canvases[0]}, {"class_labels": [2, 3, 1], "num_samples": 3}),
        ({"class_labels": [1, 2, 3], "input_ids": canvases}, {"class_labels": [2, 3, 1]}),
        ({"class_labels": 4, "input_ids": canvases}, {"class_labels": [4, 4, 4]}),
    ):
        arguments = PipelineRuns(pipe, 0, call).arguments(range(1, 4))
        rows = [canvases[1], canvases[0], canvases[1]]
        given = call.get("input_ids")
        taken = {} if given is None else {"input_ids": rows if given is canvases else given}
        assert arguments == {"temperature": 1.0, **expected, **taken}
        ids = pipe(**arguments, num_inference_steps=2).sequences
        assert ids.shape == (3, 9)


def test_lsd_train_takes_classes(tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path / "model")
    argv = ["--model", str(tmp_path / "model"), "--method", "path_kl", "--nfe", "2", "--num-sequences", "6"]
    argv += ["--pipeline-kwargs", '{"class_labels": [0, 1, 2, 3]}', "--cache-dir", str(tmp_path / "cache")]
    argv += ["--output-dir", str(tmp_path / "out")]
    assert train.main([*argv, "--dry-run"]) == train.main(argv) == 0
    assert LSDScheduler.from_pretrained(tmp_path / "out").learned_sampler


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)
    other = load_denoiser(tmp_path, dtype=dtype)
    tokens, labels = inputs(model)
    for scale in (0.0, 1.0):
        out = other(tokens, class_labels=labels, guidance_scale=scale)
        expected = model(tokens, class_labels=labels, guidance_scale=scale)
        assert out.dtype == dtype
        tolerance = 1e-4 if dtype == torch.float64 else 0.1
        torch.testing.assert_close(out.float(), expected, atol=tolerance * expected.abs().max().item(), rtol=0)


@torch.no_grad()
def test_compiles_without_a_break() -> None:
    model = random_model()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    tokens, labels = inputs(model)
    for kwargs in ({}, {"class_labels": labels, "guidance_scale": 1.5, "return_hidden_states": True}):
        assert torch.equal(compiled(tokens, **kwargs), model(tokens, **kwargs))


def test_dropout_acts_in_training_only() -> None:
    model = random_model(dropout=0.5)
    tokens, labels = inputs(model)
    assert torch.equal(model(tokens, class_labels=labels), model(tokens, class_labels=labels))
    model.train()
    assert not torch.equal(model(tokens, class_labels=labels), model(tokens, class_labels=labels))


def test_inputs_that_do_not_fit() -> None:
    model = random_model()
    tokens, labels = inputs(model)
    with pytest.raises(ValueError, match=r"`tokens`.*\(B, 9\) or \(B, 3, 3\)"):
        model(tokens.flatten(1)[:, :8])
    with pytest.raises(ValueError, match="`tokens`"):
        model(tokens.view(3, 1, 9))
    with pytest.raises(ValueError, match="`class_labels`"):
        model(tokens, class_labels=labels[:2])


# ---- files ----


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_release_without_a_config(tmp_path: Path, wrapper: str) -> None:
    model = random_model(register=0) if wrapper == "module." else random_model()
    release(model, tmp_path / "any.pth", wrapper)
    loaded = load_denoiser(tmp_path, heads=4)
    assert isinstance(loaded, MaskGITDenoiser) and same_weights(model, loaded)
    assert load_denoiser(tmp_path / "any.pth", heads=4).length == 9
    with pytest.raises(ValueError, match="any.pth.*`heads`"):
        load_denoiser(tmp_path)
    with pytest.raises(ValueError, match="any.pth.*'heads'"):
        load_denoiser(tmp_path, heads=19)


@pytest.mark.parametrize(("dim", "depth", "heads", "width"), [(384, 6, 6, 384), (512, 12, 6, 510)])
def test_released_sizes_tell_the_heads(tmp_path: Path, dim: int, depth: int, heads: int, width: int) -> None:
    with torch.device("meta"):
        full = MaskGITDenoiser({**CONFIG, "hidden_dim": dim, "depth": depth, "heads": heads, "mlp_dim": 4 * dim})
    model = full.to_empty(device="cpu")
    torch.nn.init.zeros_(model.tok_emb.weight)  # must equal its copy
    release(model, tmp_path / "model.pth")
    loaded = load_denoiser(tmp_path)
    assert isinstance(loaded, MaskGITDenoiser)
    assert (loaded.config["heads"], loaded.config["mlp_dim"]) == (heads, 4 * dim)
    assert loaded.state_dict()["transformer.layers.0.attn.wq.weight"].shape == (width, dim)


def test_config_beside_the_release(tmp_path: Path) -> None:
    model = random_model()
    release(model, tmp_path / "any.pth")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "mask_value": 7}))
    loaded = load_denoiser(tmp_path)
    assert isinstance(loaded, MaskGITDenoiser) and same_weights(model, loaded)
    assert loaded.config["mask_value"] == 7
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "hidden_dim": 20}))
    with pytest.raises(ValueError, match="any.pth: .*must have shape"):
        load_denoiser(tmp_path)
    (tmp_path / "config.json").write_text('{"somebody": "else"}')
    assert load_denoiser(tmp_path, heads=4).length == 9


def test_several_releases_in_one_folder(tmp_path: Path) -> None:
    for name, codes in (("a.pth", 7), ("b.pth", 8)):
        release(random_model(codebook_size=codes), tmp_path / name)
    with pytest.raises(ValueError, match="a.pth, b.pth.*`weight_name`"):
        load_denoiser(tmp_path, heads=4)
    assert load_denoiser(tmp_path, weight_name="b.pth", heads=4).vocab_size == 8
    assert load_denoiser(tmp_path / "a.pth", heads=4).vocab_size == 7
    with pytest.raises(OSError, match="c.pth"):
        load_denoiser(tmp_path, weight_name="c.pth", heads=4)


@pytest.mark.parametrize("variant", [None, "ema"])
def test_round_trip_is_exact(tmp_path: Path, variant: str | None) -> None:
    model = random_model()
    model.save_pretrained(tmp_path, variant=variant)
    loaded = MaskGITDenoiser.from_pretrained(tmp_path, variant=variant)
    assert same_weights(model, loaded) and loaded.config == model.config
    assert not any(path.suffix == ".pth" for path in tmp_path.iterdir())
    tokens, labels = inputs(model)
    assert torch.equal(model(tokens, class_labels=labels), loaded(tokens, class_labels=labels))


def test_fixture_survives_our_layout(tmp_path: Path) -> None:
    source = load_denoiser(fixture_path("halton_maskgit"))
    source.save_pretrained(tmp_path)
    assert same_weights(source, load_denoiser(tmp_path))


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path)
    release(random_model(codebook_size=9), tmp_path / "other.pth")
    assert load_denoiser(tmp_path).vocab_size == 7
    shutil.copytree(tmp_path, tmp_path / "inner")
    assert load_denoiser(tmp_path, subfolder="inner").vocab_size == 7


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"transformer.layers.1.ln2.weight": None}, "lacks.*transformer.layers.1.ln2.weight"),
        ({"tok_emb.weight": None}, "tok_emb.weight"),
        ({"head.weight": None}, "lacks.*head.weight"),
        ({"in_proj.weight": torch.zeros(1)}, "surplus.*in_proj.weight"),
        ({"pos_emb.weight": torch.zeros(8, 18)}, "pos_emb.weight must have shape"),
        ({"reg_tokens.weight": torch.zeros(())}, "reg_tokens.weight must have shape"),
        ({"head.weight": torch.zeros(8, 18)}, "tied"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], culprit: str) -> None:
    release(random_model(), tmp_path / "any.pth", **changes)
    with pytest.raises(ValueError, match=f"any.pth.*{culprit}"):
        load_denoiser(tmp_path, heads=4)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"input_size": "3"}, "input_size"),
        ({"heads": 0}, "heads"),
        ({"register": -1}, "register"),
        ({"proj": 2}, "proj"),
        ({"dropout": 1}, "dropout"),
        ({"mlp_dim": True}, "mlp_dim"),
    ],
)
def test_bad_config_is_named(tmp_path: Path, change: dict[str, Any], culprit: str) -> None:
    random_model().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(ValueError, match=f"config.json.*'{culprit}'"):
        load_denoiser(tmp_path)


def test_damaged_and_unsafe_pickles_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "any.pth"
    release(random_model(), file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match="any.pth is damaged"):
        load_denoiser(tmp_path, heads=4)
    torch.save({"model_state_dict": {"cls_emb.weight": Path("not a tensor")}}, file)
    with pytest.raises(ValueError, match="any.pth.*never loaded"):
        load_denoiser(tmp_path, heads=4)
    torch.save({"model_state_dict": {"other": torch.zeros(1)}}, file)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match="any.pth must hold 'model_state_dict'"):
        load_denoiser(tmp_path)


def test_short_names_know_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fetched(name: str, *, file: str | None, **_: Any) -> Checkpoint:
        asked.append((name, file))
        return Checkpoint(tmp_path, file)

    for name in ("ImageNet_256_tiny.pth", "ImageNet_384_large.pth"):
        release(random_model(), tmp_path / name)
    monkeypatch.setattr(auto, "open_checkpoint", fetched)
    assert load_denoiser("halton-maskgit-256-tiny", heads=4).name_or_path == "llvictorll/Halton-Maskgit"
    assert asked == [("llvictorll/Halton-Maskgit", "ImageNet_256_tiny.pth")]
    files = [model.file for name, model in SHORT_NAMES.items() if name.startswith("halton-maskgit-")]
    assert len(set(files)) == 6


# ---- sampling ----


@torch.no_grad()
@pytest.mark.parametrize("order", ["random", "halton", "halton_maskgit", "confidence"])
@pytest.mark.parametrize("steps", [1, 4])
def test_generates_images(order: str, steps: int) -> None:
    model = random_model()
    scheduler = LSDScheduler(**model.scheduler_config(), order=order, schedule="arccos")
    scheduler.set_timesteps(steps)
    sample, labels = torch.full((2, *model.canvas_shape), model.mask_token_id), torch.tensor([0, 4])
    sample[0, 1, 2] = 3
    for t in scheduler.timesteps:
        out = model(sample, t.expand(2), class_labels=labels, guidance_scale=1.0)
        sample = scheduler.step(out, t, sample).prev_sample
    assert sample.shape == (2, 3, 3)
    assert 0 <= sample.min() and sample.max() < model.vocab_size
    assert sample[0, 1, 2] == 3


def test_saved_pipeline(tmp_path: Path) -> None:
    model = random_model()
    pipe = MaskedDiffusionPipeline(model, LSDScheduler(**model.scheduler_config(), order="halton_maskgit"))
    pipe.save_pretrained(tmp_path)
    loaded = MaskedDiffusionPipeline.from_pretrained(tmp_path)
    samples = []
    for p in (pipe, loaded):
        p.set_progress_bar_config(disable=True)
        kwargs = {"class_labels": [0, 3], "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(0)}
        samples.append(p(num_samples=2, num_inference_steps=3, **kwargs).sequences)
    assert torch.equal(*samples)


@pytest.mark.parametrize("size", SIZES)
def test_official_order(size: int) -> None:
    """Exactly the authors' without a turn; with one, the same order begun elsewhere."""
    expected = load_file(fixture_path("transitions", "halton.safetensors"))[f"halton_order.size{size}"]
    cells = expected[:, 0] * size + expected[:, 1]
    L = size * size
    shift = torch.zeros(3, 2, dtype=torch.float64)
    shift[1:, 0] = torch.tensor([1.5 / L, 1 - 0.5 / L])
    orders = ORDERS["halton_maskgit"].keys(torch.zeros(3, L), shift, (size, size)).argsort(1)
    assert torch.equal(orders[0], cells)
    assert torch.equal(orders[1], cells.roll(1))
    assert torch.equal(orders[2], cells.roll(-1))


@pytest.mark.parametrize(("size", "steps"), [p for p in itertools.product(SIZES, (4, 12, 32)) if p != (4, 32)])
def test_official_counts(size: int, steps: int) -> None:
    """The schedule's known tokens are within one of the authors', unless there are more steps than tokens."""
    expected = load_file(fixture_path("transitions", "halton.safetensors"))[f"halton_count.size{size}.step{steps}"]
    scheduler = LSDScheduler(mask_token_id=2, schedule="arccos", order="halton_maskgit")
    scheduler.set_timesteps(steps)
    sample, known = torch.full((1, size, size), 2), []
    for t in scheduler.timesteps:
        sample = scheduler.step(torch.zeros(1, size * size, 2), t, sample).prev_sample
        known.append(int((sample != 2).sum()))
    difference = torch.tensor(known) - expected.cumsum(0)
    assert difference.abs().max() <= 1
    assert difference[-1] == 0
