"""The folder that `lsd-train` leaves behind: tensors, metrics, plot and a card filled from the run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import diffusers
import torch
from huggingface_hub import ModelCard, ModelCardData

from ..learned.dependence_plot import plot_dependence
from ..learned.description import KINDS, Description, Records
from ..learned.schedule_plot import plot_schedule
from ..sampling.learned_numbers import LearnedSampler
from ..sampling.solvers import SOLVERS
from ..scheduling_lsd import LSDScheduler
from ..support.afterwards import as_warning, optional_plot
from ..support.atomic import write_atomically
from ..support.hub import is_hub_id
from .choice_section import choice_section
from .coefficients_section import coefficients_section
from .positions_section import DEPENDENCE_PLOT, positions_section
from .variety_section import variety_section


BEGIN, END = "<!-- lsd_sampler: written by lsd-train, refreshed by it -->", "<!-- lsd_sampler: end -->"

MAX_SHOWN = 80
"""The most characters of an argument that the card shows."""


class Run(Protocol):
    """The options of a run that a card reads, such as those of a `DistillConfig`."""

    @property
    def seed(self) -> int:
        """Seed of the noise."""
        ...

    @property
    def nfe(self) -> tuple[int, ...]:
        """Numbers of network calls that were asked for."""
        ...

    @property
    def most_sequences(self) -> int:
        """The most sequences to learn from."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The options, JSON-ready."""
        ...

    def describe(self, learned: LearnedSampler, records: Records) -> Description:
        """A description of the learned sampler."""
        ...


def save_sampler(
    scheduler: LSDScheduler,
    folder: Path,
    *,
    model: str,
    config: Run,
    records: list[dict[str, Any]],
    repo_id: str | None = None,
    pipeline_class: str | None = None,
    call_kwargs: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    license: str | None = None,
    load_kwargs: dict[str, Any] | None = None,
) -> None:
    """Writes sampler, `config.json` (the run; a Hub download counter), `metrics.jsonl`, the card and its plots.

    The plots are `schedule.png` and, for a sampler that learned how positions depend on each other, `dependence.png`.

    Args:
        scheduler ([`LSDScheduler`]): a learned one.
        folder (`Path`): made if it does not exist. A card that is there keeps all text outside our block.
        model (`str`): the model, as given to `lsd-train --model`.
        config ([`DistillConfig`]), records (`list[dict]`): the options and the records of the run.
        repo_id (`str`, *optional*): the repo that it will be uploaded to; used in the card's snippet.
        pipeline_class (`str`, *optional*): the class of the pipeline, where `lsd-train --pipeline` was given one.
        call_kwargs (`dict`, *optional*): the arguments of the pipeline's calls, JSON-ready; the card says them.
        run (`dict`, *optional*): everything else that is needed to repeat the run, JSON-ready; for `config.json`.
        license (`str`, *optional*): the Hub's name of a licence. By default a new card says none, because the sampler
            derives from somebody's model, and an old card keeps its own.
        load_kwargs (`dict`, *optional*): the options that the model was loaded with; used in the card's snippet.
    """
    scheduler.save_pretrained(folder)
    described = {"library_name": "lsd_sampler", "scheduler": "LSDScheduler", "run": run or {}}
    described["distillation"] = config.to_dict()
    write_atomically(folder / "config.json", (json.dumps(described, indent=2) + "\n").encode())
    write_atomically(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records).encode())
    plotted = _plot(config.describe(scheduler.learned_sampler, records), folder / "schedule.png", model)
    dependence_plotted = _plot_dependence(scheduler.learned_sampler, folder / DEPENDENCE_PLOT, model)
    call_kwargs = call_kwargs or {}
    path = folder / "README.md"
    written = None
    with as_warning(f"The card {path} does not tell of this run"):
        arguments = ", ".join([repr(model), *(f"{name}={value!r}" for name, value in (load_kwargs or {}).items())])
        nfe, location = _numbers_of_calls(scheduler, config), repo_id or str(folder)
        task = _task(records, pipeline_class)
        snippet = _snippet(nfe, arguments, task, location, pipeline_class, call_kwargs)
        card = make_card(
            scheduler, model, config, records, snippet, plotted, call_kwargs, license, dependence_plotted, task
        )
        written = (refresh(path.read_text(encoding="utf-8"), card) if path.exists() else card).encode()
    if written is not None:
        write_atomically(path, written)


