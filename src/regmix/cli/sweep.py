"""`regmix sweep`."""

from dataclasses import dataclass, replace
from pathlib import Path

from regmix.cli.common import console_for
from regmix.cli.many_runs import Evaluations, ManyRunsFlags, check_distinct, compare_runs, parse_many, plan_runs
from regmix.reports.place import check_places
from regmix.studies.compare import OUTPUTS, check_ranking
from regmix.studies.sweep import Budget, Engine, Point, grid, parse_space, search, typed, write_page
from regmix.studies.trainings import Planned, say
from regmix.training.found import ignored_weights
from regmix.types import UserError


@dataclass(frozen=True, kw_only=True)
class SweepFlags(ManyRunsFlags):
    space: str
    """Settings to try, separated by spaces: FLAG=VALUE,VALUE,... with a flag of regmix train, such as
    method.alpha=25,50,100; or a range of numbers, FLAG=LOW..HIGH or FLAG=log:LOW..HIGH. Settings that change how points
    are ranked cannot be searched: data, validation images, validation interval, threat model, precision."""
    engine: Engine = "local"
    """How to search. local: the whole grid. optuna: Optuna's TPE sampler. ray: the grid, or random points of ranges, on
    a Ray cluster."""
    workers: int = 1
    """Trainings at the same time."""
    trials: int = 20
    """Number of points to try with optuna, or where a range has no grid."""
    seeds: int = 1
    """Number of seeds per point: 0, 1, ..."""
    prune: bool = False
    """Stop trainings that do worse than the median of the others at the same epoch (with optuna; the first five points
    are trained in full)."""
    top: int = 3
    """Number of points, the best on the validation images, to evaluate on the test images and compare."""
    out: Path | None = None
    """Folder of the runs, sweep.html, sweep.json, comparison.json and report.html. None: runs/sweep-RECIPE."""
    trust_code: bool = False
    """Allow the import of any code that a run names as its model, including runs that an attack transfers from, and the
    reading of the pickled state of an earlier search by ray."""


def sweep(words: list[str]) -> None:
    """Searches settings of a recipe by accuracy on the validation images, and compares the best on the test images."""
    flags, rest = parse_many(SweepFlags, words, "sweep")
    axes = parse_space(flags.space)
    for name in ("workers", "trials", "top"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name} {getattr(flags, name)}: it must be at least 1")
    out = flags.out or Path("runs") / f"sweep-{flags.recipe}"
    check_places([out / name for name in (*OUTPUTS, "sweep.json", "sweep.html")])

    def plan(point: Point) -> list[Planned]:
        settings = [word for flag, value in point.items() for word in (f"--{flag}", value)]
        name = "_".join(f"{flag}={value}" for flag, value in point.items()).replace("/", "-")
        return plan_runs(flags, [*rest, *settings], out / name)

    corners = [run for point in grid([replace(axis, values=axis.ends()) for axis in axes]) for run in plan(point)]
    check_ranking([run.experiment for run in corners])
    for axis in axes:
        if any(axis.flag in ignored_weights(run.experiment.method) for run in corners):
            weights = f"--{axis.flag.rpartition('.')[0]}.weights"
            raise UserError(f"--space: {axis.flag} has no effect with {weights} auto; add {weights} given")
    evaluations = Evaluations(corners, flags)
    axes = typed(axes, [run.experiment for run in corners])
    if flags.engine == "local":
        grid(axes)  # raises if an axis is a range
    for axis in axes if not any(axis.is_range for axis in axes) else ():
        # Two points are the same if two values of an axis are, whatever the others.
        alone = [other if other is axis else replace(other, values=other.values[:1]) for other in axes]
        check_distinct([plan(point)[0] for point in grid(alone)])
    if flags.engine == "ray" and (out / "ray").exists() and not flags.trust_code:
        raise UserError(
            f"{out / 'ray'} holds the state of an earlier search, which is pickled and could run any code; allow it "
            "with --trust-code, or give another --out"
        )
    if flags.prune and flags.engine != "optuna":
        raise UserError("--prune needs --engine optuna")
    out.mkdir(parents=True, exist_ok=True)
    console = console_for(flags.json)
    tried = search(
        flags.engine, axes, plan, Budget(flags.workers, flags.trials, flags.seeds, flags.prune), out, console
    )
    best = [each for each in tried if each.values][: flags.top]
    runs = [run for each in best for run in each.runs]
    for run in runs:
        evaluations.evaluate(run, console)
    compare_runs(runs, evaluations, out, console, flags.json)
    write_page(flags.recipe, tried, best, out)
    say(console, f"{out / 'sweep.html'}")
