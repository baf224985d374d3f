"""What to evaluate: attacks by name, radii, images; and the columns that follow from these."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regmix.arguments import check_fields
from regmix.attacks import NamedAttack
from regmix.config import Experiment, from_json
from regmix.corruptions import SEVERITIES
from regmix.data import How
from regmix.evaluation.curve import check_curve
from regmix.evaluation.table import check_made_for
from regmix.runs import CONFIG, Checkpoint, Run
from regmix.runs.evaluations import settings_digest
from regmix.runs.given import given_source
from regmix.runs.records import Source
from regmix.runtime.files import digest
from regmix.threats import Threat, ThreatConfig
from regmix.types import NO_TRUST, Trust, UserError, check_bounds, require


@dataclass(frozen=True)
class Questions:
    """What to evaluate, and how."""

    attacks: Sequence[NamedAttack]
    """See `parse_attacks`; the accuracy without an attack is always measured."""
    eps: Sequence[float] = ()
    """Radii in pixel units of [0, 1]; empty means the training's radius. Every attack runs at every radius."""
    examples: int | None = None
    """How many images of the test split; None means all."""
    batch_size: int = 250
    exact: bool = False
    """No fast copy of the model screens AutoAttack's attacks."""
    verdict: bool = True
    """Probe for gradient masking."""
    save: bool = False
    """Save the adversarial images, in whole grey levels."""
    draws: int = 1
    """Passes whose logits are averaged, for a random model (expectation over transformation)."""
    corruptions: Sequence[str] = ()
    """Names such as fog; "all": twelve of the benchmark, or those that have files."""
    severities: Sequence[int] = SEVERITIES
    """Severities of the corruptions, 1 to 5."""
    corruption_files: Path | None = None
    """A folder with the official files of CIFAR-10-C or CIFAR-100-C; None means that corruptions are computed."""
    sample: How = "stratified"
    """How `examples` images are drawn: evenly from the classes, or the first."""
    sample_seed: int = 0
    """Seed of the draw; the same test split, number of images and seed give the same images."""
    curve: Sequence[NamedAttack] = ()
    """Attacks that look for every image's smallest perturbation, for the curve of accuracy against eps."""
    within: float | None = None
    """Evaluate as many images as it takes until every interval is at most this wide to each side, a share such as 0.01;
    see `sequential.Rule`. None: `examples` images."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_bounds(self)
        for name in ("batch_size", "draws"):
            value = getattr(self, name)
            require(value >= 1, f"the {name.replace('_', ' ')} is {value}; it must be at least 1")

    def columns(self, threat: ThreatConfig) -> "dict[str, Asked]":
        """The columns with an attack, by name, radius by radius.

        Raises:
            UserError: an attack that is not made for the threat, or two radii that are written alike.
        """
        columns: dict[str, Asked] = {}
        for radius in self.eps or [threat.eps]:
            for named in self.attacks:
                asked = Asked(named, replace(threat, eps=radius))
                if named.attack is not None:
                    check_made_for(named.attack, asked.threat)
                if (known := columns.setdefault(asked.column, asked)).threat.eps != radius:
                    raise UserError(
                        f"the radii {known.threat.eps!r} and {radius!r} would both be called {asked.column}; "
                        "leave one of them out"
                    )
        return columns


@dataclass(frozen=True)
class Asked:
    """One attack at one radius."""

    named: NamedAttack
    threat: Threat

    @property
    def column(self) -> str:
        """The name of its column."""
        return self.named.column(self.threat.eps)


def open_source(path: Path, trust: Trust = NO_TRUST) -> tuple[Run, Experiment, Checkpoint]:
    """The run that a transfer attack takes its examples from, and which of its weights.

    Raises:
        UserError: no run directory, no weights, or code that is not trusted.
    """
    source = Run.open(path)
    if not (checkpoints := source.checkpoints()):
        raise UserError(f"{path} has no weights to transfer from; train it first")
    return source, from_json(source.config(), path / CONFIG, trust, reads_data=False), checkpoints[0]


def source_weights(named: NamedAttack) -> Source | None:
    """The weights that a transfer attack takes its examples from, or the file of images.

    None for another attack, and where the weights were removed: with which it was done is then not asked.
    """
    if named.given is not None:
        return given_source(named.given)
    if named.source is None:
        return None
    run = Run.open(named.source)
    if not (checkpoints := run.checkpoints()):
        return None
    path = run.weights(checkpoints[0])
    return Source(str(path.resolve()), digest(path), settings_digest(run.config()))


def check_attacks(questions: Questions, threat: ThreatConfig, trust: Trust = NO_TRUST) -> None:
    """Checks the attacks before anything is trained or loaded.

    Raises:
        UserError: what `Questions.columns` and `open_source` raise.
    """
    questions.columns(threat)
    check_curve(questions.curve, threat)
    for named in questions.attacks:
        if named.source is not None:
            open_source(named.source, trust)


def check_open_number(questions: Questions) -> None:
    """Raises UserError if the number of images is chosen by a rule and something else asks for a number of its own."""
    if questions.within is None:
        return
    if not 0 < questions.within < 0.5:
        raise UserError(
            f"--within {100 * questions.within:g}: give the half width of the intervals in points, such as 1.0; it "
            "must lie above 0 and below 50"
        )
    if questions.examples is not None or questions.sample != "stratified":
        raise UserError(
            "--within chooses the number of images, drawn evenly from the classes; leave out --examples and --sample"
        )
    if questions.save:
        raise UserError(
            "--save and --within do not go together; evaluate with --within first, then save with --examples and the "
            "number of images that it took"
        )
