"""`regmix bench step`."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import tyro

from regmix.cli.common import in_one_process
from regmix.cli.flags import parse_some
from regmix.cli.train import parse_training
from regmix.recipes import recipe
from regmix.shorthand import names_in
from regmix.studies.bench import bench_line, bench_step, step_in_own_process
from regmix.studies.compare import method_words


@dataclass(frozen=True)
class BenchFlags:
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe whose steps are timed."""
    methods: str = ""
    """Methods to time, separated by commas, written as in regmix compare. Without it: the recipe's own method."""
    rounds: int = 20
    """Steps to time per method, after three steps of warm-up."""
    json: bool = False
    """Print the times as JSON."""


def bench(words: list[str]) -> None:
    """Measures the time and the memory of training steps."""
    in_one_process("bench")
    flags, rest = parse_some(BenchFlags, words[1:], "bench")  # after the word `step`
    recipe(flags.recipe)
    methods = names_in(flags.methods) or [""]
    rows: dict[str, Any] = {}
    for method in methods:
        line = [flags.recipe, *(method_words(method) if method else []), *rest]
        experiment = parse_training(list(line))[1].experiment
        label = method or experiment.method.name
        if len(methods) == 1:
            rows[label] = asdict(bench_step(experiment, flags.rounds))
        else:
            timed = step_in_own_process(label, [*line, "--rounds", str(flags.rounds)])
            (rows[label],) = json.loads(timed)["methods"].values()
        if not flags.json:
            print(bench_line(label, rows[label], first=len(rows) == 1), flush=True)
    if flags.json:
        print(json.dumps({"recipe": flags.recipe, "threads": torch.get_num_threads(), "methods": rows}, indent=2))
