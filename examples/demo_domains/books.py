"""English text: how far samples are from real novels, with a perplexity that never stands without an entropy."""

import textwrap

import torch

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.cli.texts import read_texts
from lsd_sampler.evaluation import JudgeNLL, TextMetrics, floor_row, text_windows
from lsd_sampler.support.atomic import write_atomically

from .finding import BASE, LEARNED, Finding, Setting, side_by_side
from .progress import say
from .samplers import LEAST_SAMPLES, add_learned, measure, measure_slow, plain_samplers


NFE, CHOOSE_AT, TEMPERATURES = (4, 8), 8, (0.9, 1.0, 1.1)
ORDERS = ("halton",)
WIDTH, SHOWN = 56, 2


def run(setting: Setting) -> Finding:
    model = setting.model("books-radd")
    pipe = MaskedDiffusionPipeline.from_pretrained(str(model), dtype=torch.bfloat16)
    samplers = plain_samplers(pipe, ORDERS)
    notes = add_learned(samplers, setting.models / "books-default", model)
    say("  Counting the n-grams of held-out text.")
    number = max(setting.number(64, 24), LEAST_SAMPLES)
    metrics, real = judged(pipe, setting, number)
    temperatures = (1.0,) if setting.quick else TEMPERATURES
    chosen = {"temperatures": temperatures, "choose_at": CHOOSE_AT}
    rows = measure(pipe, samplers, metrics, NFE, number, num_texts=SHOWN, **chosen)
    if not setting.quick:
        rows += measure_slow(pipe, samplers[BASE], metrics, number, num_texts=SHOWN)
    rows.append(floor_row(metrics, real, name="real text"))
    notes += [
        "JS 3+4: Jensen-Shannon divergences of 3- and 4-grams of characters from held-out novels, in nats, summed.",
        f"temp.: each sampler's best of {temperatures}, chosen at {CHOOSE_AT} calls on other samples."
        if len(temperatures) > 1 else "Temperature 1.",
    ]  # fmt: skip
    beside = {"perplexity": "perplexity", "unigram_entropy": "entropy", "temperature": "temp."}
    finding = Finding("books", rows, "js_char_sum", "JS 3+4", True, beside, notes=notes)
    text = "\n".join(texts(rows))
    write_atomically(setting.folder / "samples.txt", (text + "\n").encode())
    finding.files.append(setting.folder / "samples.txt")
    say(f"\n{text}")
    return finding


def judged(pipe: MaskedDiffusionPipeline, setting: Setting, number: int) -> tuple[TextMetrics, torch.Tensor]:
    """The metrics against held-out text, and real text of the same size that is not among it."""
    (text,) = read_texts(setting.models / "books-valid.txt.xz")
    windows = text_windows(pipe.tokenizer, text, pipe.denoiser.length)
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))]
    judge = JudgeNLL.from_pretrained(str(setting.models / "books-gpt2"), autocast_dtype=torch.bfloat16)
    return TextMetrics(pipe.tokenizer, judge, windows[number:]), windows[:number]


def texts(rows: list[dict]) -> list[str]:
    """Samples of base and learned at 8 calls, by the same noise, in two columns."""
    columns = []
    for name in (BASE, LEARNED):
        row = next((row for row in rows if row["sampler"] == name and row["nfe"] == CHOOSE_AT), None)
        if row is not None:
            parts = [["", *textwrap.wrap(" ".join(text.split()), WIDTH - 2)] for text in row["texts"]]
            columns.append([f"{name}, {CHOOSE_AT} calls", *(line for part in parts for line in part)])
    return side_by_side(columns[0], columns[1], WIDTH) if len(columns) == 2 else columns[0]
