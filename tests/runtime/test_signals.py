"""A closed terminal saves as SIGTERM does, and a process under nohup goes on."""

import os
import signal
from pathlib import Path

import pytest

from regmix.cli.entry import main
from regmix.runs import Run
from regmix.runtime.signals import ending
from regmix.training import trainee

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
WORDS = "train digits-regmix --train-examples 60 --batch-size 20 --validation 50 --epochs 2 --model.width 2"


def test_under_nohup_it_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending() == (signal.SIGTERM, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ending() == (signal.SIGTERM,)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_saves_even_if_it_is_told_twice(tmp_path: Path, monkeypatch, capsys) -> None:
    learn = trainee.Trainee.learn

    def hung_up(self: trainee.Trainee, batch: object) -> None:
        learn(self, batch)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)

    with monkeypatch.context() as during:
        during.setattr(trainee.Trainee, "learn", hung_up)
        assert main([*WORDS.split(), "--out", str(tmp_path / "run")]) == 128 + signal.SIGHUP
    assert "SIGHUP: saved in epoch 1 after 1 of 3 steps" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert Run.open(tmp_path / "run").result().status == "finished"
