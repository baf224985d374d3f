"""Times training steps and compares them with the bare passes through the network that they consist of."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
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
from regmix.runtime.recorder import recorder
from regmix.studies.floor import DTYPES, flops, now, product_rate, time_of
from regmix.training import TrainStep
from regmix.training.display import Display
from regmix.training.prepare import initial_model, settled_precision, training_data, try_out
from regmix.training.readiness import kept_in_eval, train_mode
from regmix.training.recorded import NOT_RECORDED, REHEARSALS, is_asked_for
from regmix.training.start import run
from regmix.types import Batch, Clock, Images, Labels, UserError, require

WARM_UP = 3


@dataclass(frozen=True)
class Passes:
    """How many passes of a batch through the network a training step makes."""

    forward: int
    to_input: int
    """Backward passes to the images only."""
    to_parameters: int
    """Backward passes to the parameters, one for every forward pass that the loss depends on."""

    def cost(self, forward: float, to_input: float, to_parameters: float) -> float:
        """What all passes cost, given the cost of one of each kind."""
        return self.forward * forward + self.to_input * to_input + self.to_parameters * to_parameters


@dataclass(frozen=True)
class Round:
    """Seconds of one training step, and of each kind of bare pass measured right after it."""

    step: float
    forward: float
    to_input: float
    to_parameters: float

    def bare(self, passes: Passes) -> float:
        """Seconds of all passes of a step."""
        return passes.cost(self.forward, self.to_input, self.to_parameters)


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
    flops: float
    """Additions and multiplications of the convolutions and matrix products of the passes."""
    product_rate: float
    """Additions and multiplications per second of a large matrix product on this device, in the run's precision."""
    floor: float
    """The quotient of both: seconds that the passes would take at that speed."""
    reached: float
    """The floor divided by the time of a step."""
    recorded: bool
    """Whether the step was a repeated recording; on a GPU the bare passes then are, too."""
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
    forward. The first rounds are a warm-up and do not count: three, and those until the step is recorded. On a GPU the
    bare passes are recorded where the step is to be.

    Raises:
        UserError: fewer than two rounds, or more rounds than the training has steps for.
    """
    require(rounds >= 2, f"rounds is {rounds}; it must be at least 2")
    train_set, validation_set = training_data(experiment)
    model = initial_model(experiment, train_set)
    precision, note = settled_precision(experiment, model, train_set)
    if note is not None:
        print(note, file=sys.stderr)
    fabric = devices.start(experiment.device, precision)
    loader = Loader(
        train_set, experiment.batch_size, fabric.device, pad=experiment.pad, flip=experiment.flip,
        augmentations=experiment.augmentations, balance=experiment.balance, seed=0, replays=experiment.method.replays,
    )  # fmt: skip
    asked = is_asked_for(experiment, fabric.device)
    warm_up = WARM_UP + (REHEARSALS + 1) * asked
    # The first step of an epoch is not timed.
    most = (len(loader) - 1) * experiment.epochs - warm_up
    require(
        rounds <= most, f"rounds is {rounds}, but the training has steps for {max(0, most)} only; give more --epochs"
    )
    try_out(experiment, model, validation_set, fabric)
    train_mode(model, kept_in_eval(model))
    step = TrainStep(model, experiment.method, experiment.threat, len(train_set.classes), experiment.label_mass)
    setup = Setup(
        len(train_set), len(train_set.classes), train_set.shape, experiment.threat, experiment.border, fabric.device
    )
    memory = experiment.method.memory(setup)
    batch = next(loader.epoch(0))
    with fabric.autocast():
        passes = count_passes(step, batch, memory, Clock(0, experiment.epochs, 0, len(loader)))
    if experiment.awp:
        passes = Passes(*(2 * count for count in asdict(passes).values()))
    del memory
    bare = BarePasses(model, batch.x, batch.y, fabric)
    work = passes.cost(*bare.flops())
    rate = product_rate(fabric.device, DTYPES[precision])
    if asked and fabric.device.type == "cuda":
        bare.record()
    probe = _Probe(bare.seconds, rounds + warm_up, fabric.device)
    quiet = replace(experiment, validate_every=experiment.epochs)
    with tempfile.TemporaryDirectory() as folder, suppress(_Done):
        run(quiet, Path(folder) / "run", probe)
    timed = probe.rounds[warm_up:]
    low, middle, high = statistics.quantiles([times.step / times.bare(passes) for times in timed], n=4)
    seconds = statistics.median(times.step for times in timed)
    return StepTimes(
        passes, len(batch.x), len(timed), seconds, statistics.median(times.bare(passes) for times in timed),
        middle, low, high, work, rate, work / rate, work / rate / seconds,
        asked and not any(note.startswith(NOT_RECORDED) for note in probe.notes), len(batch.x) / seconds,
        devices.peak_memory(fabric.device),
    )  # fmt: skip


class _Done(Exception):  # noqa: N818
    """Ends the training when all rounds are done. It is not an error."""


class _Probe(Display):
    """An observer of the training loop that times every step, and bare passes between the steps."""

    def __init__(self, bare: Callable[[], tuple[float, float, float]], rounds: int, device: torch.device) -> None:
        self._bare, self._wanted, self._device = bare, rounds, device
        self._began: float | None = None
        self.rounds: list[Round] = []
        self.notes: list[str] = []

    def batch(self, examples: int) -> None:
        """Called after a step: records its time, and times the bare passes."""
        ended = now(self._device)
        if self._began is not None:
            self.rounds.append(Round(ended - self._began, *self._bare()))
        if len(self.rounds) == self._wanted:
            raise _Done
        self._began = now(self._device)

    def epoch(self, row: Epoch) -> None:
        """Called after an epoch, whose validation and saving are not part of a step."""
        self._began = None

    def note(self, text: str) -> None:
        """Keeps a remark."""
        self.notes.append(text)


class BarePasses:
    """A forward pass, one with a backward pass to the images, and one with a backward pass to the parameters."""

    def __init__(self, model: nn.Module, x: Images, y: Labels, fabric: Fabric) -> None:
        self._model, self._x, self._y, self._fabric = model, x, y, fabric
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._works: list[Callable[[], object]] = [lambda: self._forward(x), self._to_input, self._to_parameters]

    def _forward(self, images: Images) -> Tensor:
        with self._fabric.autocast():
            return cross_entropy(self._model(images), self._y).mean()

    def _to_input(self) -> None:
        images = self._x.detach().requires_grad_()
        for parameter in self._trained:
            parameter.requires_grad_(False)
        torch.autograd.backward(self._forward(images))
        for parameter in self._trained:
            parameter.requires_grad_(True)

    def _to_parameters(self) -> None:
        torch.autograd.backward(self._forward(self._x))

    def record(self) -> None:
        """Repeats recordings from now on, if the passes can be recorded."""
        tool, works = recorder(self._fabric.device), []
        for work in self._works:
            for _ in range(REHEARSALS):
                _, why = tool.rehearse(work)
                self._model.zero_grad(set_to_none=True)
            if why:
                return
            works.append(tool.record(work)[1])
            self._model.zero_grad(set_to_none=True)
        self._works = [*works]

    def seconds(self) -> tuple[float, float, float]:
        """The time of each pass; that of a backward pass is what it adds to a forward pass."""
        return self._measured(lambda work: time_of(work, self._fabric.device))

    def flops(self) -> tuple[float, float, float]:
        """The arithmetic of each pass, in the same way."""
        return self._measured(flops)

    def _measured(self, measure: Callable[[Callable[[], object]], float]) -> tuple[float, float, float]:
        forward, to_input, to_parameters = (measure(work) for work in self._works)
        self._model.zero_grad(set_to_none=True)
        return forward, to_input - forward, to_parameters - forward


def step_in_own_process(label: str, words: Sequence[str]) -> bytes:
    """What `regmix bench step --json` prints, in its own process so that the peak memory is that of this method.

    Raises:
        UserError: it failed; its own output says why.
    """
    command = [sys.executable, "-P", "-m", "regmix", "bench", "step", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise UserError(f"{label}: the benchmark ended with exit code {done.returncode}; see the line above")
    return done.stdout


def bench_line(label: str, row: dict[str, Any], *, first: bool) -> str:
    """A row of the table of results; the first one has the heading above it."""
    passes, memory = row["passes"], row["peak_memory"]
    needed = f"{passes['forward']} F {passes['to_input']} I {passes['to_parameters']} P"
    spread = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    peak = "unknown" if memory is None else f"{memory / 2**20:.0f} MiB"
    text = (
        f"{label:<20} {needed:<12} {row['floor']:>9.4f} s {row['bare']:>9.4f} s {row['step']:>9.4f} s  {spread:<20} "
        f"{100 * row['reached']:>6.1f}%  {'recorded' if row['recorded'] else '':<8} "
        f"{row['images_per_second']:>8.0f} {peak:>12}"
    )
    heading = (
        "F forward, I backward to the images, P backward to the parameters; [quartiles] over the rounds\n"
        f"floor: the {row['flops'] / 1e12:.3g} TFLOP of the first line's passes at {row['product_rate'] / 1e12:.3g} "
        "TFLOP/s, the measured speed of a matrix product\n"
        f"{'method':<20} {'passes':<12} {'floor':>11} {'bare':>11} {'step':>11}  {'step / bare':<20} {'reached':>7}  "
        f"{'':<8} {'images/s':>8} {'peak':>12}\n"
    )
    return (heading if first else "") + text
