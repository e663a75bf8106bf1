"""Samplers, denoisers and pipelines through the Hub: the real client, in its own processes, against a local server.

`huggingface_hub` reads `HF_ENDPOINT` when it is imported, so what talks to the Hub runs in a fresh process.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub_processes import (
    Run,
    any_sequences,
    command,
    contents,
    describe_denoiser,
    draw,
    environment,
    image,
    load,
    make,
    process,
    push,
    push_folder,
    push_saved,
    sequences,
)
from helpers.hub_server import TOKEN, HubServer, Repo
from helpers.tiny_pipelines import amused

from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline
from lsd_sampler.cli import sample, train
from lsd_sampler.denoisers import RADDDenoiser, countdown
from lsd_sampler.learned.tensor_file import TENSORS_NAME


CONFIG_NAME = "scheduler_config.json"
RADD = {
    "tokens": 5,
    "noise": {"type": "loglinear"},
    "model": {"type": "ddit_wot", "hidden_size": 8, "n_heads": 2, "n_blocks": 1, "length": 6, "dropout": 0.1},
}


@pytest.fixture(scope="module")
def running() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


@pytest.fixture
def hub(running: HubServer) -> Iterator[HubServer]:
    """The Hub, which no test leaves dishonest or stopped."""
    yield running
    running.honest()


@pytest.fixture(scope="module")
def run(running: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs functions of `hub_processes` in a process that most tests share; nobody is logged in there."""
    with process(running, tmp_path_factory.mktemp("cache")) as run_there:
        yield run_there


def refused(run: Run, function: Callable[..., Any], *args: Any, words: tuple[str, ...], **options: Any) -> None:
    """One error of the two known kinds, in one sentence or two, with these words."""
    with pytest.raises((OSError, ValueError)) as caught:
        run(function, *args, **options)
    assert isinstance(caught.value, ValueError) or type(caught.value) in (OSError, FileNotFoundError)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# ---- uploads ----


@pytest.mark.parametrize("number", [None, 1])
def test_what_was_pushed_comes_back(hub: HubServer, run: Run, tmp_path: Path, number: int | None) -> None:
    kind = "plain" if number is None else "learned"
    address = run(push, number, f"user/{kind}")
    repo = hub.repos[f"user/{kind}"]
    assert address == f"{hub.url}/user/{kind}/commit/{repo.refs['main']}" and not repo.private
    run(push_saved, number, str(tmp_path / "saved"), repo_id=f"user/{kind}-saved")
    run(push_saved, number, str(tmp_path / f"{kind}-named"))
    for name in (kind, f"{kind}-saved", f"{kind}-named"):
        assert hub.repos[f"user/{name}"].files() == contents(make(number))
        assert run(load, f"user/{name}") == contents(make(number))


def test_options_of_an_upload(hub: HubServer, run: Run) -> None:
    run(push, 1, "user/options", private=True, commit_message="the first")
    repo = hub.repos["user/options"]
    assert repo.private and repo.messages[repo.refs["main"]] == "the first"
    run(push, 2, "user/options", create_pr=True)
    run(push, 3, "user/options", revision="next")
    run(push, 4, "user/options", revision="next", subfolder="nested/deeper")
    run(push, 5, "user/options", revision="refs/pr/1")
    assert repo.files() == contents(make(1))
    assert set(repo.refs) == {"main", "next", "refs/pr/1"}
    assert run(load, "user/options", token=TOKEN, revision="refs/pr/1") == contents(make(5))
    assert run(load, "user/options", token=TOKEN, revision="next") == contents(make(3))
    assert run(load, "user/options", token=TOKEN, revision="next", subfolder="nested/deeper") == contents(make(4))


@pytest.mark.parametrize("subfolder", [None, "nested"])
def test_no_tensors_of_an_earlier_sampler_stay(hub: HubServer, run: Run, subfolder: str | None) -> None:
    name = f"user/again-{subfolder}"
    for number in (1, None, 2):
        run(push, number, name, subfolder=subfolder)
        kept = {f"{subfolder}/{file}" if subfolder else file: data for file, data in contents(make(number)).items()}
        assert hub.repos[name].files() == kept
        assert run(load, name, subfolder=subfolder) == contents(make(number))


