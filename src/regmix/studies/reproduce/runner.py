"""Trains and evaluates what the chosen experiments need; every run once, whatever experiments share it."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from regmix.attacks import parse_attacks
from regmix.config import to_json
from regmix.data import DataConfig
from regmix.evaluation.assessment import Assessment, missing
from regmix.evaluation.questions import Questions, check_attacks
from regmix.evaluation.subject import EvaluationImages, choose_images, package_digest, with_leaks
from regmix.evaluation.task import Progress
from regmix.reports.words import duration
from regmix.runs import Run
from regmix.runs.alike import told_apart
from regmix.runs.environment import environment
from regmix.runs.records import Data, Environment, Result
from regmix.runtime.devices import Device, chosen
from regmix.runtime.files import write_text
from regmix.studies.bench import step_in_own_process
from regmix.studies.reproduce.claims import Arm, Battery, Study
from regmix.studies.reproduce.scales import Scale
from regmix.studies.trainings import Planned, reaching_trainings, say, train_all
from regmix.types import UserError

TRANSFER = "transfer"


class Runner:
    """The runs of some experiments: their plan, their trainings and their evaluations."""

    def __init__(
        self, scale: Scale, studies: Sequence[Study], seeds: int, out: Path, plan: Callable[[Arm, int], Planned]
    ) -> None:
        """Raises UserError if a folder holds a run with other settings, or an attack does not fit the threat.

        Args:
            plan: the run of an arm with a seed, in the folder OUT/runs/NAME-seedN.
        """
        self.scale, self.studies, self.out = scale, [*studies], out
        self.failed: dict[str, str] = {}
        """Arms of which a training failed, with the reason."""
        self.arms: dict[str, Arm] = {}
        for study in studies:
            for arm in study.arms:
                assert self.arms.setdefault(arm.name, arm) == arm, f"two arms are called {arm.name}"
        self.runs = {arm.name: [plan(arm, seed) for seed in range(seeds)] for arm in self.arms.values()}
        settings: dict[str, str] = {}
        for name, (first, *_) in self.runs.items():
            same = settings.setdefault(to_json(first.experiment), name)
            if same != name:
                raise UserError(f"{name} and {same} have the same settings; leave out the flags that make them equal")
        for run in self.trained:
            run.check()
        self.check_seeds()
        for study in studies:
            for name in study.batteries:
                for arm in study.arms:
                    check_attacks(self._asked(scale.batteries[name]), self.runs[arm.name][0].experiment.threat)

    @property
    def trained(self) -> list[Planned]:
        """The runs that have to be trained, those of the first seed first. Times alone need no training."""
        needed = dict.fromkeys(arm.name for study in self.studies if study.measures != "steps" for arm in study.arms)
        by_arm = [self.runs[name] for name in needed]
        return [run for of_seed in zip(*by_arm, strict=True) for run in of_seed]

    def left(self) -> list[Planned]:
        """The runs whose training is not finished."""
        return [run for run in self.trained if not run.is_finished]

    def check_seeds(self) -> None:
        """Raises UserError for a run that is no seed of its arm, although its settings are the arm's."""
        for runs in self.runs.values():
            records = [Run.open(run.path) for run in runs if run.is_finished]
            trained = [_Training(each.path, each.data(), each.environment(), each.result()) for each in records]
            for one in trained:
                why = told_apart(trained[0], one)
                if why is None and one.result.lengthened:
                    why = "it was lengthened, so its learning rates are not those of its settings"
                if why is not None:
                    others = f"no further seed of {trained[0].path}" if one is not trained[0] else "no seed of its arm"
                    raise UserError(f"{one.path} is {others}: {why}; remove that folder, and give the command again")

    def train(self, workers: int, console: Console) -> None:
        """Trains what is not trained, `workers` at a time; the output of each training is in a log beside its run.

        An arm with a training that fails is taken out of the experiments, and its claims have no verdict.
        """
        for study in self.studies:
            for name in study.batteries:
                for arm in study.arms:
                    self.tested(arm.name, name)  # raises UserError for missing images before anything is trained
            if study.measures == "flatness":
                self.images(study.arms[0].name, self.scale.flat)
        left = self.left()
        console.print(f"{len(self.trained)} trainings, {len(self.trained) - len(left)} of them finished before")
        with reaching_trainings():
            failures = train_all(left, workers, console)
        for name, runs in self.runs.items():
            if (first := next((run.path for run in runs if run.path in failures), None)) is not None:
                self.failed[name] = str(failures[first])
        if failures and len(self.failed) == len({run.path.name.rpartition("-seed")[0] for run in self.trained}):
            raise next(iter(failures.values()))
        self.studies = [study.without(self.failed) for study in self.studies]
        self.check_seeds()  # a run that was continued elsewhere may be in another precision

    def evaluate(
        self, study: Study, device: Device, console: Console, display: Callable[[], AbstractContextManager[Progress]]
    ) -> None:
        """Attacks what has not been attacked of an experiment: every arm with the experiment's batteries."""
        todo = [(arm.name, name, run) for name in study.batteries for arm in study.arms for run in self.runs[arm.name]]
        began, worked = time.monotonic(), 0
        for number, (arm, name, run) in enumerate(todo, 1):
            battery = self.scale.batteries[name]
            questions, test = self.asked(study, name, run), self.tested(arm, name)
            record = Run.open(run.path)
            weights = record.checkpoints()
            there = weights or {stored.evaluation.subject.checkpoint for stored in record.evaluations()}
            checkpoints = [each for each in battery.checkpoints if each in there]
            left = missing(record, questions, test, checkpoints) if checkpoints or weights else [questions]
            if not left:
                continue
            if not weights:
                raise UserError(
                    f"{run.path} was not evaluated for {name}, and its weights were removed; remove the folder, and "
                    "give the command again"
                )
            test = with_leaks(test, record, run.experiment.data, run.experiment.data)
            for asked in left:
                with display() as progress:
                    Assessment(record, asked, test, run.experiment.trust()).run(checkpoints, device, progress)
            worked += 1
            rest = (time.monotonic() - began) / worked * (len(todo) - number)
            say(
                console,
                f"evaluated {run.path.name}, {name} ({number} of {len(todo)} of {study.name}, at most "
                f"{duration(rest)} left)",
            )

    def time_steps(self, study: Study, device: Device, console: Console) -> dict[str, dict[str, object]]:
        """The times of a training step by arm, for an experiment without trainings; kept in OUT/cost.

        They are measured once per setting, machine and state of the package: others need other times.
        """
        rows: dict[str, dict[str, object]] = {}
        arms = study.arms if study.measures == "steps" else ()
        where = _machine(device) if arms else {}
        for arm in arms:
            file, run = self.out / "cost" / f"{arm.name}.json", self.runs[arm.name][0]
            experiment = json.loads(to_json(run.experiment))
            settings = {"experiment": experiment, "rounds": self.scale.rounds, "where": where}
            known = json.loads(file.read_text()) if file.exists() else {}
            if known.get("settings") != settings:
                file.parent.mkdir(parents=True, exist_ok=True)
                text = step_in_own_process(run.path.name, [*run.words, "--rounds", str(self.scale.rounds)])
                known = {"settings": settings, **json.loads(text)}
                write_text(file, json.dumps(known))
                say(console, f"timed {arm.name}")
            (rows[arm.name],) = known["methods"].values()
        return rows

    def asked(self, study: Study, battery: str, run: Planned) -> Questions:
        """What a run is asked; transfer attacks come from all other runs of the experiment."""
        chosen = self.scale.batteries[battery]
        sources = ",".join(f"{TRANSFER}:{other.path}" for other in self.others(study, run))
        return self._asked(chosen, sources, run.experiment.threat.eps)

    def others(self, study: Study, run: Planned) -> list[Planned]:
        """All other runs of an experiment."""
        return [other for arm in study.arms for other in self.runs[arm.name] if other.path != run.path]

    def _asked(self, battery: Battery, sources: str = "", eps: float = 1e-3) -> Questions:
        names = battery.attacks.split(",")
        words = [sources if name == TRANSFER else name for name in names]
        return Questions(
            parse_attacks(",".join(filter(None, words))), [eps * factor for factor in battery.eps],
            battery.examples, verdict=battery.probe,
        )  # fmt: skip

    def tested(self, arm: str, battery: str) -> EvaluationImages:
        """The test images on which an arm meets a battery."""
        return self.images(arm, self.scale.batteries[battery].examples)

    def images(self, arm: str, count: int | None) -> EvaluationImages:
        """Test images of an arm, the same for all arms with its data: `count`, or all if there are fewer."""
        source = self.runs[arm][0].experiment.data
        everything = _images(source, None)
        return everything if count is None or count >= len(everything.images) else _images(source, count)


@cache
def _images(source: DataConfig, count: int | None) -> EvaluationImages:
    return choose_images(source, count)


def _machine(device: Device) -> dict[str, object]:
    """What a time depends on besides the settings: the machine, and the state of torch and of this package."""
    found = asdict(environment(torch.device(chosen(device)), "32", "cost"))
    facts = {name: found[name] for name in ("python", "torch", "platform", "device", "threads")}
    return facts | {"machine": platform.node(), "code": package_digest("training")}


class _Training(NamedTuple):
    path: Path
    data: Data | None
    environment: Environment
    result: Result
