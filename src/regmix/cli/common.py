"""Flags, checks and output that several commands share."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from regmix.config import from_json
from regmix.data import How
from regmix.runs import Run
from regmix.runtime import devices, processes
from regmix.runtime.console import LastingConsole
from regmix.shorthand import names_in
from regmix.threats import parse_eps
from regmix.types import Trust, UserError

BLACK_BOX = ("square", "hop-skip-jump")
"""Attacks that ask queries."""
MOST_QUERIES = 99_999
ModelSource = Annotated[str | None, tyro.conf.arg(name="model.source")]
"""The flag that names the code of a run's model."""
DataSource = Annotated[str | None, tyro.conf.arg(name="data.source")]
"""The flag that names the code of a run's data."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """The flags of every command that evaluates."""

    attacks: str
    eps: str | None = None
    """Perturbation radii in units of the pixel range [0, 1], separated by commas, such as 8/255,16/255. None: the
    radius of the training."""
    examples: int | None = None
    """Number of test images; every run gets the same ones. None: all."""
    sample: How = "stratified"
    """How to choose them. stratified: at random, evenly from the classes. first: the first ones of the test split (if
    its files are sorted by class, they are all of the first classes)."""
    sample_seed: int = 0
    """Seed of the stratified choice. A smaller sample is part of a larger one with the same seed."""
    device: devices.Device = "auto"
    """Device to compute on. auto: a CUDA GPU if there is one, else the CPU."""
    verdict: bool = True
    """Probe 64 images for gradient masking and say whether the accuracies can be trusted."""
    trust_code: bool = False
    """Allow the import of any code that a run names as its model, including runs that an attack transfers from."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


def radii_in(text: str | None) -> list[float]:
    """The radii in a list such as 8/255,0.1."""
    return [parse_eps(radius) for radius in text.split(",")] if text else []


def with_queries(attacks: str, queries: int | None) -> str:
    """The names of attacks, black-box ones with their number of queries. Raises UserError for a bad number."""
    if queries is None:
        return attacks
    if not 1 <= queries <= MOST_QUERIES:
        raise UserError(f"--queries {queries}: give a number from 1 to {MOST_QUERIES}")
    return ",".join(f"{name}-{queries}" if name in BLACK_BOX else name for name in names_in(attacks))


def check_queries(attacks: str, queries: int | None) -> None:
    """Raises UserError where a number of queries is given and no attack takes it."""
    if queries is not None and not any(name in BLACK_BOX for name in names_in(attacks)):
        raise UserError(f"--queries {queries} is for {' and '.join(BLACK_BOX)}; name one of them in --attacks")


def evaluate_command(directory: Run, root: Path | None = None) -> str:
    """The command that evaluates a run, with the permission that it needs.

    Args:
        root: the folder that its images are in, if they were moved.
    """
    experiment = from_json(directory.config(), trust=Trust(everything=True))  # only read, not built
    own: Any = {} if root is None else {"root": str(root)}
    if not getattr(replace(experiment.data, **own), "has_tests", True):
        root = Path("FOLDER_OF_TEST_IMAGES")
    moved = [] if root is None else ["--data.root", str(root)]
    return shlex.join(["regmix", "evaluate", str(directory.path), *moved, *experiment.code_flags])


def console_for(as_json: bool) -> Console:
    """Where progress is shown; of several processes only rank 0 prints."""
    return LastingConsole(stderr=as_json, quiet=processes.started()[0] > 0)


def in_one_process(command: str) -> None:
    """Raises UserError under torchrun."""
    if processes.started()[1] > 1:
        raise UserError(f"regmix {command} runs in one process; start it without torchrun")


def summary(directory: Run) -> dict[str, object]:
    """The result of a run's training, and all evaluations of its present weights."""
    result = asdict(directory.result())
    del result["evaluations"]
    evaluations = directory.evaluations()
    return {
        "run": str(directory.path),
        **result,
        "evaluations": [asdict(stored.evaluation) for stored in evaluations if not stored.outdated],
        "outdated": [f"{stored.folder.name}: {stored.outdated}" for stored in evaluations if stored.outdated],
    }


def print_result(directory: Run, as_json: bool, next_command: str, more: Mapping[str, object] | None = None) -> None:
    """Prints where the result is and what to do next, or the whole result as JSON; of several processes only rank 0.

    more: what to add to the JSON.
    """
    if processes.started()[0] > 0:
        return
    if as_json:
        print(json.dumps({**summary(directory), **(more or {})}, indent=2))
    else:
        print(f"{directory.path}  (next: {next_command})")
