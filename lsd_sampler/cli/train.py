"""`lsd-train`: distil a few-step sampler for a masked diffusion model."""

import argparse
import functools
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import Field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..denoisers.oracle_names import is_oracle_spec
from ..denoisers.sizes import ModelSize
from ..learned.description import Description
from ..pipeline_masked_diffusion import MaskedDiffusionPipeline
from ..sampling.pipeline_runs import check_call
from ..scheduling_lsd import LSDScheduler
from ..support.atomic import remove_leftovers
from ..support.hub import check_repo_id, make_repo, upload_saved
from ..support.licenses import check_license
from ..support.workers import Workers
from ..training import METHODS, DistillConfig, distill
from ..training.budget import process_bytes
from ..training.config import all_options, help_of
from ..training.options import choices_of
from ..training.path_cache import default_cache_dir
from ..training.progress import Progress, kept_files
from ..training.teacher_plan import TeacherPlan
from ..training.tracking import available, remove_tracked, tracking
from .common import (
    HelpWithDefaults,
    add_model_arguments,
    check_output_dir,
    json_object,
    load_diffusers_pipeline,
    load_options,
    load_pipeline,
    positive_int,
    process_group,
    run,
    say,
)
from .dry_run import (
    as_if_all_masked,
    describe_cache,
    describe_cost,
    describe_download,
    plan_of,
    plan_of_published,
    published,
)
from .environment import PrintVersions
from .events import in_one_line, in_words
from .faults import keeping_progress
from .partly_given import PartlyGiven, calls_of_published, check_given, given_flags, make_given, partly_given
from .prompt_flags import (
    add_block_arguments,
    add_prompt_arguments,
    asks_prompts,
    block_options,
    check_prompts,
    prompt_options,
    used_flags,
)
from .texts import read_sequences


