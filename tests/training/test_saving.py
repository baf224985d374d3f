"""A training that cannot write every epoch loses nothing unless it is killed, and then repeats it."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.finished import assert_same, rows
from regmix.cli.entry import main
from regmix.runs import Run
from regmix.training import saving
from regmix.training.saving import Saving
from regmix.training.trainee import Trainee
from regmix.types import UserError

WORDS = "digits-regmix --method fgsm_pgk --averaging gated_ema --train-examples 60 --validation 50 --batch-size 20"
WORDS += " --epochs 5 --model.width 4 --seed 3"


class Killed(BaseException):
    """Leaves the process past every handler of errors, as a kill does."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", *WORDS.split(), "--out", str(out)]) == 0
    return out


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing takes so long that after the first epoch only what must be written is."""
    monkeypatch.setattr(saving, "CHEAP", 0.0)
    monkeypatch.setattr(saving, "SHARE", 1e-9)


def test_what_is_kept_is_written_at_the_end(whole: Path, slow: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", *WORDS.split(), "--out", str(out)]) == 0
    assert_same(whole, out)
    assert max(path.name.split("-")[1] for path in out.glob("state-*")) == "000002", "the first epoch and the last"


@pytest.mark.parametrize("how", ["an error", "a signal in an epoch", "a kill", "a second before the first epoch"])
def test_an_end_before_the_last_epoch(how: str, whole: Path, slow: None, tmp_path: Path, monkeypatch) -> None:
    out, calls = tmp_path / "run", []
    real = Trainee.learn

    def learn(self: Trainee, batch: Any) -> None:
        calls.append(0)
        if len(calls) == {"a second before the first epoch": 1}.get(how, 11):  # the second step of the fourth epoch
            if how == "an error":
                raise UserError("the disk is full")
            if how == "a kill":
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainee, "learn", learn)
        if how == "a kill":
            with pytest.raises(Killed):
                main(["train", *WORDS.split(), "--out", str(out)])
        else:
            assert main(["train", *WORDS.split(), "--out", str(out)]) == (2 if how == "an error" else 143)
    kept = {"an error": 3, "a signal in an epoch": 3, "a kill": 1, "a second before the first epoch": 0}[how]
    state = Run.open(out).load_state(pytest.fail)
    assert state is not None
    assert state["epoch"] == kept
    assert len(rows(out)) == kept, "as many as the weights have epochs"
    if kept:
        names = {"best", "last", "averaged"}
        assert {path.stem for path in out.glob("*.safetensors")} == names, "weights of the epochs that are counted"
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(whole, out)


def test_a_guard_that_may_go_back_needs_every_epoch(slow: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", *WORDS.split(), "--guard.action", "rollback", "--out", str(out)]) == 0
    assert max(path.name.split("-")[1] for path in out.glob("state-*")) == "000005"


def test_copies_do_not_change_with_the_training(tmp_path: Path) -> None:
    tensors = {"weight": torch.zeros(2)}
    run = Run.create(tmp_path / "run", "{}", Run(tmp_path).environment())
    keeper = Saving(run, "{}")
    keeper.keep({"last": tensors}, {"model": tensors, "epoch": 1})
    tensors["weight"].add_(1)
    keeper.flush()
    state = run.load_state(pytest.fail)
    assert state is not None
    assert state["model"]["weight"].tolist() == [0, 0]
    assert (tmp_path / "run" / "last.safetensors").is_file()


@pytest.mark.parametrize(("took", "since", "due"), [(0.05, 0.0, True), (1.0, 49.0, False), (1.0, 51.0, True)])
def test_writing_takes_its_share_of_the_time_at_most(took, since, due, tmp_path: Path, monkeypatch) -> None:
    times = iter([0.0, 10.0, 10.0 + took, 10.0 + took + since])
    monkeypatch.setattr(saving.time, "perf_counter", lambda: next(times))
    run = Run.create(tmp_path / "run", "{}", Run(tmp_path).environment())
    keeper = Saving(run, "{}")
    assert keeper.is_due(), "the first epoch is written"
    keeper.write({}, {"epoch": 1})
    assert keeper.is_due() is due


def test_the_last_epoch_of_several_processes_is_written_by_the_first_alone(tmp_path: Path) -> None:
    folder = Run.create(tmp_path / "run", "{}", Run(tmp_path).environment()).path
    other = Saving(Run(folder, writes=False), "{}")
    other.keep({"last": {"weight": torch.zeros(1)}}, {"epoch": 1})
    other.flush()
    assert not [*folder.glob("*.safetensors"), *folder.glob("state-*")]
