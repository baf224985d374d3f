"""Run directories with random weights, made without a training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regmix.config import Experiment, to_json
from regmix.models import ModelConfig, build
from regmix.runs import Run
from regmix.runs.evaluations import Outcomes, add, settings_digest
from regmix.runs.records import Column, Environment, Evaluation, Result, Subject
from regmix.runtime.files import digest
from regmix.threats import Linf
from regmix.types import Fingerprint, Sample

CLASSES = ("cat", "dog", "a|b")
SPLIT = Fingerprint(CLASSES, (4, 3, 3), "pixels", "5" * 32)
OTHER = Fingerprint(CLASSES, (4, 3, 3), "pixels", "6" * 32)


def random_run(
    path: Path, model: ModelConfig, shape: tuple[int, int, int] = (3, 16, 16), mean: float = 0.0, std: float = 1.0
) -> Run:
    """A run whose weights and BatchNorm statistics are random, so that no part of the network can be left out."""
    experiment = Experiment(model=model, threat=Linf(8 / 255))
    run = Run.create(path, to_json(experiment), Environment("0.1.0", torch="2", command="regmix train `x`"))
    torch.manual_seed(0)
    network = build(model, len(CLASSES), shape[0], [mean] * shape[0], [std] * shape[0], shape[1:])
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var", "bias")) or (value.ndim == 1 and name.endswith("weight")):
            state[name] = torch.rand_like(value) + 0.5
    run.save_weights("best", state)
    run.save_weights("last", {name: value + 1 for name, value in state.items()})
    run.save_result(Result("finished", classes=[*CLASSES], shape=[*shape]))
    return run


def evaluate(
    run: Run, checkpoint: Any = "best", sample: Sample = Sample(10, 10, "all"), *, elsewhere: str = "",  # noqa: B008
    draws: int = 1, notes: Sequence[str] = (), made: str = "2026", **survives: int,
) -> Evaluation:  # fmt: skip
    """Adds an evaluation of 10 images, of which so many survive each attack, with made-up intervals."""
    about = Subject(
        checkpoint, digest(run.weights(checkpoint)), settings_digest(run.config()), OTHER if elsewhere else SPLIT,
        sample, draws,
    )  # fmt: skip
    columns, table = {}, {}
    for number, (name, correct) in enumerate(survives.items()):
        attack, eps = name.replace("_", "-"), 0.0 if name == "clean" else 8 / 255
        columns[attack] = Column(
            attack, eps, "8/255" if eps else "0", correct / 10, 0.0123 + number / 100, 0.9876 - number / 100, correct
        )
        table[attack] = np.arange(10) < correct
    labels = np.arange(10) % 3
    evaluation = Evaluation(about, columns, notes=[*notes], elsewhere=elsewhere, made=made)
    whole, _ = add(run.path, evaluation, Outcomes(np.arange(10), labels, table), None)
    return whole


def change_weights(run: Run) -> None:
    """Makes all evaluations of `best` outdated, as a training that goes on does."""
    path = run.weights("best")
    path.write_bytes(run.weights("last").read_bytes())


def with_notes(run: Run, **changes: Any) -> None:
    """Changes the result of a run."""
    run.save_result(replace(run.result(), **changes))
