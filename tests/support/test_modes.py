"""Networks are in evaluation mode for a while, and then each module is as it was."""

import pytest
import torch

from lsd_sampler.support.modes import eval_mode


@pytest.mark.parametrize("breaks", [False, True])
def test_every_module_gets_its_own_mode_back(breaks: bool) -> None:
    """Also a frozen part of a network in training, and after an error."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    network[0].eval()
    other = torch.nn.Dropout().eval()
    modes = [module.training for part in (network, other) for module in part.modules()]
    assert modes == [True, False, True, False]
    try:
        with eval_mode([network, None, "no network", other]):
            assert not any(module.training for part in (network, other) for module in part.modules())
            if breaks:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert breaks
    assert [module.training for part in (network, other) for module in part.modules()] == modes


def test_a_networks_own_train_is_called() -> None:
    """It may do more than to set a flag."""

    class Counted(torch.nn.Module):
        times = 0

        def train(self, mode: bool = True) -> "Counted":
            self.times += mode
            return super().train(mode)

    network = Counted()
    with eval_mode([network]):
        assert network.times == 0
    assert network.times == 1 and network.training
