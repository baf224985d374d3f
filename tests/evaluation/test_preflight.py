"""What preflight says about models that cannot be measured as they are."""

import pytest
import torch
from torch import Tensor, nn

from contracts.devices import DEVICE
from regmix.attacks import Eot
from regmix.evaluation import preflight, zero_gradients
from regmix.evaluation.class_order import other_order
from regmix.evaluation.preflight import GAIN
from regmix.types import UserError

pytestmark = pytest.mark.device
COUNT = 60


def images() -> Tensor:
    return torch.rand(COUNT, 3, 6, 6, generator=torch.Generator().manual_seed(0)).to(DEVICE)


class Linear(nn.Module):
    """A model of four classes that is right about everything, because the labels are its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.head = nn.Linear(108, 4)
        self.head.bias.data -= self.head(torch.full((1, 108), 0.5)).detach()[0]
        self.to(DEVICE)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def labels() -> Tensor:
    with torch.no_grad():
        return Linear()(images()).argmax(1)


class Around(nn.Module):
    """Something around the model."""

    def __init__(self, function) -> None:
        super().__init__()
        self.inner, self.function = Linear(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner, x)


MEAN, STD = torch.tensor([[0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]], device=DEVICE)[:, :, None, None]
ODD = {
    "random": (lambda m, x: m(x) + 0.1 * torch.randn(len(x), 4, device=DEVICE), "--draws"),
    "depends on the batch": (lambda m, x: m(x) + 0.2 * m(x).mean(0), "others in its batch"),
    "probabilities": (lambda m, x: m(x).softmax(1), "return logits"),
    "per cent": (lambda m, x: 100 * m(x).softmax(1), "add up to 100"),
    "sigmoids": (lambda m, x: (20 * m(x)).sigmoid(), "all lie in [0, 1]"),
    "expects normalised images": (
        lambda m, x: m((x * STD.to(x.device) + MEAN.to(x.device)).clamp(0, 1)),
        "inside the model",
    ),
    "normalises twice": (lambda m, x: m(((x - MEAN) / STD * 9).sin()), "twice"),
    "classes in another order": (
        lambda m, x: m(x).roll(1, 1),
        "another order (label 0 as 1, 1 as 2, 2 as 3 and 1 more)",
    ),
    "two classes swapped": (lambda m, x: m(x)[:, [1, 0, 2, 3]], "another order (label 0 as 1, 1 as 0)"),
    "more outputs than classes": (lambda m, x: nn.functional.pad(m(x), (1, 0), value=-9.0), "another order"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_model_is_noticed_in_one_line(name: str) -> None:
    function, said = ODD[name]
    torch.manual_seed(0)
    y = labels()
    if name == "normalises twice":
        with torch.no_grad():
            y = Linear()((images() * 9).sin()).argmax(1)
    (finding,) = preflight(Around(function), images(), y)
    assert said in finding
    assert "\n" not in finding


def test_a_normalisation_that_explains_nothing_is_not_named() -> None:
    """Another order of the classes, and on normalised images always one class: more than 20 points better by chance."""

    def odd(m: nn.Module, x: Tensor) -> Tensor:
        logits = m(x).roll(1, 1)
        return logits + 100 * (x.amin((1, 2, 3)) < 0)[:, None] * nn.functional.one_hot(labels().mode().values, 4)

    (finding,) = preflight(Around(odd), images(), labels())
    assert "another order" in finding
    assert "normalis" not in finding


@pytest.mark.parametrize("answer", ["random", "one class"])
@pytest.mark.parametrize("classes", [2, 4, 60])
def test_no_order_of_the_classes_is_found_where_there_is_none(answer: str, classes: int) -> None:
    y = torch.arange(COUNT) % classes
    for seed in range(20):
        drawn = torch.randint(classes, (COUNT,), generator=torch.Generator().manual_seed(seed))
        found = other_order(drawn if answer == "random" else torch.zeros_like(y), y)
        assert found is None or found[0] < GAIN


@pytest.mark.parametrize(
    ("counts", "right", "said"),
    [((50, 50), 90, False), ((50, 50), 55, True), ((80, 20), 78, True), ((80, 20), 95, False), ((30, 10), 12, False)],
)
def test_chance_is_the_share_of_the_most_frequent_class(counts: tuple[int, int], right: int, said: bool) -> None:
    y = torch.arange(2).repeat_interleave(torch.tensor(counts))
    answers = torch.where(torch.randperm(len(y), generator=torch.Generator().manual_seed(0)) < right, y, 1 - y)
    x = torch.zeros(len(y), 1, 2, 2)
    x[:, 0, 0, 0] = answers  # the model reads its answer from a pixel
    x, y = x.to(DEVICE), y.to(DEVICE)
    findings = preflight(lambda images: torch.stack([1 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.5], 1), x, y)
    assert [("hardly above chance" in finding) for finding in findings] == [True] * said
    if said:
        assert f"most frequent class is {100 * counts[0] / len(y):.0f}%" in findings[0]


def test_a_random_model_whose_logits_are_averaged_is_told_so() -> None:
    torch.manual_seed(0)
    (finding,) = preflight(Eot(Around(ODD["random"][0]), 5), images(), labels())
    assert "the mean of 5 passes" in finding


@pytest.mark.parametrize("function", [lambda m, x: m(x), lambda m, x: m(x).log_softmax(1), lambda m, x: 100 * m(x)])
def test_a_sound_model_gets_no_line(function) -> None:
    assert preflight(Around(function), images(), labels()) == []


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda m, x: m(x)[:, :2], "2 classes"),
        (lambda m, x: m(x) * torch.nan, "not finite"),
        (lambda m, x: m(x.double()), "the model fails"),
        (lambda m, x: m(x)[:, :, None], "must return one tensor of logits"),
        (lambda m, x: (m(x), m(x)), "tuple"),
    ],
)
def test_a_model_that_cannot_be_evaluated_is_refused(function, said: str) -> None:
    with pytest.raises(UserError, match=said):
        preflight(Around(function), images(), labels())


def test_images_outside_the_range_are_refused() -> None:
    with pytest.raises(UserError, match="let the model normalise"):
        preflight(Linear(), 2 * images() - 1, labels())


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4), nn.Dropout()).to(
        DEVICE
    )
    model.train()[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    preflight(model, images(), labels())
    zero_gradients(model, images(), labels())
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_images_without_a_gradient_are_counted() -> None:
    assert zero_gradients(Linear(), images(), labels()) == 0
    assert zero_gradients(Around(lambda m, x: m((x * 16).round() / 16)), images(), labels()) == 1
    assert zero_gradients(Around(lambda m, x: m(x).detach()), images(), labels()) == 1
    half = torch.arange(COUNT, device=DEVICE)[:, None] % 2
    assert zero_gradients(Around(lambda m, x: torch.where(half == 0, m(x), m(x).detach())), images(), labels()) == 0.5
