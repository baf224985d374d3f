"""The verdict says "masked" of models that only hide their gradients, and not of those that are robust or plain."""

import pytest
import torch
from torch import Tensor, nn

from regmix import PgdAt, RegMix, Standard
from regmix.attacks import Apgd, Square
from regmix.data import Digits, batches, load
from regmix.evaluation import Probe, probe, verdict
from regmix.evaluation.battery import perturb, predict
from regmix.methods import Method
from regmix.models import SmallCnn, build
from regmix.threats import L2, Linf
from regmix.types import Batch

HEALTHY = Probe(64, 0.0, 0.97, 0.4, 0.6, 0.0, 0.0)


@pytest.fixture(scope="module", params=["pgd_at", "standard"])
def trained(request) -> nn.Module:
    """A small network on the digits, trained with PGD or plainly."""
    return train(PgdAt(steps=5) if request.param == "pgd_at" else Standard())


def train(method: Method) -> nn.Module:
    torch.manual_seed(0)
    (batch,) = batches(load(Digits(), "train"), 2000, "cpu")
    model = build(SmallCnn(width=8), 10, channels=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(6):
        for index in torch.randperm(len(batch.x)).split(64):
            optimizer.zero_grad()
            method(model, Batch(batch.x[index], batch.y[index]), Linf(0.1)).total.backward()
            optimizer.step()
    return model.eval()


def some(model: nn.Module) -> tuple[Tensor, Tensor]:
    (batch,) = batches(load(Digits(), "test"), 500, "cpu")
    with torch.no_grad():
        right = (model(batch.x).argmax(1) == batch.y).nonzero()[:48, 0]
    return batch.x[right], batch.y[right]


def test_square_climbs_another_loss_than_the_cross_entropy() -> None:
    model, threat = train(RegMix(alpha=200, beta=200, gamma=200)), Linf(0.15)
    x, y = some(model)
    broken = [predict(model, perturb(model, attack, x, y, threat), y) != y for attack in (Square(300), Apgd(steps=50))]
    if (broken[0] & ~broken[1]).sum() <= 2:
        pytest.skip("as this version of torch rounds, the model has no images that the sign would be taken for")
    found = probe(model, x, y, threat)
    assert found.only_black_box == 0
    assert verdict(found, {}, 500) == ("no sign of masking", []), found


class Masked(nn.Module):
    def __init__(self, inner: nn.Module, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "quantised":
            return self.inner((x * 16).round() / 16)
        # The softmax of these logits is exactly 0 and 1, so that the cross-entropy has no gradient.
        return self.inner(x) * 1e4


@pytest.mark.parametrize("threat", [Linf(0.1), L2(1.0)])
def test_an_honest_model_shows_no_sign(trained, threat) -> None:
    found = probe(trained, *some(trained), threat)
    assert verdict(found, {}, 500) == ("no sign of masking", []), found
    assert found.zero_gradients == 0
    assert found.far == 0


@pytest.mark.parametrize("kind", ["quantised", "saturated"])
@pytest.mark.parametrize("threat", [Linf(0.15), L2(1.5)])
def test_a_model_that_hides_its_gradients_is_called_masked(trained, kind, threat) -> None:
    model = Masked(trained, kind)
    found = probe(model, *some(model), threat)
    said, signs = verdict(found, {}, 500)
    assert said == "masked", found
    assert signs


@pytest.mark.parametrize(
    ("accuracies", "sign"),
    [
        ({"pgd-50": 0.37, "autoattack": 0.03}, "AutoAttack leaves 34.0 points less"),
        ({"pgd-50": 0.40, "square": 0.33}, "square, which sees no gradient"),
        ({"pgd-20": 0.40, "transfer:other": 0.2}, "transfer:other"),
        ({"pgd-50": 0.40, "hop-skip-jump": 0.2}, "hop-skip-jump"),
        ({"pgd-10": 0.50, "pgd-50": 0.35}, "PGD-50 leaves 15.0 points less than PGD-10"),
    ],
)
def test_signs_in_the_accuracies(accuracies: dict[str, float], sign: str) -> None:
    said, signs = verdict(HEALTHY, accuracies, 1000)
    assert said == "masked"
    assert sign in signs[0]


@pytest.mark.parametrize(
    "accuracies",
    [
        {},
        {"pgd-50": 0.5, "autoattack": 0.45},
        {"pgd-10": 0.51, "pgd-50": 0.5, "square": 0.55},
        {"pgd-50": 0.5, "square": 0.46},
    ],
)
def test_usual_differences_are_no_signs(accuracies: dict[str, float]) -> None:
    assert verdict(HEALTHY, accuracies, 500)[0] == "no sign of masking"


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"zero_gradients": 0.2}, "no gradient"),
        ({"rising": 0.3}, "loss rises"),
        ({"only_black_box": 0.2}, "Square"),
        ({"far": 0.3}, "turned into grey"),
    ],
)
def test_signs_in_the_probe(change: dict[str, float], sign: str) -> None:
    said, signs = verdict(Probe(**{**vars(HEALTHY), **change}), {}, 500)
    assert said == "masked"
    assert sign in signs[0]