# flags that a sampler depends on, beside the fields of `DistillConfig`
RUN_FLAGS = (
    "model", "pipeline", "revision", "dtype", "length", "mask_token_id", "trust_remote_code", "model_kwargs", "data",
    "data_lines", "tasks", "checker", "infill", "given", "prompt", "prompts", "use_chat_template", "max_new_tokens",
    "block_length", "cache", "guidance_scale", "pipeline_kwargs", "license",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-train", description=__doc__, formatter_class=HelpWithDefaults)
    parser.add_argument("--env", action=PrintVersions, help="print versions, for bug reports, then stop")
    add_model_arguments(parser, with_pipeline=True)
    for option in all_options():
        add_option(parser, option)
    takers = [name for name in METHODS.names() if "data" in METHODS[name].sources]
    parser.add_argument(
        "--data", type=Path, metavar="FILE",
        help=f"{', '.join(takers)}: real sequences, which need no teacher: .txt, .txt.xz, .smi, .smi.xz, a folder,"
        " or .jsonl with ids",
    )  # fmt: skip
    parser.add_argument(
        "--data-lines",
        action="store_true",
        default=None,
        help="each line of --data is a text, as in .smi",
    )
    parser.add_argument(
        "--tasks", metavar="NAME",
        help="learn on these prompts or canvases: a .jsonl file, sudoku:clues=30,size=9 or"
        " reasoning-gym:NAME; with --objective answers their right answers decide",
    )  # fmt: skip
    parser.add_argument(
        "--checker", metavar="NAME", help="what says that an answer is right: exact, contains, last_number, sudoku,"
        " valid or MODULE:FUNCTION; default: the tasks' own",
    )  # fmt: skip
    parser.add_argument(
        "--infill", type=Path, metavar="FILE",
        help="learn on the canvases of this file, as lsd-sample --infill takes it; --data then holds real sequences "
        "that complete them, line by line",
    )  # fmt: skip
    parser.add_argument(
        "--given", type=float, nargs="+", metavar="SHARE",
        help="learn on canvases that give this share of each sequence's tokens at random positions (two numbers: "
        "drawn evenly between them); sequences are those of --data, or the model's own",
    )  # fmt: skip
    add_prompt_arguments(parser)
    add_block_arguments(parser, stops=False)
    parser.add_argument(
        "--guidance-scale", type=float, metavar="W",
        help="learn with classifier-free guidance of this strength; default: none",
    )  # fmt: skip
    parser.add_argument(
        "--pipeline-kwargs", type=json_object, metavar="JSON", help="further arguments of the pipeline's call"
    )
    parser.add_argument("--output-dir", type=Path, help="folder of the result; default: MODEL-METHOD-ORDER")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with a run that was stopped, in its output folder")
    again.add_argument(
        "--overwrite", action="store_true", help="start over where the output folder holds a run or a sampler"
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=default_cache_dir(),
        help="folder of teacher paths, kept for later runs; default: %(default)s",
    )
    parser.add_argument(
        "--report-to", nargs="+", default=["none"], metavar="TRACKER",
        help="accelerate's trackers: tensorboard, trackio, wandb, ...; or all that are installed; default: none",
    )  # fmt: skip
    parser.add_argument("--license", help="licence named in the card, such as apache-2.0; default: none")
    parser.add_argument("--push-to-hub", metavar="USER/NAME", help="upload the result to this Hub repo")
    parser.add_argument("--dry-run", action="store_true", help="print the configuration and the cost, then stop")
    return parser


def add_option(parser: argparse.ArgumentParser, option: Field) -> None:
    """Adds the flag of an option of a distillation."""
    flag, text, default = "--" + option.name.replace("_", "-"), help_of(option), option.default
    kind = option.metadata["type"] or (str if default is None else type(default))
    if option.name == "nfe":
        shown = f"of {' '.join(map(str, DistillConfig.nfe))}, those that a sequence has tokens for"
        parser.add_argument(flag, type=positive_int, nargs="+", help=f"{text} (default: {shown})")
    elif isinstance(default, tuple):
        kind = option.metadata["type"] or str
        parser.add_argument(flag, type=kind, default=default, nargs="+", metavar=option.metadata["metavar"], help=text)
    elif kind is bool:
        parser.add_argument(flag, default=default, action=argparse.BooleanOptionalAction, help=text)
    else:
        choices = choices_of(option) or None
        parser.add_argument(flag, type=kind, default=default, choices=choices, help=text)


def command(args: argparse.Namespace) -> None:
    with process_group(args):
        train(args)


def train(args: argparse.Namespace) -> None:
    name = args.model or args.pipeline
    load_options(args)  # refuses what does not go together
    check_names_for_the_hub(args)
    check_given(args)
    report_to = available(args.report_to)
    call_kwargs = read_call_kwargs(args)
    process = process_bytes() if args.device.type == "cpu" else 0
    if model := published(args):
        config, plan = configure(args, lambda config: plan_of_published(model.size, config, call_kwargs))
        is_given = bool(given_flags(args))
        cost = describe_cost(model.size, config, as_if_all_masked(plan()) if is_given else plan(), process)
        if is_given:
            cost["network_calls_for_canvases"] = calls_of_published(args, config, plan())
        cost |= describe_cache(model.size, call_kwargs)
        print_json({"model": name, **config.to_dict(), **describe_download(model), **cost})
        return
    has_text = any(isinstance(call_kwargs.get(name), str) for name in ("prefix", "suffix"))
    has_text = has_text or asks_prompts(args) or any((args.data, args.infill, args.tasks))
    pipeline = load_pipeline(args, has_text) if args.model else load_diffusers_pipeline(args)
    if args.model and asks_prompts(args):
        call_kwargs = settled(args, pipeline, call_kwargs)
    given = partly_given(args, pipeline, DistillConfig(**options_of(args, nfe=(1,)))) if args.model else None
    call = call_kwargs if given is None else {**call_kwargs, "input_ids": given.input_ids}
    config, plan = configure(args, lambda config: plan_of(pipeline, config, call))
    output_dir = args.output_dir or Path("-".join(filter(None, [short_name(name), config.method, config.order])))
    if args.dry_run:
        size = ModelSize.of(pipeline.denoiser) if args.model else None
        kept = pipeline.cache_bytes(call_kwargs, min(config.batch_size, config.most_sequences)) if args.model else 0
        cost = describe_cost(size, config, plan(), process, kept)
        if given is not None:
            cost["masked_positions"] = given.masked_positions
            cost["network_calls_for_canvases"] = given.calls_to_make(config)
        kind = "model" if args.model else "pipeline"
        print_json({kind: name, **config.to_dict(), "output_dir": str(output_dir), **cost})
        return
    learn(args, pipeline, config, output_dir, call_kwargs, report_to, given)


def settled(args: argparse.Namespace, pipeline: Any, call_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of calls for prompts, once the model is known.

    Raises:
        ValueError: if there is no room for the answers, or nothing can be learned with the cache.
    """
    others = {name: value for name, value in call_kwargs.items() if name != "cache"}
    call_kwargs = {**others, **block_options(args, pipeline.denoiser), **(args.pipeline_kwargs or {})}
    if call_kwargs.get("cache", "none") != "none" and getattr(pipeline.denoiser, "shifted", False):
        raise ValueError(
            f"`--cache`: a cached call of {args.model} cannot predict the first token of a block. The pipeline makes a"
            " step of its own for it, for which no sampler is learned: leave the flag out."
        )
    # of all prompts together, so that all answers are of one length
    return {**call_kwargs, "max_new_tokens": pipeline.new_tokens(call_kwargs)}


def check_names_for_the_hub(args: argparse.Namespace) -> None:
    """Refuses names that the Hub would refuse after all the work, before anything is loaded."""
    if args.license is not None:
        check_license(args.license, "--license")
    if args.push_to_hub is not None:
        check_repo_id(args.push_to_hub, "--push-to-hub")


def learn(
    args: argparse.Namespace,
    pipeline: Any,
    config: DistillConfig,
    output_dir: Path,
    call_kwargs: dict[str, Any],
    report_to: list[str],
    given: PartlyGiven | None = None,
) -> None:
    """Learns a sampler and writes its folder. If it is stopped, finished parts stay for `--resume`."""
    check_output_dir(output_dir)
    if not args.resume and not args.overwrite:
        check_nothing_is_lost(output_dir)
    data = read_sequences(args.data, pipeline, args.length, bool(args.data_lines)) if args.data and not given else None
    is_main = Workers.here().is_main
    # made now, or it is known now that it cannot be
    repo_id = make_repo(args.push_to_hub) if args.push_to_hub and is_main else None
    if is_main:
        say(f"Output folder: {output_dir}")
        remove_leftovers(output_dir)
        if args.overwrite:
            remove_tracked(output_dir)
    records: list[dict[str, Any]] = [{"event": "config", "model": args.model or args.pipeline, **config.to_dict()}]
    options: dict[str, Any] = {
        "checkpoint_dir": output_dir / "progress",
        "resume": args.resume,
        "cache_dir": args.cache_dir,
        "data": given.data if given else data,
        "answers": given.answers if given and config.to_dict()["objective"] == "answers" else None,
    }
    shown_kwargs = call_kwargs
    if given is not None:
        records.append(given.described())
        print(f"Canvases: {in_words(records[-1])}.", file=sys.stderr)
    with (
        keeping_progress(output_dir / "progress", config, args.dtype),
        tracking(report_to if is_main else [], output_dir, records[0], args.device.type == "cpu") as track,
    ):

        def log(record: dict[str, Any]) -> None:
            records.append(record)
            if is_main:
                tqdm.write(in_one_line(record), file=sys.stderr)
                track(record)

        if given is not None:
            made = make_given(given, pipeline, config, call_kwargs, args.cache_dir).input_ids
            call_kwargs, shown_kwargs = ({**call_kwargs, "input_ids": ids} for ids in (made, made[0].tolist()))
        scheduler = distill(pipeline, config, log=log, **options, **call_kwargs)
        if not is_main:
            return
        described = {"config": config, "records": records, "repo_id": repo_id, "call_kwargs": shown_kwargs}
        save(args, pipeline, scheduler, output_dir, **described)
        Progress(output_dir / "progress")  # the sampler holds all of it now
    print_results(config.describe(scheduler.learned_sampler, records), records)
    also = given.calls_to_make(config) if given else 0
    and_canvases = f" (and at most {also} for the canvases)" if also else ""
    say(f"Network calls: {records[-1]['network_calls']}{and_canvases}. Saved to {output_dir}.")
    if repo_id:
        say(f"Uploaded: {upload_saved(output_dir, repo_id)}")


def check_nothing_is_lost(folder: Path) -> None:
    """Refuses a folder with work that a new run would replace, before any work is done."""
    if kept_files(folder / "progress"):
        advice = "`--resume` to go on, `--overwrite` to start over"
        raise ValueError(f"`--output-dir` {str(folder)!r} holds an unfinished run: {advice}.")
    if (folder / LSDScheduler.config_name).exists():
        raise ValueError(f"`--output-dir` {str(folder)!r} holds a sampler: `--overwrite` to replace it.")


def short_name(model: str) -> str:
    """A model's name as a part of a folder's, fit for all systems and for the Hub; an oracle's has its numbers."""
    kind, _, numbers = model.partition(":") if is_oracle_spec(model) else ("", "", model)
    name = "-".join(filter(None, [kind, Path(numbers).name])).replace("=", "")
    return re.sub(r"[^\w.]+", "-", name)


def save(args: argparse.Namespace, pipeline: Any, scheduler: LSDScheduler, output_dir: Path, **described: Any) -> None:
    """Saves the sampler, its card, and everything that is needed to repeat the run."""
    from ..cards.sampler_card import save_sampler

    name = args.model or args.pipeline
    run = {flag: getattr(args, flag) for flag in RUN_FLAGS if getattr(args, flag) not in (None, False, "none")}
    run = {flag: str(value) if isinstance(value, Path) else value for flag, value in run.items()}
    if not os.path.exists(os.path.expanduser(name)):  # a path of this machine means nothing elsewhere
        model = pipeline.denoiser if args.model else pipeline
        revision = getattr(model, "commit_hash", None) or args.revision
        scheduler.register_to_config(base_model=model.name_or_path, base_model_revision=revision)
    pipeline_class = type(pipeline).__name__ if args.pipeline else None
    described |= {"pipeline_class": pipeline_class, "run": run, "license": args.license}
    at = {} if args.revision is None else {"revision": args.revision}
    described["load_kwargs"] = at | load_options(args)
    save_sampler(scheduler, output_dir, model=name, **described)


def print_results(learned: Description, records: list[dict[str, Any]]) -> None:
    """Prints what was chosen and learned, for each number of calls."""
    choice = next((record for record in records if record["event"] == "choice"), None)
    if choice:
        say(f"Chosen: {choice['method']}, order {choice['order']}. {choice['reason']}")
    for line in learned.lines:
        say(line)
    for record in records:
        if record["event"] == "log_score_coefficients":
            say(describe_coefficients(record))


def describe_coefficients(record: dict[str, Any]) -> str:
    """One line on the result of the two-sided criterion for one number of calls."""
    if "left_out" in record:
        return f"No log_score_coefficients: {record['left_out']}"
    found = f"{record['nfe']:4d} calls  log_score_coefficients: {' '.join(f'{x:.4f}' for x in record['coefficients'])}"
    if "inherited" in record:
        return f"{found}  (those of fewer calls)"
    change = f"{record['change']:+.5f} ({record['change_low']:+.5f} to {record['change_high']:+.5f})"
    distances = f"{record['distance_before']:.5f} to {record['distance_after']:.5f}"
    return f"{found}  (distance {distances}, change {change}{'' if record['adopted'] else ', not kept'})"


def options_of(args: argparse.Namespace, **others: Any) -> dict[str, Any]:
    """The options of the distillation that the flags give."""
    options = {option.name: getattr(args, option.name) for option in all_options()} | others
    if args.data and options["paths"] is None:
        options["paths"] = "data"
    return options


def configure(
    args: argparse.Namespace, look: Callable[[DistillConfig], TeacherPlan]
) -> tuple[DistillConfig, Callable[[], TeacherPlan]]:
    """The options of the run, and the plan of the pipeline, which is looked up at most once. The default numbers of
    calls are those that a canvas has tokens for.
    """
    options = options_of(args)
    plan = functools.cache(lambda: look(DistillConfig(**{**options, "nfe": (1,)})))
    if args.nfe is None:
        length = plan().num_masked
        options["nfe"] = [M for M in DistillConfig.nfe if M <= length] or [length]
    config = DistillConfig(**options)
    return config, lambda: plan().for_nfe(config.nfe)


def print_json(content: dict[str, Any]) -> None:
    say(json.dumps(content, indent=2))


def read_call_kwargs(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the pipeline's calls.

    Raises:
        ValueError: for a flag that does not go with the others, or an argument that the call does not take.
    """
    if args.pipeline and args.length:
        raise ValueError("`--length` goes with `--model`; with `--pipeline` use `--pipeline-kwargs`.")
    if args.tasks and (used := used_flags(args)):
        raise ValueError(f"`--tasks` are learned on whole canvases, not in blocks: leave `{used[0]}` out.")
    check_prompts(args)
    if args.pipeline and (used := [flag for flag in used_flags(args) if flag != "--use-chat-template"]):
        raise ValueError(f"`{used[0]}` goes with `--model`; with `--pipeline` use `--pipeline-kwargs`.")
    length = {"length": args.length} if args.length else {}
    prompts = {**prompt_options(args), **block_options(args)} if asks_prompts(args) else {}
    guided = {} if args.guidance_scale is None else {"guidance_scale": args.guidance_scale}
    if args.model:  # of another pipeline it is known when it is loaded
        check_call(MaskedDiffusionPipeline, args.pipeline_kwargs or {})
    return {**length, **prompts, **guided, **(args.pipeline_kwargs or {})}


def main(argv: list[str] | None = None) -> int:
    return run(command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
