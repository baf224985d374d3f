"""Diagnoses runs: the findings of their records, and those that need a minute of training beside them."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from regmix.config import NoAveraging, from_json
from regmix.data import DataFunction, placed
from regmix.methods import Standard
from regmix.models import Function
from regmix.reports.classes import Classes, per_class
from regmix.reports.findings import Case, Finding, findings_of
from regmix.reports.findings.images import unjudged
from regmix.reports.findings.weights import below_plain
from regmix.reports.load import LoadedRun, aligned, load
from regmix.reports.statistics import Share, share
from regmix.reports.subject import Subject, subjects_of
from regmix.runs import CONFIG, Run
from regmix.runs.alike import image_changes
from regmix.runtime import devices
from regmix.training.display import Display
from regmix.training.start import run as train
from regmix.types import Trust, UserError

PROBE_SECONDS = 45.0
"""How long a plain model is trained at most. Reading the data and the last validation come on top."""


@dataclass(frozen=True)
class Diagnosis:
    """The findings about a run, and what an attack does to its classes and images."""

    subject: Subject
    findings: list[Finding]
    classes: Classes | None
    plain: Share | None
    """Validation accuracy of a plain model, without an attack; None if it was not probed."""
    unprobed: str | None = None
    """Why a plain model could not be trained on the run's images; None if it was, or was not asked for."""

    @property
    def unjudged(self) -> str | None:
        """What the test images are too few to judge."""
        return unjudged(self.classes)

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "run": str(self.subject.run.path),
            "checkpoint": self.subject.checkpoint,
            "findings": [asdict(finding) for finding in self.findings],
            "classes": self.classes.as_json() if self.classes is not None else None,
            "plain": asdict(self.plain) if self.plain is not None else None,
            "unprobed": self.unprobed,
            "unjudged": self.unjudged,
        }


def diagnose(
    paths: Sequence[Path], *, probe: bool = True, root: Path | None = None, device: devices.Device = "auto"
) -> list[Diagnosis]:
    """Reads run directories and looks for signs that something went wrong; see `regmix.reports.findings`.

    Each run is judged by its own evaluation, whatever the others have; they are compared with it where they were
    evaluated on the same images.

    Args:
        probe: also train a plain model for up to a minute, for a run with RegMix's terms that has no run of standard
            training beside it. Not for a model of the user's own, whose code is not run.
        root: where the images of the runs are now, if they were moved.
        device: to train it on.

    Raises:
        UserError: no run directory, or a damaged file.
    """
    runs, found = [load(path) for path in paths], []
    for number in range(len(runs)):
        case, unprobed = _case(runs, number), None
        if probe and _needs_plain(case):
            try:
                case = replace(case, plain=plain_accuracy(case.run.path, device, root=root))
            except UserError as error:  # the records are read, and say much without the images
                unprobed = str(error)
        found.append(Diagnosis(case.subject, findings_of(case), per_class(case.subject), case.plain, unprobed))
    return found


def _case(runs: Sequence[LoadedRun], number: int) -> Case:
    """A run as it would be judged alone, and the others with their evaluations on the same images, if they have any."""
    (subject,) = subjects_of([runs[number]])
    shown = next(iter(subject.run.evaluations.values()), None)
    beside = subjects_of(aligned(runs, shown.images if shown is not None else None))
    named = replace(subject, label=beside[number].label, colour=beside[number].colour, norm=beside[number].norm)
    return Case(named, [peer for place, peer in enumerate(beside) if place != number])


def _needs_plain(case: Case) -> bool:
    """Whether no run of standard training beside a run tells what a plain model reaches."""
    return case.mutual is not None and bool(case.validated) and below_plain(case) is None


class _TimeUpError(Exception):
    """The probe has used its time."""


class _Stopwatch(Display):
    """A display that shows nothing and ends the training after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    def batch(self, examples: int) -> None:
        """Raises _TimeUpError."""
        if time.perf_counter() > self._end:
            raise _TimeUpError


def plain_accuracy(
    path: Path, device: devices.Device = "auto", seconds: float = PROBE_SECONDS, root: Path | None = None
) -> Share:
    """The accuracy on a run's validation images that standard training with its settings reaches in this time.

    It is that of the last complete epoch, because a maximum over epochs would be too high by chance. Longer training
    would reach more.

    Raises:
        UserError: the images are missing or are not those of the run, the model or the data are functions of the
            user's own, or no epoch was complete in this time.
    """
    judged = Run.open(path, writes=False)
    experiment = from_json(judged.config(), path / CONFIG, Trust(everything=True))
    if isinstance(experiment.model, Function) or isinstance(experiment.data, DataFunction):
        raise UserError(
            "its model or data are functions of your own, whose code is not run; add a run of standard training"
        )
    plain = replace(
        experiment, method=Standard(), averaging=NoAveraging(), awp=0.0, device=device, validate_every=1,
        data=placed(experiment.data, path, root),
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        out = Path(folder) / "plain"
        with suppress(_TimeUpError):
            train(plain, out, _Stopwatch(seconds))
        run = Run.open(out, writes=False)
        rows, data = [row for row in run.metrics() if row.validation], run.data()
    if not rows or rows[-1].validation is None or data is None:
        raise UserError(f"no epoch of a plain model is complete after {seconds:g} s; add a run of standard training")
    if (before := judged.data()) is not None and (text := image_changes(before, data)):
        raise UserError(f"the images have changed since {path} began: {text}; put them back")
    images = sum(data.validation.counts)
    return share(round(rows[-1].validation["clean"] * images), images)
