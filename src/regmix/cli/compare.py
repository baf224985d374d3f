"""`regmix compare`."""

from dataclasses import dataclass
from pathlib import Path

from regmix.cli.common import console_for, radii_in
from regmix.cli.many_runs import Evaluations, ManyRunsFlags, check_distinct, compare_runs, parse_many, plan_runs
from regmix.reports.place import check_places
from regmix.shorthand import names_in
from regmix.studies.compare import OUTPUTS, check_comparison, method_words, overridden
from regmix.studies.trainings import Planned, reaching_trainings, train_all
from regmix.types import UserError


@dataclass(frozen=True, kw_only=True)
class CompareFlags(ManyRunsFlags):
    methods: str = "regmix,pgd_at:steps=2"
    """Methods to compare, separated by commas. Settings follow after colons: pgd_at:steps=2 sets --method.steps 2. A
    name that is no setting of the method sets another flag of regmix train: fgsm_pgk:averaging=gated_ema."""
    seeds: int = 3
    """Number of seeds per method: 0, 1, ..."""
    workers: int = 1
    """Trainings at the same time. On a CPU one per core is faster than one training on several cores, but the training
    times are then those of trainings that share the machine."""
    out: Path | None = None
    """Folder of the runs, comparison.json and report.html. None: runs/compare-RECIPE."""


def compare(words: list[str]) -> None:
    """Trains methods under one recipe with several seeds, evaluates them on the same images, and compares them."""
    flags, rest = parse_many(CompareFlags, words, "compare")
    if any(word.partition("=")[0] == "--method" for word in rest):
        raise UserError("--method: compare has several; name them with --methods")
    methods = names_in(flags.methods)
    if not methods:
        raise UserError("--methods names no method; give some, such as regmix,pgd_at:steps=2")
    if len(set(methods)) < len(methods):
        raise UserError(f"--methods {flags.methods}: a method is listed twice; list it once")
    if flags.workers < 1:
        raise UserError(f"--workers {flags.workers}: it must be at least 1")
    out = flags.out or Path("runs") / f"compare-{flags.recipe}"
    planned, wrong = list[Planned](), dict[str, UserError]()
    for method, settings in {method: method_words(method) for method in methods}.items():
        try:
            planned += plan_runs(flags, overridden(rest, settings), out / method.replace(":", "-").replace("/", "_"))
        except UserError as error:
            wrong[method] = error
    if wrong:
        method, first = next(iter(wrong.items()))
        if len(wrong) == len(methods) and len({*map(str, wrong.values())}) == 1:
            raise first
        lacks = "unknown flag '--method." in str(first)
        hint = "; write a setting of one method after its name: --methods NAME:FIELD=VALUE" if lacks else ""
        raise UserError(f"for the method {method}: {first}{hint}") from first
    check_places([out / name for name in OUTPUTS])
    check_distinct(planned)
    check_comparison([run.experiment for run in planned], radii_in(flags.eps))
    evaluations = Evaluations(planned, flags)
    out.mkdir(parents=True, exist_ok=True)
    console = console_for(flags.json)
    with reaching_trainings():
        if flags.workers > 1:
            failed = train_all([run for run in planned if not run.is_finished], flags.workers, console)
            if failed:
                raise next(iter(failed.values()))
        for number, run in enumerate(planned, 1):
            console.print(f"{run.path} ({number} of {len(planned)})", highlight=False, markup=False, soft_wrap=True)
            run.train(quiet=flags.json)
            evaluations.evaluate(run, console)
    compare_runs(planned, evaluations, out, console, flags.json)
