"""What test_workers.py runs in several processes: distillations, whose numbers the main process writes to a folder.

accelerate launch ... -m tests.distributed_run FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from helpers.learned_tensors import learned_tensors
from helpers.tiny_pipelines import llada2
from safetensors.torch import save_file

from lsd_sampler import DistillConfig, LSDScheduler, MaskedDiffusionPipeline, distill, load_denoiser


SHARED = {"nfe": (2, 4), "num_sequences": 8, "teacher_steps": 16}
RUNS: dict[str, dict[str, Any]] = {
    "auto": {
        "candidates": ("path_kl:halton", "lsd:random"),
        "held_out_sequences": 6,
        "reference_sequences": 64,
        "coefficient_sequences": 17,
    },
    "path_kl": {"method": "path_kl", "batch_size": 2},
    "path_kl bootstrapped": {"method": "path_kl", "paths": "bootstrap", "bootstrap_steps": 4, "order": "random"},
    "lsd log-score": {"method": "lsd"},
    "lsd+": {"method": "lsd+", "batch_size": 4},
    "lsd+ relaxed by random tokens": {"method": "lsd+", "relaxation": 0.2, "relaxation_filler": "random"},
    "lsd+ literal": {"method": "lsd+", "variant": "literal"},
    "jys": {"method": "jys", "batch_size": 3},
    "forced_kl": {"method": "forced_kl", "batch_size": 4, "search_evaluations": 1000},
    "forced_kl entropy": {"method": "forced_kl", "order": "entropy", "batch_size": 4, "search_evaluations": 1000},
}
GIVEN_RUNS: dict[str, dict[str, Any]] = {
    "auto, data of partly given canvases": {
        "candidates": ("path_kl:halton", "path_kl:random"),
        "held_out_sequences": 6,
        "coefficients": "plain",
        "batch_size": 3,
    },
}
SCORE_RUNS: dict[str, dict[str, Any]] = {
    "lsd score": {"method": "lsd", "count": "bernoulli"},
    "lsd score, a teacher that masks again": {
        "method": "lsd",
        "teacher_solver": "predictor_corrector",
        "count": "bernoulli",
    },
    "lsd+ score, bernoulli": {"method": "lsd+", "solver": "euler", "count": "bernoulli"},
    "lsd+ literal score": {"method": "lsd+", "variant": "literal"},
}


def learned_numbers() -> dict[str, torch.Tensor]:
    """All tensors that these distillations learn, in this process and those that it shares the work with."""
    chain = load_denoiser("markov:V=4,L=16,seed=1")
    found = {}
    for name, options in {**RUNS, **SCORE_RUNS, **GIVEN_RUNS}.items():
        scheduler = LSDScheduler(**chain.scheduler_config())
        if name in SCORE_RUNS:
            scheduler = LSDScheduler(**{**chain.scheduler_config(), "prediction_type": "log_score"})
        records: list[dict[str, Any]] = []
        config = DistillConfig(**SHARED, **options)
        call = partly_given(chain) if name in GIVEN_RUNS else {}
        learned = distill(MaskedDiffusionPipeline(chain, scheduler), config, log=records.append, **call)
        for record in records:
            if record["event"] == "log_score_coefficients":
                measured = [
                    *record["found"],
                    record["distance_before"],
                    record["distance_after"],
                    record["change_high"],
                ]
                found[f"{name}.{record['nfe']}.measured"] = torch.tensor(measured, dtype=torch.float64)
        found |= {f"{name}.{key}": tensor for key, tensor in learned_tensors(learned).items()}
    return found


def partly_given(chain: Any) -> dict[str, torch.Tensor]:
    """Real sequences, and canvases that give none to half of their tokens."""
    data = chain.sample(14, torch.Generator().manual_seed(0))
    masked = torch.arange(16) % 2 + torch.arange(14)[:, None] % 9 / 2 < torch.arange(16) / 2 + 1
    return {"data": data, "input_ids": data.masked_fill(masked, chain.mask_token_id)}


def told_of_unequal_batches() -> str:
    """Why coefficients are left out, where the batches of the last process alone have another number of canvases."""
    prompts = ["a b c"] * 40
    prompts[18] = "a b c d"  # of sequences 14 to 21, which are the last process's to compare with
    sizes = {"num_sequences": 4, "held_out_sequences": 2, "reference_sequences": 16, "batch_size": 1}
    config = DistillConfig(nfe=(2,), candidates=("path_kl:halton",), **sizes)
    records: list[dict[str, Any]] = []
    call = {"prompt": prompts, "gen_length": 6, "block_length": 4, "use_chat_template": False}
    distill(llada2(), config, log=records.append, **call)
    (told,) = (record["left_out"] for record in records if record["event"] == "log_score_coefficients")
    return told


def main(folder: Path) -> None:
    state = PartialState(cpu=True)
    found = learned_numbers()
    assert "number of canvases, 3 and 2" in told_of_unequal_batches()
    save_file(found, folder / f"process-{state.process_index}-of-{state.num_processes}.safetensors")
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
