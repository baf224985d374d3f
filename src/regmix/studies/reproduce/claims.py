"""What an experiment consists of: arms that are trained, attacks that they meet, and claims about the outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from regmix.runs import Checkpoint


@dataclass(frozen=True)
class Arm:
    """Trainings that differ only in their seed: a name, and the flags of `regmix train` that follow the scale's."""

    name: str
    flags: str = ""
    data: str = ""
    """Other images than the scale's: a name in the command's --other-data. Empty: the scale's."""


@dataclass(frozen=True)
class Battery:
    """Attacks at some radii on some test images."""

    attacks: str
    """Separated by commas. `transfer` stands for one transfer attack from every other run of the experiment."""
    eps: tuple[float, ...] = (1.0,)
    """Radii in units of the training's radius."""
    examples: int | None = None
    """How many images of the test split; None means all."""
    checkpoints: tuple[Checkpoint, ...] = ("best",)
    probe: bool = False
    """Probe for masked gradients."""


@dataclass(frozen=True)
class Accuracy:
    """Which test images a method classifies correctly."""

    arm: str
    attack: str
    """Or `clean`; `transfer` is the worst case over all runs to transfer from."""
    battery: str = "main"
    eps: tuple[float, ...] = (1.0,)
    """Radii in units of the training's radius; of several the mean over the radii is taken."""
    checkpoint: Checkpoint = "best"


@dataclass(frozen=True)
class Gap:
    """Which test images the best weights classify correctly under an attack, minus which the last ones do."""

    arm: str
    attack: str
    battery: str = "main"


@dataclass(frozen=True)
class Reach:
    """What a training needs until it has reached a robust validation accuracy, one number per run.

    The accuracy is 95 % of the lowest of the runs' best ones, so that every run reaches it.
    """

    arm: str
    unit: Literal["epochs", "passes"]
    """passes: forward and backward passes per training image."""
    among: tuple[str, ...]
    """The arms whose runs decide about the accuracy."""


@dataclass(frozen=True)
class Mean:
    """The mean over several arms of the same number, seed by seed and image by image."""

    sides: tuple[Accuracy | Gap, ...]


Measure = Literal["rise", "gradient_l1", "linearity", "input_eigenvalue", "weight_eigenvalue", "weight_trace"]


@dataclass(frozen=True)
class Flat:
    """How curved or steep the loss of the best weights is; see `regmix.evaluation.Flatness`."""

    arm: str
    measure: Measure


Side = Accuracy | Gap | Reach | Flat | Mean


def arms_of(side: Side) -> tuple[str, ...]:
    """The arms whose numbers a side is made of."""
    return tuple(each.arm for each in side.sides) if isinstance(side, Mean) else (side.arm,)


@dataclass(frozen=True)
class Claim:
    """A statement that holds if one side is larger than the other by more than a threshold."""

    statement: str
    first: Side
    second: Side
    cannot_show: str
    threshold: float = 0.0
    """In the unit of the sides: accuracies lie in [0, 1]."""


def needed(claim: Claim) -> set[str]:
    """The arms without which a claim cannot be judged."""
    sides = claim.first, claim.second
    among = {arm for side in sides if isinstance(side, Reach) for arm in side.among}
    return among.union(*map(arms_of, sides))


@dataclass(frozen=True)
class Study:
    """An experiment of the paper, or one that it leaves open."""

    name: str
    title: str
    question: str
    arms: tuple[Arm, ...]
    batteries: tuple[str, ...]
    """Names of the scale's batteries; every arm meets all of them."""
    claims: tuple[Claim, ...]
    cannot_show: str
    measures: Literal["accuracy", "flatness", "steps"] = "accuracy"
    """steps: the time of training steps, for which nothing has to be trained."""
    failed: tuple[str, ...] = ()
    """Arms that are left out because a training failed, each with the reason."""
    lost: tuple[str, ...] = ()
    """Statements that have no verdict without these arms."""

    @property
    def comparisons(self) -> int:
        """For how many claims the intervals are corrected."""
        return len(self.claims) + len(self.lost)

    def without(self, failed: Mapping[str, str]) -> "Study":
        """The experiment without these arms and the claims that need them; `failed` has the reason of each arm."""
        if self.measures == "steps":
            return self  # nothing is trained for it
        mine = [arm.name for arm in self.arms if arm.name in failed]
        return replace(
            self,
            arms=tuple(arm for arm in self.arms if arm.name not in failed),
            claims=tuple(claim for claim in self.claims if not needed(claim) & {*mine}),
            failed=tuple(f"{arm} is left out: {failed[arm]}" for arm in mine),
            lost=tuple(f"No verdict: {claim.statement}" for claim in self.claims if needed(claim) & {*mine}),
        )
