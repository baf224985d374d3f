"""Train, resume, evaluate and report from Python: the same as the command line, bit for bit, with the same refusals."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import regmix
from contracts.evaluated import folder
from contracts.finished import assert_same
from regmix.cli.entry import main
from regmix.data import Digits
from regmix.jobs.console import shown
from regmix.methods import Trades
from regmix.recipes import recipe
from regmix.types import Trust, UserError

SMALL: dict[str, Any] = {"train_examples": 200, "validation": 50, "epochs": 1, "model": {"width": 4}}
FLAGS = "--train-examples 200 --validation 50 --epochs 1 --model.width 4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> regmix.Run:
    """A run that was trained and evaluated from Python, without a line on the screen."""
    made = regmix.train("digits-regmix", tmp_path_factory.mktemp("runs") / "python", **SMALL, progress=False)
    return regmix.evaluate_run(made, "pgd-3", eps=[0.1, "0.2"], examples=40, verdict=False, progress=False)


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same from the command line."""
    path = tmp_path_factory.mktemp("runs") / "command"
    assert main(f"train digits-regmix {FLAGS} --out {path}".split()) == 0
    assert main(f"evaluate {path} --attacks pgd-3 --eps 0.1,0.2 --examples 40 --no-verdict".split()) == 0
    return path


def test_the_command_line_trains_to_the_same_bits(run: regmix.Run, commanded: Path) -> None:
    assert_same(run.path, commanded)
    assert run.config() == (commanded / "config.json").read_text()


def test_the_command_line_measures_the_same(run: regmix.Run, commanded: Path) -> None:
    for checkpoint in run.checkpoints():
        ours, theirs = (folder(path, checkpoint) / "outcomes.csv" for path in (run.path, commanded))
        assert ours.read_text() == theirs.read_text()


def test_the_recorded_command_is_the_call(run: regmix.Run) -> None:
    command = run.environment().command or ""
    assert command.startswith("regmix.train('digits-regmix', out=")
    assert "model={'width': 4}" in command


def test_a_finished_run_is_lengthened_to_the_same_bits(tmp_path: Path) -> None:
    made = regmix.train("digits-regmix", tmp_path / "python", **SMALL, progress=False)
    assert main(f"train digits-regmix {FLAGS} --out {tmp_path / 'command'}".split()) == 0
    regmix.resume(made, epochs=2, log="csv", progress=False)
    assert main(f"train --resume {tmp_path / 'command'} --epochs 2".split()) == 0
    assert_same(made.path, tmp_path / "command")
    assert len((made.path / "metrics.csv").read_text().splitlines()) >= 2


def test_a_run_is_trained_anew_with_another_seed(run: regmix.Run, tmp_path: Path) -> None:
    again = regmix.train(run, tmp_path / "again", seed=5, progress=False)
    first, second = (regmix.jobs.training.settings_of(made, Trust()) for made in (run, again))
    assert (first.seed, second.seed) == (0, 5)
    assert first.model == second.model


