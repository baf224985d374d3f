"""A model that is borrowed comes back as it was, also where its modes do work."""

from typing import Any

import torch
from torch import nn

from regmix.attacks import Fgsm
from regmix.runtime.borrowed import borrowed, same_modes
from regmix.threats import Linf


class Merging(nn.Linear):
    """Adds an adapter to its weights for evaluation, and takes it out again for training, as LoRA does."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.adapter, self.merged = nn.Parameter(torch.ones(2, 3)), False

    def train(self, mode: bool = True) -> "Merging":
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * self.adapter.data
            self.merged = not mode
        return super().train(mode)


def test_work_that_a_mode_does_is_undone() -> None:
    model = nn.Sequential(Merging(), nn.BatchNorm1d(2))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for block in (borrowed, same_modes):
        with block(model):
            model.eval()
            assert model[0].merged
            assert not torch.equal(model[0].weight, before["0.weight"])
        assert [module.training for module in model.modules()] == [True, True, False]
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, before[name])
    model.eval()
    with borrowed(model):
        assert model[0].merged
    assert model[0].merged, "it came in evaluation mode"


def test_a_module_of_torch_export_can_be_attacked() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    program: Any = torch.export.export(model, (torch.zeros(2, 3, 2, 2),)).module()
    x, y = torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    assert torch.equal(Fgsm()(program, x, y, Linf(0.1)), Fgsm()(model, x, y, Linf(0.1)))
