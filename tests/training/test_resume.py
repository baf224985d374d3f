"""A run that was interrupted ends as if it had not been."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.finished import assert_same, rows
from regmix.cli.entry import main
from regmix.runs import Run
from regmix.runs.load import load_model
from regmix.runtime import devices
from regmix.runtime.files import digest
from regmix.training import start, validation
from regmix.training.session import Session
from regmix.training.trainee import Trainee
from regmix.types import Doubt

TINY = "--train-examples 60 --validation 50 --epochs 4 --model.width 4 --pad 1 --flip --seed 3"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs that were not interrupted, by the words after `regmix train`: each trained once, not to be changed."""

    @cache
    def run(words: str) -> Path:
        out = tmp_path_factory.mktemp("finished") / "run"
        assert main(["train", *words.split(), "--out", str(out)]) == 0
        return out

    return run


@pytest.mark.parametrize("recorded", [True, False])
def test_a_resumed_run_keeps_the_precision_it_began_with(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other hardware, where auto means something else, too; runs of before it was recorded used bf16."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = f"train digits-regmix --method fgsm_rs --averaging none --precision auto {TINY} --epochs 1"
    monkeypatch.setattr(devices, "computes_in_bfloat16", lambda device: True)
    assert main(f"{settings} --out {whole}".split()) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Session, "end_epoch", lambda *arguments: signal.raise_signal(signal.SIGINT))
        assert main(f"{settings} --out {broken}".split()) == 130
    facts = json.loads((broken / "environment.json").read_text())
    assert facts["precision"] == "bf16"
    if not recorded:
        del facts["precision"]
        (broken / "environment.json").write_text(json.dumps(facts))
    monkeypatch.setattr(devices, "resolved", lambda precision, device: "32" if precision == "auto" else precision)
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same(whole, broken)


