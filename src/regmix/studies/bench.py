"""How long a training step takes, beside the bare passes through the network that it consists of."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from regmix.config import Experiment
from regmix.data import Loader
from regmix.methods.memory import Memory, Setup
from regmix.objectives import cross_entropy
from regmix.runs.records import Epoch
from regmix.runtime import devices
from regmix.training import TrainStep
from regmix.training.prepare import initial_model, training_data, try_out
from regmix.training.readiness import kept_in_eval, train_mode
from regmix.training.start import run
from regmix.types import Batch, Clock, Images, Labels, require

WARM_UP = 3


@dataclass(frozen=True)
class Passes:
    """Passes of a batch through the network."""

    forward: int
    to_input: int
    """Backward passes that give the gradient of the images only."""
    to_parameters: int
    """Backward passes that give the gradients of the parameters, one for every forward pass that the loss sees."""


@dataclass(frozen=True)
class Round:
    """The seconds of one training step, and of each bare pass right after it."""

    step: float
    forward: float
    to_input: float
    to_parameters: float

    def bare(self, passes: Passes) -> float:
        """The seconds of all passes of the step."""
        backward = passes.to_input * self.to_input + passes.to_parameters * self.to_parameters
        return passes.forward * self.forward + backward


@dataclass(frozen=True)
class StepTimes:
    """What a benchmark found; times are medians over the rounds, in seconds."""

    passes: Passes
    batch_size: int
    rounds: int
    step: float
    bare: float
    ratio: float
    """Step to bare passes: the median of the rounds' ratios, and its quartiles."""
    ratio_low: float
    ratio_high: float
    images_per_second: float
    peak_memory: int | None
    """Bytes, of the process (CPU) or of the GPU."""


def count_passes(step: TrainStep, batch: Batch, memory: Memory | None, clock: Clock) -> Passes:
    """Runs a step, the loss's backward pass included, and counts what it asks of the network."""
    forward, backward = 0, 0

    def seen(_: nn.Module, __: object, logits: Tensor) -> None:
        nonlocal forward
        forward += 1
        if logits.requires_grad:
            logits.register_hook(back)  # type: ignore[no-untyped-call]

    def back(_: Tensor) -> None:
        nonlocal backward
        backward += 1

    handle = step.model.register_forward_hook(seen)
    losses = step(batch, memory, clock)
    to_input = backward
    losses.total.backward()
    handle.remove()
    step.zero_grad(set_to_none=True)
    return Passes(forward, to_input, backward - to_input)


def bench_step(experiment: Experiment, rounds: int) -> StepTimes:
    """Trains for some steps with the loop that training has, and times every step and then each bare pass.

    A round's pass and step follow one another, so that a noisy machine slows both. The bare passes are those of the
    same network at the same precision, memory layout and batch size; a backward pass is what is left of forward and
    backward without forward. The first three rounds warm up and do not count.

    Raises:
        UserError: fewer than two rounds, or more than the whole training has steps for.
    """
    require(rounds >= 2, f"rounds is {rounds}; it must be at least 2")
    train_set, validation_set = training_data(experiment)
    fabric = devices.start(experiment.device, experiment.precision)
    loader = Loader(
        train_set, experiment.batch_size, fabric.device, pad=experiment.pad, flip=experiment.flip, seed=0,
        replays=experiment.method.replays,
    )  # fmt: skip
    # An epoch's first step is not timed.
    room = (len(loader) - 1) * experiment.epochs - WARM_UP
    require(rounds <= room, f"rounds is {rounds}; the training has steps for {max(0, room)}: more --epochs would help")
    model = initial_model(experiment, train_set)
    try_out(experiment, model, validation_set, fabric)
    train_mode(model, kept_in_eval(model))
    step = TrainStep(model, experiment.method, experiment.threat, len(train_set.classes), experiment.label_mass)
    classes = len(train_set.classes)
    setup = Setup(len(train_set), classes, train_set.shape, experiment.threat, experiment.pad, fabric.device)
    memory = experiment.method.memory(setup)
    batch = next(loader.epoch(0))
    with fabric.autocast():
        passes = count_passes(step, batch, memory, Clock(0, experiment.epochs, 0, len(loader)))
    if experiment.awp:
        passes = Passes(*(2 * count for count in asdict(passes).values()))
    del memory
    probe = _Probe(lambda: _bare_passes(model, batch.x, batch.y, fabric), rounds + WARM_UP, fabric.device)
    quiet = replace(experiment, validate_every=experiment.epochs)
    with tempfile.TemporaryDirectory() as folder, suppress(_Done):
        run(quiet, Path(folder) / "run", probe)
    timed = probe.rounds[WARM_UP:]
    ratios = [one.step / one.bare(passes) for one in timed]
    low, middle, high = statistics.quantiles(ratios, n=4)
    seconds = statistics.median(one.step for one in timed)
    return StepTimes(
        passes, len(batch.x), len(timed), seconds, statistics.median(one.bare(passes) for one in timed), middle, low,
        high, len(batch.x) / seconds, devices.peak_memory(fabric.device),
    )  # fmt: skip


