"""From evaluated runs to judged claims: the numbers of every side, and the tables and figures of an experiment."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from regmix.evaluation import CLEAN
from regmix.reports.comparison import cell, doubts_about
from regmix.reports.load import LoadedRun, load
from regmix.reports.reproduction import Judged, Section, Unit
from regmix.runs import Run
from regmix.runs.evaluations import Outcomes
from regmix.runs.records import Evaluation, validated
from regmix.studies.reproduce.claims import Accuracy, Arm, Claim, Flat, Gap, Mean, Measure, Reach, Side, Study, arms_of
from regmix.studies.reproduce.experiments import PASSES
from regmix.studies.reproduce.flat import Flatnesses
from regmix.studies.reproduce.runner import TRANSFER, Runner
from regmix.studies.reproduce.scales import Scale
from regmix.studies.reproduce.verdict import estimate, judge
from regmix.studies.trainings import Planned
from regmix.threats import format_eps
from regmix.types import UserError, few

Numbers = NDArray[np.float64]
ENOUGH = 0.95
"""Share of the lowest best validation accuracy that every run reaches; see `Reach`."""


class Outcome:
    """What the runs of a reproduction survive. Every run must be trained and evaluated."""

    def __init__(self, runner: Runner, flat: Flatnesses) -> None:
        self.runner, self.flat = runner, flat
        self._tables: dict[tuple[str, str, str], list[Outcomes]] = {}
        self._loaded: dict[str, list[LoadedRun]] = {}

    def values(self, side: Side) -> Numbers:
        """One row per seed and one column per test image, or a single column for a number per run."""
        if isinstance(side, Gap):
            best = Accuracy(side.arm, side.attack, side.battery)
            return self.values(best) - self.values(replace(best, checkpoint="last"))
        if isinstance(side, Mean):
            return np.asarray(np.mean([self.values(each) for each in side.sides], axis=0), dtype=np.float64)
        if isinstance(side, Reach):
            needed = np.array(self._epochs(side), dtype=np.float64)[:, None]
            return needed * (PASSES[side.arm] if side.unit == "passes" else 1)
        if isinstance(side, Flat):
            return np.array([run.numbers[side.measure] for run in self.flat[side.arm]], dtype=np.float64)
        runs = self.runner.runs[side.arm]
        survives = [self._survives(side, table, run) for table, run in zip(self._outcomes(side), runs, strict=True)]
        return np.stack(survives)

    def _survives(self, side: Accuracy, table: Outcomes, run: Planned) -> Numbers:
        radius = run.experiment.threat.eps
        if side.attack == CLEAN:
            return table.survives[CLEAN].astype(np.float64)
        rows = []
        for factor in side.eps:
            text = format_eps(radius * factor)
            names = [f"{side.attack}@{text}"]
            if side.attack == TRANSFER:
                # The table may have columns of runs of an earlier command with more seeds.
                here = [study for study in self.runner.studies if side.battery in study.batteries]
                others = {other.path.name for study in here for other in self.runner.others(study, run)}
                names = [f"{TRANSFER}:{name}@{text}" for name in sorted(others)]
            rows.append(np.logical_and.reduce([table.survives[name] for name in names]))
        return np.asarray(np.mean(rows, axis=0), dtype=np.float64)

    def _outcomes(self, side: Accuracy) -> list[Outcomes]:
        """The table of every run of an arm on a battery's images, in the order of the seeds."""
        key = side.arm, side.battery, side.checkpoint
        if key not in self._tables:
            test = self.runner.tested(side.arm, side.battery)
            found = []
            for run in self.runner.runs[side.arm]:
                tables = [
                    stored.outcomes()
                    for stored in Run.open(run.path).evaluations()
                    if not stored.outdated
                    and stored.evaluation.subject.checkpoint == side.checkpoint
                    and stored.evaluation.images == (test.sample, test.split, 1)
                ]
                if not tables:
                    raise UserError(
                        f"{run.path} has no {side.checkpoint} weights that were evaluated; if its training was stopped "
                        "early, remove the folder and give the command again"
                    )
                assert np.array_equal(tables[-1].index, test.index), "the same sample, but other images"
                found.append(tables[-1])
            self._tables[key] = found
        return self._tables[key]

    def validation(self, arm: str) -> list[list[tuple[int, float]]]:
        """Per run, (epoch, PGD accuracy on the validation images) of every validated epoch."""
        return [validated(Run.open(run.path).metrics()) for run in self.runner.runs[arm]]

    def level(self, among: Sequence[str]) -> float:
        """The validation accuracy that every run of these arms reaches; see `Reach`."""
        best = [max((value for _, value in run), default=0.0) for arm in among for run in self.validation(arm)]
        return ENOUGH * min(best)

    def _epochs(self, side: Reach) -> list[int]:
        """Per run, the first validated epoch at the level."""
        level = self.level(side.among)
        return [next(epoch for epoch, value in run if value >= level) for run in self.validation(side.arm)]

    def judged(self, claim: Claim, comparisons: int) -> Judged:
        """A claim with its numbers and its verdict."""
        first, second = self.values(claim.first), self.values(claim.second)
        measured = estimate(first, second, same_runs=arms_of(claim.first) == arms_of(claim.second))
        verdict = judge(measured, claim.threshold, comparisons)
        return Judged(
            claim.statement, described(claim.first), described(claim.second),
            unit_of(claim.first),
            float(first.mean()), float(second.mean()), measured.difference, verdict.low, verdict.high, claim.threshold,
            verdict.smallest_effect, measured.trainings.freedom if measured.trainings.size else None,
            None if first.shape[1] == 1 else first.shape[1], (len(first), len(second)), verdict.verdict, verdict.why,
            claim.cannot_show, (first - second).mean(1).tolist() if len(first) == len(second) else [],
        )  # fmt: skip

    def table(self, study: Study) -> list[list[str]]:
        """Mean ± deviation over seeds, a row per arm: accuracies in per cent by attack and checkpoint, or flatness."""
        if study.measures == "flatness":
            return self._flat_table(study)
        columns: dict[str, Accuracy] = {}
        for name in study.batteries:
            battery = self.runner.scale.batteries[name]
            attacks = battery.attacks.split(",")
            for attack, eps in ((attack, eps) for attack in attacks for eps in battery.eps):
                if attack == CLEAN and eps != battery.eps[0]:
                    continue
                for checkpoint in battery.checkpoints if attack == attacks[-1] else battery.checkpoints[:1]:
                    side = Accuracy("", attack, name, (eps,), checkpoint)
                    columns.setdefault(described(side).removeprefix(", "), side)
        if not columns or not study.arms:
            return []
        counts = [self.runner.tested(study.arms[0].name, side.battery).sample.count for side in columns.values()]
        of_each = [f", {count:,} images" if len({*counts}) > 1 else "" for count in counts]
        rows = [["arm", *map("".join, zip(columns, of_each, strict=True))]]
        for arm in study.arms:
            cells = [cell(self.values(replace(side, arm=arm.name)).mean(1).tolist()) for side in columns.values()]
            rows.append([arm.name, *cells])
        return rows

    def _flat_table(self, study: Study) -> list[list[str]]:
        names = get_args(Measure)
        rows = [["arm", *names, "not converged"]]
        for arm in study.arms:
            means = [[float(np.mean(run.numbers[name])) for run in self.flat[arm.name]] for name in names]
            deviations = [f" ± {np.std(values, ddof=1):.1g}" if len(values) > 1 else "" for values in means]
            cells = [f"{np.mean(values):.3g}{after}" for values, after in zip(means, deviations, strict=True)]
            rows.append([arm.name, *cells, str(sum(run.not_converged for run in self.flat[arm.name]))])
        return rows

    def _runs(self, arm: str) -> list[LoadedRun]:
        if arm not in self._loaded:
            self._loaded[arm] = [load(run.path) for run in self.runner.runs[arm] if run.path.exists()]
        return self._loaded[arm]

    def doubts(self, arm: str) -> list[str]:
        """Reasons to doubt single runs of an arm."""
        return [text for run in self._runs(arm) for text in _doubts(run)]

    def _unlike(self, study: Study) -> list[str]:
        """Ways in which the runs of an experiment differ that no setting tells."""
        made = {run.path.name: run for arm in study.arms for run in self._runs(arm.name)}
        lines = []
        for what in ("precision", "torch", "git_commit"):
            values = {name: {str(getattr(run.environment, what))} for name, run in made.items()}
            lines += _differing(f"The trainings differ in {what.replace('_', ' ')}", values)
        code = {
            name: {column.package for each in run.stored for column in each.evaluation.columns.values()}
            for name, run in made.items()
        }
        lines += _differing("The evaluations are by different states of the code of regmix", code)
        flat = {
            run.path.name: {one.package}
            for arm in study.arms if study.measures == "flatness"
            for run, one in zip(self.runner.runs[arm.name], self.flat[arm.name], strict=True)
        }  # fmt: skip
        return lines + _differing("Flatness was measured by different states of the code of regmix", flat)

    def section(self, study: Study, command: str) -> Section:
        """The record of an experiment."""
        seeds = len(next(iter(self.runner.runs.values())))
        arms = [described_arm(arm, self.runner.scale) for arm in study.arms]
        over = f"seeds 0 to {seeds - 1}" if seeds > 1 else "seed 0"
        trained = study.measures != "steps"
        what = f"{len(arms)} methods, {over}" if trained else f"Training steps of {len(arms)} methods"
        ran = f"{what}: {'; '.join(arms)}."
        first_of = {arm.data: arm.name for arm in reversed(study.arms)}
        tests = [
            f"{name}{f' ({data})' if data else ''}: {self.runner.tested(arm, name).sample.text()}"
            for name in study.batteries
            for data, arm in reversed(first_of.items())
        ]
        notes = [f"Test images: {'; '.join(tests)}."] if tests else []
        if study.measures == "flatness":
            notes.append(
                f"Flatness is measured around {self.runner.scale.flat} test images, the same for every run. An "
                "eigenvalue that has not converged is a lower bound."
            )
        levels = {claim.first.among for claim in study.claims if isinstance(claim.first, Reach)}
        for among in levels:
            notes.append(f"The accuracy to reach was {100 * self.level(among):.1f} % on the validation images.")
        doubts = [text for arm in study.arms for text in self.doubts(arm.name)]
        return Section(
            study.name, study.title, study.question, ran, study.cannot_show, command,
            [self.judged(claim, study.comparisons) for claim in study.claims], self.table(study), notes,
            [*study.failed, *study.lost, *self._unlike(study), *doubts],
        )  # fmt: skip


