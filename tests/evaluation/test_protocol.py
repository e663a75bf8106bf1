"""How numbers were made is said, and without a date."""

import platform

import torch

from lsd_sampler.evaluation.protocol import hardware, versions


def test_versions_of_what_numbers_depend_on() -> None:
    said = versions()
    assert said.startswith(f"Python {platform.python_version()}") and f"torch {torch.__version__}" in said
    assert said == versions()


def test_threads_of_a_cpu_are_said() -> None:
    assert hardware(torch.device("cpu")).endswith(f", {torch.get_num_threads()} threads")
