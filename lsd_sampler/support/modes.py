"""Puts networks into evaluation mode for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def eval_mode(parts: Iterable[Any]) -> Iterator[None]:
    """Puts the networks among the parts into evaluation mode, and afterwards every module back into its own mode."""
    networks = [part for part in parts if isinstance(part, torch.nn.Module)]
    modes = [(module, module.training) for network in networks for module in network.modules()]
    training = [network for network in networks if network.training]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network in training:
            network.train()  # which may do more than to set a flag
        for module, mode in modes:
            module.training = mode