@pytest.mark.parametrize(
    "method",
    [
        "--method regmix --averaging gated_ema",
        "--method regmix --method.start carried --averaging none",
        "--method fgsm_pgk --averaging gated_ema --method.reset 3",
        pytest.param("--method fgsm_fuap --averaging none", marks=pytest.mark.slow),
        pytest.param("--method fgsm_sdi --method.refresh 3 --averaging none", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("epochs_before", [0, 1, 3])
def test_resuming_is_exact(
    method: str, epochs_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished
) -> None:
    whole, broken = finished(f"digits-regmix {method} {TINY}"), tmp_path / "broken"

    real, calls = validation.validate, []

    def interrupted(*arguments: Any, **more: Any) -> dict[str, float]:
        calls.append(0)
        averages = 1 if "--averaging none" in method else 2
        if len(calls) > epochs_before * averages:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(validation, "validate", interrupted)
    assert main(f"train digits-regmix {method} {TINY} --out {broken}".split()) == 130
    assert len(rows(broken)) == epochs_before
    monkeypatch.setattr(validation, "validate", real)
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same(whole, broken)


@pytest.mark.parametrize("harm", ["cut off", "a changed byte", "emptied"])
def test_a_run_whose_last_state_is_damaged_goes_on_from_the_one_before(
    harm: str, tmp_path: Path, capsys, finished
) -> None:
    whole, broken = finished(f"digits-regmix {TINY}"), tmp_path / "broken"
    shutil.copytree(whole, broken)
    before, last = sorted(broken.glob("state-*.pt"))
    content = last.read_bytes()
    middle = len(content) // 2
    bad = {"cut off": content[:middle], "emptied": b""}
    last.write_bytes(bad.get(harm, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]))
    capsys.readouterr()
    assert main(["train", "--resume", str(broken)]) == 0
    told = capsys.readouterr().out
    assert told.count("is damaged") == 1
    assert f"WARNING {last} is damaged" in told
    assert "epoch   4/4" in told
    assert "epoch   3/4" not in told
    assert_same(whole, broken)

    for path in broken.glob("state-*.pt"):
        path.write_bytes(b"nothing")
    assert main(["train", "--resume", str(broken)]) == 2
    assert "is damaged, and so is the state before; start the run again" in capsys.readouterr().err
    assert before.name not in {path.name for path in broken.glob("state-*.pt")}


def without_settings(run: Path) -> None:
    """Takes the settings out of the weights and states, which regmix 0.1 did not put there."""
    for path in run.glob("*.safetensors"):
        save_file(load_file(path), path)
    for path in run.glob("state-*.pt"):
        state = torch.load(path, weights_only=True)
        del state["settings"]
        torch.save(state, path)
        path.rename(path.with_name(f"{path.stem.rpartition('-')[0]}-{digest(path)}.pt"))


def test_a_state_that_does_not_fit_the_config_is_named(tmp_path: Path, capsys, finished) -> None:
    run = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    without_settings(run)
    (run / "config.json").write_text((run / "config.json").read_text().replace('"width": 4', '"width": 5'))
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert f"{run} was saved with another config.json or regmix, and cannot be continued" in error
    assert error.count("\n") == 1


def test_a_run_that_is_being_trained_is_left_alone(tmp_path: Path, capsys, finished) -> None:
    path = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    other = "import sys, time; from pathlib import Path; from regmix.runs import Run\n"
    other += "with Run.open(Path(sys.argv[1])).claim(): print('claimed', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", other, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        capsys.readouterr()
        assert main(["train", "--resume", str(path)]) == 2
        assert f"{path} is being trained by another process" in capsys.readouterr().err
        process.kill()
    assert main(["train", "--resume", str(path)]) == 0


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, finished) -> None:
    run = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    assert main(["train", "--resume", str(run)]) == 0
    assert {path.name: path.read_bytes() for path in run.glob("*.safetensors")} == before


def test_a_lengthened_run_is_the_longer_one_where_the_schedule_is_the_same(tmp_path: Path, capsys) -> None:
    """Piecewise rates do not depend on the number of epochs, so nothing differs but the record."""
    settings = f"train digits-regmix --averaging ema --schedule piecewise --schedule.milestones 1 {TINY} --epochs"
    long, short = tmp_path / "long", tmp_path / "short"
    assert main(f"{settings} 4 --out {long}".split()) == 0
    assert main(f"{settings} 2 --out {short}".split()) == 0
    assert main(["train", "--resume", str(short), "--epochs", "4"]) == 0
    record = json.loads((short / "result.json").read_text())
    assert (record["status"], record["epochs"], record.pop("lengthened")) == ("finished", 4, [2])
    assert [row["epochs"] for row in rows(short)] == [2, 2, 4, 4]
    for name in ("last", "best", "averaged"):
        assert (short / f"{name}.safetensors").read_bytes() == (long / f"{name}.safetensors").read_bytes()
    assert json.loads((short / "config.json").read_text()) == json.loads((long / "config.json").read_text())


def test_only_a_finished_run_is_lengthened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Session, "end_epoch", lambda *arguments: signal.raise_signal(signal.SIGINT))
        assert main(f"train digits-regmix --averaging none {TINY} --epochs 2 --out {path}".split()) == 130
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    assert main(["train", "--resume", str(path), "--epochs", "4"]) == 2
    assert "is not finished" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before
    assert main(["train", "--resume", str(path)]) == 0
    assert main(["train", "--resume", str(path), "--epochs", "2"]) == 2
    assert "give a larger number" in capsys.readouterr().err


def test_a_run_without_its_states_is_left_as_it_is(tmp_path: Path, finished, capsys) -> None:
    """They are large, and may not have been copied: to begin anew would replace a finished run."""
    run = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    for path in run.glob("state-*"):
        path.unlink()
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    for more in ([], ["--epochs", "6"]):
        assert main(["train", "--resume", str(run), *more]) == 2
        assert "state-*.pt, which resuming needs, were removed" in capsys.readouterr().err
        assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