def _differing(what: str, values: Mapping[str, Collection[str]]) -> list[str]:
    """A line if runs have different values, each with the runs that have it; the values of a run by its name."""
    by_value: dict[str, list[str]] = {}
    for name, own in values.items():
        for value in sorted(own):
            by_value.setdefault(value or "not recorded", []).append(name)
    groups = "; ".join(f"{value}: {few('', names)}" for value, names in by_value.items())
    return [f"{what} ({groups})."] if len(by_value) > 1 else []


def _doubts(run: LoadedRun) -> list[str]:
    """Reasons to doubt a run, from its evaluations on all images."""
    sets: dict[object, dict[str, Evaluation]] = {}
    for stored in run.stored:
        sets.setdefault(stored.evaluation.images, {})[stored.evaluation.subject.checkpoint] = stored.evaluation
    shown = [replace(run, evaluations=evaluations) for evaluations in sets.values()] or [run]
    return [*dict.fromkeys(text for each in shown for text in doubts_about(each, run.path.name))]


def described_arm(arm: Arm, scale: Scale) -> str:
    """An arm with its flags, and its recipe if that is not the scale's."""
    more = ", ".join(filter(None, [scale.recipes.get(arm.data or arm.name), arm.flags]))
    return f"{arm.name} ({more})" if more else arm.name


def unit_of(side: Side) -> Unit:
    """The unit of a side's numbers."""
    if isinstance(side, Reach):
        return side.unit
    return "loss" if isinstance(side, Flat) else "accuracy"


def described(side: Side) -> str:
    """A side in words."""
    if isinstance(side, Flat):
        return f"{side.arm}, {side.measure}"
    if isinstance(side, Reach):
        return f"{side.arm}, {side.unit}"
    if isinstance(side, Mean):
        what = described(replace(side.sides[0], arm="")).removeprefix(", ")
        return f"mean of {' '.join(arms_of(side))}, {what}"
    if isinstance(side, Gap):
        return f"{side.arm}, {side.attack}, best minus last"
    radius = "" if side.eps == (1.0,) or side.attack == CLEAN else (
        f" at {side.eps[0]:g} eps" if len(side.eps) == 1 else f", mean over {len(side.eps)} radii"
    )  # fmt: skip
    return f"{side.arm}, {side.attack}{radius}, {side.checkpoint}"
