"""A report of three samplers of texts, of made-up numbers."""

from typing import Any

import numpy as np

from lsd_sampler.evaluation import Comparison, JudgeNLL
from lsd_sampler.evaluation.report import Report, make_report

from .evaluation_fakes import character_tokenizer, text_metrics, tiny_gpt2


METRICS = text_metrics(JudgeNLL(tiny_gpt2(), character_tokenizer()))
NAMES = ("base", "ours <b>&amp;</b>", "a sampler of a rather long name, with options")


def row(sampler: str, nfe: int | None, value: float, temperature: float = 1.0) -> dict[str, Any]:
    noise = np.random.default_rng([len(sampler), nfe or 0]).normal(size=100)
    values = {"js_char_sum": value, "judge_nll": 5 * value**0.2 * temperature, "unigram_entropy": 6 + temperature}
    replicates = {f"{key}_replicates": list(x + 0.01 * x * noise) for key, x in values.items()}
    ends = {f"js_char_sum_{end}": value * share for end, share in (("low", 0.98), ("high", 1.02))}
    more = {"js_char_3gram": value / 4, "js_char_4gram": 3 * value / 4, "perplexity": 60.0, "network_calls": nfe}
    texts = [f"A text of {sampler}.\n<script>alert(1)</script>", "word " * 60]
    size = {"num_samples": 64, "length": 128}
    return {"sampler": sampler, "nfe": nfe, "temperature": temperature, **values, **ends, **more, **size, **replicates,
            "texts": texts}  # fmt: skip


def example(**changes: Any) -> Report:
    judged = [row(name, nfe, 2 / nfe / (1 + i)) for i, name in enumerate(NAMES) for nfe in (4, 8, 16)]
    sweep = [row(name, nfe, 2 / nfe, t) for name in NAMES for nfe in (4, 8, 16) for t in (0.9, 1.0, 1.1)]
    comparison = Comparison(judged, sweep, row("real text", None, 0.02))
    options: dict[str, Any] = {"base": "base", "protocol": {"Model": "m", "Seeds": "0"}} | changes
    return make_report("Samplers of <model>", comparison, METRICS, **options)
