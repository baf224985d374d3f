"""`regmix recipes`, `regmix bench` and `regmix report`."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from regmix.cli.common import alone
from regmix.cli.flags import parse, parse_some
from regmix.cli.train import meant
from regmix.recipes import RECIPES, recipe
from regmix.reports import write_report
from regmix.studies.bench import bench_line, bench_step
from regmix.studies.compare import method_words
from regmix.types import UserError


@dataclass(frozen=True)
class RecipesFlags:
    json: bool = False
    """Print the recipes as JSON."""


@dataclass(frozen=True)
class BenchFlags:
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe whose steps are timed."""
    methods: str = ""
    """Methods, separated by commas, as in regmix compare; none means the recipe's own."""
    rounds: int = 20
    """Steps to time per method, after three to warm up."""
    json: bool = False
    """Print the times as JSON."""


@dataclass(frozen=True)
class ReportFlags:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("report.html")
    """The HTML file to write."""


def recipes(words: Sequence[str]) -> None:
    """Lists the recipes."""
    flags = parse(RecipesFlags, words, "recipes", "Lists the recipes with a line each.")
    lines = {name: (make.__doc__ or "").splitlines()[0] for name, make in RECIPES.items()}
    if flags.json:
        print(json.dumps(lines, indent=2))
        return
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")


def bench(words: list[str]) -> None:
    """Times training steps."""
    alone("bench")
    kind = words.pop(0) if words and not words[0].startswith("-") else None
    about = (
        "`regmix bench step RECIPE` times training steps beside the bare passes through the network that they consist "
        "of, in turn, in one process per method. The flags of `regmix train RECIPE` can be given as well."
    )
    if (kind is None and not {"-h", "--help"} & set(words)) or kind not in (None, "step"):
        raise UserError("write: regmix bench step RECIPE")
    flags, rest = parse_some(BenchFlags, words, "bench step", about)
    recipe(flags.recipe)
    rows = {}
    names = [text.strip() for text in flags.methods.split(",")] if flags.methods else [""]
    for text in names:
        line = [flags.recipe, *(method_words(text) if text else []), *rest]
        _, chosen = meant(list(line))
        label = text or chosen.experiment.method.name
        if len(names) == 1:
            rows[label] = asdict(bench_step(chosen.experiment, flags.rounds))
        else:
            # A process of its own, so that its peak memory is its own.
            command = [
                sys.executable,
                "-P",
                "-m",
                "regmix",
                "bench",
                "step",
                *line,
                "--rounds",
                str(flags.rounds),
                "--json",
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
            if done.returncode:
                raise UserError(f"{label}: the benchmark ended with exit code {done.returncode}; see the line above")
            (rows[label],) = json.loads(done.stdout)["methods"].values()
        if not flags.json:
            print(bench_line(label, rows[label], first=len(rows) == 1), flush=True)
    if flags.json:
        print(json.dumps({"recipe": flags.recipe, "threads": torch.get_num_threads(), "methods": rows}, indent=2))


def report(words: Sequence[str]) -> None:
    """Writes the report of one or several runs."""
    flags = parse(ReportFlags, words, "report", "Writes one self-contained HTML page about one or several runs.")
    if not flags.runs:
        raise UserError("report needs at least one run directory")
    write_report(flags.runs, flags.output)
    print(flags.output)