def test_uploads_that_are_refused(hub: HubServer, run: Run) -> None:
    hub.repos["other/theirs"] = Repo()
    before = {name: dict(repo.refs) for name, repo in hub.repos.items()}
    refused(run, push, 1, "user/new", token=None, words=("'user/new'", "token"))
    refused(run, push, 1, "user/new", token="hf_wrong", words=("'user/new'", "token"))
    refused(run, push, 1, "other/theirs", words=("'other/theirs'",))
    refused(run, push, 1, "other/new", words=("'other/new'",))
    refused(run, push, 1, "a/b/c", words=("a/b/c",))
    refused(run, push, 1, "other/theirs", revision="../main", words=("`revision`",))
    assert {name: dict(repo.refs) for name, repo in hub.repos.items()} == before
    run(push, 1, "other/theirs", create_pr=True)  # anybody may propose
    assert set(hub.repos["other/theirs"].refs) == {"main", "refs/pr/1"}


# ---- downloads ----


def test_revisions(hub: HubServer, run: Run) -> None:
    repo = hub.repos["user/versions"] = Repo()
    first = repo.commit(dict(contents(make(1))))
    repo.commit(dict(contents(make(2))), ref="v2")
    repo.commit(dict(contents(make(3))), ref="feature/x")
    repo.commit(dict(contents(make(4))))
    expected = {None: 4, "main": 4, first: 1, "v2": 2, "feature/x": 3}
    for revision, number in expected.items():
        assert run(load, "user/versions", revision=revision) == contents(make(number))
    repo.commit(dict(contents(make(5))))
    assert run(load, "user/versions") == contents(make(5))
    assert run(load, "user/versions", revision=first) == contents(make(1))


def test_what_is_not_there(hub: HubServer, run: Run) -> None:
    hub.repos["user/bare"] = Repo()
    hub.repos["user/half"] = Repo()
    hub.repos["user/half"].commit({CONFIG_NAME: contents(make(1))[CONFIG_NAME]})
    refused(run, load, "user/none", words=("'user/none'", "no such repo", "token"))
    refused(run, load, "user/bare", revision="v9", words=("'user/bare'", "'v9'", "`revision`"))
    refused(run, load, "user/bare", revision="a/../b", words=("`revision`",))
    refused(run, load, "user/bare", words=("'user/bare'", CONFIG_NAME, "no such file"))
    refused(run, load, "user/half", subfolder="deep", words=("'user/half'", f"deep/{CONFIG_NAME}"))
    refused(run, load, "user/half", words=("'user/half'", TENSORS_NAME, "no such file"))
    refused(run, describe_denoiser, "user/none", words=("'user/none'", "no such repo", "token"))
    refused(run, describe_denoiser, "user/bare", revision="v9", words=("'user/bare'", "'v9'", "`revision`"))
    refused(run, describe_denoiser, "user/half", words=("config.json",))
    refused(run, load, "user/none", force_download=True, words=("'user/none'", "no such repo"))


@pytest.mark.parametrize("kind", ["private", "gated"])
def test_repos_that_need_a_token(hub: HubServer, run: Run, tmp_path: Path, kind: str) -> None:
    """It goes to the Hub, and never to the storage of another origin."""
    countdown(3, 4).save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    repo = hub.repos[f"user/{kind}"] = Repo(private=kind == "private", gated=kind == "gated")
    repo.commit({**contents(make(1)), **files})
    for function in (load, describe_denoiser):
        for token in (None, False, "hf_wrong"):
            refused(run, function, f"user/{kind}", token=token, words=(f"'user/{kind}'", "token", "hf auth login"))
    hub.tokens.clear()
    assert run(load, f"user/{kind}", token=TOKEN) == contents(make(1))
    assert run(describe_denoiser, f"user/{kind}", token=TOKEN)["commit"] == repo.refs["main"]
    assert hub.tokens == [None] * 2


