"""`regmix compare` and `regmix sweep`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from rich.console import Console

from regmix.attacks import parse_attacks
from regmix.cli.common import alone, radii_in, trust_in
from regmix.cli.console import ConsoleDisplay
from regmix.cli.flags import parse_some
from regmix.cli.train import meant
from regmix.data import How
from regmix.evaluation.assessment import Assessment
from regmix.evaluation.questions import Questions, check_attacks
from regmix.evaluation.subject import Chosen, choose_images
from regmix.recipes import recipe
from regmix.runs import Run
from regmix.runtime import devices
from regmix.studies.compare import (
    Planned,
    check_comparison,
    check_ranking,
    method_words,
    reaching_trainings,
    write_comparison,
)
from regmix.studies.sweep import Engine, Point, grid, parse_space, search, typed
from regmix.types import UserError


@dataclass(frozen=True)
class CompareFlags:
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe under which all methods are trained."""
    methods: str = "regmix,pgd_at:steps=2"
    """Methods, separated by commas, each with settings of its own if it needs them: pgd_at:steps=2 sets
    --method.steps 2; what is no field of the method sets a flag of the experiment: fgsm_pgk:averaging=gated_ema."""
    seeds: int = 3
    """How many seeds per method: 0, 1, ..."""
    out: Path | None = None
    """Folder of the runs, comparison.json and report.html; None means runs/compare-RECIPE."""
    attacks: str = "clean,pgd-50"
    """Attacks of the evaluation, separated by commas; see regmix evaluate --help."""
    eps: str | None = None
    """Radii in pixel units of [0, 1], separated by commas, such as 8/255,16/255; None means the training's eps."""
    examples: int | None = None
    """How many test images to use, the same ones for all that is compared; None means all of them."""
    sample: How = "stratified"
    """How these are drawn: evenly from the classes, or the first ones of the test split (of files that are ordered by
    class: images of the first classes only)."""
    sample_seed: int = 0
    """Which images are drawn; a smaller sample is a part of a larger one with the same seed."""
    device: devices.Device = "auto"
    """Where to train and evaluate."""
    verdict: bool = True
    """Probe 64 images per run and checkpoint for gradient masking, and say which numbers cannot be believed."""
    trust_code: bool = False
    """The code may run that a run from which an attack transfers asks for as its model."""
    json: bool = False
    """Print the comparison as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class SweepFlags:
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe whose settings are searched."""
    space: str
    """What to try, separated by spaces: FLAG=VALUE,VALUE,... (flags of regmix train, such as
    method.alpha=25,50,100), or FLAG=LOW..HIGH and FLAG=log:LOW..HIGH for numbers in a range. Not what the points are
    ranked by: the data, the validation images and how often they are looked at, the threat, the precision."""
    device: devices.Device = "auto"
    """Where to train and evaluate."""
    engine: Engine = "local"
    """local: the whole grid. optuna: its TPE chooses. ray: the grid, or random points of ranges, on a Ray cluster."""
    workers: int = 1
    """Trainings at a time."""
    trials: int = 20
    """Points to try, where ranges make them endless or optuna chooses."""
    seeds: int = 1
    """How many seeds per point: 0, 1, ..."""
    top: int = 3
    """How many points, the best on the validation images, are evaluated on the test images and compared."""
    out: Path | None = None
    """Folder of the runs, comparison.json and report.html; None means runs/sweep-RECIPE."""
    attacks: str = "clean,pgd-50"
    """Attacks of the evaluation, separated by commas; see regmix evaluate --help."""
    eps: str | None = None
    """Radii in pixel units of [0, 1], separated by commas, such as 8/255,16/255; None means the training's eps."""
    examples: int | None = None
    """How many test images to use, the same ones for all that is compared; None means all of them."""
    sample: How = "stratified"
    """How these are drawn: evenly from the classes, or the first ones of the test split (of files that are ordered by
    class: images of the first classes only)."""
    sample_seed: int = 0
    """Which images are drawn; a smaller sample is a part of a larger one with the same seed."""
    verdict: bool = True
    """Probe 64 images per run and checkpoint for gradient masking, and say which numbers cannot be believed."""
    trust_code: bool = False
    """The code may run that a run from which an attack transfers asks for as its model, and that lies in the state of
    an earlier search by ray."""
    json: bool = False
    """Print the comparison as JSON on standard output, and progress on standard error."""


F = TypeVar("F", CompareFlags, SweepFlags)


