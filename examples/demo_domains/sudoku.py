"""Sudoku of 4 x 4 cells. The network is exact, so every broken grid is the sampler's fault. One is learned here."""

import torch

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill
from lsd_sampler.cards.sampler_card import save_sampler
from lsd_sampler.evaluation.metric_sets import oracle_metrics
from lsd_sampler.support.atomic import write_atomically
from lsd_sampler.support.sudoku import is_solved

from .finding import BASE, LEARNED, Finding, Setting
from .progress import lines_of_calls, say
from .samplers import measure, measure_slow, plain_samplers


MODEL, SIDE, BOX = "sudoku4", 4, 2
NFE, SHOWN_AT, SHOWN = (2, 3, 4, 6), 4, 3
ORDERS = ("halton", "confidence:cosine", "margin", "entropy")
QUICK = {"search_evaluations": 16384, "coefficients": "plain"}  # a quarter of the search, in which 3 calls lose most


def run(setting: Setting) -> Finding:
    pipe = MaskedDiffusionPipeline.from_pretrained(MODEL)
    samplers = plain_samplers(pipe, ORDERS)
    samplers[LEARNED], config, records = learn(pipe, setting)
    saved = setting.folder / "sampler"
    save_sampler(samplers[LEARNED], saved, model=MODEL, config=config, records=records)
    number = setting.number(1024, 256)
    metrics = oracle_metrics(pipe.denoiser, number)
    rows = measure(pipe, samplers, metrics, NFE, number)
    rows += measure_slow(pipe, samplers[BASE], metrics, number)
    beside = {"distinct_valid": "different"}
    finding = Finding("sudoku", rows, "valid_share", "valid grids", False, beside, SHOWN_AT, files=[saved])
    finding.notes.append(f"valid grids: the share. different: how many of the {pipe.denoiser.num_valid} that exist.")
    text = "\n".join(grids(pipe, samplers))
    write_atomically(setting.folder / "grids.txt", (text + "\n").encode())
    finding.files.append(setting.folder / "grids.txt")
    say(f"\n{text}")
    return finding


def learn(pipe: MaskedDiffusionPipeline, setting: Setting) -> tuple[LSDScheduler, DistillConfig, list[dict]]:
    """What `lsd-train --model sudoku4` does; `--quick` searches less."""
    config, records = DistillConfig(nfe=NFE, **(QUICK if setting.quick else {})), []
    say(f"  Learning the default sampler for {', '.join(map(str, NFE))} network calls.")
    with lines_of_calls(pipe.denoiser, "learning"):
        return distill(pipe, config, log=records.append), config, records


def grids(pipe: MaskedDiffusionPipeline, samplers: dict[str, LSDScheduler]) -> list[str]:
    """A few grids of the base sampler above those of the learned one, by the same noise; a broken one is marked."""
    lines = []
    for name in (BASE, LEARNED):
        pipe.scheduler = samplers[name]
        generator = torch.Generator().manual_seed(0)
        made = pipe(num_samples=SHOWN, num_inference_steps=SHOWN_AT, generator=generator, output_type="ids").sequences
        solved = is_solved(torch.as_tensor(made), SIDE).tolist()
        pictures = [drawn(grid.tolist(), right) for grid, right in zip(made, solved, strict=True)]
        lines += [f"{name}, {SHOWN_AT} calls", *("     ".join(parts) for parts in zip(*pictures, strict=True)), ""]
    return lines[:-1]


def drawn(digits: list[int], right: bool) -> list[str]:
    """A grid as lines of equal length."""
    rows = [digits[i : i + SIDE] for i in range(0, SIDE * SIDE, SIDE)]
    lines = [" | ".join(" ".join(str(d + 1) for d in row[j : j + BOX]) for j in range(0, SIDE, BOX)) for row in rows]
    lines.insert(BOX, "-" * BOX * 2 + "+" + "-" * BOX * 2)
    return [*lines, ("valid" if right else "BROKEN").ljust(len(lines[0]))]
