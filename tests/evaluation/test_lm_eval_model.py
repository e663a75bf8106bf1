"""The model of lm-evaluation-harness: run from the shell, with the real harness."""

import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_answerers import tiny_answerer

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.evaluation.masked_likelihood import log_likelihood
from lsd_sampler.sampling.draws import row_generators


pytest.importorskip("lm_eval", reason="lm-eval is not installed")

ROOT = Path(__file__).resolve().parents[2]
TASKS = Path(__file__).parent / "harness_tasks"
QUESTIONS = ["a", "b c d", "e f", "g h i j", "k", "l m n o p", "r s", "a a b"]
# as `lm_eval`, where the wheel is installed: its files that are outside of the package are in a folder of packages
SHELL = "import site, sys; site.addsitedir(sys.argv.pop(1)); from lm_eval.__main__ import cli_evaluate; cli_evaluate()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    tiny_answerer(seed=4).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel puts beside the package."""
    folder = tmp_path_factory.mktemp("site")
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    for source, name in targets["wheel"]["force-include"].items():
        shutil.copy(ROOT / source, folder / name)
    return folder


def lm_eval(cwd: Path, site: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(cwd / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SHELL, str(site), *argv]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


def answers_by_hand(model: Path, **options: Any) -> list[str]:
    """One prompt at a time, each up to the stop string of the task."""
    pipe = MaskedDiffusionPipeline.from_pretrained(model)
    call = {"max_new_tokens": 8, "temperature": 0.0, "eos_early_stop": True, **options}
    texts = [pipe(prompt=q, generator=noise(i), **call).texts[0] for i, q in enumerate(QUESTIONS)]
    return [text.split("q")[0] for text in texts]


def noise(*numbers: int) -> list[torch.Generator]:
    """That of requests by number."""
    return row_generators(0, numbers)


def test_scores_from_the_shell_are_those_by_hand(folder: Path, site: Path) -> None:
    """Half of the answers are asked for as the pipeline gives them: in batches of 4, with blocks and a cache."""
    made = answers_by_hand(folder / "model", block_length=4, cache="dual", num_inference_steps=4)
    choices = [[" a b", " c", " d e f"] for _ in QUESTIONS]
    pipe = MaskedDiffusionPipeline.from_pretrained(folder / "model")
    best = [chosen_by_hand(pipe, i, question, choices[i]) for i, question in enumerate(QUESTIONS)]
    docs = [
        {
            "question": question,
            "answer": made[i] if i % 2 else made[i] + " z",
            "choices": choices[i],
            "choice": best[i] if i % 4 else (best[i] + 1) % 3,
        }
        for i, question in enumerate(QUESTIONS)
    ]
    (folder / "words.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    args = f"pretrained={folder / 'model'},nfe=2,block_length=4,cache=dual,mc_num=16,check_greedy=False"
    argv = ["--model", "lsd_sampler", "--model_args", args, "--tasks", "words,choices", "--include_path", str(TASKS)]
    done = lm_eval(
        folder, site, *argv, "--batch_size", "4", "--device", "cpu", "--output_path", "out", "--log_samples"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (json.loads(path.read_text())["results"] for path in folder.glob("out/**/results_*.json"))
    right = [doc["answer"] == text for doc, text in zip(docs, made, strict=True)]
    assert results["words"]["exact_match,none"] == sum(right) / 8 == 0.5
    chosen = [doc["choice"] == k for doc, k in zip(docs, best, strict=True)]
    assert results["choices"]["acc,none"] == sum(chosen) / 8 == 0.75
    (path,) = folder.glob("out/**/samples_words_*.jsonl")
    logged = sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: row["doc_id"])
    assert [row["resps"][0][0] for row in logged] == made and len(set(made)) > 3


def chosen_by_hand(pipe: Any, number: int, question: str, choices: list[str]) -> int:
    values = []
    for k, choice in enumerate(choices):
        (generator,) = row_generators(0, [number * len(choices) + k], 1)
        given, text = (torch.tensor(pipe.tokenizer(words).input_ids) for words in (question, choice))
        values.append(log_likelihood(pipe.denoiser, given, text, num_draws=16, generator=generator))
    return values.index(max(values))


def test_a_program_without_the_harness_notices_nothing(site: Path) -> None:
    code = "import site, sys; site.addsitedir(sys.argv[1]); print('lm_eval' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(site)], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("False False", "")


# ---- in this process ----


def model(folder: Path, **options: Any) -> Any:
    from lsd_sampler.evaluation.lm_eval_model import LSDSamplerLM

    return LSDSamplerLM(str(folder / "model"), device="cpu", **{"batch_size": 4, "mc_num": 8, **options})


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def generated(lm: Any, *arguments: tuple[str, dict[str, Any]]) -> list[str]:
    return lm.generate_until(requests("generate_until", *arguments), disable_tqdm=True)


def test_requests_of_several_kinds_keep_their_order(folder: Path) -> None:
    """Each is what it is alone, also at a temperature, where its noise goes by its number."""
    options = [{"max_gen_toks": 4 + i % 2, "until": ["q"], "temperature": 0.7 * (i % 3)} for i in range(8)]
    asked = list(zip(QUESTIONS, options, strict=True))
    together = generated(model(folder), *asked)
    assert together == generated(model(folder, batch_size=1), *asked)
    assert together != generated(model(folder, seed=1), *asked)


def test_stop_strings(folder: Path) -> None:
    (whole,) = generated(model(folder), ("a", {"max_gen_toks": 12}))
    words = whole.split()
    stops = [words[5], words[3]]
    first = min(whole.index(stop) for stop in stops)
    assert generated(model(folder), ("a", {"max_gen_toks": 12, "until": stops})) == [whole[:first]]


def test_a_special_token_stops_a_text_too(folder: Path) -> None:
    """Texts do not show it: what follows it is cut all the same."""
    lm = model(folder)
    pipe = lm.pipeline
    ids = pipe(prompt="b c d", max_new_tokens=12, temperature=0.0, generator=noise(0)).sequences[0, -12:].tolist()
    pad = pipe.tokenizer.pad_token_id
    with pytest.MonkeyPatch.context() as patch:
        # the token in the middle of the answer becomes a special one
        chosen = pipe.tokenizer.convert_ids_to_tokens(ids[6])
        patch.setattr(type(pipe.tokenizer), "all_special_ids", property(lambda _: [pad, ids[6]]))
        (text,) = generated(lm, ("b c d", {"max_gen_toks": 12, "until": [chosen]}))
    assert text == pipe.tokenizer.decode(ids[: ids.index(ids[6])], skip_special_tokens=True).strip()


def test_a_chat_template_is_that_of_messages(folder: Path) -> None:
    lm = model(folder)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS[:3]]
    prompts = [lm.apply_chat_template(chat) for chat in chats]
    found = generated(lm, *[(prompt, {"max_gen_toks": 6}) for prompt in prompts])
    call = {"max_new_tokens": 6, "temperature": 0.0, "eos_early_stop": True}
    assert found == lm.pipeline(messages=chats, generator=noise(0, 1, 2), **call).texts
    assert lm.chat_template(True) == lm.tokenizer.chat_template


def test_a_likelihood_of_greedy_decoding(folder: Path) -> None:
    """Is said to be greedy for the very text that the surest token first gives, and for no other."""
    lm = model(folder)
    config = {"order": "confidence", "confidence_temperature": 0.0, "count": "llada"}
    pipe = tiny_answerer(seed=4, **config)
    call = {"max_new_tokens": 3, "temperature": 0.0, "num_inference_steps": 3, "output_type": "ids"}
    greedy = pipe.tokenizer.decode(pipe(prompt="a b", **call).sequences[0, -3:])
    other = "c c c" if greedy != "c c c" else "d d d"
    found = lm.loglikelihood(requests("loglikelihood", ("a b", " " + greedy), ("a b", " " + other)), True)
    assert [is_greedy for _, is_greedy in found] == [True, False]
    assert all(value < 0 for value, _ in found)


def test_a_context_may_be_empty_or_begin_a_word(folder: Path) -> None:
    """White space at the end of a context belongs to what follows."""
    lm = model(folder, check_greedy=False)
    spaced, plain = (lm.loglikelihood(requests("loglikelihood", pair), True) for pair in (("a ", "b"), ("a", " b")))
    assert spaced == plain
    ((value, _),) = lm.loglikelihood(requests("loglikelihood", ("", "b")), True)
    assert value == pytest.approx(lm.loglikelihood_rolling(requests("loglikelihood_rolling", ("b",)), True)[0])
    assert value < 0


def test_a_rolling_likelihood_has_windows(folder: Path) -> None:
    """60 tokens where the model has 48 positions: each window by itself."""
    lm = model(folder, mc_num=2)
    (value,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", ("a " * 60,)), True)
    assert -math.inf < value < 0


def test_long_contexts_lose_their_beginning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    lm, long = model(folder), "b " * 50 + "c d"
    (text,) = generated(lm, (long, {"max_gen_toks": 8}))
    assert "cut to the last 40" in caplog.text
    ids = lm.tok_encode(long)[-40:]
    call = {"max_new_tokens": 8, "temperature": 0.0, "eos_early_stop": True}
    assert [text] == lm.pipeline(prompt=[ids], generator=noise(0), **call).texts


def test_a_beginning_of_text(folder: Path) -> None:
    lm = model(folder, add_bos_token=True)
    with pytest.raises(ValueError, match="`add_bos_token`"):
        generated(lm, ("a", {"max_gen_toks": 2}))
    lm.tokenizer.bos_token = "<pad>"
    (text,) = generated(lm, ("a", {"max_gen_toks": 6}))
    bos = lm.tokenizer.bos_token_id
    ids = [[bos, *lm.tok_encode("a")]]
    call = {"max_new_tokens": 6, "temperature": 0.0, "eos_early_stop": True}
    assert [text] == lm.pipeline(prompt=ids, generator=noise(0), **call).texts


def test_a_scheduler_of_options(folder: Path) -> None:
    lm = model(folder, solver="fast_dllm_threshold", solver_options={"threshold": 0.5})
    assert lm.pipeline.scheduler.config.solver == "fast_dllm_threshold"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block_lenght": 4}, "block_length"),
        ({"batch_size": "auto"}, "--batch_size"),
        ({"nfe": 0}, "nfe"),
        ({"mc_num": 0}, "mc_num"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_known_mistakes(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model(folder, **options)


def test_one_process_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process"):
        model(folder)


def test_no_room_for_a_context(folder: Path) -> None:
    with pytest.raises(ValueError, match="max_gen_toks"):
        generated(model(folder), ("a", {"max_gen_toks": 48}))