def make_card(
    scheduler: LSDScheduler,
    model: str,
    config: Run,
    records: list[dict[str, Any]],
    snippet: str,
    plotted: bool,
    call_kwargs: dict[str, Any] | None = None,
    license: str | None = None,
    dependence_plotted: bool = False,
    task: str | None = "text-generation",
) -> str:
    """The text of the sampler card.

    Args:
        snippet (`str`): the code that shows its use.
        plotted (`bool`), dependence_plotted (`bool`): whether `schedule.png` and `dependence.png` are there.
        task (`str`, *optional*): the Hub's name of what the pipeline does.
        scheduler, model, config, records, call_kwargs, license: as for [`save_sampler`].
    """
    choice = choice_section(records)
    learned = config.describe(scheduler.learned_sampler, records)
    sampler, nfe = scheduler.config, _numbers_of_calls(scheduler, config)
    tags = ["discrete-diffusion", "lsd", learned.method, sampler.solver, *(f"steps:{M}" for M in nfe)]
    base_model = scheduler.config.base_model
    # the Hub refuses what is not the id of a model, such as the name of an oracle
    data = ModelCardData(
        library_name="lsd_sampler",
        license=license,
        pipeline_tag=task,
        tags=tags,
        base_model=base_model if is_hub_id(base_model or "") else None,
    )
    return str(
        ModelCard.from_template(
            data,
            template_path=str(Path(__file__).parent / "templates" / "sampler_card.md"),
            title=f"{Path(model).name}.{learned.method}-{sampler.order}",
            begin=BEGIN,
            end=END,
            model=model,
            snippet=snippet,
            method=learned.method,
            solver=sampler.solver,
            order=sampler.order,
            count=sampler.count,
            nfe=", ".join(map(str, nfe)),
            gain=learned.gain,
            table=learned.table(),
            coefficients=coefficients_section(learned.records),
            choice=choice,
            positions=positions_section(scheduler.learned_sampler, learned.records, dependence_plotted),
            variety=variety_section(learned.records),
            plot="![learned schedule](schedule.png)" if plotted else "",
            protocol=_protocol(config, learned),
            conditions=_conditions(call_kwargs or {}, records),
            canvases=_canvases(records),
            versions=f"torch {torch.__version__.split('+')[0]}, diffusers {diffusers.__version__}",
        )
    )


def refresh(old: str, new: str) -> str:
    """Puts the block and metadata of a new card into an old one, and keeps prose and metadata of another hand."""
    block = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    fresh = block.search(new)
    if fresh is None or not block.search(old):
        text = old.rstrip() + "\n\n" + (fresh.group(0) if fresh else new) + "\n"
    else:
        text = block.sub(lambda _: fresh.group(0), old, count=1)
    return _with_metadata(text, ModelCard(new).data.to_dict(), _method_of(old))


def _method_of(card: str) -> str | None:
    """The training method that our block in a card names."""
    found = re.search(re.escape(BEGIN) + r".*?^- Method `([^`]+)`", card, re.DOTALL | re.MULTILINE)
    return found[1] if found else None


def _with_metadata(text: str, new: dict[str, Any], old_method: str | None) -> str:
    """Adds our metadata to a card that may have others, and drops our tags that no longer hold."""
    try:
        card = ModelCard(text)
    except Exception:  # yaml has errors of its own; metadata broken by hand are left for that hand to mend
        return text
    written_by_us = {"discrete-diffusion", "lsd", old_method, *SOLVERS.names()}
    old_tags = card.data.to_dict().get("tags") or []
    others = [tag for tag in old_tags if tag not in written_by_us and not str(tag).startswith("steps:")]
    kept = ("pipeline_tag",) if new.get("license") else ("license", "pipeline_tag")
    theirs = {key: card.data.to_dict()[key] for key in kept if card.data.get(key)}
    for key, value in {**new, "tags": [*new["tags"], *others], **theirs}.items():
        card.data[key] = value
    return str(card)


def _task(records: list[dict[str, Any]], pipeline_class: str | None) -> str | None:
    """The Hub's name of what a pipeline does. It has none for our own with a canvas of rows and columns, which may be
    a picture in tokens or a puzzle: that pipeline makes tokens, not images.
    """
    if not any(record.get("is_image") for record in records):
        return "text-generation"
    return None if pipeline_class is None else "text-to-image"


def _numbers_of_calls(scheduler: LSDScheduler, config: Run) -> list[int]:
    """The numbers of calls that have their own numbers. A table alone does any; then those that were asked for."""
    return sorted(scheduler.learned_sampler.steps) or [M for M in config.nfe if scheduler.can_do(M)]


