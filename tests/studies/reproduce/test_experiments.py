"""Every claim can be judged from what its experiment runs, arms keep their names, and costs are counted rightly."""

import shlex
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from regmix.attacks import parse_attacks
from regmix.cli.train import parse_training
from regmix.config import Experiment, to_json
from regmix.data import Digits, Loader, load
from regmix.methods import FgsmPgk, Method, PgdAt, RegMix
from regmix.methods.memory import Setup
from regmix.models import SmallCnn, build
from regmix.recipes import recipe
from regmix.studies.bench import count_passes
from regmix.studies.reproduce import NAMES, ON_OTHER_DATA, SCALES, STUDIES, Scale, Study
from regmix.studies.reproduce.claims import Accuracy, Gap, Mean, Reach, Side, arms_of
from regmix.studies.reproduce.experiments import PASSES
from regmix.threats import Linf
from regmix.training import TrainStep
from regmix.types import Clock

scales = pytest.mark.parametrize("scale", SCALES.values(), ids=[*SCALES])


def studies(scale: Scale) -> Iterator[Study]:
    base = recipe(scale.recipe)
    yield from (make(scale, base) for make in STUDIES.values())
    yield from (make(scale, base, ["cifar100", "folder"]) for make in ON_OTHER_DATA.values())


def accuracies(side: Side) -> list[Accuracy]:
    if isinstance(side, Mean):
        return [one for each in side.sides for one in accuracies(each)]
    if isinstance(side, Gap):
        best = Accuracy(side.arm, side.attack, side.battery)
        return [best, replace(best, checkpoint="last")]
    return [side] if isinstance(side, Accuracy) else []


@scales
def test_every_claim_is_about_what_its_experiment_runs(scale: Scale) -> None:
    for study in studies(scale):
        arms = {arm.name for arm in study.arms}
        assert len(arms) == len(study.arms)
        for claim in study.claims:
            assert {*arms_of(claim.first), *arms_of(claim.second)} <= arms, claim.statement
            for side in [*accuracies(claim.first), *accuracies(claim.second)]:
                battery = scale.batteries[side.battery]
                assert side.battery in study.batteries, claim.statement
                assert side.attack in [*battery.attacks.split(","), "clean"], claim.statement
                assert {*side.eps} <= {*battery.eps}
                assert side.checkpoint in battery.checkpoints
            for side in (claim.first, claim.second):
                if isinstance(side, Reach):
                    assert {*side.among} <= arms
                    assert side.arm in PASSES


@scales
def test_a_mean_is_over_the_same_number_of_arms_on_both_sides(scale: Scale) -> None:
    weights = STUDIES["weights"](scale, recipe(scale.recipe))
    pairs = [(claim.first, claim.second) for claim in weights.claims if isinstance(claim.first, Mean)]
    assert len(pairs) == 2
    for first, second in pairs:
        assert isinstance(second, Mean)
        assert len(first.sides) == len(second.sides) >= 2


def test_an_arm_that_failed_takes_its_claims_along_and_still_counts() -> None:
    scale = SCALES["digits"]
    study = STUDIES["weights"](scale, recipe(scale.recipe))
    left = study.without({"a100b40g20": "it lost its steps", "pgk": "of another experiment"})
    assert [arm.name for arm in study.arms if arm not in left.arms] == ["a100b40g20"]
    assert left.failed == ("a100b40g20 is left out: it lost its steps",)
    gone = [claim.statement for claim in study.claims if claim not in left.claims]
    assert len(gone) == 2  # a part of a mean in both
    assert [*left.lost] == [f"No verdict: {statement}" for statement in gone]
    assert left.comparisons == study.comparisons == len(study.claims)
    times = STUDIES["cost"](scale, recipe(scale.recipe))
    assert times.without({"regmix": "it lost its steps"}) == times  # nothing is trained for it


@pytest.mark.parametrize("arm", ["regmix", "pgk", "pgd2"])
def test_an_accuracy_that_all_must_reach_needs_all_of_them(arm: str) -> None:
    study = STUDIES["convergence"](SCALES["digits"], recipe(SCALES["digits"].recipe))
    assert sum(isinstance(claim.first, Reach) for claim in study.claims) == 4
    left = study.without({arm: "it lost its steps"})
    assert not [claim for claim in left.claims if isinstance(claim.first, Reach)]
    assert len(left.claims) == (0 if arm == "regmix" else 4)  # at equal cost


@scales
def test_the_attacks_of_every_battery_are_known(scale: Scale) -> None:
    for battery in scale.batteries.values():
        parse_attacks(",".join(name for name in battery.attacks.split(",") if name != "transfer"))


def test_every_name_has_an_experiment() -> None:
    assert {*NAMES} == {*STUDIES, *ON_OTHER_DATA}


@pytest.mark.slow
@scales
def test_arms_of_different_names_have_different_settings(scale: Scale) -> None:
    found: dict[str, str] = {}
    arms = {arm for study in studies(scale) for arm in study.arms if not arm.data}
    for arm in arms:
        line = [scale.recipes.get(arm.name, scale.recipe), *scale.flags.split(), *shlex.split(arm.flags)]
        assert found.setdefault(to_json(parse_training(line)[1].experiment), arm.name) == arm.name
    assert len(found) == len(arms)


@pytest.mark.parametrize(
    ("arm", "method"),
    [("regmix", RegMix()), ("pgk", FgsmPgk()), ("pgd2", PgdAt(steps=2))],
    ids=["regmix", "pgk", "pgd2"],
)
def test_passes_of_a_step_are_counted(arm: str, method: Method) -> None:
    digits = load(Digits(), "train").subset(torch.arange(8))
    model, threat = build(SmallCnn(width=4), 10, 1, [0.0], [1.0], (8, 8)), Linf(0.1)
    memory = method.memory(Setup(8, 10, (1, 8, 8), threat, pad=0))
    (batch,) = Loader(digits, 8, "cpu", pad=0, flip=False, seed=0).epoch(0)
    passes = count_passes(TrainStep(model, method, threat, 10, 1.0), batch, memory, Clock(0, 2, 0, 1))
    assert passes.forward + passes.to_input + passes.to_parameters == PASSES[arm]


@scales
def test_equal_cost_is_equal_to_half_an_epoch(scale: Scale) -> None:
    base = recipe(scale.recipe)
    arms = {arm.name: arm for arm in STUDIES["convergence"](scale, base).arms}
    for name in ("pgk", "pgd2"):
        stretched = _applied(base, arms[f"{name}-equal"].flags)
        assert abs(stretched.epochs * PASSES[name] - base.epochs * PASSES["regmix"]) <= PASSES[name] / 2
        before, after = getattr(base.schedule, "milestones", ()), getattr(stretched.schedule, "milestones", ())
        assert [m / stretched.epochs for m in after] == pytest.approx([m / base.epochs for m in before], abs=0.02)


def _applied(base: Experiment, flags: str) -> Experiment:
    names = [name for name, scale in SCALES.items() if recipe(scale.recipe) == base]
    return parse_training([SCALES[names[0]].recipe, *flags.split()])[1].experiment
