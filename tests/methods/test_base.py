"""The pieces that methods share."""

from contextlib import suppress

import pytest
import torch
from torch import nn

from regmix.methods.base import batchnorm_mode


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_batchnorm_mode_switches_batchnorm_alone_and_puts_it_back(fails: bool, before: bool, mode: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.BatchNorm1d(3)).train(before)
    net[3].train(not before)
    modes = [module.training for module in net.modules()]
    with suppress(RuntimeError), batchnorm_mode(net, mode):
        assert net[1].training == net[3].training == (mode == "train")
        assert net[0].training == net[2].training == before
        if fails:
            raise RuntimeError("inside")
    assert [module.training for module in net.modules()] == modes


def test_eval_leaves_the_running_statistics_alone_and_train_moves_them() -> None:
    net = nn.BatchNorm1d(3)
    with batchnorm_mode(net, "eval"):
        net(torch.rand(4, 3))
    assert net.num_batches_tracked == 0
    assert (net.running_mean == 0).all()
    net.eval()
    with batchnorm_mode(net, "train"):
        net(torch.rand(4, 3))
    assert net.num_batches_tracked == 1
    assert (net.running_mean != 0).all()