def test_a_cache_is_enough(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """After one load: with `local_files_only`, without a Hub, and in offline mode."""
    repo = hub.repos["user/cached"] = Repo()
    countdown(3, 4).save_pretrained(tmp_path / "model")
    model = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    first = repo.commit({**contents(make(1)), **model})
    cache = {"cache_dir": str(tmp_path / "cache")}
    for function in (load, describe_denoiser):
        refused(run, function, "user/cached", local_files_only=True, **cache, words=("'user/cached'", "online"))
    known = run(describe_denoiser, "user/cached", **cache)
    assert run(load, "user/cached", **cache) == contents(make(1))
    repo.commit(dict(contents(make(2))))

    def still_there(run: Run, **options: Any) -> None:
        for revision in (None, "main", first):
            assert run(load, "user/cached", revision=revision, **cache, **options) == contents(make(1))
            assert run(describe_denoiser, "user/cached", revision=revision, **cache, **options) == known
        refused(run, describe_denoiser, "user/other", **cache, **options, words=("'user/other'", "online"))

    hub.requests.clear()
    still_there(run, local_files_only=True)
    with process(hub, tmp_path / "home", HF_HUB_OFFLINE="1") as run_offline:
        still_there(run_offline)
        refused(run_offline, load, "user/other", words=("'user/other'", "online"))
        refused(run_offline, load, "user/cached", force_download=True, **cache, words=("'user/cached'", "offline"))
        refused(run_offline, push, 1, "user/new", words=("'user/new'", "offline"))
    assert not hub.requests
    hub.stop()
    try:
        still_there(run)
        refused(run, load, "user/cached", force_download=True, **cache, words=("'user/cached'",))
        refused(run, push, 1, "user/new", words=("'user/new'",))
    finally:
        hub.start()
    assert run(load, "user/cached", **cache) == contents(make(2))


def test_all_files_are_of_one_commit(hub: HubServer, run: Run) -> None:
    """Even if somebody pushes another sampler while one is being loaded."""
    repo = hub.repos["user/moving"] = Repo()
    repo.commit(dict(contents(make(1))))

    def move(request: str) -> None:
        if request.startswith("GET") and request.endswith(CONFIG_NAME):
            repo.commit(dict(contents(make(2))))

    hub.after = move
    assert run(load, "user/moving") == contents(make(1))
    assert repo.files() == contents(make(2))
    assert run(load, "user/moving") == contents(make(2))


# ---- files that are not what the Hub announced ----


def flipped(data: bytes) -> bytes:
    """One bit, in the middle."""
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("file", [CONFIG_NAME, TENSORS_NAME])
def test_a_sampler_that_changes_on_the_way_never_loads(hub: HubServer, run: Run, file: str) -> None:
    name = f"user/on-the-way-{file.removesuffix('.safetensors')}"
    hub.repos[name] = Repo()
    hub.repos[name].commit(dict(contents(make(1))))
    hub.tamper = lambda path, data: halved(data) if path == file else data
    refused(run, load, name, words=(file, "try again"))
    hub.tamper = lambda path, data: flipped(data) if path == file else data
    for _ in range(2):  # the second one is in the cache
        refused(run, load, name, words=(file, "`force_download=True`"))
    hub.honest()
    assert run(load, name, force_download=True) == run(load, name) == contents(make(1))


def test_half_a_file_is_no_file(hub: HubServer, run: Run) -> None:
    """The connection breaks, and then the storage does not have the rest; nothing of it stays in the cache."""
    hub.repos["user/half-way"] = Repo()
    hub.repos["user/half-way"].commit(dict(contents(make(1))))
    hub.tamper, hub.breaks = lambda path, data: halved(data) if path == TENSORS_NAME else data, True
    hub.after = lambda request: hub.objects.clear() if request.startswith("GET /objects") else None
    refused(run, load, "user/half-way", words=(TENSORS_NAME, "try again"))
    hub.honest()
    assert run(load, "user/half-way") == contents(make(1))


@pytest.mark.parametrize("file", [CONFIG_NAME, TENSORS_NAME])
def test_a_cache_that_was_edited_never_loads(hub: HubServer, run: Run, tmp_path: Path, file: str) -> None:
    hub.repos["user/edited"] = Repo()
    hub.repos["user/edited"].commit(dict(contents(make(1))))
    cache = {"cache_dir": str(tmp_path)}
    run(load, "user/edited", **cache)
    blob = next(path for path in tmp_path.rglob(file) if path.is_file()).resolve()
    for damage in (flipped, lambda data: data[:-1], lambda data: data + b" ", lambda data: b""):
        blob.write_bytes(damage(contents(make(1))[file]))
        for options in ({}, {"local_files_only": True}):
            refused(
                run, load, "user/edited", cache_dir=str(tmp_path), **options, words=(file, "`force_download=True`")
            )
    assert run(load, "user/edited", cache_dir=str(tmp_path), force_download=True) == contents(make(1))
    assert run(load, "user/edited", cache_dir=str(tmp_path)) == contents(make(1))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_denoiser_that_changes_on_the_way_never_loads(hub: HubServer, run: Run, tmp_path: Path, file: str) -> None:
    countdown(3, 4).save_pretrained(tmp_path)
    name = f"user/{file.replace('.', '-')}"
    hub.repos[name] = Repo()
    hub.repos[name].commit({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    hub.tamper = lambda path, data: halved(data) if path == file else data
    refused(run, describe_denoiser, name, words=(name, "try again"))
    hub.tamper = lambda path, data: flipped(data) if path == file else data
    refused(run, describe_denoiser, name, words=(file, "`force_download=True`"))
    refused(run, sequences, name, words=(file, "`force_download=True`"))
    hub.honest()
    whole = run(describe_denoiser, name, force_download=True)
    assert whole == run(describe_denoiser, name)
    assert whole["weights"] == describe_denoiser(str(tmp_path))["weights"]


# ---- the whole flow ----


def test_from_a_shell_to_another_process(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """lsd-train, push; and elsewhere, with nothing cached: a pipeline with the sampler by id, and lsd-sample."""
    model, out = "countdown:V=4,L=16", tmp_path / "sampler"
    argv = ["--model", model, "--nfe", "2", "4", "--num-sequences", "8", "--output-dir", str(out)]
    argv += ["--coefficients", "plain"]
    done = subprocess.run(
        [sys.executable, "-m", "lsd_sampler.cli.train", *argv, "--push-to-hub", "chain"],
        env={**environment(hub, tmp_path / "first"), "HF_TOKEN": TOKEN}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    repo = hub.repos["user/chain"]
    assert repo.files() == {path.name: path.read_bytes() for path in out.iterdir()}
    written = {"README.md", "config.json", "metrics.jsonl", "schedule.png", CONFIG_NAME, TENSORS_NAME}
    assert set(repo.files()) == written
    assert f"{hub.url}/user/chain/commit/{repo.refs['main']}" in done.stdout.splitlines()[-1]
    assert "from_pretrained('user/chain')" in repo.files()["README.md"].decode()
    assert json.loads(repo.files()["config.json"])["distillation"]["nfe"] == [2, 4]

    assert run(sequences, model, "user/chain") == run(sequences, model, str(out)) == sequences(model, str(out))
    argv = ["--model", model, "--nfe", "3", "--sampler"]
    assert run(command, sample.main, *argv, "user/chain") == run(command, sample.main, *argv, str(out))
    refused(run, command, sample.main, *argv, "user/none", words=("--sampler", "user/none", "no such repo"))
    argv = ["--model", model, "--nfe", "2", "--output-dir", str(tmp_path / "not"), "--push-to-hub", "user/chain"]
    refused(run, command, train.main, *argv, words=("'user/chain'", "token"))
    assert not (tmp_path / "not").exists()


def test_models_by_id(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """Denoisers and pipelines of ours, from the Hub, are those that were pushed; samplers remember the commit."""
    torch.manual_seed(0)
    models = {"radd": RADDDenoiser(RADD), "markov": countdown(4, 6)}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        run(push_folder, tmp_path / name, f"user/{name}")
        commit = hub.repos[f"user/{name}"].refs["main"]
        local = describe_denoiser(str(tmp_path / name))
        expected = {"name": f"user/{name}", "commit": commit, "weights": local["weights"]}
        assert run(describe_denoiser, f"user/{name}") == expected
        assert run(sequences, f"user/{name}") == sequences(str(tmp_path / name))

        scheduler = LSDScheduler(**model.scheduler_config())
        scheduler.set_learned_sampler(make(1).learned_sampler)
        MaskedDiffusionPipeline(model, scheduler).save_pretrained(tmp_path / f"{name}-pipe")
        run(push_folder, tmp_path / f"{name}-pipe", f"user/{name}-pipe")
        expected = sequences(str(tmp_path / f"{name}-pipe"))
        assert run(sequences, f"user/{name}-pipe") == run(any_sequences, f"user/{name}-pipe") == expected

        argv = ["--model", f"user/{name}", "--nfe", "2", "--num-sequences", "2"]
        argv += ["--output-dir", str(tmp_path / "out"), "--overwrite"]
        argv += ["--coefficients", "plain"]
        run(command, train.main, *argv)
        config = LSDScheduler.from_pretrained(tmp_path / "out").config
        assert (config.base_model, config.base_model_revision) == (f"user/{name}", commit)


def test_no_code_and_no_pickles_are_fetched(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """Nor anything else that is not asked for; by short name, and from a subfolder."""
    RADDDenoiser(RADD).save_pretrained(tmp_path)
    files: dict[str, bytes | None] = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = ["pytorch_model.bin", "model.pt", "modeling.py", "README.md"]
    nested = {f"nested/{name}": data for name, data in files.items()}
    repo = hub.repos["JingyangOu/radd-lambda-dce"] = Repo()
    repo.commit({**files, **nested, **dict.fromkeys(other, b"")})
    for options in ({"subfolder": "nested"}, {}):
        hub.requests.clear()
        found = run(describe_denoiser, "radd", **options)
        assert found["name"] == "JingyangOu/radd-lambda-dce" and found["commit"] == repo.refs["main"]
        folder = "/".join(["", *options.values(), ""])
        asked = {f"HEAD /{found['name']}/resolve/{found['commit']}{folder}{name}" for name in files}
        assert {request for request in hub.requests if request.startswith("HEAD")} == asked


def test_pipelines_of_diffusers_by_id(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """Unmodified, with a sampler of ours in their `scheduler` folder, plain or learned."""
    pipe = amused()
    pipe.set_progress_bar_config(disable=True)
    for name, number in (("plain", None), ("learned", 1)):
        pipe.scheduler = make(number)
        pipe.save_pretrained(tmp_path / name)
        run(push_folder, tmp_path / name, f"user/amused-{name}")
        assert run(image, f"user/amused-{name}") == draw(pipe)
        assert run(load, f"user/amused-{name}", subfolder="scheduler") == contents(make(number))

    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    run(push_folder, tmp_path / "half", "user/amused-half")
    assert run(image, "user/amused-half", variant="fp16") == draw(pipe)

    run(push, 1, "user/amused-plain", subfolder="scheduler")  # beside the config, where diffusers does not expect it
    assert run(image, "user/amused-plain", "user/amused-plain") == draw(pipe)

    (tmp_path / "prompts.txt").write_text("a\n")
    argv = ["--pipeline", "user/amused-learned", "--prompts", str(tmp_path / "prompts.txt"), "--nfe", "2"]
    argv += ["--coefficients", "plain"]
    run(command, train.main, *argv, "--num-sequences", "2", "--output-dir", str(tmp_path / "out"))
    config = LSDScheduler.from_pretrained(tmp_path / "out").config
    assert config.base_model == "user/amused-learned"
    assert config.base_model_revision == hub.repos["user/amused-learned"].refs["main"]
