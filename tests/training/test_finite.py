"""Steps whose gradient is not finite."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from contracts.devices import DEVICE
from regmix.cli.entry import main
from regmix.methods import PgdAt
from regmix.training.finite import Finite, check_steps
from regmix.training.tally import Tally
from regmix.types import Batch, Losses, UserError

WORDS = "train digits-regmix --method pgd_at --train-examples 600 --validation 50 --epochs 2 --batch-size 20 "
WORDS += "--model.width 4 --seed 3"
STEPS = 30


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.device
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_becomes_zero_and_leaves_batchnorm_alone(bad: float) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).double().to(DEVICE)
    finite = Finite(model)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64, device=DEVICE)
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    finite.begin()
    (model(x).sum() * bad).backward()
    assert not finite.end()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())
    assert all(torch.equal(dict(model.named_buffers())[name], value) for name, value in before.items())

    model.zero_grad()
    finite.begin()
    model(x).square().sum().backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    assert finite.end()
    assert all(torch.equal(p.grad, w) for p, w in zip(model.parameters(), wanted, strict=True))
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])


def test_a_step_without_a_finite_gradient_does_not_count_in_the_averages() -> None:
    tally = Tally(torch.device("cpu"), 3)
    y = torch.tensor([0, 1])
    for step, (loss, fine) in enumerate([(1.0, True), (float("nan"), False), (3.0, True)]):
        losses = Losses({"classify": torch.tensor(loss)}, torch.eye(2), {})
        tally.add(step, Batch(torch.zeros(2, 1, 1, 1), y), losses, torch.tensor(fine))
    assert tally.means() == {"terms/classify": 2.0, "train_robust": 1.0}
    assert tally.bad_steps() == [1]
    assert tally.causes() == ["classify"]
    assert check_steps(tally, [], "skip", 0, 20) == []
    assert check_steps(tally, [], "rollback", 0, 20) == [1]
    with pytest.raises(UserError, match=r"epoch 1: the gradient of step 2 was not finite \(classify\); the run stops"):
        check_steps(tally, [], "stop", 0, 20)
    with pytest.raises(UserError, match="not finite"):
        check_steps(tally, [0, 2], "rollback", 0, 20)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the loss of the training's seventh step, and of that step alone, be NaN; the clock's step of every call."""
    real, calls = PgdAt.compute, []

    def loss(self, model, batch, threat, memory=None, clock=None):
        calls.append(clock.step)
        losses = real(self, model, batch, threat, memory, clock)
        if batch.index.tolist() == poisoned_batch or len(calls) == 7:
            poisoned_batch[:] = batch.index.tolist()
            losses.terms["classify"] = losses.terms["classify"] * float("nan")
        return losses

    poisoned_batch: list[int] = []
    monkeypatch.setattr(PgdAt, "compute", loss)
    return calls


def test_a_lost_step_is_skipped_and_named(poisoned: list[int], tmp_path: Path, capsys) -> None:
    path = tmp_path / "run"
    assert main([*WORDS.split(), "--out", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "WARNING epoch 1: the gradient of step 7 was not finite (classify); nothing was learned from it" in told
    assert [row["lost_steps"] for row in rows(path)] == [[6], []]
    assert len(poisoned) == 2 * STEPS
    assert all(torch.tensor(row["loss"]).isfinite() for row in rows(path))


def test_a_lost_step_is_left_out_by_going_back(poisoned: list[int], tmp_path: Path, capsys) -> None:
    path = tmp_path / "run"
    assert main([*WORDS.split(), "--nonfinite", "rollback", "--out", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "step 7 was not finite (classify); back to epoch 0; training continues without this step" in told
    assert [row["lost_steps"] for row in rows(path)] == [[6], []]
    assert poisoned == [*range(STEPS), *range(STEPS - 1), *range(STEPS)]  # a step left out is not counted


def test_a_lost_step_ends_the_run_when_asked(poisoned: list[int], tmp_path: Path, capsys) -> None:
    assert main([*WORDS.split(), "--nonfinite", "stop", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "the gradient of step 7 was not finite (classify); the run stops" in error
    assert error.count("\n") == 1
