"""Models of other people's: how their function is called, and what counts of what they return."""

import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regmix.models import Function, build, load_weights
from regmix.types import UserError


class Net(nn.Module):
    def __init__(self, classes: int, answer: Callable[[nn.Module, Tensor], Any] = lambda m, z: z) -> None:
        super().__init__()
        self.head, self.answer = nn.Linear(12, classes), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self, self.head(x.flatten(1)))


class Output(OrderedDict):
    @property
    def logits(self) -> Tensor:
        return self["logits"]


Inception = namedtuple("Inception", ["logits", "aux_logits"])


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., nn.Module]], Function]:
    def named(function: Callable[..., nn.Module]) -> Function:
        module = ModuleType("their_models")
        module.make = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "their_models", module)
        return Function("their_models:make")

    return named


def with_all(**settings: int) -> nn.Module:
    return Net(settings.get("num_classes", 1000))


def with_none_of(**settings: int) -> nn.Module:
    torch.rand(3)
    if settings:
        raise ValueError("expected 1000 classes")
    return Net(7)


@pytest.mark.parametrize(
    ("function", "logits"),
    [
        (lambda classes: Net(classes), 5),
        (lambda num_classes=1000, weights=None: Net(num_classes), 5),
        (lambda *, num_classes: Net(num_classes), 5),
        (lambda: Net(7), 7),
        (lambda other=3: Net(other), 3),
        (with_all, 5),
        (with_none_of, 7),
    ],
)
def test_the_function_is_told_the_number_of_classes_if_it_takes_it(theirs, function, logits: int) -> None:
    assert build(theirs(function), 5)(torch.rand(2, 3, 2, 2)).shape == (2, logits)


def test_a_call_that_is_refused_leaves_the_random_state(theirs) -> None:
    torch.manual_seed(0)
    expected = with_none_of().head.weight
    torch.manual_seed(0)
    assert torch.equal(build(theirs(with_none_of), 5).head.weight, expected)


@pytest.mark.parametrize(
    "answer",
    [
        lambda m, z: {"logits": z, "features": 0},
        lambda m, z: Output(hidden=0, logits=z),
        lambda m, z: Inception(z, z) if m.training else z,
    ],
)
def test_the_logits_of_an_object_count_and_the_weights_keep_their_names(theirs, answer) -> None:
    model = build(theirs(lambda classes: Net(classes, answer)), 5)
    x = torch.rand(2, 3, 2, 2)
    for mode in (True, False):
        assert torch.equal(model.train(mode)(x), model.head(x.flatten(1)))
    assert [*model.state_dict()] == ["head.weight", "head.bias"]
    again = build(theirs(lambda classes: Net(classes, answer)), 5)
    load_weights(again, model.state_dict())
    assert torch.equal(again(x), model(x))


def test_lazy_modules_get_their_weights_and_modes_stay(theirs) -> None:
    def lazy(classes: int) -> nn.Module:
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d().eval(), nn.Flatten(), nn.LazyLinear(classes))

    model = build(theirs(lazy), 5, 3, size=(6, 7))
    assert model[3].weight.shape == (5, 80)
    assert (model.training, model[1].training) == (True, False)
    assert float(model[1].running_mean.abs().sum()) == 0
    with pytest.raises(UserError, match="lazy"):
        build(theirs(lazy), 5, 3, size=(1, 1))


def test_a_model_without_values_is_refused(theirs) -> None:
    with pytest.raises(UserError, match="hold no values"):
        build(theirs(lambda classes: Net(classes).to("meta")), 5)


def test_weights_that_are_one_in_the_model_must_be_one_in_the_file() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        model[1].weight = model[0].weight
        return model

    source, target = tied(), tied()
    load_weights(target, source.state_dict())
    assert torch.equal(target[0].weight, source[0].weight)
    with pytest.raises(UserError, match="a tensor that the model shares"):
        load_weights(target, {"0.weight": torch.ones(4, 4), "1.weight": torch.zeros(4, 4)})
    assert torch.equal(target[0].weight, source[0].weight)
