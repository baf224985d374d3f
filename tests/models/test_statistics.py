"""How far images are from BatchNorm's statistics."""

import pytest
import torch
from torch import nn

from regmix.models.statistics import misfit


def test_misfit_is_the_distance_of_the_means_in_deviations() -> None:
    norm = nn.BatchNorm2d(2, eps=0.0)
    norm.running_mean, norm.running_var = torch.tensor([0.0, 1.0]), torch.tensor([4.0, 0.25])
    x = torch.ones(5, 2, 3, 3) * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    assert misfit(nn.Sequential(norm), x) == pytest.approx((1 / 2 + 1 / 0.5) / 2)
    assert misfit(nn.Flatten(), x) is None
    assert norm.training
