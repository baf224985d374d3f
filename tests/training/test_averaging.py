"""Averaged weights against their formula."""

import pytest
import torch
from torch import Tensor, nn

from contracts.devices import DEVICE
from regmix.config import Ema, GatedEma, Swa
from regmix.config.averaging import Averaging
from regmix.training.averaging import AveragedWeights
from regmix.types import UserError

pytestmark = pytest.mark.device
RATIOS = [0.5, 0.9, 0.8201, 0.8199, 0.0, 1.0, 1.3, 0.7, 0.85, 0.2, 2.0, 0.6, 0.9, 0.4, 0.3]


def a_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).to(DEVICE, torch.float64)


def disturb(model: nn.Module, step: int) -> None:
    """One step of a training: parameters and running statistics change."""
    generator = torch.Generator().manual_seed(step)
    model(torch.randn(5, 3, generator=generator, dtype=torch.float64).to(DEVICE))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(DEVICE)


def ema_decay(t: int, ratio: float, limit: float) -> float:
    return min(limit, (t + 1) / (t + 10))


def gated_decay(t: int, ratio: float, limit: float, threshold: float) -> float:
    a = limit if ratio < threshold else min(1.0, 0.99999 * ratio / threshold)
    return min(a, (t + 1) / (t + 10))


def follow(averaging: Averaging, decay: object, first: int = 0) -> tuple[AveragedWeights, nn.Module, dict[str, Tensor]]:
    """Fifteen updates, by the package and by w <- d w + (1 - d) theta."""
    model = a_model()
    averaged = AveragedWeights(model, averaging, 1)
    averaged.load_state_dict({"model": model.state_dict(), "t": first})
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step, ratio in enumerate(RATIOS):
        disturb(model, step)
        averaged.update({"ratio": torch.tensor(ratio, device=DEVICE)})
        d = decay(first + step, ratio)
        for name, value in model.state_dict().items():
            expected[name] = d * expected[name] + (1 - d) * value if value.is_floating_point() else value.clone()
    return averaged, model, expected


def assert_close(averaged: AveragedWeights, expected: dict[str, Tensor]) -> None:
    for name, value in averaged.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)


# From the start, where (t + 1) / (t + 10) leads, and late, where the limit does.
@pytest.mark.parametrize("first", [0, 100, 10**6])
@pytest.mark.parametrize("limit", [0.999, 0.9, 0.5])
def test_ema_is_its_formula_for_parameters_and_running_statistics(limit: float, first: int) -> None:
    averaged, _, expected = follow(Ema(limit=limit), lambda t, r: ema_decay(t, r, limit), first)
    assert_close(averaged, expected)
    assert int(averaged.module[1].num_batches_tracked) == len(RATIOS)


@pytest.mark.parametrize("first", [0, 100, 10**6])
@pytest.mark.parametrize(("limit", "threshold"), [(0.999, 0.82), (0.99, 0.9), (0.5, 0.6)])
def test_gated_ema_is_its_formula(limit: float, threshold: float, first: int) -> None:
    averaging = GatedEma(limit=limit, threshold=threshold)
    averaged, _, expected = follow(averaging, lambda t, r: gated_decay(t, r, limit, threshold), first)
    assert_close(averaged, expected)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.8199, 0.8201, 0.9, 1.0, 3.0])
@pytest.mark.parametrize("t", [0, 1, 8, 5000, 10**7])
def test_the_decay_itself(t: int, ratio: float) -> None:
    stats = {"ratio": torch.tensor(ratio, device=DEVICE)}
    gated, plain = GatedEma().decay(t, 1, stats), Ema().decay(t, 1, {})
    assert gated.shape == plain.shape == ()
    assert gated.item() == pytest.approx(gated_decay(t, ratio, 0.999, 0.82), abs=1e-7)
    assert plain.item() == pytest.approx(ema_decay(t, ratio, 0.999), abs=1e-7)


def test_at_the_threshold_the_gate_is_shut() -> None:
    """A is the limit only where r < threshold; at the threshold nearly everything is kept."""
    shut, open_ = (GatedEma(threshold=0.5).decay(10**9, 1, {"ratio": torch.tensor(r)}) for r in (0.5, 0.4999))
    assert shut.item() == pytest.approx(0.99999, abs=1e-7)
    assert open_.item() == pytest.approx(0.999, abs=1e-7)
    assert GatedEma().decay(10**9, 1, {"ratio": torch.tensor(0.9)}).item() == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_swa_is_the_mean_of_the_weights_at_the_ends_of_epochs(start: int) -> None:
    model, steps_per_epoch = a_model(), 3
    averaged = AveragedWeights(model, Swa(start=start), steps_per_epoch)
    ends: list[Tensor] = []
    for step in range(6 * steps_per_epoch):
        disturb(model, step)
        averaged.update({})
        if (step + 1) % steps_per_epoch == 0 and step >= start * steps_per_epoch:
            ends.append(model[0].weight.detach().clone())
        expected = sum(ends) / len(ends) if ends else model[0].weight
        torch.testing.assert_close(averaged.module[0].weight, expected, rtol=1e-12, atol=1e-12)
    assert len(ends) == 6 - start


def test_the_model_itself_is_left_alone() -> None:
    model = a_model()
    averaged = AveragedWeights(model, Ema(), 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    averaged.update({})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in averaged.module.parameters())
    pointers = {parameter.data_ptr() for parameter in model.parameters()}
    assert pointers.isdisjoint(parameter.data_ptr() for parameter in averaged.module.parameters())


@pytest.mark.parametrize("averaging", [Ema(), GatedEma(), Swa(start=3)], ids=lambda averaging: averaging.name)
def test_restored_weights_continue_exactly(averaging: Averaging) -> None:
    averaged, model, _ = follow(averaging, lambda t, r: 0.0)
    saved = averaged.state_dict()
    other = AveragedWeights(model, averaging, 1)
    other.load_state_dict({"model": {k: v.clone() for k, v in saved["model"].items()}, "t": saved["t"]})
    for step, ratio in enumerate(RATIOS):
        disturb(model, 100 + step)
        for one in (averaged, other):
            one.update({"ratio": torch.tensor(ratio, device=DEVICE)})
    for name, value in averaged.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[name])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Ema, {"limit": 1.5}),
        (Ema, {"limit": -0.1}),
        (GatedEma, {"limit": float("nan")}),
        (GatedEma, {"threshold": 0.0}),
        (Swa, {"start": -1}),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused_by_name(kind: type, settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(UserError, match=name):
        kind(**settings)


def test_a_weight_of_two_names_is_averaged_once_and_one_that_does_not_learn_is_copied() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    averaged = AveragedWeights(model, Ema(limit=0.05), 1)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1
        model[2].weight += 1
    averaged.update({})
    assert averaged.module[1].weight is averaged.module[0].weight
    torch.testing.assert_close(averaged.module[0].weight, before + 0.95)
    assert torch.equal(averaged.module[2].weight, model[2].weight)