def test_a_run_that_died_before_its_first_state_begins_anew(tmp_path: Path, finished, monkeypatch) -> None:
    """The row of the first epoch is there already."""
    path = tmp_path / "run"
    with monkeypatch.context() as patch:

        def full(self: Run, state: object, *, healthy: bool) -> None:
            raise OSError(28, "No space left on device", str(path))

        patch.setattr(Run, "save_state", full)
        assert main(f"train digits-regmix {TINY} --out {path}".split()) == 1
    assert len(Run.open(path, writes=False).metrics()) == 1
    assert main(["train", "--resume", str(path)]) == 0
    assert rows(path) == rows(finished(f"digits-regmix {TINY}"))


def test_a_refused_lengthening_changes_nothing(tmp_path: Path, finished, monkeypatch, capsys) -> None:
    run = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(start, "image_changes", lambda before, now: "one image is missing")
        assert main(["train", "--resume", str(run), "--epochs", "5"]) == 2
    assert "the images have changed" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before
    assert main(["train", "--resume", str(run), "--epochs", "5"]) == 0


def test_a_run_is_repeated_from_its_config(tmp_path: Path, finished) -> None:
    first, second = finished(f"digits-regmix {TINY}"), tmp_path / "second"
    assert main(f"train --from {first} --out {second}".split()) == 0
    assert_same(first, second)


INTERRUPTED = "digits-regmix --train-examples 200 --validation 50 --epochs 3 --batch-size 20 --model.width 4 --pad 1 "
INTERRUPTED += "--flip --seed 3"


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch):
    """Lets the process send itself a signal in a step, or in a validation, counted from 1 over the whole training."""

    def at(number: int, owner: Any, name: str, which: int) -> None:
        real, calls = getattr(owner, name), []

        def function(*words: Any, **more: Any) -> Any:
            calls.append(0)
            if len(calls) == which:
                os.kill(os.getpid(), number)
            return real(*words, **more)

        monkeypatch.setattr(owner, name, function)

    return at


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("regmix", marks=pytest.mark.slow),
        "fgsm_pgk --averaging gated_ema",
        "free_at",
        pytest.param("regmix --awp 0.01", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("number", "where", "told"),
    [
        (signal.SIGTERM, ("step", 1), "saved in epoch 1 after 1 of 10 steps"),
        (signal.SIGINT, ("step", 14), "saved in epoch 2 after 4 of 10 steps"),
        (signal.SIGTERM, ("validation", 2), "saved in epoch {} after {} of 10 steps"),
    ],
)
def test_an_interrupted_run_goes_on_where_it_was(
    method: str, number: int, where: tuple[str, int], told: str, tmp_path: Path, signalled, monkeypatch, capsys,
    finished,
) -> None:  # fmt: skip
    words = f"{INTERRUPTED} --method {method}"
    whole, broken = finished(words), tmp_path / "broken"
    with monkeypatch.context() as patch:
        signalled(number, *{"step": (Trainee, "learn"), "validation": (validation, "validate")}[where[0]], where[1])
        assert main(["train", *words.split(), "--out", str(broken)]) == 128 + number
        patch.undo()
    error = capsys.readouterr().err
    if where[0] == "step":
        assert told in error
    assert error.startswith(f"regmix: {number.name}: saved in epoch ")
    assert f"continue with: regmix train --resume {broken}" in error
    monkeypatch.undo()
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same(whole, broken)


