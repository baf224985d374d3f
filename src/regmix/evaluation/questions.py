"""What an evaluation asks: its attacks by name, its radii, its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regmix.attacks import parse_attack
from regmix.config import Experiment, from_json
from regmix.corruptions import SEVERITIES
from regmix.data import How
from regmix.evaluation import CLEAN
from regmix.runs import CONFIG, Run
from regmix.threats import Threat, format_eps
from regmix.types import NO_TRUST, Trust, UserError

TRANSFER = "transfer:"


@dataclass(frozen=True)
class Questions:
    """What an evaluation asks."""

    attacks: Sequence[str]
    """Names such as fgsm, pgd-50, autoattack, transfer:RUN; clean is always there."""
    eps: Sequence[float] = ()
    """Radii in pixel units of [0, 1]; empty means the one of the training. Every attack runs at every one."""
    examples: int | None = None
    """How many images of the test split; None means all."""
    batch_size: int = 250
    exact: bool = False
    """Attacks may not ask a bfloat16 copy of the model before the model itself."""
    verdict: bool = True
    """Probe for gradient masking, and say what speaks for it."""
    save: bool = False
    """Keep the adversarial images, in whole grey levels."""
    draws: int = 1
    """Passes whose logits are averaged, for a model that is random (expectation over transformation)."""
    corruptions: Sequence[str] = ()
    """Names such as fog; all: the benchmark's, as far as they can be computed or have files."""
    severities: Sequence[int] = SEVERITIES
    """Of the corruptions, 1 to 5."""
    corruption_files: Path | None = None
    """A folder with the official files of CIFAR-10-C or CIFAR-100-C; None means that corruptions are computed."""
    sample: How = "stratified"
    """How `examples` images are drawn: evenly from the classes, or the first."""
    sample_seed: int = 0
    """Which images are drawn; the same ones for the same test split, number and seed."""


@dataclass(frozen=True)
class Asked:
    """An attack that an evaluation asks for, by the name that the user gave it."""

    name: str

    @property
    def short(self) -> str:
        """transfer:RUN by the run's own name; other names are as they are."""
        return f"{TRANSFER}{Path(self.name.removeprefix(TRANSFER)).name}" if self.is_transfer else self.name

    @property
    def is_transfer(self) -> bool:
        return self.name.startswith(TRANSFER)

    def column(self, eps: float) -> str:
        """The name of its column at a radius."""
        return f"{self.short}@{format_eps(eps)}"


def columns_of(questions: Questions, training_eps: float) -> set[str]:
    """The names of the columns that the answers will have."""
    asked = [Asked(name) for name in questions.attacks if name != CLEAN]
    return {CLEAN, *(one.column(eps) for one in asked for eps in questions.eps or [training_eps])}


def transfer_source(name: str, trust: Trust) -> tuple[Run, Experiment]:
    """The run that an attack transfers from.

    Raises:
        UserError: it is none, has no weights, or asks for code that is not trusted.
    """
    source = Run.open(Path(name.removeprefix(TRANSFER)))
    if not source.checkpoints():
        raise UserError(f"{source.path} has no weights to transfer from")
    return source, from_json(source.config(), source.path / CONFIG, trust)


def check_attacks(names: Sequence[str], threats: Sequence[Threat], trust: Trust = NO_TRUST) -> None:
    """Raises UserError for an attack that is not made for a threat, for two that would have the same name, and for a
    run to transfer from that is none or whose code is not trusted."""
    for name in names:
        if name.startswith(TRANSFER):
            transfer_source(name, trust)
        if name != CLEAN and not name.startswith(TRANSFER):
            # those that are made for some threats have a check
            check = getattr(parse_attack(name), "check", lambda _: None)
            for threat in threats:
                check(threat)
        short = Asked(name).short
        if alike := [other for other in names if other != name and Asked(other).short == short]:
            raise UserError(f"{name} and {alike[0]} would both be called {short}; rename one of the folders")
