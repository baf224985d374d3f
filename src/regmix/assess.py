"""The evaluation of a run: attacks its checkpoints on the test split and writes what came out beside them."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from regmix.attacks import Attack, parse_attack
from regmix.data import DataConfig, ImageSet, batches, load
from regmix.evaluation import CLEAN, Outcomes, collect_examples, evaluate, wilson
from regmix.experiment import build_model, from_json
from regmix.models import load_weights
from regmix.runs import CONFIG, Checkpoint, Run
from regmix.threats import Threat, format_eps
from regmix.training import engine
from regmix.types import UserError

EXAMPLES_SHOWN = 8


class Progress(Protocol):
    """Shows the evaluation to whoever waits for it."""

    def start(self, description: str, total: int, done: int = 0) -> None: ...
    def batch(self, examples: int) -> None: ...
    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float) -> None: ...


def assess(
    directory: Run,
    attacks: Sequence[str],
    eps: Sequence[float],
    checkpoints: Sequence[Checkpoint],
    examples: int | None,
    batch_size: int,
    device: engine.Device,
    progress: Progress,
) -> None:
    """Attacks a run's checkpoints on the test split, in float32, and writes the outcomes into its directory.

    Args:
        attacks: names such as fgsm and pgd-50; clean is always there.
        eps: radii in pixel units of [0, 1]; empty means the one of the training. Every attack runs at every one.
        checkpoints: which weights; empty means all that there are.
        examples: the first so many images of the test split; None means all.

    Raises:
        UserError: an unknown attack, missing weights, more examples than there are.
    """
    experiment = from_json(directory.config(), str(directory.path / CONFIG))
    suite = {name: parse_attack(name) for name in attacks if name != CLEAN}
    threats = [replace(experiment.threat, eps=radius) for radius in eps] or [experiment.threat]
    there = directory.checkpoints()
    if missing := [checkpoint for checkpoint in checkpoints or ("best",) if checkpoint not in there]:
        raise UserError(
            f"{directory.path} has no {', '.join(missing)} weights; it has: {', '.join(there) or 'none yet'}"
        )
    test = test_images(experiment.data, examples)
    place = engine.start(device, "32").device
    progress.start("attacking", (1 + len(suite) * len(threats)) * len(checkpoints or there) * len(test))
    for checkpoint in checkpoints or there:
        # Normalisation comes with the weights, so the statistics of the training images are not needed here.
        model = build_model(replace(experiment, normalise=False), test)
        load_weights(model, directory.weights(checkpoint))
        model = model.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        began = time.perf_counter()
        table, columns = _table(model, test, threats, suite, batch_size, place, checkpoint, progress)
        shown = _examples(model, test, experiment.threat, suite, place)
        summary = {
            "examples": len(table),
            "requested": examples,
            "seconds": time.perf_counter() - began,
            "columns": columns,
        }
        directory.save_evaluation(checkpoint, summary, table.to_csv(), shown)


def test_images(data: DataConfig, examples: int | None) -> ImageSet:
    """The first so many images of the test split; None means all.

    Raises:
        UserError: more than there are, or less than one.
    """
    test = load(data, "test")
    if examples is None:
        return test
    if not 1 <= examples <= len(test):
        raise UserError(f"--examples {examples}: the test split has {len(test)} images")
    return test.subset(torch.arange(examples))


def _table(
    model: nn.Module,
    test: ImageSet,
    threats: Sequence[Threat],
    suite: dict[str, Attack],
    batch_size: int,
    place: torch.device,
    checkpoint: str,
    progress: Progress,
) -> tuple[Outcomes, dict[str, dict[str, object]]]:
    table: Outcomes | None = None
    columns: dict[str, dict[str, object]] = {}
    for threat in threats:
        for name, attack in [(CLEAN, None), *suite.items()]:
            column = CLEAN if attack is None else f"{name}@{format_eps(threat.eps)}"
            if column in columns:
                continue
            stream = batches(test, batch_size, place)
            attacked = evaluate(model, stream, threat, {column: attack} if attack else {}, progress.batch)
            table = attacked if table is None else table.join(attacked)
            correct = int(table.column(column).sum())
            low, high = wilson(correct, len(table))
            radius = threat.eps if attack else 0.0
            columns[column] = {
                "attack": name,
                "eps": radius,
                "eps_text": format_eps(radius),
                "accuracy": correct / len(table),
                "low": low,
                "high": high,
                "correct": correct,
            }
            progress.column(checkpoint, column, correct / len(table), low, high)
    assert table is not None
    return table, columns


def _examples(
    model: nn.Module, test: ImageSet, threat: Threat, suite: dict[str, Attack], place: torch.device
) -> dict[str, Any]:
    """A few test images before and after the last attack of the list, at the training's eps, for the report."""
    if not suite:
        return {}
    name, attack = list(suite.items())[-1]
    spread = torch.linspace(0, len(test) - 1, min(EXAMPLES_SHOWN, len(test))).long()
    (batch,) = batches(test.subset(spread), EXAMPLES_SHOWN, place)
    few = {key: value.numpy() for key, value in vars(collect_examples(model, batch, threat, attack)).items()}
    few["x"] = (few["x"] * 255).round().astype("uint8")
    return {**few, "attack": name, "eps": threat.eps}