def test_settings_are_changed_in_every_form() -> None:
    changed = regmix.jobs.settings.with_changes
    base = recipe("digits-regmix")
    assert changed(base, {}) is base
    assert changed(base, {"method": "trades"}).method == Trades()
    assert changed(base, {"method": Trades(lam=3.0)}).method == Trades(lam=3.0)
    assert changed(base, {"method": {"name": "trades", "lam": 3}}).method == Trades(lam=3.0)
    assert changed(base, {"threat": {"eps": 0.1}}).threat == regmix.Linf(0.1)
    assert changed(base, {"threat": {"name": "l2", "eps": 0.5}}).threat == regmix.L2(0.5)
    assert changed(base, {"method": {"alpha": 1.0}}).method == regmix.RegMix(alpha=1.0)
    assert changed(base, {"guard": {"action": "stop"}}).guard.action == "stop"
    assert changed(base, {"data": {"name": "folder", "root": Path("photos")}}).data.root == "photos"
    assert changed(base, {"model": "timm:resnet18"}).model.architecture == "resnet18"
    assert changed(base, {"model": "my_models:make"}).model.source == "my_models:make"
    assert changed(base, {"data": "my_data:make"}).data.source == "my_data:make"
    assert changed(base, {"data": Digits()}).data == base.data


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean epochs?"),
        ({"epochs": "3"}, "epochs is '3'; give int"),
        ({"model": torch.nn.Sequential(torch.nn.Flatten())}, 'your own Function(source="module:NAME"), where NAME'),
        ({"model": torch.nn.Flatten}, "model is <class 'torch"),
        ({"data": torch.zeros(2, 3)}, 'your own DataFunction(source="module:NAME"), where NAME is a function'),
        ({"method": regmix.RegMix}, "give one of its kinds, such as Standard(), FgsmAt(), FgsmRs() and"),
        ({"method": regmix.Linf(0.1)}, "method is Linf(name='linf', eps=0.1); give one of its kinds"),
        ({"epochs": 2.5}, "epochs: Input should be a valid integer"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"method": "trade"}, "unknown method 'trade'; did you mean trades?"),
        ({"method": {"alpa": 1}}, "unknown setting of the method 'alpa'; did you mean alpha?"),
        ({"threat": 0.1}, "threat is 0.1; give one of its kinds, such as Linf(), L2(), L1()"),
        ({"seed": torch.tensor(1)}, "a setting has a value that config.json cannot hold"),
    ],
)
def test_a_mistaken_setting_is_refused_before_anything_is_written(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        regmix.train("digits-regmix", tmp_path / "new", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_what_the_command_line_refuses_is_refused(run: regmix.Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python exists; give another --out, or continue it"):
        regmix.train("digits-regmix", run.path, **SMALL)
    with pytest.raises(UserError, match="unknown recipe 'digits'; did you mean digits-regmix"):
        regmix.train("digits")
    with pytest.raises(UserError, match="unknown logger"):
        regmix.train("digits-regmix", tmp_path / "new", log="printer")
    with pytest.raises(UserError, match="has 1 epochs already"):
        regmix.resume(run, epochs=1, progress=False)
    for epochs in (2.5, "9", True):  # before anything is written
        with pytest.raises(UserError, match="give int or None"):
            regmix.resume(run, epochs=epochs, progress=False)  # type: ignore[arg-type]
    assert '"epochs": 1' in run.config()
    for wrong in (
        {"draws": 0},
        {"draws": 2.5},
        {"sample": "firts"},
        {"examples": True},
        {"save": "yes"},
        {"batch_size": 0},
    ):
        with pytest.raises(UserError, match=next(iter(wrong)).replace("_", " ")):
            regmix.evaluate_run(run, "clean", progress=False, **wrong)
    with pytest.raises(UserError, match="--within 70: give the half width"):
        regmix.evaluate_run(run, "clean", within=70, progress=False)
    with pytest.raises(UserError, match="unknown attack"):
        regmix.evaluate_run(run, "pgd", progress=False)
    with pytest.raises(UserError, match="unknown argument 'exampls'; did you mean examples"):
        regmix.evaluate_run(run, exampls=3)
    with pytest.raises(UserError, match="is not a run directory"):
        regmix.report(tmp_path)
    with pytest.raises(UserError, match="at least one run"):
        regmix.report([])


def test_the_report_of_a_run_is_beside_it(run: regmix.Run, tmp_path: Path) -> None:
    assert "no report here yet" in repr(run)
    written = regmix.report(run)
    assert written.path == run.path / "report.html"
    assert f'href="{written.path}"' in written._repr_html_()
    assert f'href="{written.path}"' in run._repr_html_()
    assert f"report: {written.path}" in repr(run)
    elsewhere = regmix.report([run, str(run.path)], tmp_path / "both.html")
    assert Path(elsewhere).read_text().startswith("<!")
    written.path.unlink()


def test_a_run_shows_what_was_trained_and_measured(run: regmix.Run) -> None:
    text, page = repr(run), run._repr_html_()
    assert "regmix on digits, small_cnn, linf at eps 0.15; 1 of 1 epochs, finished" in text
    for stored in run.evaluations():
        for name, column in stored.evaluation.columns.items():
            cell = f"{100 * column.accuracy:.1f} [{100 * column.low:.1f}, {100 * column.high:.1f}]"
            assert re.search(rf"^ *{re.escape(name)} .*{re.escape(cell)}", text, re.M)
            assert f"<td>{cell}</td>" in page
    assert "40 of 500 test images, drawn evenly from the classes (seed 0)" in text


def test_numbers_of_other_weights_are_not_shown(run: regmix.Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "<copy>")
    weights = torch.zeros(1)
    for checkpoint in run.checkpoints():
        regmix.Run.open(copy).save_weights(checkpoint, {"other": weights})
    changed = regmix.Run.open(copy)
    assert "pgd-3@0.1" not in repr(changed)
    assert "not evaluated yet" in repr(changed)
    assert "PGD-10 accuracy of the best weights on the validation images: " in repr(changed)
    assert "&lt;copy&gt;" in changed._repr_html_()
    assert "<copy>" not in changed._repr_html_()


def test_a_damaged_run_still_shows_itself_in_a_debugger(run: regmix.Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "damaged")
    (copy / "result.json").write_text("{")
    assert repr(regmix.Run.open(copy)).startswith(f"Run {copy}: {copy / 'result.json'}")


def test_a_notebook_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Jupyter's kernels say that their output is a terminal that shows colours."""

    class ZMQInteractiveShell:
        pass

    monkeypatch.setattr("builtins.get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown(True) as display:
        display.start("training", 100)
        display.batch(50)
        display.note("a remark")
    assert capsys.readouterr().out == "a remark\n"
    monkeypatch.delattr("builtins.get_ipython")
    with shown(True) as display:
        display.start("training", 100)
    assert "\x1b" in capsys.readouterr().out, "FORCE_COLOR stands for a terminal"


def test_progress_is_plain_lines_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = regmix.train("digits-regmix", tmp_path / "loud", **SMALL)
    shown = capsys.readouterr().out
    assert re.search(r"^epoch   1/1  loss ", shown, re.M)
    assert "\x1b" not in shown
    regmix.evaluate_run(made, "clean", checkpoint="last", examples=20, verdict=False, progress=False)
    assert capsys.readouterr() == ("", "")
