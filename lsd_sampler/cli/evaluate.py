"""`lsd-eval`: compare samplers of one model at equal network calls, each at its own best temperature and guidance."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..denoisers.oracle import Oracle
from ..denoisers.oracle_names import is_oracle_spec
from ..evaluation.metric_sets import MetricSet
from ..support.afterwards import as_warning, optional_plot
from ..support.atomic import write_atomically
from ..support.workers import Workers
from .common import (
    add_model_arguments,
    check_output_dir,
    load_options,
    load_pipeline,
    positive_int,
    process_group,
    run,
    say,
    within_memory,
)
from .evaluation_classes import check_guidance, classes_of
from .evaluation_fills import FillTask
from .evaluation_molecules import add_molecule_arguments, check_molecule_options
from .evaluation_parts import (
    BASELINE_FORM,
    find_oracle,
    finished_rows,
    keeping_rows,
    make_metrics,
    make_samplers,
    most_masked,
    refuse_unused,
)
from .evaluation_protocol import precision, protocol
from .evaluation_tasks import (
    CHOOSING,
    TASK_TEMPERATURES,
    add_task_arguments,
    answer_options,
    check_task_options,
    chooser,
    expand_sweeps,
    make_task_parts,
)


DTYPES = ("float32", "bfloat16", "float16")
TEMPERATURES = (0.8, 0.9, 1.0, 1.1)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-eval", description=__doc__)
    which = add_model_arguments(parser)
    which.add_argument(
        "--images", nargs="+", type=Path, metavar="DIR", help="compare folders of images by FID instead"
    )
    parser.add_argument("--image-reference", type=Path, metavar="DIR", help="with --images: folder of real images")
    parser.add_argument("--sampler", nargs="*", default=[], help="folders or Hub ids of learned samplers")
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=["tweedie"],
        help=f"plain samplers as {BASELINE_FORM}, for example tweedie or tweedie:halton:cosine; the first is the base "
        "solver of the headline; a constant with several values, as entropy_bounded@gamma=0.1/1, is swept, and read "
        "off at the calls of the others",
    )
    parser.add_argument(
        "--nfe", type=positive_int, nargs="+", default=[4, 8, 16, 32],
        help="numbers of network calls to compare at; default: 4 8 16 32",
    )  # fmt: skip
    parser.add_argument(
        "--headline-nfe", type=positive_int, help="number of calls of the headline; default: 8, or the fewest"
    )
    parser.add_argument(
        "--headline-limit", type=positive_int, metavar="CALLS",
        help="a base that is not as good within --nfe is measured at 2, 4, 8, ... times as many calls until it is, up "
        "to this limit; default: one token a call",
    )  # fmt: skip
    parser.add_argument(
        "--num-samples", type=positive_int, help="samples in each row; default: 1024, or every item of --tasks once"
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, help="samples per network call; default: %(default)s"
    )
    parser.add_argument(
        "--temperatures", type=float, nargs="+",
        help="temperatures to try for each sampler; default: 1 for oracles without --frontier, "
        f"{' '.join(f'{t:g}' for t in TASK_TEMPERATURES)} with --tasks, else {' '.join(map(str, TEMPERATURES))}",
    )  # fmt: skip
    parser.add_argument(
        "--guidance-scale", type=float, nargs="+", metavar="W",
        help="strengths of classifier-free guidance to try for each sampler, 0 for none; default: none",
    )  # fmt: skip
    parser.add_argument(
        "--temperature-nfe",
        type=positive_int,
        help="choose temperatures and guidance at this number of calls only, which is cheaper",
    )
    parser.add_argument(
        "--temperature-samples",
        type=positive_int,
        metavar="N",
        help="choose temperatures and guidance on this many samples; default: --num-samples",
    )
    parser.add_argument(
        "--frontier", action="store_true", help="add likelihood against entropy along the temperatures"
    )
    parser.add_argument(
        "--oracle", metavar="NAME", help="judge the samples by this exact oracle: countdown:V=32, sudoku4, ..."
    )
    parser.add_argument("--judge", help="causal language model: folder or Hub id")
    parser.add_argument("--judge-dtype", choices=DTYPES, help="precision of the judge's weights; default: as stored")
    parser.add_argument("--judge-batch-size", type=positive_int, help="sequences at once; default: what fits")
    parser.add_argument(
        "--judge-stride",
        type=positive_int,
        help="stride of the judge's windows over long samples; default: half a window",
    )
    parser.add_argument(
        "--reference", type=Path, help="held-out .txt, .txt.xz, .smi, .smi.xz or a folder; default: the teacher"
    )
    parser.add_argument(
        "--reference-lines", action="store_true", help="each line of --reference is a text, as in .smi"
    )
    add_molecule_arguments(parser)
    parser.add_argument(
        "--infill",
        type=Path,
        metavar="FILE",
        help="fill in the masks of the lines of this file: texts, ids, or .jsonl",
    )
    add_task_arguments(parser)
    parser.add_argument("--features", choices=("judge", "denoiser"), help="embedding space of the energy distance")
    parser.add_argument("--mauve", action="store_true", help="MAUVE in that space (needs mauve-text)")
    parser.add_argument("--num-texts", type=positive_int, default=2, help="samples of each row shown in the report")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise; default: %(default)s")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="reuse finished rows of --output-dir")
    again.add_argument("--overwrite", action="store_true", help="start over where --output-dir holds finished rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("lsd-eval"), help="folder of the report; default: %(default)s"
    )
    return parser


def command(args: argparse.Namespace) -> None:
    with process_group(args):
        evaluate(args)


def evaluate(args: argparse.Namespace) -> None:
    from ..evaluation.harness import Harness
    from ..evaluation.report import as_json, as_text

    workers = Workers.here()
    if args.images:
        if workers.is_main:
            compare_images(args)
        return
    check_options(args)
    check_output_dir(args.output_dir)
    output = args.output_dir / "metrics.jsonl"
    if not args.resume and not args.overwrite:
        check_no_row_is_lost(output)
        if args.tasks is not None:
            check_no_row_is_lost(args.output_dir / CHOOSING)
    pipeline = load_pipeline(args)
    task = FillTask.read(args.infill, pipeline, args.num_samples or 1024) if args.infill else None
    samplers = make_samplers(args, pipeline.denoiser.scheduler_config())
    temperatures = choose_temperatures(args, pipeline.denoiser, samplers)
    check_guidance(args, pipeline.denoiser)
    tasks, canvases = None, None if task is None else task.canvases
    if args.tasks is not None:
        oracle = find_oracle(args, pipeline.denoiser)
        chooses = len(set(temperatures)) > 1 or len(set(args.guidance_scale or ())) > 1
        tasks = make_task_parts(args, pipeline, oracle, chooses)
        canvases = tasks.judged.canvases
    args.num_samples = args.num_samples or (1024 if tasks is None else len(tasks.judged.canvases))
    num_rows = min(args.batch_size, args.num_samples)
    with keeping_rows(output), within_memory(args, "--batch-size", num_rows):
        args.output_dir.mkdir(parents=True, exist_ok=True)
        _say_folder(args)
        metrics, floor = make_metrics(args, pipeline, task, tasks)
        if args.frontier and floor is None:
            raise ValueError("`--frontier` is read off at the entropy of real data: give more `--reference` text.")
        if args.frontier and metrics.likelihood_key is None:
            raise ValueError(f"`--frontier` needs a likelihood, and samples of {args.oracle or args.model} have none.")
        if canvases is None and metrics.canvases is not None:  # of an oracle
            canvases = list(metrics.canvases)
        common: dict[str, Any] = {
            "num_samples": args.num_samples, "batch_size": args.batch_size, "resume": args.resume,
            "labels": labels(args, pipeline.denoiser, metrics), "workers": workers,
        }  # fmt: skip
        harness = Harness(
            pipeline,
            samplers,
            metrics,
            output=output,
            num_texts=args.num_texts if metrics.tokenizer is not None else 0,
            canvases=canvases,
            chooser=chooser(args, pipeline, samplers, tasks, common),
            **common,
            **classes_of(pipeline.denoiser, canvases),
            **answer_options(args, pipeline, tasks),
            **({"length": args.length} if args.length and tasks is None else {}),
        )
        if args.temperature_samples:
            if canvases is not None:
                raise ValueError("`--temperature-samples`: each canvas has its own sample here: leave it out.")
            harness.chooser = harness.with_num_samples(args.temperature_samples)
        report = conclude(args, harness, floor, temperatures)
        if workers.is_main:
            write_report(report, args.output_dir)
    say((as_json(report) if args.json else as_text(report)).removesuffix("\n"))


def conclude(args: argparse.Namespace, harness: Any, floor: Any, temperatures: list[float]) -> Any:
    """Makes all rows, including those of the base that the headline needs, and the report."""
    from ..evaluation.comparison import compare, measure_curves, measure_further
    from ..evaluation.report import make_report

    base = args.baselines[0] if args.baselines else None
    nfe = args.headline_nfe or (8 if 8 in args.nfe else min(args.nfe))
    sweeps = {text: names for text, names in expand_sweeps(args.baselines).items() if names != [text]}
    fixed = [name for name in harness.samplers if not any(name in names for names in sweeps.values())]
    ours = [name for name in fixed if name not in args.baselines]
    common: dict[str, Any] = {"choose_at": args.temperature_nfe, "seed": args.seed}
    common["guidance_scales"] = args.guidance_scale or [None]
    found = compare(harness.only(*fixed), args.nfe, temperatures, frontier=args.frontier, floor=floor, **common)
    most = None if harness.canvases is None else most_masked(harness.canvases, harness.pipeline.denoiser.hole_id)
    if most is not None and args.block_length:
        most = min(most, args.block_length)
    if sweeps:
        options: dict[str, Any] = {key: common[key] for key in ("seed", "guidance_scales")}
        steps = most or args.length or harness.pipeline.denoiser.length  # one token a call
        found = measure_curves(harness, found, sweeps, args.nfe, steps=steps, temperatures=temperatures, **options)
    if base is not None:
        common |= {"temperatures": temperatures, "limit": args.headline_limit or most}
        found = measure_further(harness, found, base, nfe=nfe, ours=ours, **common)
    title = f"Samplers of {Path(args.model).name or args.model}"
    described = protocol(args, harness.pipeline, harness.metrics, found, temperatures)
    return make_report(title, found, harness.metrics, base=base, headline_nfe=nfe, ours=ours, protocol=described)


def _say_folder(args: argparse.Namespace) -> None:
    words = f"Output folder: {args.output_dir}"
    if args.json:
        print(words, file=sys.stderr)
    else:
        say(words)


def check_options(args: argparse.Namespace) -> None:
    """Refuses flags that do not go together, before anything is loaded.

    Raises:
        ValueError: if there are any; the message names the flag.
    """
    check_task_options(args)
    refuse_unused(args, args.oracle is not None or is_oracle_spec(args.model))
    check_molecule_options(args)
    given = {"--frontier": args.frontier, "--tasks": args.tasks, "--infill": args.infill}
    if args.temperature_samples and (others := [name for name, value in given.items() if value]):
        raise ValueError(f"`--temperature-samples` cannot go with `{others[0]}`: leave one out.")
    if args.infill and args.length:
        raise ValueError("`--infill` has whole canvases: leave `--length` out.")
    if args.headline_nfe not in (None, *args.nfe):
        raise ValueError(f"`--headline-nfe` {args.headline_nfe} must be among `--nfe` {' '.join(map(str, args.nfe))}.")


def check_no_row_is_lost(path: Path) -> None:
    """Refuses a folder whose rows a new run would replace, before any work is done."""
    if num := finished_rows(path):
        holds = f"holds {num} finished row{'s' if num > 1 else ''}"
        advice = "`--resume` to go on, `--overwrite` to start over"
        raise ValueError(f"`--output-dir` {str(path.parent)!r} {holds}: {advice}.")


def choose_temperatures(args: argparse.Namespace, denoiser: Any, samplers: Mapping[str, Any]) -> list[float]:
    """The temperatures to try.

    Raises:
        ValueError: if they do not fit the other flags or the samplers.
    """
    is_oracle = args.oracle is not None or isinstance(denoiser, Oracle)
    refuse_unused(args, is_oracle)
    default = [1.0] if is_oracle and not args.frontier else list(TEMPERATURES)
    temperatures = args.temperatures or (default if args.tasks is None else list(TASK_TEMPERATURES))
    several = len(set(temperatures)) > 1
    if args.frontier and not is_oracle and args.judge is None:
        raise ValueError("`--frontier` needs a likelihood: give a `--judge`.")
    if args.frontier and not several:
        raise ValueError("`--frontier` needs at least two `--temperatures`.")
    if args.frontier and args.temperature_nfe not in (None, *args.nfe):
        nfe = " ".join(map(str, args.nfe))
        raise ValueError(f"`--temperature-nfe` {args.temperature_nfe} must be among `--nfe` {nfe} with `--frontier`.")
    for name, sampler in samplers.items():
        draws = sampler.config.draws
        if draws != "exact" and set(temperatures) != {1}:
            tried = " ".join(f"{t:g}" for t in temperatures)
            raise ValueError(f"{name!r}: `draws` {draws!r} know no temperature: give `--temperatures 1`, not {tried}.")
        used = any(sampler.can_do(steps) for steps in args.nfe)
        if several and used and args.temperature_nfe and not sampler.can_do(args.temperature_nfe):
            raise ValueError(f"`--temperature-nfe` {args.temperature_nfe}: {name} has no numbers for that many steps.")
    return temperatures


def labels(args: argparse.Namespace, denoiser: Any, metrics: MetricSet) -> dict[str, str | None]:
    """Options that decide a row beside its sampler and the reference. Rows with other options are not reused."""
    judge = metrics.judge
    options = {name: value for name, value in load_options(args).items() if name != "trust_remote_code"}
    named = {
        "model": args.model + (f" {json.dumps(options, sort_keys=True)}" if options else ""),
        "revision": denoiser.commit_hash or args.revision,
        "dtype": precision(denoiser),
        "oracle": args.oracle,
        "judge": args.judge,
        "judge_revision": judge and judge.identity["commit"],
        "judge_dtype": judge and judge.identity["dtype"],
        "judge_stride": args.judge_stride,
        "reference": args.reference,
        "features": args.features,
    }
    if args.tasks is not None:
        named |= {"tasks": args.tasks, "checker": args.checker}
    return {name: None if value is None else str(value) for name, value in named.items()}


def write_report(report: Any, folder: Path) -> None:
    """Writes `table.txt`, `summary.json`, plots and `report.html`, except for those that cannot be drawn."""
    from ..evaluation import html, plots
    from ..evaluation.columns import headings
    from ..evaluation.report import as_json, as_text

    write_atomically(folder / "table.txt", as_text(report).encode())
    write_atomically(folder / "summary.json", as_json(report).encode())
    comparison = report.comparison
    common: dict[str, Any] = {"title": report.title, "floor": comparison.floor}
    with optional_plot(folder / "quality_vs_nfe.png"):
        plots.plot_quality_vs_nfe(comparison.rows, folder / "quality_vs_nfe.png", headings(report.drawn), **common)
    (folder / "accuracy.png").unlink(missing_ok=True)  # of an earlier run
    if report.answers:
        with optional_plot(folder / "accuracy.png"):
            plots.plot_accuracy(comparison.rows, comparison.curves, folder / "accuracy.png", report.title)
    (folder / "frontier.png").unlink(missing_ok=True)  # of an earlier run
    if report.readings:
        keys = {"likelihood_key": report.metrics.likelihood_key, "entropy_key": report.metrics.entropy_key}
        with optional_plot(folder / "frontier.png"):
            plots.plot_frontier(comparison.sweep, folder / "frontier.png", **keys, **common)
    with as_warning("No report.html"):
        write_atomically(folder / "report.html", html.render(report).encode())


def compare_images(args: argparse.Namespace) -> None:
    """FID of each folder of images, best first.

    Raises:
        ValueError: if there are no real images, or folders hold different numbers of images, on which FID depends.
    """
    from ..evaluation.images import frechet_inception_distance, image_files
    from ..evaluation.tables import format_table

    if args.image_reference is None:
        raise ValueError("`--images` needs `--image-reference`, a folder of real ones.")
    sizes = {str(folder): len(image_files(folder)) for folder in args.images}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`--images` must hold equal numbers to be compared, got {sizes}.")
    num_rows = min(args.batch_size, *sizes.values())
    with keeping_rows(), within_memory(args, "--batch-size", num_rows):
        options = {"batch_size": args.batch_size, "device": args.device}
        rows = [
            {"images": name, "number": num, "FID": frechet_inception_distance(name, args.image_reference, **options)}
            for name, num in sizes.items()
        ]
    say(format_table(sorted(rows, key=lambda row: row["FID"])))


def main(argv: list[str] | None = None) -> int:
    return run(command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
