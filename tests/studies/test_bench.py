"""`regmix bench step`: what it counts and what it prints."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from contracts.devices import DEVICE
from regmix.cli.entry import main
from regmix.config import Experiment
from regmix.data import Digits, Loader, load
from regmix.methods import FgsmAt, FgsmPgk, FgsmRs, GradAlign, Method, PgdAt, RegMix, Setup, Standard, Trades
from regmix.models import SmallCnn, build
from regmix.recipes import recipe
from regmix.runtime.devices import start
from regmix.studies.bench import BarePasses, Passes, Round, StepTimes, bench_step, count_passes
from regmix.studies.floor import product_rate
from regmix.threats import Linf
from regmix.training import TrainStep
from regmix.types import Clock, UserError


@pytest.mark.parametrize(
    ("method", "forward", "to_input", "to_parameters"),
    [
        (Standard(), 1, 0, 1),
        (FgsmAt(), 2, 1, 1),
        (FgsmRs(), 2, 1, 1),
        (FgsmPgk(), 2, 1, 2),
        (PgdAt(steps=2), 3, 2, 1),
        (PgdAt(steps=10), 11, 10, 1),
        (RegMix(), 4, 2, 3),
        (Trades(steps=10), 13, 10, 2),  # the attack runs in evaluation mode, and needs its own clean output
    ],
)
def test_a_method_asks_the_network_no_more_than_it_must(
    method: Method, forward: int, to_input: int, to_parameters: int
) -> None:
    digits = load(Digits(), "train").subset(torch.arange(16))
    model = build(SmallCnn(width=4), 10, 1, [0.5], [0.3])
    memory = method.memory(Setup(16, 10, (1, 8, 8), Linf(0.1), pad=1))
    (batch,) = Loader(digits, 16, "cpu", pad=1, flip=False, seed=0).epoch(0)
    step = TrainStep(model, method, Linf(0.1), 10, 1.0)
    assert count_passes(step, batch, memory, Clock(0, 2, 0, 1)) == Passes(forward, to_input, to_parameters)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_hooks


def test_the_bare_time_is_that_of_all_passes() -> None:
    assert Round(9.0, 1.0, 2.0, 4.0).bare(Passes(4, 2, 3)) == 4 * 1 + 2 * 2 + 3 * 4


def short() -> Experiment:
    return replace(recipe("digits-regmix"), train_examples=256, validation=50, epochs=4, device="cpu")


def test_the_training_s_own_loop_is_timed() -> None:
    """256 images are 2 steps an epoch or more, so that rounds go on over the ends of epochs."""
    found = bench_step(replace(short(), batch_size=16), 5)
    assert isinstance(found, StepTimes)
    assert found.rounds == 5
    assert found.passes == Passes(4, 2, 3)
    assert 0 < found.step < 10
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert found.images_per_second == pytest.approx(found.batch_size / found.step)
    assert found.floor == pytest.approx(found.flops / found.product_rate)
    assert found.reached == pytest.approx(found.floor / found.step)
    assert 0 < found.reached < 1
    assert not found.recorded
    doubled = bench_step(replace(short(), batch_size=16, awp=0.005), 3)
    assert doubled.passes == Passes(8, 4, 6)
    assert doubled.flops == 2 * found.flops


def test_the_arithmetic_of_the_passes_is_that_of_their_products() -> None:
    """Two linear layers, without the gradient of the images where nobody asks for it."""
    batch, widths = 4, (12, 5, 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(widths[0], widths[1]), nn.ReLU(), nn.Linear(widths[1], widths[2]))
    passes = BarePasses(model, torch.rand(batch, 3, 2, 2), torch.zeros(batch, dtype=torch.long), start("cpu", "32"))
    first, second = (2 * batch * one * other for one, other in pairwise(widths))
    assert passes.flops() == (first + second, first + second, first + 2 * second)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_recorded_step_is_timed_after_it_is_recorded() -> None:
    found = bench_step(replace(short(), batch_size=16, cuda_graph="on"), 2)
    assert found.recorded
    assert found.rounds == 2
    refused = replace(short(), batch_size=16, cuda_graph="on", method=GradAlign())
    with pytest.raises(UserError, match="second derivatives"):
        bench_step(refused, 2)


@pytest.mark.device
def test_a_device_multiplies() -> None:
    assert 1e9 < product_rate(DEVICE, torch.float32) < 1e16


def test_too_few_and_too_many_rounds_are_refused() -> None:
    """206 images in batches of 128 are 2 steps, the second of which is timed, in 4 epochs, 3 of which warm up."""
    with pytest.raises(UserError, match="rounds is 1; it must be at least 2"):
        bench_step(short(), 1)
    with pytest.raises(UserError, match="rounds is 2, but the training has steps for 1 only; give more"):
        bench_step(short(), 2)
    assert bench_step(replace(short(), epochs=5), 2).rounds == 2


@pytest.mark.slow
def test_several_methods_are_timed_in_processes_of_their_own(capsys) -> None:
    words = "bench step digits-regmix --methods standard,pgd_at:steps=3 --rounds 3 --json"
    assert main([*words.split(), "--train-examples", "256", "--epochs", "4", "--batch-size", "16"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert found["standard"]["passes"] == {"forward": 1, "to_input": 0, "to_parameters": 1}
    assert found["pgd_at:steps=3"]["passes"] == {"forward": 4, "to_input": 3, "to_parameters": 1}
    assert main(["bench", "train"]) == 2
    assert "write: regmix bench step RECIPE" in capsys.readouterr().err
