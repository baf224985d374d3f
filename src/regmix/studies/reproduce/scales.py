"""How large a reproduction is: recipe, seeds, attacks and the grid of weights."""

from dataclasses import dataclass, field
from typing import Literal

from regmix.studies.reproduce.claims import Battery

ScaleName = Literal["digits", "cpu", "paper"]


@dataclass(frozen=True)
class Scale:
    """Everything that is the same for all experiments of a scale."""

    name: ScaleName
    recipe: str
    seeds: int
    """Unless the command says otherwise."""
    batteries: dict[str, Battery]
    strongest: str
    """The attack of the battery `strongest`: an ensemble where time allows."""
    grid: tuple[tuple[int, int, int], ...]
    """Weights alpha, beta, gamma of the experiment `weights`."""
    flags: str = ""
    """Of `regmix train`, for every arm."""
    recipes: dict[str, str] = field(default_factory=dict)
    """Recipes by the name of an arm, or of other data, that has one of its own."""
    rounds: int = 20
    """Training steps that are timed per method."""
    flat: int = 200
    """Test images around which flatness is measured."""


CURVE = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
COARSE = tuple((alpha, beta, gamma) for alpha in (25, 50, 100) for beta in (10, 20, 40) for gamma in (0, 10, 20, 40))
FINE = tuple((alpha, beta, 20) for alpha in (35, 50, 70) for beta in (14, 20, 28))
CROSS = tuple(point for point in COARSE if point[2] == 20 or point[:2] == (50, 20))
"""The paper's grid with gamma 20, and its values of gamma at 50 / 20: a third of the trainings."""


def _batteries(
    strongest: str, *, few: int | None, hard: int, decisions: int, strong: int | None, main: int | None = None
) -> dict[str, Battery]:
    """The batteries of a scale; the others are numbers of images, None means all."""
    return {
        "main": Battery("clean,pgd-10,pgd-50", examples=main),
        "after": Battery("clean,pgd-50", examples=few, checkpoints=("last", "averaged")),
        "strongest": Battery(strongest, examples=strong),
        "double": Battery("pgd-50", (2.0,), main),
        "curve": Battery("pgd-50", CURVE, few),
        "grid": Battery("clean,pgd-50", (1.0, 2.0), few, ("best", "last")),
        "drop": Battery("pgd-50", examples=few, checkpoints=("best", "last")),
        "hard": Battery("pgd-50,adaptive,square,transfer", examples=hard, probe=True),
        "decisions": Battery("pgd-50,hop-skip-jump", examples=decisions),
    }


SCALES: dict[ScaleName, Scale] = {
    "digits": Scale(
        "digits", "digits-regmix", 3,
        _batteries("apgd-t", few=200, hard=10, decisions=10, strong=50, main=200), "apgd-t",
        ((25, 10, 20), (25, 40, 20), (100, 10, 20), (100, 40, 20), (50, 20, 0), (50, 20, 20), (50, 20, 40)),
        "--epochs 8 --train-examples 400 --validation 100", rounds=10, flat=50,
    ),
    "cpu": Scale(
        "cpu", "cifar10-regmix-cpu", 3,
        _batteries("autoattack-screened", few=2000, hard=1000, decisions=100, strong=2000),
        "autoattack-screened", CROSS,
    ),
    "paper": Scale(
        "paper", "cifar10-regmix", 3,
        _batteries("autoattack", few=None, hard=1000, decisions=200, strong=None), "autoattack",
        tuple(dict.fromkeys([*COARSE, *FINE])),
        recipes={"pgk": "cifar10-fgsm-pgk", "pgk-kl": "cifar10-fgsm-pgk", "cifar100": "cifar100-regmix",
                 "tiny_imagenet": "tiny-imagenet-regmix"},
    ),
}  # fmt: skip
