"""Learning-rate schedules in whole steps."""

import math

import pytest
import torch

from regmix.config import Constant, Cosine, Cyclic, OneCycle, Piecewise
from regmix.config.schedule import Schedule
from regmix.types import UserError


def factors(schedule: Schedule, steps_per_epoch: int, epochs: int) -> list[float]:
    return [schedule.factor(step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 383, 391])
@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [(110, (100, 105)), (98, (49, 73)), (98, (88, 93)), (100, (50, 75)), (100, (91, 96)), (30, (1, 29))],
)
def test_piecewise_drops_exactly_at_the_first_step_of_each_milestone(
    epochs: int, milestones: tuple[int, int], steps_per_epoch: int
) -> None:
    """98 and 100 epochs are where milestones kept as fractions never fire."""
    all_factors = factors(Piecewise(milestones=milestones), steps_per_epoch, epochs)
    expected = []
    for epoch in range(epochs):
        drops = (epoch >= milestones[0]) + (epoch >= milestones[1])
        expected += [(1, 0.1, 0.01)[drops]] * steps_per_epoch
    assert all_factors == pytest.approx(expected, rel=1e-12)
    changes = [step for step in range(1, len(expected)) if all_factors[step] != all_factors[step - 1]]
    assert changes == [milestone * steps_per_epoch for milestone in milestones]


def test_piecewise_takes_any_number_of_milestones_and_another_decay() -> None:
    assert factors(Piecewise(milestones=(1, 2, 4), decay=0.5), 2, 5) == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
        0.25,
        0.25,
        0.125,
        0.125,
    ]
    assert factors(Piecewise(milestones=()), 2, 2) == [1] * 4
    assert factors(Piecewise(milestones=(7,)), 2, 3) == [1] * 6
    assert Piecewise() == Piecewise(milestones=(100, 105), decay=0.1)


@pytest.mark.parametrize("warm_up", [0.1, 0.3, 0.4, 0.9])
@pytest.mark.parametrize(("steps_per_epoch", "epochs"), [(391, 30), (7, 98), (10, 1), (1, 5), (1, 1), (2, 1)])
def test_cyclic_rises_to_one_peak_and_falls_in_straight_lines(
    steps_per_epoch: int, epochs: int, warm_up: float
) -> None:
    all_factors = factors(Cyclic(warm_up=warm_up), steps_per_epoch, epochs)
    total = steps_per_epoch * epochs
    assert all(0 < factor <= 1 for factor in all_factors)
    assert all_factors.count(1.0) == 1
    peak = all_factors.index(1.0)
    assert abs(peak + 1 - warm_up * total) <= 1
    slopes = [later - sooner for sooner, later in zip([0.0, *all_factors], [*all_factors, 0.0], strict=True)]
    rising, falling = slopes[: peak + 1], slopes[peak + 1 :]
    assert all(math.isclose(slope, 1 / (peak + 1), rel_tol=1e-6, abs_tol=1e-12) for slope in rising)
    assert all(math.isclose(slope, -1 / (total - peak), rel_tol=1e-6, abs_tol=1e-12) for slope in falling)


@pytest.mark.parametrize(("steps_per_epoch", "epochs"), [(391, 30), (7, 98), (10, 1), (1, 1)])
@pytest.mark.parametrize(("warm_up", "end"), [(0.0, 0.0), (0.1, 0.0), (0.25, 0.05)])
def test_cosine_is_torchs_annealing_after_a_linear_rise(
    steps_per_epoch: int, epochs: int, warm_up: float, end: float
) -> None:
    found = factors(Cosine(warm_up=warm_up, end=end), steps_per_epoch, epochs)
    rising = round(warm_up * len(found))
    assert found[:rising] == pytest.approx([(step + 1) / rising for step in range(rising)])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(found) - rising, eta_min=end)
    for factor in found[rising:]:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        annealing.step()


def test_constant_is_constant() -> None:
    assert factors(Constant(), 3, 4) == [1.0] * 12


@pytest.mark.parametrize("warm_up", [0.3, 0.5])
@pytest.mark.parametrize("epochs", [100, 30, 7, 3])
def test_one_cycle_is_torchs_stepped_once_an_epoch(epochs: int, warm_up: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=epochs, pct_start=warm_up)
    schedule = OneCycle(warm_up=warm_up)
    for epoch in range(epochs):
        group = optimizer.param_groups[0]
        for step in (5 * epoch, 5 * epoch + 4):
            assert 0.2 * schedule.factor(step, 5, epochs) == pytest.approx(group["lr"], rel=1e-12)
            assert schedule.momentum(step, 5, epochs) == pytest.approx(group["momentum"], rel=1e-12)
        optimizer.step()
        if epoch < epochs - 1:
            reference.step()


@pytest.mark.parametrize("schedule", [Constant(), Cyclic(), Piecewise()], ids=lambda schedule: schedule.name)
def test_the_others_leave_the_momentum(schedule: Schedule) -> None:
    assert schedule.momentum(3, 5, 10) is None


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Piecewise, {"milestones": (0,)}),
        (Piecewise, {"decay": 0.0}),
        (Piecewise, {"decay": 2.0}),
        (Cyclic, {"warm_up": 0.0}),
        (Cyclic, {"warm_up": 1.0}),
        (Cyclic, {"warm_up": math.nan}),
        (OneCycle, {"warm_up": 1.0}),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused_by_name(kind: type, settings: dict[str, object]) -> None:
    (name,) = settings
    with pytest.raises(UserError, match=name):
        kind(**settings)
