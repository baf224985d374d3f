"""`regmix evaluate`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from regmix.attacks import parse_attack
from regmix.cli.common import (
    EvaluationFlags,
    ModelSource,
    attack_names,
    console_for,
    names_in,
    print_result,
    radii_in,
    trust_in,
)
from regmix.cli.console import ConsoleDisplay
from regmix.cli.flags import parse
from regmix.cli.table import check, command_flags, part_flags, take_kinds
from regmix.cli.train import with_kinds
from regmix.config import Experiment
from regmix.data import DataConfig
from regmix.evaluation import CLEAN
from regmix.evaluation.assessment import assess
from regmix.evaluation.foreign import KNOWN, adopt, is_file_of_weights, is_foreign
from regmix.evaluation.questions import TRANSFER, Questions
from regmix.evaluation.subject import choose_images
from regmix.models import Function, ModelConfig, ResNet
from regmix.runs import Checkpoint, Run
from regmix.runtime import devices, processes
from regmix.threats import ThreatConfig
from regmix.types import Trust, UserError


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(EvaluationFlags):
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run directory."""
    attacks: str = "clean,fgsm,pgd-10,pgd-50"
    """Attacks, separated by commas: clean (no attack), fgsm, pgd-N (N steps of eps/4), pgd-NxR (R random restarts),
    mi-fgsm-N, cw-N, cw-l2, apgd-ce, apgd-dlr, apgd-t, fab-t, square, autoattack, hop-skip-jump, adaptive (maximises
    RegMix's own loss), transfer:RUN (adversarial images of another run)."""
    checkpoint: Literal["best", "last", "averaged", "all"] = "all"
    """Which weights of the run to evaluate. best: the best ones on the validation images. last: those after the last
    epoch. averaged: their moving average."""
    batch_size: int = 250
    """Images per batch."""
    exact: bool = False
    """Run the attacks of AutoAttack in float32 only. Without it, a bfloat16 copy of the model searches first (faster);
    in both cases an image counts as broken only if the float32 model misclassifies it."""
    save: bool = False
    """Save the adversarial images as PNG and npz. They are rounded to whole grey levels inside the threat model, and
    checked again after they are read back from the disk."""
    draws: int = 1
    """For a model that is random: number of forward passes whose logits are averaged (expectation over
    transformation)."""
    corruptions: str | None = None
    """Evaluate on corrupted images too (CIFAR-10-C): all, or names separated by commas, such as gaussian_noise,fog.
    None: no corruptions."""
    severities: str = "1,2,3,4,5"
    """Severities of the corruptions, from 1 (weak) to 5 (strong), separated by commas."""
    corruption_files: Path | None = None
    """Folder with the official .npy files of CIFAR-10-C or CIFAR-100-C. None: compute the corruptions (12 of the 15;
    motion_blur, snow and frost need the files)."""


@dataclass(frozen=True)
class RunFlags:
    shared: Annotated[EvaluateFlags, tyro.conf.arg(name="")]
    source: ModelSource = None
    """The module:function that returns the run's model, if the model is a function of yours. Its code is run. None: no
    code of yours."""


@dataclass(frozen=True)
class ForeignFlags:
    shared: Annotated[EvaluateFlags, tyro.conf.arg(name="")]
    data: DataConfig
    model: ModelConfig
    threat: ThreatConfig
    mean: tuple[float, ...] = ()
    """Value that the model subtracts from each channel of images in [0, 1]; one number per channel, or one for all.
    Without it: the file's own, or 0."""
    std: tuple[float, ...] = ()
    """Value that the model then divides each channel by. Without it: the file's own, or 1."""
    weights: str | None = None
    """Which weights to use from a file that holds several sets. raw: the trained ones. averaged: their moving average
    (EMA or SWA). Otherwise the name of an entry. None: the only set there is."""
    out: Path | None = None
    """Folder for the result. None: evaluations/NAME."""


def evaluate(words: list[str]) -> None:
    """Attacks the checkpoints of a run, or a model from elsewhere, on the test images."""
    if words and is_foreign(words[0]):
        flags, directory, loaded, trust = _adopted(words)
    else:
        parsed = parse(RunFlags, words, "evaluate")
        flags, directory, loaded = parsed.shared, Run.open(parsed.shared.run), ""
        trust = Trust(parsed.source, flags.trust_code)
    questions = _questions(flags)
    checkpoints: list[Checkpoint] = [] if flags.checkpoint == "all" else [flags.checkpoint]
    with ConsoleDisplay(console_for(flags.json)) as display:
        if loaded:
            display.note(loaded)
        assess(directory, questions, checkpoints, flags.device, display, trust)
    print_result(directory, flags.json, f"regmix report {directory.path} -o report.html")


def _questions(flags: EvaluateFlags) -> Questions:
    return Questions(
        attack_names(flags.attacks),
        radii_in(flags.eps),
        flags.examples,
        flags.batch_size,
        flags.exact,
        flags.verdict,
        flags.save,
        flags.draws,
        names_in(flags.corruptions),
        _severities_in(flags.severities),
        flags.corruption_files,
        flags.sample,
        flags.sample_seed,
    )


def _severities_in(text: str) -> list[int]:
    try:
        return [int(severity) for severity in text.split(",")]
    except ValueError as error:
        raise UserError(f"--severities {text}: write whole numbers from 1 to 5, such as 1,3,5") from error


def _adopted(words: list[str]) -> tuple[EvaluateFlags, Run, str, Trust]:
    """Makes a run directory for a model from elsewhere.

    Returns:
        The flags, the directory, a line on what was loaded, and the code that may run.
    """
    source = words[0]
    base, parsed = _foreign_flags(words)
    shared = parsed.shared
    experiment = replace(base, data=parsed.data, model=parsed.model, threat=parsed.threat)
    names = attack_names(shared.attacks)
    radii_in(shared.eps)  # before a model is built
    attacks = {name: parse_attack(name) for name in names if name != CLEAN and not name.startswith(TRANSFER)}
    out = parsed.out or Path("evaluations") / Path(source.replace(":", "-")).stem
    images = choose_images(experiment.data, shared.examples, shared.sample, shared.sample_seed).images
    settled = [word.split("=")[0].removeprefix("--model.") for word in words if word.startswith("--model.")]
    trust = trust_in(experiment.model, everything=shared.trust_code)

    place = devices.start(shared.device, "32", patient=True).device
    loaded = ""
    if processes.rank() == 0:
        loaded = adopt(
            source, experiment, parsed.mean, parsed.std, images, out, place, attacks, parsed.weights, settled
        ).told  # fmt: skip
    loaded = processes.from_first(loaded)  # the other processes wait for rank 0
    return shared, Run.open(out), loaded, trust


def _foreign_flags(words: list[str]) -> tuple[Experiment, ForeignFlags]:
    """The default experiment for a model from elsewhere, and the flags for it."""
    source = words[0]
    base = Experiment(model=ResNet() if is_file_of_weights(source) else Function(source))
    kinds = take_kinds(words, KNOWN)
    base = with_kinds(base, kinds)
    own = {part: getattr(base, part).name for part in KNOWN}
    check(words, [*command_flags("evaluate", "foreign"), *part_flags(own)], "evaluate")
    start = ForeignFlags(EvaluateFlags(run=Path(source)), base.data, base.model, base.threat)
    parsed = parse(ForeignFlags, words, "evaluate", start)
    if ":" in source and parsed.model != base.model:
        raise UserError(f"{source} is the model already; leave out --model and its flags")
    return base, parsed
