"""The world in which public training code runs on the CPU, in float64, on given batches and with given random numbers.

Nothing of that code is changed in its folder. What it takes from outside is replaced while it runs: CUDA, the optimizer
of the model, loaders, networks, random numbers, and libraries that a training step does not need.
"""

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from public_code.draws import Tape, given_numbers, shape_of
from public_code.net import BATCH, CLASSES, SIZE, Net
from public_code.standins import UNNEEDED, Unneeded
from torch import Tensor, nn


class Done(Exception):  # noqa: N818  # the end of the steps, not an error
    """All steps are recorded."""


def _float_tensor(*given: Any) -> Tensor:
    """An empty tensor of a size, or the given numbers."""
    of_size = isinstance(given[0], int | torch.Size)
    return torch.empty(shape_of(given)) if of_size else torch.as_tensor(given[0], dtype=torch.float64)


@dataclass
class Step:
    """What a step of public code was: where its model began, its loss, and the gradients that its optimizer saw."""

    before: dict[str, Tensor]
    loss: float
    gradients: list[Tensor]
    buffers: list[Tensor]


@dataclass
class World:
    """Batches and a model for public code, and the record of its steps."""

    model: Net
    images: list[Tensor]
    labels: list[Tensor]
    epochs: int
    per_epoch: int
    replays: int = 1
    rate: float = 0.01
    record: list[Step] = field(default_factory=list)
    _begun: dict[str, Tensor] = field(default_factory=dict)
    _loss: float = float("nan")

    def optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
        """An optimizer for the model that records its steps, and ends the training after the last one."""
        self._begin()
        return _Recorder(self)

    def loader(self, *, index: bool = False, index_last: bool = False, copies: int = 1, border: int = 0) -> Any:
        """A loader of an epoch's batches (images, labels), with the positions of the images first or last if asked."""
        world = self

        class Loader:
            dataset: Any = [(0, world.images[0][0], 0)] * (BATCH * world.per_epoch)
            batch_size = BATCH

            def __init__(self) -> None:
                self.epoch = 0

            def __len__(self) -> int:
                return world.per_epoch

            def __iter__(self) -> Iterator[Any]:
                first = self.epoch % world.epochs * world.per_epoch
                self.epoch += 1
                for number in range(0, world.per_epoch, world.replays):
                    x, y = world.images[first + number], world.labels[first + number]
                    x = torch.nn.functional.pad(x, (border,) * 4).repeat(copies, 1, 1, 1)
                    world._begin()
                    places = torch.arange(BATCH) + BATCH * number
                    yield (places, x.clone(), y) if index else (x.clone(), y, places) if index_last else (x.clone(), y)

        return Loader()

    @property
    def begun(self) -> bool:
        """Whether the model has its optimizer."""
        return bool(self._begun)

    def _begin(self) -> None:
        self._begun = {name: value.clone() for name, value in self.model.state_dict().items()}

    def _step(self) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        self.record.append(Step(self._begun, self._loss, gradients, buffers))
        if len(self.record) == self.epochs * self.per_epoch:
            raise Done

    @contextlib.contextmanager
    def running(self, folder: Path, tape: Tape, arguments: list[str]) -> Iterator[None]:
        """Runs public code from its folder until the last step; its modules are forgotten afterwards."""
        backward = torch.Tensor.backward

        def noting(tensor: Tensor, *args: Any, **kwargs: Any) -> None:
            self._loss = float(tensor.detach())
            backward(tensor, *args, **kwargs)

        def same(value: Any, *_: Any, **__: Any) -> Any:
            return value

        to, module_to = torch.Tensor.to, nn.Module.to

        def on_the_cpu(move: Any) -> Any:
            def moved(value: Any, *args: Any, **kwargs: Any) -> Any:
                elsewhere = args and (isinstance(args[0], int) or str(args[0]).startswith("cuda"))
                return value if elsewhere else move(value, *args, **kwargs)

            return moved

        modules, paths, here = dict(sys.modules), [*sys.path], Path.cwd()
        finder = Unneeded()
        with contextlib.ExitStack() as stack:
            stack.enter_context(given_numbers(tape))
            for owner, name, new in (
                (torch.Tensor, "backward", noting), (torch.Tensor, "cuda", same), (torch.Tensor, "float", same),
                (nn.Module, "cuda", same), (nn.Module, "float", same),
                (torch, "FloatTensor", _float_tensor),
                (torch.Tensor, "to", on_the_cpu(to)), (nn.Module, "to", on_the_cpu(module_to)),
                (torch.optim, "SGD", self.optimizer), (sys, "argv", ["public", *arguments]),
            ):  # fmt: skip
                stack.enter_context(mock.patch.object(owner, name, new))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            work = stack.enter_context(tempfile.TemporaryDirectory())
            for name in [name for name in sys.modules if name.partition(".")[0] in UNNEEDED]:
                del sys.modules[name]
            sys.meta_path.insert(0, finder)
            sys.path.insert(0, str(folder))
            os.chdir(work)
            logging.disable(logging.CRITICAL)
            try:
                yield
                raise AssertionError(f"{folder} stopped after {len(self.record)} steps")
            except Done:
                pass
            finally:
                logging.disable(logging.NOTSET)
                os.chdir(here)
                sys.path[:] = paths
                sys.meta_path.remove(finder)
                for name in [*sys.modules]:
                    if name not in modules:
                        del sys.modules[name]
                sys.modules.update(modules)


class _Recorder(torch.optim.SGD):
    def __init__(self, world: World) -> None:
        super().__init__(world.model.parameters(), world.rate)
        self._world = world

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self._world._step()
        with torch.no_grad():  # at a rate of its own, whatever the schedule of the public code says
            for parameter in self._world.model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(self._world.rate * parameter.grad)
        self._world._begin()


def a_world(
    epochs: int,
    per_epoch: int,
    *,
    inside: bool = False,
    pairs: bool = False,
    repeat: bool = False,
    replays: int = 1,
    sharp: float = 1.0,
) -> World:
    """A model of fixed weights and batches; a quarter of the pixels lie on the border of [0, 1], unless `inside`.

    Half of the labels are the model's own answers, so that accuracies are neither 0 nor 1. With `repeat` the batches of
    all epochs are the same images; with `replays` so many steps in a row have the same batch. `sharp` is a factor
    inside the network.
    """
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Net(pairs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        model.body[1].weight.mul_(sharp)
    images, labels = [], []
    for number in range(epochs * per_epoch):
        back = per_epoch if repeat and number >= per_epoch else 1 if number % replays else 0
        if back:
            images.append(images[-back])
            labels.append(labels[-back])
            continue
        x = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
        x = 0.2 + 0.6 * x if inside else (1.5 * x - 0.25).clamp(0, 1)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        output = model(x)
        model.load_state_dict(state)
        answers = (output[0] if pairs else output).argmax(1)
        drawn = torch.randint(CLASSES, (BATCH,), generator=generator)
        images.append(x)
        labels.append(torch.where(torch.arange(BATCH) % 2 == 0, answers, drawn))
    return World(model, images, labels, epochs, per_epoch, replays)
