"""Made-up run directories that look like real ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from regmix.evaluation import wilson
from regmix.runs.evaluations import Examples, Outcomes, add, settings_digest
from regmix.runs.records import Column, Evaluation, Subject
from regmix.runtime.files import digest
from regmix.types import Fingerprint, Sample

N = 500
ATTACKS = {"fgsm": 0.8, "pgd-10": 0.96, "pgd-50": 1.0}
TERMS = {
    "regmix": {"classify": 0.0, "mutual_main": 5.0, "mutual_aux": 2.0, "generalise": 2.0},
    "standard": {"classify": 0.0},
}

WriteRun = Callable[..., Path]


def _metrics(method: str, rng: np.random.Generator, epochs: int, done: int, averaged: bool) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, done + 1):
        t = epoch / epochs
        robust_level = 0.8 if method == "regmix" else 0.05
        rise = 1 - np.exp(-6 * t)
        clean = 0.1 + 0.87 * rise + rng.normal(0, 0.006)
        pgd = 0.05 + robust_level * rise - 0.09 * max(0.0, t - 0.6) + rng.normal(0, 0.012)
        per_example = {
            name: float(0.02 + 0.12 * (0.15 + np.exp(-5 * t)) * rng.uniform(0.9, 1.1))
            for name, weight in TERMS[method].items()
            if weight
        }
        terms = {"classify": float(0.2 + 2.1 * np.exp(-5 * t))}
        terms |= {name: TERMS[method][name] * value for name, value in per_example.items()}
        validation = {"clean": float(clean), "pgd": float(np.clip(pgd, 0, 1))}
        if averaged:
            validation |= {"averaged_clean": float(clean) - 0.01, "averaged_pgd": float(np.clip(pgd + 0.03 * t, 0, 1))}
        rows.append(
            {
                "epoch": epoch,
                "epochs": epochs,
                "step": epoch * 9,
                "lr": 0.1 * min(1.0, 2.2 * (1 - t) + 0.001, 5 * t),
                "loss": sum(terms.values()),
                "terms": terms,
                "per_example": per_example,
                "stats": {},
                "train_robust": float(np.clip(0.1 + (robust_level + 0.1) * rise, 0, 1)),
                "validation": validation if epoch % 2 == 0 or epoch == epochs else None,
                "images_per_second": 512.0 + epoch,
                "seconds": 2.04 * epoch,
            }
        )
    return rows


def _columns(
    method: str, checkpoint: str, rng: np.random.Generator, eps: Sequence[float], shared: np.ndarray[Any, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """An example survives while eps times the attack's strength stays below its margin."""
    shift = {"best": 0.0, "last": -0.013, "averaged": 0.006}[checkpoint]
    if method == "standard":
        margin = 0.021 * shared + 0.04 + 0.1 * shift + rng.normal(0, 0.004, N)
    else:
        margin = 0.07 * shared + 0.16 + shift + rng.normal(0, 0.012, N)
    columns = {"clean": margin > 0.004}
    for radius in eps:
        for attack, strength in ATTACKS.items():
            luck = rng.normal(0, 0.004, N)
            columns[f"{attack}@{radius:g}"] = columns["clean"] & (margin + luck > strength * radius)
    return columns


def _summary(columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, Column]:
    described = {}
    for name, survives in columns.items():
        attack, _, radius = name.partition("@")
        correct = int(survives.sum())
        described[name] = Column(
            attack, float(radius or 0), radius or "0", correct / N, *wilson(correct, N), correct
        )  # fmt: skip
    return described


@pytest.fixture(scope="session")
def write_run() -> WriteRun:
    """write_run(path, method=..., ...) makes a run directory and returns its path."""
    return make_run


def make_run(
    path: Path,
    method: str = "regmix",
    *,
    checkpoints: Sequence[str] = ("best", "last", "averaged"),
    eps: Sequence[float] = (0.05, 0.1, 0.15, 0.2),
    epochs: int = 30,
    done: int | None = None,
    averaged: bool = True,
    classes: Sequence[str] = tuple("0123456789"),
    method_name: str | None = None,
    command: str = "regmix train digits-regmix",
    seed: int = 0,
) -> Path:
    """A run on the digits; `done` below `epochs` leaves it unfinished, no checkpoints leave it unevaluated."""
    rng = np.random.default_rng(seed + len(method))
    shared = np.random.default_rng(7).normal(0, 1, N)
    path.mkdir(parents=True)
    config = {
        "data": {"name": "digits"},
        "model": {"name": "small_cnn", "width": 32},
        "threat": {"name": "linf", "eps": 0.1},
        "method": {"name": method_name or method, **({"alpha": 50.0, "beta": 20.0} if method == "regmix" else {})},
        "schedule": {"name": "cyclic"},
        "averaging": {"name": "ema" if averaged else "none"},
        "epochs": epochs,
        "batch_size": 128,
        "validation": 200,
        "seed": seed,
    }
    environment = {
        "regmix": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "device": "cpu", "threads": 2,
        "git_commit": "0" * 40, "command": command,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config, indent=2))
    settings = settings_digest(json.dumps(config))
    (path / "environment.json").write_text(json.dumps(environment))
    rows = _metrics(method, rng, epochs, epochs if done is None else done, averaged)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, name in enumerate(("best", "last", "averaged") if averaged else ("best", "last")):
        (path / f"{name}.safetensors").write_bytes(bytes([number]) * 4096)
    if done is not None and done < epochs:
        return path
    validated = [row for row in rows if row["validation"]]
    best = max(validated, key=lambda row: row["validation"]["pgd"])["epoch"]
    result: dict[str, Any] = {
        "status": "finished", "epochs": epochs, "train_seconds": 61.2, "best_epoch": best,
        "classes": list(classes), "shape": [1, 8, 8],
    }  # fmt: skip
    digits = load_digits()
    labels = digits.target[:N]
    split = Fingerprint(tuple(classes), tuple(np.bincount(labels, minlength=len(classes)).tolist()), "pixels", "0" * 32)
    for checkpoint in checkpoints:
        columns = _columns(method, checkpoint, rng, eps, shared)
        subject = Subject(
            checkpoint, digest(path / f"{checkpoint}.safetensors"), settings, split, Sample(N, N, "all"),
        )  # fmt: skip
        x = np.rint(digits.images[:8] * 255 / 16).astype(np.uint8)[:, None]
        corner = np.where(rng.random(x.shape) < 0.5, -0.1, 0.1)
        delta = np.clip(x / 255 + corner, 0, 1) - x / 255
        after = np.where(rng.random(8) < (0.2 if method == "regmix" else 0.9), (labels[:8] + 5) % 10, labels[:8])
        few = Examples(x, delta.astype(np.float32), labels[:8], labels[:8], after, "pgd-50", 0.1)
        evaluation = Evaluation(subject, _summary(columns), seconds=12.0, made="2026-01-01T00:00:00+00:00")
        add(path, evaluation, Outcomes(np.arange(N), labels, columns), few)
    (path / "result.json").write_text(json.dumps(result, indent=2))
    return path
