"""The evaluation of a run: attacks its checkpoints on the test split and writes what came out beside them."""

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from regmix import __version__, processes
from regmix.attacks import (
    Apgd,
    Attack,
    Ensemble,
    Eot,
    Fab,
    Fgsm,
    Pgd,
    Shortened,
    Square,
    Transfer,
    parse_attack,
    passes,
)
from regmix.corruptions import SEVERITIES, Computed, OfficialFiles
from regmix.data import DataConfig, ImageSet, batches, load, pick
from regmix.evaluation import (
    CLEAN,
    Outcomes,
    collect_examples,
    predict,
    preflight,
    probe,
    repeatable,
    survivors,
    to_uint8,
    verdict,
    wilson,
    withstood,
)
from regmix.experiment import Experiment, build_model, from_json
from regmix.models import Function, load_weights
from regmix.objectives import hard
from regmix.runs import CONFIG, BatteryJournal, Checkpoint, Run, digest
from regmix.threats import Threat, format_eps
from regmix.training import engine
from regmix.types import UserError

EXAMPLES_SHOWN = 8
PROBED = 64
TRANSFER = "transfer:"
SCREENED = (Apgd, Fab, Shortened, Square)
"""Attacks for which a bfloat16 copy of the model may screen; the others are known by their last iterate."""


@dataclass(frozen=True)
class Questions:
    """What an evaluation asks."""

    attacks: Sequence[str]
    """Names such as fgsm, pgd-50, autoattack, transfer:RUN; clean is always there."""
    eps: Sequence[float] = ()
    """Radii in pixel units of [0, 1]; empty means the one of the training. Every attack runs at every one."""
    examples: int | None = None
    """The first so many images of the test split; None means all."""
    batch_size: int = 250
    exact: bool = False
    """Attacks may not ask a bfloat16 copy of the model before the model itself."""
    verdict: bool = True
    """Probe for gradient masking, and say what speaks for it."""
    save: bool = False
    """Keep the adversarial images, in whole grey levels."""
    draws: int = 1
    """Passes whose logits are averaged, for a model that is random (expectation over transformation)."""
    corruptions: Sequence[str] = ()
    """Names such as fog; all: the benchmark's, as far as they can be computed or have files."""
    severities: Sequence[int] = SEVERITIES
    """Of the corruptions, 1 to 5."""
    corruption_files: Path | None = None
    """A folder with the official files of CIFAR-10-C or CIFAR-100-C; None means that corruptions are computed."""


class Progress(Protocol):
    """Shows the evaluation to whoever waits for it."""

    def stage(self, description: str, left: int) -> None: ...
    def work(self, amount: int) -> None: ...
    def note(self, text: str) -> None: ...
    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float) -> None: ...
    def corruption(self, checkpoint: str, name: str, accuracies: Sequence[float]) -> None: ...