class _Done(Exception):  # noqa: N818
    """All rounds are done: no error."""


class _Probe:
    """Follows a training, and times bare passes between its steps."""

    def __init__(self, bare: Callable[[], tuple[float, float, float]], rounds: int, device: torch.device) -> None:
        self._bare, self._wanted, self._device = bare, rounds, device
        self._began: float | None = None
        self.rounds: list[Round] = []

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Nothing is shown."""

    def batch(self, examples: int) -> None:
        """A step is done: its time, and the passes'."""
        now = _now(self._device)
        if self._began is not None:
            self.rounds.append(Round(now - self._began, *self._bare()))
        if len(self.rounds) == self._wanted:
            raise _Done
        self._began = _now(self._device)

    def epoch(self, row: Epoch) -> None:
        """What an epoch ends with is no part of a step."""
        self._began = None

    def alarm(self, text: str) -> None:
        """Nothing is shown."""

    def warn(self, text: str) -> None:
        """Nothing is shown."""

    def note(self, text: str) -> None:
        """Nothing is shown."""


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _bare_passes(model: nn.Module, x: Images, y: Labels, fabric: Fabric) -> tuple[float, float, float]:
    """The seconds of a forward pass, of the backward pass to the images, and of the one to the parameters."""

    def forward(images: Images) -> Tensor:
        with fabric.autocast():
            return cross_entropy(model(images), y).mean()

    device = fabric.device
    began = _now(device)
    forward(x)
    first = _now(device)
    images = x.detach().requires_grad_()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    torch.autograd.grad(forward(images), images)
    for parameter in learned:
        parameter.requires_grad_(True)
    second = _now(device)
    torch.autograd.backward(forward(x))
    third = _now(device)
    model.zero_grad(set_to_none=True)
    once = first - began
    return once, second - first - once, third - second - once


def bench_line(label: str, row: dict[str, Any], *, first: bool) -> str:
    """A row of the table, with the heading above the first."""
    passes, memory = row["passes"], row["peak_memory"]
    needed = f"{passes['forward']} F {passes['to_input']} I {passes['to_parameters']} P"
    spread = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    peak = "unknown" if memory is None else f"{memory / 2**20:.0f} MiB"
    text = (
        f"{label:<20} {needed:<12} {row['bare']:>9.4f} s {row['step']:>9.4f} s  {spread:<20} "
        f"{row['images_per_second']:>8.0f} {peak:>12}"
    )
    heading = "F forward, I backward to the images, P backward to the parameters; [quartiles] over the rounds\n" + (
        f"{'method':<20} {'passes':<12} {'bare':>11} {'step':>11}  {'step / bare':<20} {'images/s':>8} {'peak':>12}\n"
    )
    return (heading if first else "") + text
