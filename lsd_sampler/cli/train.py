"""`lsd-train`: distil a few-step sampler for a masked diffusion model."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..hub import upload_sampler
from ..orders import ORDERS
from ..scheduling_lsd import COUNTS
from ..solvers import SOLVERS
from ..training import METHODS, DistillConfig, distill
from .common import add_model_arguments, check_output_dir, load_pipeline, positive_int, run


CHOICES = {
    "method": METHODS.names(),
    "solver": SOLVERS.names(),
    "order": ORDERS.names(),
    "count": COUNTS,
    "domain": ("score", "log_score"),
    "optimizer": ("exact", "adam"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lsd-train", description=__doc__)
    add_model_arguments(parser)
    for option in fields(DistillConfig):
        flag, text = "--" + option.name.replace("_", "-"), option.metadata["help"]
        if option.name == "nfe":
            parser.add_argument(flag, type=positive_int, nargs="+", help=text)
        elif option.name in CHOICES:
            parser.add_argument(flag, default=option.default, choices=CHOICES[option.name], help=text)
        elif option.default is None or isinstance(option.default, str):
            parser.add_argument(flag, default=option.default, help=text)
        else:
            parser.add_argument(flag, type=type(option.default), default=option.default, help=text)
    parser.add_argument("--output-dir", type=Path, help="default: MODEL-METHOD-ORDER")
    parser.add_argument("--push-to-hub", metavar="USER/NAME", help="upload the result to this Hub repo")
    parser.add_argument("--dry-run", action="store_true", help="print the configuration and the cost, then stop")
    return parser


def command(args: argparse.Namespace) -> None:
    pipeline = load_pipeline(args)
    if args.nfe is None:  # of the default numbers, those that a sequence has tokens for
        length = args.length or pipeline.denoiser.length
        args.nfe = [M for M in DistillConfig.nfe if M <= length] or [length]
    config = DistillConfig(**{f.name: getattr(args, f.name) for f in fields(DistillConfig)})
    output_dir = args.output_dir or Path(f"{Path(args.model).name.split(':')[0]}-{config.method}-{config.order}")
    call_kwargs = {"length": args.length} if args.length else {}
    if args.dry_run:
        calls = planned_network_calls(config, pipeline, args.length or pipeline.denoiser.length)
        plan = {"model": args.model, **config.to_dict(), "output_dir": str(output_dir), "network_calls": calls}
        print(json.dumps(plan, indent=2))
        return
    check_output_dir(output_dir)
    print(f"Output folder: {output_dir}", flush=True)
    from ..cards import save_sampler

    records: list[dict[str, Any]] = [{"event": "config", "model": args.model, **config.to_dict()}]

    def log(record: dict[str, Any]) -> None:
        records.append(record)
        print(json.dumps(record), file=sys.stderr)

    scheduler = distill(pipeline, config, log=log, **call_kwargs)
    if not Path(args.model).expanduser().exists():  # a path of this machine means nothing elsewhere
        denoiser = pipeline.denoiser
        revision = denoiser.commit_hash or args.revision
        scheduler.register_to_config(base_model=denoiser.name_or_path, base_model_revision=revision)
    save_sampler(scheduler, output_dir, model=args.model, config=config, records=records, repo_id=args.push_to_hub)
    states = next((record.get("states") for record in records if record["event"] == "teacher"), None)
    for record in records:
        if record["event"] == "schedule":
            known = " ".join(map(str, record["known_after_step"]))
            excess = f"{record['path_kl']:.4f} nats/sequence above {states} calls"
            print(f"{record['nfe']:4d} calls: {excess}; tokens known: {known}")
        elif record["event"] == "coefficients":
            key = "score_coefficients" if record["domain"] == "score" else "log_score_coefficients"
            print(f"{record['nfe']:4d} calls  {key}: {' '.join(f'{value:.4f}' for value in record[key])}")
    print(f"Network calls: {records[-1]['network_calls']}. Saved to {output_dir}.")
    if args.push_to_hub:
        print(f"Uploaded: {upload_sampler(output_dir, args.push_to_hub)}")


def planned_network_calls(config: DistillConfig, pipeline: Any, length: int) -> int:
    """Calls of the denoiser (each on a batch) that a run will make."""
    from ..training.path_kl import states_to_replay

    batches = -(-config.num_sequences // config.batch_size)
    teacher = 1 + batches * config.teacher_steps_for(length, pipeline.denoiser.time_conditioned)
    if config.method == "path_kl":
        return teacher + batches * len(states_to_replay(config, length))
    updates = config.epochs * -(-config.num_sequences // config.adam_batch_size)
    return teacher + (updates if config.optimizer == "adam" else 1) * sum(config.nfe)


def main(argv: list[str] | None = None) -> int:
    return run(command, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