@pytest.mark.slow
def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    program = """
import os, signal, sys, time
from regmix.cli import main
from regmix.training.trainee import Trainee
from regmix.types import Doubt

def learn(self, batch):
    os.kill(os.getpid(), signal.SIGINT)
    print("noted", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here", flush=True)

Trainee.learn = learn
main(sys.argv[1:])
"""
    words = [sys.executable, "-c", program, "train", *INTERRUPTED.split(), "--out", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert "noted" in done.stdout
    assert "still here" not in done.stdout


def test_signals_do_afterwards_what_they_did_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["train", *INTERRUPTED.split(), "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert signal.getsignal(signal.SIGINT) is before


def edited(run: Path, **changes: Any) -> Path:
    """The run with other values in its config.json, by the path of the setting with __ for its dots."""
    config = json.loads((run / "config.json").read_text())
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = config
        for part in parts:
            place = place[part]
        assert place[last] != value
        place[last] = value
    (run / "config.json").write_text(json.dumps(config))
    return run


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threat__eps": 0.3}, "threat.eps = 0.3, but"),
        ({"lr": 0.01}, "lr = 0.01, but the run was trained with 0.1; put 0.1 back"),
        ({"epochs": 9}, "epochs = 9, but the run was trained with 4; put 4 back"),
        ({"seed": 4}, "seed = 4"),
        ({"batch_size": 30}, "batch_size = 30"),
        ({"method__start": "carried"}, 'method.start = "carried"'),
        ({"threat": {"name": "l2", "eps": 0.5}}, 'threat.name = "l2"'),
        ({"model__width": 5}, "model.width = 5"),
        ({"precision": "64"}, 'precision = "64"'),
    ],
)
def test_a_run_whose_config_was_edited_is_not_resumed(change, told: str, tmp_path: Path, capsys, finished) -> None:
    run = edited(shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run"), **change)
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    capsys.readouterr()
    for more in ([], ["--epochs", "12"]):
        assert main(["train", "--resume", str(run), *more]) == 2
        error = capsys.readouterr().err
        assert f"{run / 'config.json'} was edited: it says {told}" in error
        assert error.count("\n") == 1
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


def test_a_run_goes_on_elsewhere_and_after_a_lengthening_that_was_killed(
    tmp_path: Path, capsys, finished, monkeypatch
) -> None:
    run = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    assert main(["train", "--resume", str(edited(run, device="cpu"))]) == 0
    (last,) = sorted(run.glob("state-*.pt"))[-1:]
    content = last.read_bytes()
    where = content.index(b'"epochs": 4')  # a flipped byte in the settings that the state keeps
    last.write_bytes(content[:where] + b'"epochs": 5' + content[where + 11 :])
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    assert "is damaged" in capsys.readouterr().out
    with monkeypatch.context() as patch:

        def killed(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Session, "train_epoch", killed)
        assert main(["train", "--resume", str(run), "--epochs", "5"]) == 1
    assert main(["train", "--resume", str(run)]) == 0
    assert json.loads((run / "result.json").read_text())["epochs"] == 5
    assert main(["train", "--resume", str(edited(run, epochs=6))]) == 2
    assert "epochs = 6, but the run was trained with 5" in capsys.readouterr().err


def test_a_finished_run_says_that_nothing_is_left(tmp_path: Path, capsys, finished) -> None:
    run = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    told = "all 4 epochs are trained, and nothing is left to do; to train longer: regmix train --resume"
    assert f"{told} {run} --epochs 8" in capsys.readouterr().out
    assert main(["train", "--resume", str(run), "--epochs", "5"]) == 0
    assert "nothing is left" not in capsys.readouterr().out


def test_best_weights_that_were_removed_are_noticed(tmp_path: Path, capsys, finished) -> None:
    run = shutil.copytree(finished(f"digits-regmix {TINY}"), tmp_path / "run")
    (run / "best.safetensors").unlink()
    epoch = json.loads((run / "result.json").read_text())["best_epoch"]
    told = f"{run / 'best.safetensors'}, the weights of epoch {epoch}, was removed; put the file back"
    capsys.readouterr()
    assert main(["evaluate", str(run), "--attacks", "clean", "--examples", "20", "--no-verdict"]) == 0
    assert told in capsys.readouterr().out
    assert main(["export", str(run), "--format", "safetensors", "--out", str(tmp_path / "exported")]) == 0
    assert f"{told}; the last weights are exported" in capsys.readouterr().err
    with pytest.warns(Doubt, match="was removed; put the file back; these are the last weights"):
        load_model(run)
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    lost = f"WARNING {run / 'best.safetensors'} was removed; the weights of epoch {epoch} are lost"
    assert f"{lost}; put the file back" in capsys.readouterr().out
    assert not (run / "best.safetensors").exists()
    assert main(["train", "--resume", str(run), "--epochs", "5"]) == 0
    assert f"{lost}; the best of the epochs that are left takes their place" in capsys.readouterr().out
    assert (run / "best.safetensors").exists()
    assert json.loads((run / "result.json").read_text())["best_epoch"] == 5
