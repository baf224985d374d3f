"""Times training steps and compares them with the bare passes through the network that they consist of."""

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
    """How many passes of a batch through the network a training step makes."""

    forward: int
    to_input: int
    """Backward passes to the images only."""
    to_parameters: int
    """Backward passes to the parameters, one for every forward pass that the loss depends on."""


@dataclass(frozen=True)
class Round:
    """Seconds of one training step, and of each kind of bare pass measured right after it."""

    step: float
    forward: float
    to_input: float
    to_parameters: float

    def bare(self, passes: Passes) -> float:
        """Seconds of all passes of a step."""
        backward = passes.to_input * self.to_input + passes.to_parameters * self.to_parameters
        return passes.forward * self.forward + backward


@dataclass(frozen=True)
class StepTimes:
    """The result of a benchmark. Times are medians over the rounds, in seconds."""

    passes: Passes
    batch_size: int
    rounds: int
    step: float
    bare: float
    ratio: float
    """Time of a step divided by the time of its bare passes: the median over the rounds."""
    ratio_low: float
    """Lower quartile of the ratio."""
    ratio_high: float
    """Upper quartile of the ratio."""
    images_per_second: float
    peak_memory: int | None
    """Bytes: of the process on a CPU, of the GPU's memory on a GPU."""


def count_passes(step: TrainStep, batch: Batch, memory: Memory | None, clock: Clock) -> Passes:
    """Runs a step and the backward pass of its loss, and counts the passes through the network."""
    forward, backward = 0, 0

    def count_forward(_: nn.Module, __: object, logits: Tensor) -> None:
        nonlocal forward
        forward += 1
        if logits.requires_grad:
            logits.register_hook(count_backward)  # type: ignore[no-untyped-call]

    def count_backward(_: Tensor) -> None:
        nonlocal backward
        backward += 1

    handle = step.model.register_forward_hook(count_forward)
    losses = step(batch, memory, clock)
    to_input = backward
    losses.total.backward()
    handle.remove()
    step.zero_grad(set_to_none=True)
    return Passes(forward, to_input, backward - to_input)


def bench_step(experiment: Experiment, rounds: int) -> StepTimes:
    """Trains for some steps with the usual training loop; times every step, and each kind of bare pass after it.

    Steps and bare passes alternate, so that a noisy machine slows both. The bare passes use the same network,
    precision, memory layout and batch size. The time of a backward pass is that of forward and backward minus that of
    forward. The first three rounds are a warm-up and do not count.

    Raises:
        UserError: fewer than two rounds, or more rounds than the training has steps for.
    """
    require(rounds >= 2, f"rounds is {rounds}; it must be at least 2")
    train_set, validation_set = training_data(experiment)
    fabric = devices.start(experiment.device, experiment.precision)
    loader = Loader(
        train_set, experiment.batch_size, fabric.device, pad=experiment.pad, flip=experiment.flip, seed=0,
        replays=experiment.method.replays,
    )  # fmt: skip
    # The first step of an epoch is not timed.
    most = (len(loader) - 1) * experiment.epochs - WARM_UP
    require(
        rounds <= most, f"rounds is {rounds}, but the training has steps for {max(0, most)} only; give more --epochs"
    )
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
    low, middle, high = statistics.quantiles([times.step / times.bare(passes) for times in timed], n=4)
    seconds = statistics.median(times.step for times in timed)
    bare = statistics.median(times.bare(passes) for times in timed)
    return StepTimes(
        passes, len(batch.x), len(timed), seconds, bare, middle, low, high, len(batch.x) / seconds,
        devices.peak_memory(fabric.device),
    )  # fmt: skip


class _Done(Exception):  # noqa: N818
    """Ends the training when all rounds are done. It is not an error."""


class _Probe:
    """An observer of the training loop that times every step, and bare passes between the steps."""

    def __init__(self, bare: Callable[[], tuple[float, float, float]], rounds: int, device: torch.device) -> None:
        self._bare, self._wanted, self._device = bare, rounds, device
        self._began: float | None = None
        self.rounds: list[Round] = []

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Nothing is shown."""

    def batch(self, examples: int) -> None:
        """Called after a step: records its time, and times the bare passes."""
        now = _now(self._device)
        if self._began is not None:
            self.rounds.append(Round(now - self._began, *self._bare()))
        if len(self.rounds) == self._wanted:
            raise _Done
        self._began = _now(self._device)

    def epoch(self, row: Epoch) -> None:
        """Called after an epoch, whose validation and saving are not part of a step."""
        self._began = None

    def alarm(self, text: str) -> None:
        """Nothing is shown."""

    def warn(self, text: str) -> None:
        """Nothing is shown."""

    def note(self, text: str) -> None:
        """Nothing is shown."""


def _now(device: torch.device) -> float:
    """The time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _bare_passes(model: nn.Module, x: Images, y: Labels, fabric: Fabric) -> tuple[float, float, float]:
    """Seconds of a forward pass, of a backward pass to the images, and of a backward pass to the parameters."""

    def forward(images: Images) -> Tensor:
        with fabric.autocast():
            return cross_entropy(model(images), y).mean()

    device = fabric.device
    began = _now(device)
    forward(x)
    first = _now(device)
    images = x.detach().requires_grad_()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    torch.autograd.grad(forward(images), images)
    for parameter in trained:
        parameter.requires_grad_(True)
    second = _now(device)
    torch.autograd.backward(forward(x))
    third = _now(device)
    model.zero_grad(set_to_none=True)
    once = first - began
    return once, second - first - once, third - second - once


def bench_line(label: str, row: dict[str, Any], *, first: bool) -> str:
    """A row of the table of results; the first one has the heading above it."""
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
