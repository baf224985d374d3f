"""The verdict says "masked" of models that only hide their gradients, and not of those that are robust or plain."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from regmix import PgdAt, RegMix, Standard
from regmix.attacks import Apgd, Square
from regmix.data import Digits, batches, load
from regmix.evaluation import Paired, Probe, probe, verdict
from regmix.evaluation.one_batch import perturb, predict
from regmix.methods import Method
from regmix.models import SmallCnn, build
from regmix.threats import L1, L2, Linf
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


def some(model: nn.Module, count: int = 48) -> tuple[Tensor, Tensor]:
    (batch,) = batches(load(Digits(), "test"), 500, "cpu")
    with torch.no_grad():
        right = (model(batch.x).argmax(1) == batch.y).nonzero()[:count, 0]
    return batch.x[right], batch.y[right]


@pytest.mark.slow
def test_square_climbs_another_loss_than_the_cross_entropy() -> None:
    model, threat = train(RegMix(alpha=200, beta=200, gamma=200)), Linf(0.15)
    x, y = some(model)
    broken = [predict(model, perturb(model, attack, x, y, threat), y) != y for attack in (Square(300), Apgd(steps=50))]
    if (broken[0] & ~broken[1]).sum() <= 2:
        pytest.skip("as this version of torch rounds, the model has no images that the sign would be taken for")
    found = probe(model, x, y, threat)
    assert found.only_black_box == 0
    assert verdict(found, {}, threat) == ("no sign of masking", []), found


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
    assert verdict(found, {}, threat) == ("no sign of masking", []), found
    assert found.zero_gradients == 0
    assert found.far == 0


@pytest.mark.parametrize("kind", ["quantised", "saturated"])
@pytest.mark.parametrize("threat", [Linf(0.15), L2(1.5)])
def test_a_model_that_hides_its_gradients_is_called_masked(trained, kind, threat) -> None:
    model = Masked(trained, kind)
    found = probe(model, *some(model), threat)
    said, signs = verdict(found, {}, threat)
    assert said == "masked", found
    assert signs


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.1), L2(1.0), L1(5.0)])
@pytest.mark.parametrize("right", [1, 4, 48])
def test_an_untrained_or_hardly_trained_model_is_not_masked(threat, right) -> None:
    torch.manual_seed(1)
    model = build(SmallCnn(width=4), 10, channels=1).eval()
    x, _ = some(model, 48)
    with torch.no_grad():
        y = model(x[:right]).argmax(1)  # as if it were right about few
    said, signs = verdict(probe(model, x[:right], y, threat), {}, threat)
    assert (said, signs) == ("no sign of masking" if right >= 10 else "undecided", [])


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.1), L2(1.0), L1(5.0)])
def test_a_model_of_two_classes_or_one_answer_is_not_masked(threat) -> None:
    (batch,) = batches(load(Digits(), "test"), 500, "cpu")
    two = batch.y < 2
    x, y = batch.x[two][:40], batch.y[two][:40]
    torch.manual_seed(0)
    model = build(SmallCnn(width=4), 2, channels=1).eval()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        Standard()(model, Batch(x, y), threat).total.backward()
        optimizer.step()
    assert verdict(probe(model, x, y, threat), {}, threat) == ("no sign of masking", [])
    # it sees class 0 in everything, so that no attack can win at any radius
    constant = Shifted(model, torch.tensor([1e3, 0.0]))
    found = probe(constant, x[y == 0], y[y == 0], threat)
    assert (found.far, found.only_black_box) == (0, 0)
    assert not any("grey" in sign for sign in verdict(found, {}, threat)[1])


class Shifted(nn.Module):
    def __init__(self, inner: nn.Module, by: Tensor) -> None:
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.by


def test_a_confident_model_whose_loss_float32_rounds_to_zero_is_not_masked(trained) -> None:
    model = Scaled(trained, 4.0)
    threat = Linf(0.02)
    found = probe(model, *some(model), threat)
    assert found.rising > 0.95
    assert verdict(found, {}, threat) == ("no sign of masking", [])


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module, by: float) -> None:
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.by


class Noisy(nn.Module):
    def __init__(self, inner: nn.Module, size: float) -> None:
        super().__init__()
        self.inner, self.size = inner, size

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.size * torch.randn_like(x))


@pytest.mark.slow
def test_a_random_model_is_masked_where_the_mean_of_its_passes_is_weaker_and_else_undecided(trained) -> None:
    threat = L2(1.0)
    torch.manual_seed(0)
    x, y = some(trained)
    said, signs = verdict(probe(Noisy(trained, 0.3), x, y, threat), {}, threat)
    assert said == "masked", signs
    assert verdict(probe(Noisy(trained, 1e-3), x, y, threat), {}, threat) == ("undecided", [])


def survived(count: int, **shares: float) -> dict[str, Tensor]:
    """Columns in which the first images are those that survive, as of attacks of which the stronger breaks more."""
    return {name.replace("_", "-"): torch.arange(count) < share * count for name, share in shares.items()}


@pytest.mark.parametrize(
    ("columns", "sign"),
    [
        (
            survived(1000, pgd_50=0.37, autoattack=0.03),
            "AutoAttack leaves 34.0 points (95% interval 31.0 to 36.9) less",
        ),
        (survived(1000, pgd_50=0.40, square=0.33), "square, which sees no gradient"),
        (survived(1000, pgd_20=0.40) | {"transfer:other": torch.arange(1000) < 200}, "transfer:other"),
        (survived(1000, pgd_50=0.40, hop_skip_jump=0.2), "hop-skip-jump"),
        (survived(1000, pgd_50=0.40, hop_skip_jump_500=0.2), "hop-skip-jump-500, which sees no gradient"),
        (survived(1000, pgd_50=0.40, square_1000=0.33), "square-1000, which sees no gradient"),
        (survived(1000, pgd_10=0.50, pgd_50=0.35), "PGD-50 leaves 15.0 points"),
    ],
)
def test_signs_in_the_outcomes(columns: dict[str, Tensor], sign: str) -> None:
    said, signs = verdict(HEALTHY, columns, Linf())
    assert said == "masked"
    assert sign in signs[0]
    assert verdict(HEALTHY, columns, L1()) == ("no sign of masking", []), "PGD is weak under L1, masked or not"


@pytest.mark.parametrize(
    "columns",
    [
        {},
        survived(500, pgd_50=0.5, autoattack=0.45),
        survived(500, pgd_10=0.51, pgd_50=0.5, square=0.55),
        survived(500, pgd_50=0.5, square=0.46),
        survived(20, pgd_50=0.5, square=0.35),  # three images
        survived(40, pgd_10=0.5, pgd_50=0.35),
        survived(500, pgd_3=0.6, autoattack=0.3),  # three steps are not enough for anybody
        survived(500, fgsm=0.7, square=0.3),
    ],
)
def test_usual_differences_are_no_signs(columns: dict[str, Tensor]) -> None:
    assert verdict(HEALTHY, columns, Linf()) == ("no sign of masking", [])


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"zero_gradients": 0.2}, "no gradient"),
        ({"rising": 0.3}, "the loss does not rise along PGD-20 for 70.0%"),
        ({"only_black_box": 0.2}, "Square"),
        ({"far": 0.3}, "turned into grey"),
        ({"averaged": Paired(0.2, 0.1, 0.3, 14, 1)}, "the model is random"),
    ],
)
def test_signs_in_the_probe(change: dict, sign: str) -> None:
    said, signs = verdict(replace(HEALTHY, **change), {}, Linf())
    assert said == "masked"
    assert sign in signs[0]


@pytest.mark.parametrize(
    "change",
    [
        {"zero_gradients": 1 / 64},
        {"rising": 0.75},
        {"only_black_box": 2 / 64},
        {"far": 2 / 64},
        {"examples": 20, "only_black_box": 2 / 20, "far": 2 / 20, "rising": 15 / 20},
    ],
)
def test_a_few_images_are_no_sign(change: dict) -> None:
    assert verdict(replace(HEALTHY, **change), {}, Linf()) == ("no sign of masking", [])
