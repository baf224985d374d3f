"""`regmix predict`."""

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import TypeAdapter

from regmix.cli.common import ModelSource, in_one_process, radii_in
from regmix.cli.flags import parse
from regmix.config import from_json
from regmix.data.single import image_files
from regmix.evaluation.prediction import Prediction, predictions
from regmix.runs import CONFIG, Checkpoint, Run
from regmix.runs.exported import read_exported
from regmix.runs.load import load_model
from regmix.runtime import devices
from regmix.threats import ThreatConfig, format_eps
from regmix.types import Trust, UserError


@dataclass(frozen=True)
class PredictFlags:
    run: Annotated[Path, tyro.conf.Positional]
    """The run directory of the model."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files, and folders of them."""
    checkpoint: Checkpoint | None = None
    """Weights to use. None: the best that the run has."""
    eps: str | None = None
    """Attack each image within these radii of the run's threat model, such as 1/255,2/255,4/255, and print the smallest
    one at which its class changes. None: no attack."""
    csv: bool = False
    """Print comma-separated values with a header."""
    batch_size: int = 100
    """Images per forward pass."""
    device: devices.Device = "auto"
    """Device to compute on. auto: a CUDA GPU if there is one, else the CPU."""
    source: ModelSource = None
    """The module:function that returns the run's model, if the model is a function of yours. Its code is run. None: no
    code of yours."""
    trust_code: bool = False
    """Allow the import of any code that the run names as its model."""


def predict(words: Sequence[str]) -> None:
    """Prints the class of image files, its probability and, if asked, the radius at which an attack changes it."""
    in_one_process("predict")
    flags = parse(PredictFlags, words, "predict")
    if not flags.images:
        raise UserError("predict needs images; write: regmix predict RUN FILE|FOLDER ...")
    if flags.batch_size < 1:
        raise UserError(f"--batch-size {flags.batch_size}: it must be at least 1")
    files, radii = image_files(flags.images), sorted(radii_in(flags.eps))
    trained = load_model(flags.run, flags.checkpoint, source=flags.source, trust_code=flags.trust_code)
    device = devices.start(flags.device, "32").device
    threats = []
    if radii:
        threat = _threat(flags)
        threats = [replace(threat, eps=radius) for radius in radii]

    def warn(line: str) -> None:
        print(line, file=sys.stderr)

    answers = predictions(trained, files, device, flags.batch_size, warn, threats)
    if (first := next(answers, None)) is None:
        raise UserError("the model has an answer to none of the files; see the lines above")
    (_print_csv if flags.csv else _print)(chain([first], answers), radii)


def _threat(flags: PredictFlags) -> ThreatConfig:
    """The threat model of a run, or of the run that a model was exported from."""
    trust = Trust(flags.source, flags.trust_code)
    if (exported := read_exported(flags.run, trust)) is not None:
        threat: ThreatConfig = TypeAdapter(ThreatConfig).validate_python(exported.threat)
        return threat
    return from_json(Run.open(flags.run).config(), flags.run / CONFIG, trust, reads_data=False).threat


def _print_csv(answers: Iterable[Prediction], radii: Sequence[float]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "class", "probability", *(["breaks_at", "attacked"] if radii else [])])
    for answer in answers:
        radius = "" if answer.breaks_at is None else f"{answer.breaks_at:.6g}"
        attack = [radius, "yes" if answer.attacked else "no"] if radii else []
        writer.writerow([answer.file, answer.label, f"{answer.probability:.4f}", *attack])


def _print(answers: Iterable[Prediction], radii: Sequence[float]) -> None:
    for answer in answers:
        line = f"{answer.file}  {answer.label}  {100 * answer.probability:.1f}%"
        if answer.breaks_at is not None:
            line += f"  changes within {format_eps(answer.breaks_at)}"
        elif radii and answer.attacked:
            line += f"  no attack found within {format_eps(radii[-1])}"
        elif radii:
            line += "  not attacked: the model has no gradient here"
        print(line, flush=True)