def _num_blocks(call_kwargs: dict[str, Any]) -> int:
    """The blocks of an answer, which share the steps that a call of our pipeline is given."""
    block, new = call_kwargs.get("block_length"), call_kwargs.get("max_new_tokens")
    return -(-new // block) if block and new else 1


def _snippet(
    nfe: list[int],
    load_arguments: str,
    task: str | None,
    location: str,
    pipeline_class: str | None,
    call_kwargs: dict[str, Any],
) -> str:
    """Code that loads model and sampler and generates."""
    arguments = {name: _first(name, value) for name, value in call_kwargs.items()}
    steps = (8 if 8 in nfe else nfe[0]) * (1 if pipeline_class else _num_blocks(call_kwargs))
    steps = f"num_inference_steps={steps}, generator=torch.Generator().manual_seed(0)"
    if pipeline_class is None:
        load = f"MaskedDiffusionPipeline.from_pretrained({load_arguments})"
        imports = "from lsd_sampler import LSDScheduler, MaskedDiffusionPipeline"
        arguments["num_samples"] = 2
    else:
        load = f"DiffusionPipeline.from_pretrained({load_arguments})  # {pipeline_class}"
        imports = "from diffusers import DiffusionPipeline\nfrom lsd_sampler import LSDScheduler"
    call = "".join(f"{name}={value!r}, " for name, value in arguments.items())
    show = 'out.images[0].save("sample.png")' if task == "text-to-image" else "print(out.texts or out.sequences)"
    return "\n".join(
        [
            "import torch",
            imports,
            "",
            f"pipe = {load}",
            f"pipe.scheduler = LSDScheduler.from_pretrained({location!r})",
            f"out = pipe({call}{steps})",
            show,
        ]
    )


def _first(name: str, value: Any) -> Any:
    """The first entry of an argument with an entry for each sequence."""
    if not isinstance(value, list) or not value:
        return value
    if name == "class_labels":
        return value[:1]
    return value[0] if isinstance(value[0], str) else value


def _conditions(call_kwargs: dict[str, Any], records: Records) -> str:
    """The arguments of every call of the pipeline, except for canvases that differ; a long one by its name only."""
    given = {"input_ids"} if _canvases(records) else set()
    written = {name: repr(value) for name, value in call_kwargs.items() if name not in given}
    parts = [f"`{name}={value}`" if len(value) <= MAX_SHOWN else f"`{name}`" for name, value in written.items()]
    return ", ".join(parts)


def _canvases(records: Records) -> str:
    """The partly given canvases that it learned on; empty if nothing was given, or the same in all."""
    canvases = next((r for r in records if r["event"] == "canvases"), None)
    if canvases is None:
        return ""
    fewest, most = canvases["fewest_masked"], canvases["most_masked"]
    masked = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{canvases['given']}; {masked} positions were masked"


def _protocol(config: Run, learned: Description) -> str:
    """The sequences that it was learned from, and the cost."""
    done = next(r for r in learned.records if r["event"] == "done")
    paths = next((r for r in learned.records if r["event"] == "teacher"), None)
    # a student that is compared with the teacher's predictions runs on all sequences at once
    batches = f" on batches of up to {learned.batch_size}" if learned.batch_size else ""
    others = " (of all candidates)" if any(r["event"] == "candidate" for r in learned.records) else ""
    # a method of one's own may have no teacher
    sequences = f"{config.most_sequences} sequences" if paths is None else _sequences(paths)
    return (
        f"{sequences}, seed {config.seed};"
        f" {done['network_calls']} network calls{others}{batches}, {done['seconds']:.0f} seconds; draws in float64."
    )


def _sequences(paths: Mapping[str, Any]) -> str:
    blocks = f" on each of {paths['canvases']} canvases (blocks)" if paths["canvases"] > 1 else ""
    steps = f" of {paths['steps']} steps{blocks}" if "steps" in paths else ""
    return f"{paths['sequences']} {KINDS[paths['source']]} sequences{steps}"


def _plot(learned: Description, path: Path, model: str) -> bool:
    """Draws the learned numbers, if they can be drawn; otherwise no plot of an earlier run stays."""
    times, coefficients, open_after, masked_after = (
        {_label(M, learned): values for M, values in curves.items()}
        for curves in (learned.times, learned.coefficients, learned.open_after, learned.masked_after)
    )
    if not times and not open_after and not masked_after:
        path.unlink(missing_ok=True)
        return False
    with optional_plot(path):
        plot_schedule(times, path, coefficients, title=model, open_after=open_after, masked_after=masked_after)
        return True
    return False


def _label(M: int, learned: Description) -> str:
    """What a curve is of. Numbers of calls may count their budgets differently."""
    return f"{M} calls ({learned.units[M]})" if M in learned.units else f"{M} calls"


def _plot_dependence(learned: LearnedSampler, path: Path, model: str) -> bool:
    """Draws the dependence between positions, if it was learned; otherwise no plot of an earlier run stays."""
    if learned.dependence is None:
        path.unlink(missing_ok=True)
        return False
    with optional_plot(path):
        plot_dependence(learned.dependence, path, title=model)
        return True
    return False