def compare(words: list[str]) -> None:
    """Trains methods under one recipe with several seeds, evaluates them on the same images, and compares them."""
    flags, rest = _begun(
        CompareFlags,
        words,
        "compare",
        "Trains every method with every seed, evaluates all on the same test images, and prints and reports means, "
        "spreads and paired differences. Finished runs are not repeated, interrupted ones are continued.",
    )
    texts = [text.strip() for text in flags.methods.split(",")]
    if len(set(texts)) < len(texts):
        raise UserError(f"--methods {flags.methods}: the same method twice")
    out = flags.out or Path("runs") / f"compare-{flags.recipe}"
    questions = _questions(flags)
    planned = [
        one
        for text in texts
        for one in _planned(flags, [*method_words(text), *rest], out / text.replace(":", "-").replace("/", "_"))
    ]
    check_comparison([one.experiment for one in planned], questions.eps)
    test = _check(planned, flags, questions)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=flags.json)
    with reaching_trainings():
        for number, one in enumerate(planned, 1):
            console.print(f"{one.path} ({number} of {len(planned)})", highlight=False, markup=False, soft_wrap=True)
            one.train(quiet=flags.json)
            _evaluate(one, flags, questions, test, console)
    _finish(planned, out, console, flags.json)


def _begun(kind: type[F], words: list[str], command: str, about: str) -> tuple[F, list[str]]:
    """The flags of a command that trains a recipe several times, and those that it hands on to `regmix train`."""
    alone(command)
    about += " The flags of `regmix train RECIPE` can be given as well; they hold for every run."
    flags, rest = parse_some(kind, words, command, about)
    recipe(flags.recipe)
    if flags.seeds < 1:
        raise UserError(f"--seeds {flags.seeds}: at least 1")
    if any(word.split("=")[0] == "--seed" for word in rest):
        raise UserError(f"{command} gives all the same seeds; say how many with --seeds")
    return flags, rest


def _planned(flags: CompareFlags | SweepFlags, settings: list[str], stem: Path) -> list[Planned]:
    """The runs of some settings, one for every seed."""
    found = []
    for seed in range(flags.seeds):
        line = [flags.recipe, *settings, "--device", flags.device, "--seed", str(seed)]
        _, chosen = meant(list(line))
        found.append(Planned(stem.with_name(f"{stem.name}-seed{seed}"), line, chosen.experiment))
    return found


def _questions(flags: CompareFlags | SweepFlags) -> Questions:
    """What is asked of every run."""
    return Questions(
        parse_attacks(flags.attacks), radii_in(flags.eps), flags.examples, verdict=flags.verdict, sample=flags.sample,
        sample_seed=flags.sample_seed,
    )  # fmt: skip


def _check(planned: list[Planned], flags: CompareFlags | SweepFlags, questions: Questions) -> Chosen:
    """The test images. Raises UserError for what would only be found out after a training."""
    for one in planned:
        one.check()
        trust = trust_in(one.experiment.model, everything=flags.trust_code)
        check_attacks(questions, one.experiment.threat, trust)
    return choose_images(planned[0].experiment.data, flags.examples, flags.sample, flags.sample_seed)


def _evaluate(
    one: Planned, flags: CompareFlags | SweepFlags, questions: Questions, test: Chosen, console: Console
) -> None:
    """Evaluates a trained run on the test images, unless that has been done."""
    trust = trust_in(one.experiment.model, everything=flags.trust_code)
    assessment = Assessment(Run.open(one.path), questions, test, trust)
    if not assessment.is_done():
        with ConsoleDisplay(console) as display:
            assessment.run([], flags.device, display)


def _finish(planned: list[Planned], out: Path, console: Console, as_json: bool) -> None:
    """Compares evaluated runs."""
    result = write_comparison([one.path for one in planned], out, console)
    if as_json:
        print(result, end="")


def sweep(words: list[str]) -> None:
    """Searches settings of a recipe by the accuracy on the validation images, and compares the best on the test."""
    flags, rest = _begun(
        SweepFlags,
        words,
        "sweep",
        "Trains a recipe with many settings, ranks them by the PGD-10 accuracy of their best weights on the "
        "validation images, evaluates the first few on the test images, and compares these. Started again it goes on "
        "where it was.",
    )
    axes = parse_space(flags.space)
    for name in ("workers", "trials", "top"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name} {getattr(flags, name)}: at least 1")
    out = flags.out or Path("runs") / f"sweep-{flags.recipe}"
    questions = _questions(flags)

    def plan(point: Point) -> list[Planned]:
        settings = [word for flag, value in point.items() for word in (f"--{flag}", value)]
        name = "_".join(f"{flag}={value}" for flag, value in point.items()).replace("/", "-")
        return _planned(flags, [*rest, *settings], out / name)

    corners = [one for point in grid([replace(axis, values=axis.ends()) for axis in axes]) for one in plan(point)]
    check_ranking([one.experiment for one in corners])
    test = _check(corners, flags, questions)
    axes = typed(axes, [one.experiment for one in corners])
    if flags.engine == "local":
        grid(axes)  # a range has no grid
    if flags.engine == "ray" and (out / "ray").exists() and not flags.trust_code:
        raise UserError(
            f"{out / 'ray'} holds the state of an earlier search, which is pickled and could run any code; allow it "
            "with --trust-code, or give another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=flags.json)
    points = search(flags.engine, axes, plan, flags.workers, flags.trials, out, console)
    best = [one for point in points[: flags.top] for one in plan(point)]
    for one in best:
        _evaluate(one, flags, questions, test, console)
    _finish(best, out, console, flags.json)