def assess(
    directory: Run, questions: Questions, checkpoints: Sequence[Checkpoint], device: engine.Device, progress: Progress
) -> None:
    """Attacks a run's checkpoints on the test split, and writes the outcomes into its directory.

    Args:
        checkpoints: which weights; empty means all that there are.

    Started again after a kill it goes on where it was. Under torchrun the processes share the work; the first writes.

    Raises:
        UserError: an unknown attack, one that is not made for the threat or would have the name of another, missing
            weights, more examples than there are.
    """
    experiment = from_json(directory.config(), str(directory.path / CONFIG))
    threats = [replace(experiment.threat, eps=radius) for radius in questions.eps] or [experiment.threat]
    there = directory.checkpoints()
    if missing := [checkpoint for checkpoint in checkpoints if checkpoint not in there] or (not there and ["best"]):
        raise UserError(
            f"{directory.path} has no {', '.join(missing)} weights; it has: {', '.join(there) or 'none yet'}"
        )
    check_attacks(questions.attacks, threats)
    if questions.batch_size < 1:
        raise UserError(f"the batch size must be at least 1, not {questions.batch_size}")
    test = test_images(experiment.data, questions.examples)
    source = Computed() if questions.corruption_files is None else OfficialFiles(questions.corruption_files)
    kinds = _kinds(questions, source, test)
    place = engine.start(device, "32", patient=True).device
    suite = {name: _attack(name, test, place) for name in questions.attacks if name != CLEAN}
    world = processes.Processes()
    for checkpoint in checkpoints or there:
        model = _model(experiment, directory, checkpoint, test).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if questions.draws > 1:
            model = Eot(model, questions.draws)
        key = _key(directory, checkpoint, model, experiment, questions)
        journal = BatteryJournal(directory.path, checkpoint, key, world.rank)
        first = pick(test, torch.arange(min(len(test), 100)), place)
        findings = preflight(model, first.x, hard(first.y))
        for finding in findings:
            progress.note(f"{checkpoint:<9} {finding}")
        began = time.perf_counter()
        table, columns = _table(
            directory, model, test, threats, suite, questions, place, checkpoint, journal, world, progress
        )
        shown = _examples(model, test, experiment.threat, suite, place)
        summary: dict[str, Any] = {
            "examples": len(table),
            "requested": questions.examples,
            "seconds": time.perf_counter() - began,
            "columns": columns,
            "preflight": findings,
        }
        if questions.verdict:
            summary["masking"] = found = _masking(model, test, table, experiment.threat, columns, place)
            if found is not None:
                progress.note(f"{checkpoint:<9} gradient masking: {found['verdict']}")
                for text in found["signs"]:
                    progress.note(f"{checkpoint:<9} - {text}")
        if kinds:
            progress.stage(f"{checkpoint}, corruptions", len(kinds) * len(test))
            right = withstood(
                model, test.labels, kinds, partial(source.images, images=test.pixels(), labels=test.labels),
                batch_size=questions.batch_size, device=place, journal=journal, world=world, on_work=progress.work,
            )  # fmt: skip
            summary["corruptions"] = _corruptions(questions, kinds, right, checkpoint, progress)
        if world.rank == 0:
            directory.save_evaluation(checkpoint, summary, table.to_csv(), shown)


def _attack(name: str, test: ImageSet, place: torch.device) -> Attack:
    if not name.startswith(TRANSFER):
        return parse_attack(name)
    source = Run.open(Path(name.removeprefix(TRANSFER)))
    experiment = from_json(source.config(), str(source.path / CONFIG))
    if not source.checkpoints():
        raise UserError(f"{source.path} has no weights to transfer from")
    return Transfer(_model(experiment, source, source.checkpoints()[0], test).to(place).eval())


def _model(experiment: Experiment, directory: Run, checkpoint: Checkpoint, test: ImageSet) -> nn.Module:
    # Normalisation comes with the weights, so the statistics of the training images are not needed here.
    model = build_model(replace(experiment, normalise=False), test)
    load_weights(model, directory.weights(checkpoint))
    return model


