"""What `regmix compare` and `regmix sweep` share: flags, planned runs, their evaluation and the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from rich.console import Console

from regmix.attacks import parse_attacks
from regmix.cli.common import EvaluationFlags, in_one_process, radii_in
from regmix.cli.flags import parse_some
from regmix.cli.train import parse_training
from regmix.config import to_json
from regmix.evaluation.assessment import Assessment, missing
from regmix.evaluation.questions import Questions, check_attacks
from regmix.evaluation.subject import EvaluationImages, choose_images, with_leaks
from regmix.jobs.console import ConsoleDisplay
from regmix.recipes import recipe
from regmix.runs import Run
from regmix.runs.records import Images
from regmix.studies.compare import write_comparison
from regmix.studies.trainings import Planned
from regmix.types import UserError


@dataclass(frozen=True, kw_only=True)
class ManyRunsFlags(EvaluationFlags):
    """The flags of a command that trains a recipe several times."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe to train."""
    attacks: str = "clean,pgd-50"
    """Attacks of the evaluation, separated by commas; `regmix evaluate --help` lists them."""
    seeds: int


F = TypeVar("F", bound=ManyRunsFlags)


def parse_many(kind: type[F], words: list[str], command: str) -> tuple[F, list[str]]:
    """The flags of a command that trains a recipe several times, and those that it hands on to `regmix train`."""
    in_one_process(command)
    flags, rest = parse_some(kind, words, command)
    recipe(flags.recipe)
    if flags.seeds < 1:
        raise UserError(f"--seeds {flags.seeds}: it must be at least 1")
    if any(word.split("=")[0] == "--seed" for word in rest):
        raise UserError(f"{command} trains every setting with the same seeds; set their number with --seeds")
    return flags, rest


def plan_runs(flags: ManyRunsFlags, settings: Sequence[str], stem: Path) -> list[Planned]:
    """The runs of some settings, one for every seed."""
    planned = []
    for seed in range(flags.seeds):
        line = [flags.recipe, *settings, "--device", flags.device, "--seed", str(seed)]
        _, chosen = parse_training(list(line))
        planned.append(Planned(stem.with_name(f"{stem.name}-seed{seed}"), line, chosen.experiment))
    return planned


def check_distinct(planned: Sequence[Planned]) -> None:
    """Raises UserError if two runs have the same settings: they would count as two trainings."""
    known: dict[str, Planned] = {}
    for run in planned:
        other = known.setdefault(to_json(run.experiment), run)
        if other is not run:
            raise UserError(f"{other.path.name} and {run.path.name} have the same settings; leave one of them out")


class Evaluations:
    """The evaluations of planned runs, all on the same test images."""

    def __init__(self, planned: Sequence[Planned], flags: ManyRunsFlags) -> None:
        """Raises UserError for what would otherwise fail only after a training."""
        self._flags = flags
        self._questions = Questions(
            parse_attacks(flags.attacks), radii_in(flags.eps), flags.examples, verdict=flags.verdict,
            sample=flags.sample, sample_seed=flags.sample_seed,
        )  # fmt: skip
        for run in planned:
            run.check()
            check_attacks(
                self._questions, run.experiment.threat, run.experiment.trust(everything=self._flags.trust_code)
            )
        self._test: EvaluationImages = choose_images(
            planned[0].experiment.data, flags.examples, flags.sample, flags.sample_seed
        )

    @property
    def images(self) -> Images:
        """The test images, as records of evaluations name them."""
        return self._test.sample, self._test.split, self._questions.draws

    def evaluate(self, run: Planned, console: Console) -> None:
        """Evaluates a trained run, unless that has been done."""
        record, trust = Run.open(run.path), run.experiment.trust(everything=self._flags.trust_code)
        if not (left := missing(record, self._questions, self._test)):
            return
        test = with_leaks(self._test, record, run.experiment.data, run.experiment.data)
        for questions in left:
            with ConsoleDisplay(console) as display:
                Assessment(record, questions, test, trust).run([], self._flags.device, display)


def compare_runs(
    planned: Sequence[Planned], evaluations: Evaluations, out: Path, console: Console, as_json: bool
) -> None:
    """Compares evaluated runs and prints the result."""
    result = write_comparison([run.path for run in planned], evaluations.images, out, console)
    if as_json:
        print(result, end="")
