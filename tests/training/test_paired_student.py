"""A student in one batch with its teacher."""

import torch
from helpers.small_distillations import Scored, learn, seen_by

from lsd_sampler import MaskedDiffusionPipeline
from lsd_sampler.denoisers import random_chain
from lsd_sampler.sampling.pipeline_runs import PipelineRuns


def test_the_students_half_of_the_run_is_the_learned_sampler() -> None:
    """What the student saw while it was solved is what the result does: a coefficient is used in its own step."""
    denoiser, num, M = Scored(random_chain(4, 12), "log_score"), 8, 5
    canvases = seen_by(denoiser)
    scheduler = learn(denoiser, method="lsd", solver="euler", nfe=(M,), teacher_steps=48, num_sequences=num)
    during = [canvas[num:] for canvas in canvases[-M:]]
    canvases.clear()
    pipe = MaskedDiffusionPipeline(denoiser, scheduler)
    generators = PipelineRuns(pipe, 0, {}).generators(range(num))
    pipe(num_samples=num, num_inference_steps=M, generator=generators, output_type="ids")
    assert all(torch.equal(a, b) for a, b in zip(during, canvases, strict=True))