def _key(directory: Run, checkpoint: Checkpoint, model: nn.Module, experiment: Experiment, questions: Questions) -> str:
    """Names everything that the outcome of a chunk depends on, but for the attack and its radius."""
    kept = ("batch_size", "examples", "exact", "save", "draws", "corruption_files")
    settings = [__version__, {name: getattr(questions, name) for name in kept}, directory.config()]
    files = [directory.weights(checkpoint), *_code(model, experiment)]
    text = json.dumps([*settings, *map(digest, files)], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code(model: nn.Module, experiment: Experiment) -> list[Path]:
    """The files that the classes of a model's modules, and the function that makes it, are written in."""
    written: set[Any] = {type(module) for module in model.modules()}
    if isinstance(experiment.model, Function):
        written.add(sys.modules[experiment.model.source.partition(":")[0]])
    files = set()
    for one in written:
        with suppress(TypeError, OSError):  # written in C, or in no file
            files.add(inspect.getsourcefile(one))
    return [Path(name) for name in sorted(filter(None, files)) if Path(name).is_file()]


def check_attacks(names: Sequence[str], threats: Sequence[Threat]) -> None:
    """Raises UserError for an attack that is not made for a threat, and for two that would have the same name."""
    for name in names:
        if name != CLEAN and not name.startswith(TRANSFER):
            # those that are made for some threats have a check
            check = getattr(parse_attack(name), "check", lambda _: None)
            for threat in threats:
                check(threat)
        if alike := [other for other in names if other != name and _short(other) == _short(name)]:
            raise UserError(f"{name} and {alike[0]} would both be called {_short(name)}; rename one of the folders")


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
    directory: Run,
    model: nn.Module,
    test: ImageSet,
    threats: Sequence[Threat],
    suite: dict[str, Attack],
    questions: Questions,
    place: torch.device,
    checkpoint: Checkpoint,
    journal: BatteryJournal,
    world: processes.Processes,
    progress: Progress,
) -> tuple[Outcomes, dict[str, dict[str, object]]]:
    model.eval()
    with repeatable(CLEAN, place):
        seen = [(predict(model, b.x, b.y) == b.y).cpu() for b in batches(test, questions.batch_size, place)]
    clean = processes.from_first(torch.cat(seen))
    table = Outcomes((CLEAN,), test.labels, clean[:, None])
    columns: dict[str, dict[str, object]] = {CLEAN: _column(CLEAN, 0.0, clean)}
    progress.column(checkpoint, CLEAN, *_share(clean))
    todo = [(threat, name, attack) for threat in threats for name, attack in suite.items()]
    for number, (threat, name, attack) in enumerate(todo):
        later = int(clean.sum()) * sum(passes(other) for _, _, other in todo[number + 1 :])
        column = f"{_short(name)}@{format_eps(threat.eps)}"
        noted = f"{_noted(name)}@{threat.eps!r}"
        stages = attack.under(threat) if isinstance(attack, Ensemble) else ((name, attack),)
        alive, began, told = clean, time.perf_counter(), []

        def write(rows: Sequence[int], x: Tensor, bad: Tensor, column: str = column, threat: Threat = threat) -> None:
            directory.save_adversarial(checkpoint, column, rows, to_uint8(x, bad, threat))

        keep = write if questions.save else None
        for place_in_line, (stage, one) in enumerate(stages):
            rest = int(alive.sum()) * sum(passes(other) for _, other in stages[place_in_line:])
            progress.stage(f"{checkpoint}, {column}" + (f": {stage}" if len(stages) > 1 else ""), rest + later)
            alive = survivors(
                model, lambda index: pick(test, index, place), alive, one, threat, name=f"{noted}/{stage}",
                batch_size=questions.batch_size, screen=not questions.exact and isinstance(one, SCREENED),
                journal=journal, world=world, on_work=progress.work, keep=keep,
            )  # fmt: skip
            accuracy = float(alive.double().mean())
            told.append({"attack": stage, "accuracy": accuracy, "seconds": time.perf_counter() - began})
        table = table.join(Outcomes((column,), test.labels, alive[:, None]))
        columns[column] = _column(_short(name), threat.eps, alive)
        if isinstance(attack, Ensemble):
            columns[column] |= {"stages": told} | ({"note": attack.note} if attack.note else {})
        if questions.save and world.rank == 0:
            columns[column]["rounded"] = _recheck(model, directory, checkpoint, column, clean & ~alive, test, place)
        progress.column(checkpoint, column, *_share(alive))
        if "note" in columns[column]:
            progress.note(f"{checkpoint:<9} {columns[column]['note']}")
    return table, columns


def _recheck(
    model: nn.Module, directory: Run, checkpoint: Checkpoint, column: str, broken: Tensor, test: ImageSet,
    place: torch.device,
) -> dict[str, int]:  # fmt: skip
    """Asks the model about the adversarial images as they lie on the disk; writes adversarial.npz beside them."""
    rows, images = directory.load_adversarial(checkpoint, column, broken.nonzero()[:, 0].tolist())
    labels = test.labels[torch.tensor(rows, dtype=torch.long)]
    seen = [
        predict(model, batch.x, batch.y).cpu() for batch in batches(ImageSet(images, labels, test.classes), 250, place)
    ]
    prediction = torch.cat(seen) if seen else labels
    directory.save_adversarial_table(
        checkpoint, column, images=images.numpy(), index=np.array(rows), label=labels.numpy(),
        prediction=prediction.numpy(),
    )  # fmt: skip
    return {"images": len(rows), "still_adversarial": int((prediction != labels).sum())}


