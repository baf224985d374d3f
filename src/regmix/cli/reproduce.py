"""`regmix reproduce`."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from rich.console import Console

from regmix.cli.common import console_for, in_one_process
from regmix.cli.flags import parse_some
from regmix.cli.train import parse_training
from regmix.config import UNIONS, Experiment
from regmix.jobs.console import ConsoleDisplay
from regmix.reports.place import check_places
from regmix.runtime import devices
from regmix.runtime.console import LastingConsole
from regmix.shorthand import names_in, with_settings
from regmix.studies.reproduce import (
    CLAIMS,
    NAMES,
    ON_OTHER_DATA,
    PAGE,
    SCALES,
    STUDIES,
    Arm,
    Measured,
    Runner,
    Scale,
    ScaleName,
    Study,
    measure,
    write,
)
from regmix.studies.trainings import Planned, say
from regmix.types import UserError, few, known


@dataclass(frozen=True)
class ReproduceFlags:
    scale: ScaleName = "digits"
    """Size of the experiments. digits: minutes on any machine. cpu: CIFAR-10 on a CPU, days. paper: the paper's recipe,
    for a GPU."""
    seeds: int | None = None
    """Number of seeds per method: 0, 1, ... With fewer than three every claim is undecided. None: that of the scale."""
    out: Path | None = None
    """Folder of the runs, claims.json and reproduce.html. None: runs/reproduce-SCALE."""
    list: bool = False
    """Only print the experiments and what is left to train."""
    other_data: str = ""
    """Other data sets, for the experiments auto and data, separated by commas and written as KIND:FIELD=VALUE, such as
    cifar100:root=data/cifar100,folder:root=photos:size=32."""
    workers: int | None = None
    """Trainings at the same time. None: on a CPU one per core, at most 4, which is faster than one training on several
    cores; on a GPU 1."""
    device: devices.Device = "auto"
    """Device to compute on. auto: a CUDA GPU if there is one, else the CPU."""


def reproduce(words: list[str]) -> None:
    """Runs experiments of the paper and gives a computed verdict on every claim."""
    in_one_process("reproduce")
    first_flag = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    names, words = words[:first_flag], words[first_flag:]
    flags, rest = parse_some(ReproduceFlags, words, "reproduce")
    _check(names, flags, rest)
    scale, out = SCALES[flags.scale], flags.out or Path("runs") / f"reproduce-{flags.scale}"
    seeds = scale.seeds if flags.seeds is None else flags.seeds
    texts = names_in(flags.other_data)
    others = dict(map(_other, texts))
    if len(others) < len(texts):
        raise UserError(f"--other-data {flags.other_data}: a kind is listed twice; give one command for each")
    training = [*scale.flags.split(), *rest]

    def line(arm: Arm) -> list[str]:
        recipe = scale.recipes.get(arm.data or arm.name, scale.recipe)
        return [recipe, *training, *others.get(arm.data, []), *arm.flags.split(), "--device", flags.device]

    @cache
    def experiment(arm: Arm) -> Experiment:
        return parse_training(line(arm))[1].experiment

    def plan(arm: Arm, seed: int) -> Planned:
        folder = out / "runs" / f"{arm.name}-seed{seed}"
        return Planned(folder, [*line(arm), "--seed", str(seed)], replace(experiment(arm), seed=seed))

    console = console_for(False)
    chosen = _studies(names or ["all"], scale, experiment(Arm("regmix")), [*others])
    runner = Runner(scale, chosen, seeds, out, plan)
    if flags.list:
        _list(runner, console)
        return
    check_places([out / CLAIMS, out / PAGE])
    on_cpu = flags.device == "cpu" or (flags.device == "auto" and not torch.cuda.is_available())
    runner.train(flags.workers or (min(4, os.cpu_count() or 1) if on_cpu else 1), console)
    command = shlex.join(["regmix", "reproduce", *(names or ["all"]), *words])
    result, flat, times = None, dict[str, list[Measured]](), dict[str, dict[str, object]]()
    for number, study in enumerate(runner.studies, 1):
        runner.evaluate(
            study, flags.device, console, lambda: ConsoleDisplay(LastingConsole(quiet=not console.is_terminal))
        )
        flat |= measure(runner, study, flags.device, lambda text: say(console, text))
        times |= runner.time_steps(study, flags.device, console)
        # Written after every experiment, because the next may take hours.
        result = write(runner, runner.studies[:number], flat, times, command)
    assert result is not None, "at least one experiment"
    for section in result.sections:
        for claim in section.claims:
            say(console, f"{section.name}: {claim.verdict}: {claim.statement} {claim.numbers()}")
    say(console, f"{out / 'claims.json'}\n{out / 'reproduce.html'}")
    if runner.failed:
        lost = sum(len(study.lost) for study in runner.studies)
        reason = next(iter(runner.failed.values()))
        raise UserError(f"{few('', [*runner.failed])} failed, and {lost} claims have no verdict; {reason}")


def _check(names: Sequence[str], flags: ReproduceFlags, rest: Sequence[str]) -> None:
    for name in names:
        known(name, ("all", *NAMES), "experiment", see="regmix reproduce --help")
    for name in ("seeds", "workers"):
        if (count := getattr(flags, name)) is not None and count < 1:
            raise UserError(f"--{name} {count}: it must be at least 1")
    for word in rest:
        if word.split("=")[0].split(".")[0] in ("--method", "--averaging", "--seed"):
            raise UserError(f"reproduce sets {word.split('=')[0]} itself; leave it out")


def _other(text: str) -> tuple[str, list[str]]:
    """A name for other images, and the flags of `regmix train` that choose them."""
    kind, settings = with_settings(text, "--other-data")
    words = ["--data", known(kind, UNIONS["data"], "data")]
    for field, value in settings.items():
        words += [f"--data.{field.replace('_', '-')}", value]
    return kind, words


def _studies(wanted: Sequence[str], scale: Scale, base: Experiment, others: Sequence[str]) -> list[Study]:
    """The experiments that were asked for, in their order; with all, those that can be run."""
    if missing := [name for name in wanted if name in ON_OTHER_DATA and not others]:
        raise UserError(f"{missing[0]} needs images other than the scale's; give them with --other-data")
    names = [name for name in NAMES if "all" in wanted or name in wanted]
    return [
        STUDIES[name](scale, base) if name in STUDIES else ON_OTHER_DATA[name](scale, base, others)
        for name in names
        if name in STUDIES or others
    ]


def _list(runner: Runner, console: Console) -> None:
    left = {run.path.name for run in runner.left()}
    for study in runner.studies:
        arms = study.arms if study.measures != "steps" else ()
        runs = [run.path.name for arm in arms for run in runner.runs[arm.name]]
        todo = len(left.intersection(runs))
        text = f"{study.name:<12} {len(study.claims):>3} claims, {todo} of {len(runs)} trainings left. {study.question}"
        say(console, text)
    missing = [name for name in ON_OTHER_DATA if name not in {study.name for study in runner.studies}]
    console.print(f"{len(left)} of {len(runner.trained)} trainings left in all; runs are shared", highlight=False)
    if missing:
        console.print(
            f"{' and '.join(missing)} {'needs' if len(missing) == 1 else 'need'} --other-data", highlight=False
        )
