"""Every epoch reaches the loggers that were asked for; the real libraries write, and what they wrote is read back."""

import csv
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from contracts.finished import rows
from regmix.cli.entry import main
from regmix.config import Experiment, to_json
from regmix.runs import Run
from regmix.runs.environment import Environment, environment
from regmix.runs.records import Epoch
from regmix.training.loggers import Csv, TensorBoard, scalars

TINY = "--train-examples 60 --validation 50 --epochs 2 --model.width 4 --averaging none"


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if not importlib.util.find_spec(module)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def train(out: Path, log: str, more: str = "") -> int:
    return main(f"train digits-regmix {TINY} --log {log} --out {out} {more}".split())


def expected(out: Path) -> list[dict[str, float]]:
    return [dict(scalars(row)) for row in Run.open(out).metrics()]


def test_csv_has_a_line_per_epoch_also_of_a_lengthened_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(out, "csv") == 0
    assert main(["train", "--resume", str(out), "--epochs", "3", "--log", "csv"]) == 0
    with (out / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert [float(line["validation/pgd"]) for line in lines] == [row["validation"]["pgd"] for row in rows(out)]
    assert [float(line["loss"]) for line in lines] == [row["loss"] for row in rows(out)]


@needs("tensorboard")
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    assert train(out, "tensorboard") == 0
    read = EventAccumulator(str(out / "tensorboard")).Reload()
    want = expected(out)
    assert {*read.Tags()["scalars"]} == {*want[0]}
    for name in want[0]:
        points = [(event.step, event.value) for event in read.Scalars(name)]
        assert points == [(1, pytest.approx(want[0][name])), (2, pytest.approx(want[1][name]))]


@needs("tensorboard")
def test_tensorboard_forgets_epochs_that_a_run_went_back_before(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for sent in ((1, 2, 3, 4, 2), (3, 5)):  # the second one: the run is resumed after a kill
        logger = TensorBoard(Experiment(), tmp_path)
        logger.open()
        for number, epoch in enumerate(sent):
            logger.send(epoch, {"loss": 10.0 * epoch + number})
        logger.end()
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 10), (2, 24), (3, 30), (5, 51)]


def test_a_new_run_in_the_place_of_an_old_one_is_another_run_for_other_programs(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        run = Run.create(tmp_path / "run", to_json(Experiment()), environment(torch.device("cpu")))
        keys += [Csv(Experiment(), run.path).key, Csv(Experiment(), run.path).key]
        moved = shutil.move(run.path, tmp_path / "moved")
        assert Csv(Experiment(), Path(moved)).key == keys[-1]
        shutil.rmtree(moved)
    assert keys[0] == keys[1] != keys[2] == keys[3]
    old = Run.create(tmp_path / "old", to_json(Experiment()), Environment())  # of an older version
    assert Csv(Experiment(), old.path).key == Csv(Experiment(), old.path).key


def test_csv_has_rows_that_were_written_after_the_last_epoch(tmp_path: Path) -> None:
    """Rows may be kept until the training ends, where writing is slow."""
    run = Run.create(tmp_path / "run", to_json(Experiment()), environment(torch.device("cpu")))
    logger = Csv(Experiment(), run.path)
    row = Epoch(epoch=1, epochs=1, lr=0.1, loss=2.0, terms={})
    logger.epoch(row)
    run.append_metrics(row)
    logger.close()
    assert (run.path / "metrics.csv").read_text() == "epoch,loss,lr\n1,2.0,0.1\n"


@needs("wandb")
@pytest.mark.slow
def test_wandb_keeps_a_run_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "run"
    assert train(out, "wandb") == 0
    (file,) = out.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"validation/pgd" in content
    assert str(expected(out)[1]["loss"]).encode() in content


@needs("mlflow")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    mlflow.set_tracking_uri(f"file:{tmp_path / 'mlruns'}")
    out = tmp_path / "run"
    assert train(out, "mlflow") == 0
    assert main(["train", "--resume", str(out), "--epochs", "3", "--log", "mlflow"]) == 0
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("regmix").experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (number, pytest.approx(row["loss"])) for number, row in enumerate(expected(out), 1)
    ]
    assert run.data.params["method.alpha"] == "50.0"


def test_a_logger_that_fails_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Csv, epoch: int, values: dict[str, float]) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Csv, "send", fails)
    assert train(tmp_path / "run", "csv") == 0
    assert capsys.readouterr().out.count("--log csv failed and is left out: no route to host") == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "finished"


def test_a_log_that_cannot_be_ended_does_not_spoil_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Csv) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(Csv, "end", fails)
    assert train(tmp_path / "run", "csv") == 0
    assert "--log csv failed and is left out: the server is gone" in capsys.readouterr().out


def test_what_cannot_log_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(out, "csv,telegraph") == 2
    assert "telegraph" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(out, "wandb") == 2
    assert "pip install wandb" in capsys.readouterr().err
    assert not out.exists()
