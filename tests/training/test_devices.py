"""Where tensors are, on a machine without an accelerator: fake ones of a device that is not there."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lsd_sampler import DistillConfig, LSDScheduler
from lsd_sampler.training.paths import PathRecorder, TeacherPath, teacher_paths
from lsd_sampler.training.progress import Progress
from lsd_sampler.training.recording import RecordedCanvas, Recorder, TeacherRecorder
from lsd_sampler.training.relaxation import RelaxedStart
from lsd_sampler.training.task import Task
from lsd_sampler.training.teacher_canvases import teacher_canvases
from lsd_sampler.training.teacher_plan import TeacherPlan


FAKE = FakeTensorMode()
B, L, MASK = 2, 8, 5


class RunsOnCuda:
    """What a pipeline on an accelerator leaves in a recorder."""

    network_calls = 0

    def run(self, recorder: Recorder, num_inference_steps: int, sequences: range) -> None:
        shape = (len(sequences), L)
        masked_BL = torch.ones(shape, dtype=torch.bool, device="cuda")
        final_BL = torch.zeros(shape, dtype=torch.long, device="cuda")
        if isinstance(recorder, PathRecorder):
            recorder.paths = [TeacherPath(masked_BL, final_BL, final_BL.int())]
        if isinstance(recorder, TeacherRecorder):
            recorder.canvases = [RecordedCanvas(masked_BL, final_BL, {k: final_BL for k in recorder.keep})]


def task(solver: str, **options: Any) -> Task:
    config = DistillConfig(nfe=(2,), num_sequences=2 * B, batch_size=B, teacher_solver=solver, **options)
    base = LSDScheduler(mask_token_id=MASK)
    runs: Any = RunsOnCuda()
    return Task(runs, base, config.resolve(TeacherPlan(L, 1, L, MASK)), lambda **_: None, Progress())


def test_paths_are_on_the_cpu_as_those_from_disk_are() -> None:
    with FAKE:
        batches = teacher_paths(task("tweedie", method="lsd"))
        loaded = TeacherPath(torch.ones(B, L, dtype=torch.bool), torch.zeros(B, L).long(), torch.zeros(B, L).int())
        for path in (path for paths in batches for path in paths):
            for fresh, kept in zip(vars(path).values(), vars(loaded).values(), strict=True):
                assert torch.cat([fresh, kept]).device.type == "cpu"


@pytest.mark.parametrize("solver", ["tweedie", "predictor_corrector"])
def test_canvases_are_on_the_cpu(solver: str) -> None:
    """Also those of a teacher that masks again, which are kept whole."""
    with FAKE:
        canvases = teacher_canvases(task(solver, method="lsd"))
        assert {state.device.type for states in canvases.at(2) for state in states} == {"cpu"}


@pytest.mark.parametrize("filler", ["teacher", "random"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_relaxed_start_is_filled_in_where_the_canvas_is(device: str, filler: str) -> None:
    with FAKE:
        chosen_BL, uniform_BL = torch.zeros(2, B, L, dtype=torch.float64, device=device).unbind()
        token_BL = uniform_BL.long() if filler == "teacher" else None
        start = RelaxedStart(chosen_BL.bool(), token_BL, uniform_BL)
        canvas_BL = torch.full((B, L), MASK, device="cuda")
        assert start.fill(canvas_BL, 6, MASK).device.type == "cuda"