def _masking(
    model: nn.Module, test: ImageSet, table: Outcomes, threat: Threat, columns: dict[str, dict[str, object]],
    place: torch.device,
) -> dict[str, Any] | None:  # fmt: skip
    """The verdict on gradient masking at the training's eps, its signs, and what the probe found.

    None where no image is classified correctly even without an attack.
    """
    some = table.column(CLEAN).nonzero()[:PROBED, 0]
    if not len(some):
        return None
    batch = pick(test, some, place)
    found = probe(model, batch.x, hard(batch.y), threat)
    accuracies = {
        str(column["attack"]): float(str(column["accuracy"]))
        for column in columns.values()
        if column["eps"] == threat.eps
    }
    masked, signs = verdict(found, accuracies, len(table))
    return {"verdict": masked, "signs": signs, "probe": asdict(found)}


def _kinds(questions: Questions, source: Computed | OfficialFiles, test: ImageSet) -> list[tuple[str, int]]:
    """The corruptions that are asked for, with their severities; what is missing is missed now."""
    names = source.names() if list(questions.corruptions) == ["all"] else questions.corruptions
    kinds = [(name, severity) for name in names for severity in questions.severities]
    for kind in kinds:
        source.images(*kind, test.subset(torch.arange(1)).pixels(), test.labels[:1])
    return kinds


def _corruptions(
    questions: Questions, kinds: Sequence[tuple[str, int]], right: Tensor, checkpoint: Checkpoint, progress: Progress
) -> dict[str, Any]:
    """The accuracy under every corruption at every severity, and its mean over all of them."""
    names = list(dict.fromkeys(name for name, _ in kinds))
    shares = right.double().mean(1).view(len(names), -1)
    for name, row in zip(names, shares.tolist(), strict=True):
        progress.corruption(checkpoint, name, row)
    progress.corruption(checkpoint, "mean of all", shares.mean(0).tolist())
    return {
        "source": "computed" if questions.corruption_files is None else str(questions.corruption_files),
        "severities": list(questions.severities),
        "accuracy": dict(zip(names, shares.tolist(), strict=True)),
        "mean": float(shares.mean()),
    }


def _short(name: str) -> str:
    """transfer:RUN by the run's own name."""
    return f"{TRANSFER}{Path(name.removeprefix(TRANSFER)).name}" if name.startswith(TRANSFER) else name


def _noted(name: str) -> str:
    """The name under which the journal knows an attack: transfer:RUN by the weights."""
    if not name.startswith(TRANSFER):
        return name
    source = Run.open(Path(name.removeprefix(TRANSFER)))
    return TRANSFER + digest(source.weights(source.checkpoints()[0]))


def _share(alive: Tensor) -> tuple[float, float, float]:
    """The share of survivors, and its Wilson interval."""
    return float(alive.double().mean()), *wilson(int(alive.sum()), len(alive))


def _column(attack: str, eps: float, alive: Tensor) -> dict[str, object]:
    accuracy, low, high = _share(alive)
    return {
        "attack": attack,
        "eps": eps,
        "eps_text": format_eps(eps),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "correct": int(alive.sum()),
    }


def _examples(
    model: nn.Module, test: ImageSet, threat: Threat, suite: dict[str, Attack], place: torch.device
) -> dict[str, Any]:
    """A few test images before and after the last of the quick attacks, at the training's eps, for the report."""
    if not suite:
        return {}
    quick = [(name, attack) for name, attack in suite.items() if isinstance(attack, Fgsm | Pgd)]
    name, attack = quick[-1] if quick else ("pgd-50", Pgd(50))
    spread = torch.linspace(0, len(test) - 1, min(EXAMPLES_SHOWN, len(test))).long()
    (batch,) = batches(test.subset(spread), EXAMPLES_SHOWN, place)
    few = {key: value.numpy() for key, value in vars(collect_examples(model, batch, threat, attack)).items()}
    few["x"] = (few["x"] * 255).round().astype("uint8")
    return {**few, "attack": name, "eps": threat.eps}
