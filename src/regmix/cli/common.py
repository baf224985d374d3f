"""What several commands do with their flags and results."""

import json
import shlex
from dataclasses import asdict
from typing import Annotated

import tyro
from rich.console import Console

from regmix.config import from_json
from regmix.models import Function, ModelConfig
from regmix.runs import Run
from regmix.runtime import processes
from regmix.threats import parse_eps
from regmix.types import Trust, UserError

ModelSource = Annotated[str | None, tyro.conf.arg(name="model.source")]
"""The flag that names the code of a run's model."""


def radii_in(text: str | None) -> list[float]:
    return [parse_eps(one) for one in text.split(",")] if text else []


def names_in(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def severities_in(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise UserError(f"--severities {text}: write whole numbers from 1 to 5, such as 1,3,5") from error


def trust_in(model: ModelConfig, *, everything: bool) -> Trust:
    """What a command line allows to run that means this model: the model's own code has been named on it."""
    return Trust(model.source if isinstance(model, Function) else None, everything)


def evaluation_of(directory: Run) -> str:
    """The command that evaluates a run, with the permission that it needs."""
    experiment = from_json(directory.config(), trust=Trust(everything=True))  # only read, not built
    words = ["regmix", "evaluate", str(directory.path)]
    if isinstance(experiment.model, Function):
        words += ["--model.source", experiment.model.source]
    return shlex.join(words)


def console_for(as_json: bool) -> Console:
    """Where progress is shown: of several processes the first has the word."""
    return Console(stderr=as_json, quiet=processes.started()[0] > 0)


def alone(command: str) -> None:
    if processes.started()[1] > 1:
        raise UserError(f"regmix {command} runs in one process; start it without torchrun")


def facts(directory: Run) -> dict[str, object]:
    """What a run directory says of its training, and all evaluations that hold for its present weights."""
    result = asdict(directory.result())
    del result["evaluations"]
    found = directory.evaluations()
    return {
        "run": str(directory.path),
        **result,
        "evaluations": [asdict(one.evaluation) for one in found if not one.outdated],
        "outdated": [f"{one.folder.name}: {one.outdated}" for one in found if one.outdated],
    }


def tell(directory: Run, as_json: bool, next_command: str) -> None:
    if processes.started()[0] > 0:
        return
    if as_json:
        print(json.dumps(facts(directory), indent=2))
    else:
        print(f"{directory.path}  (next: {next_command})")
