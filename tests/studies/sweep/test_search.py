"""regmix sweep: tries, ranks by validation, compares the best, and goes on where it was."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regmix.cli.entry import main
from regmix.types import UserError

COMMON = "--train-examples 60 --validation 50 --epochs 2 --model.width 4 --attacks clean,pgd-2 --examples 40"


def sweep(out: Path, space: str, words: str = "") -> int:
    return main(["sweep", "digits-regmix", "--space", space, *COMMON.split(), *words.split(), "--out", str(out)])


def points(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "points.jsonl").read_text().splitlines()]


def trained(out: Path) -> dict[str, float]:
    """When the runs of a sweep were last written to."""
    return {path.parent.name: path.stat().st_mtime for path in out.glob("*/last.safetensors")}


@pytest.mark.slow
def test_the_grid_is_ranked_by_validation_and_the_best_are_compared(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert sweep(out, "method.alpha=10,50 lr=0.1,1e-9", "--workers 2 --top 2") == 0
    output = capsys.readouterr().out
    found = {(row["point"]["method.alpha"], row["point"]["lr"]): row["validation"] for row in points(out)}
    assert found.keys() == {("10", "0.1"), ("10", "1e-9"), ("50", "0.1"), ("50", "1e-9")}
    for (alpha, lr), value in found.items():
        result = json.loads((out / f"method.alpha={alpha}_lr={lr}-seed0" / "result.json").read_text())
        assert result["best_pgd"] == value
    ranking = output[output.index("ranked by accuracy under PGD-10 on the validation images") :].splitlines()[1:5]
    assert [float(line.split("%")[0]) for line in ranking] == sorted(
        (round(100 * value, 1) for value in found.values()), reverse=True
    )
    compared = json.loads((out / "comparison.json").read_text())["methods"]
    best = sorted(found.values(), reverse=True)[:2]
    evaluated = [path.parents[2] for path in out.glob("*/evaluations/best-*/outcomes.csv")]
    assert len(compared) == len(evaluated) == 2, "only the first two meet the test images"
    assert sorted((json.loads((p / "result.json").read_text())["best_pgd"] for p in evaluated), reverse=True) == best
    assert (out / "report.html").is_file()
    record = json.loads((out / "sweep.json").read_text())
    assert [point["validation"] for point in record["points"]] == sorted(found.values(), reverse=True)
    assert [point["tested"] for point in record["points"]] == [True, True, False, False]
    assert record["validation_images"] == 50
    assert [epoch for epoch, _ in record["points"][0]["epochs"]] == [1, 2]
    assert all(point["settings"]["lr"] in (out / "sweep.html").read_text() for point in record["points"])

    before = trained(out)
    assert sweep(out, "method.alpha=10,50 lr=0.1,1e-9", "--workers 2 --top 2") == 0
    assert trained(out) == before, "nothing is trained twice"


@pytest.mark.slow
def test_standard_training_is_ranked_without_an_attack(tmp_path: Path, capsys) -> None:
    """Its PGD accuracy is near 0 whatever its settings, and its best epoch is chosen without an attack, too."""
    out = tmp_path / "out"
    words = "--method standard --averaging none --top 1 --no-verdict --threat.eps 0.4 --train-examples 400"
    assert sweep(out, "lr=1e-9,0.1", words) == 0
    said = capsys.readouterr().out
    assert "ranked by accuracy without an attack on the validation images:" in said
    results = {
        lr: json.loads((out / f"lr={lr}-seed0" / "result.json").read_text())["best_clean"] for lr in ("1e-9", "0.1")
    }
    assert results["0.1"] > results["1e-9"]
    record = json.loads((out / "sweep.json").read_text())
    assert record["ranked_by"] == "clean"
    assert [point["validation"] for point in record["points"]] == [results["0.1"], results["1e-9"]]
    assert "lr 0.1 has the highest accuracy without an attack" in (out / "sweep.html").read_text()
    assert sweep(tmp_path / "mixed", "method=standard,pgd_at", "--averaging none") == 2
    assert "sweep them in two commands" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "passed_on"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGHUP")])
def test_a_killed_sweep_goes_on(number: int, passed_on: str, tmp_path: Path) -> None:
    """The signal reaches the sweep alone, unlike Ctrl-C at a terminal, which reaches its trainings, too."""
    out = tmp_path / "out"
    words = ["sweep", "digits-regmix", "--space", "method.alpha=10,50", *COMMON.split(), "--epochs", "60"]
    # The training of a fast machine ends within the usual grace.
    soon = "import sys; from regmix.studies import trainings; trainings.GRACE = 0.1"
    code = f"{soon}; from regmix.cli.entry import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not list(out.glob("*/state-*")):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    (begun,) = out.glob("*/config.json")
    log = begun.parent.with_name(begun.parent.name + ".log").read_text()
    assert f"{passed_on}: saved in epoch" in log
    assert main([*words, "--out", str(out)]) == 0
    assert len(points(out)) == 2
    rows = (begun.parent / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [*range(1, 61)]


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="optuna is not installed")
def test_optuna_searches_ranges_and_requeues_what_a_dead_worker_had(tmp_path: Path, monkeypatch) -> None:
    import optuna

    from regmix.studies.sweep import engines

    monkeypatch.setattr(engines, "HEARTBEAT", 1)
    out = tmp_path / "out"
    assert sweep(out, "lr=log:1e-4..0.3 method.alpha=10,50", "--engine optuna --trials 2 --workers 2") == 0
    assert len(points(out)) == 2
    storage = optuna.storages.RDBStorage(f"sqlite:///{out / 'study.sqlite'}")
    study = optuna.load_study(study_name=None, storage=storage)
    # A worker that has asked for a trial, given one sign of life, and died.
    lost = study.ask()
    rate = lost.suggest_float("lr", 1e-4, 0.3, log=True)
    lost.suggest_categorical("method.alpha", ("10", "50"))
    storage.record_heartbeat(lost._trial_id)
    time.sleep(3)
    assert sweep(out, "lr=log:1e-4..0.3 method.alpha=10,50", "--engine optuna --trials 5") == 0
    again = [trial for trial in study.get_trials() if trial.params.get("lr") == rate and trial.number != lost.number]
    assert [trial.state for trial in again] == [optuna.trial.TrialState.COMPLETE]
    assert f"{rate:.4g}" in [row["point"]["lr"] for row in points(out)]


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="optuna is not installed")
@pytest.mark.parametrize("when", ["from the start", "during a trial"])
def test_a_database_that_cannot_be_written_is_one_line(when: str, tmp_path: Path, capsys) -> None:
    from regmix.studies.sweep import engines
    from regmix.studies.sweep.space import parse_space

    path = tmp_path / "study.sqlite"
    if when == "from the start":
        path.mkdir()

    def train(point: dict[str, str], watch: object) -> float:
        path.write_bytes(b"damaged" * 1000)
        raise UserError("the training ended")

    with pytest.raises(OSError, match=r"study\.sqlite"):
        engines.optuna(parse_space("lr=0.1..0.2"), train, engines.Budget(1, 2), tmp_path)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="optuna is not installed")
def test_optuna_gets_every_epoch_and_ends_what_is_worse_than_the_median(tmp_path: Path) -> None:
    import optuna

    from regmix.studies.sweep import engines
    from regmix.studies.sweep.space import parse_space

    ended = []

    def train(point: dict[str, str], watch: Callable[[int, float], bool]) -> float | None:
        accuracy = 0.9 if len(ended) < 6 and len(study().trials) <= 6 else 0.1
        for epoch in (1, 2, 3):
            if watch(epoch, accuracy):
                ended.append(epoch)
                return None
        return accuracy

    def study() -> optuna.Study:
        return optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.sqlite'}")

    engines.optuna(parse_space("lr=0.1..0.2"), train, engines.Budget(1, 9, prune=True), tmp_path)
    states = [trial.state.name for trial in study().trials]
    assert states == ["COMPLETE"] * 6 + ["PRUNED"] * 3, "an ended trial counts as a trial"
    assert ended == [1, 1, 1]
    assert [trial.intermediate_values for trial in study().trials][5:7] == [{1: 0.9, 2: 0.9, 3: 0.9}, {1: 0.1}]

    engines.optuna(parse_space("lr=0.1..0.2"), train, engines.Budget(1, 11), tmp_path)
    assert [trial.state.name for trial in study().trials][9:] == ["COMPLETE"] * 2, "without --prune none is ended"


@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="optuna is not installed")
def test_optuna_begins_another_search_anew_in_the_same_folder(tmp_path: Path) -> None:
    """Other values, another kind of axis, another setting, or more seeds: earlier trials do not count for it."""
    from regmix.studies.sweep import engines
    from regmix.studies.sweep.space import parse_space

    tried: list[dict[str, str]] = []

    def train(point: dict[str, str], watch: object) -> float:
        tried.append(point)
        return 0.5

    for space, seeds in (("lr=0.1,0.2", 1), ("lr=0.1,0.2,0.3", 1), ("lr=0.1..0.2", 1), ("method.beta=1,2", 1),
                         ("method.beta=1,2", 2)):  # fmt: skip
        tried.clear()
        for _ in range(2):
            engines.optuna(parse_space(space), train, engines.Budget(1, 2, seeds), tmp_path)
        assert len(tried) == 2, space


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="optuna is not installed")
def test_optuna_draws_whole_numbers_for_whole_settings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert sweep(out, "train-examples=40..60 method.steps=log:1..4", "--engine optuna --trials 2") == 0
    assert all(value.isdigit() for row in points(out) for value in row["point"].values())


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed")
def test_ray_tries_the_grid(tmp_path: Path) -> None:
    """Into the folder that is taken without --out, which is relative to the working folder."""
    out = tmp_path / "runs" / "sweep-digits-regmix"
    words = [sys.executable, "-m", "regmix", "sweep", "digits-regmix", "--space", "method.alpha=10,50", *COMMON.split()]
    done = subprocess.run(
        [*words, "--engine", "ray", "--workers", "2"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"RAY_DEDUP_LOGS": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["point"]["method.alpha"] for row in points(out)} == {"10", "50"}
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(("method", "prefix"), [("regmix", "method"), ("pgd_at", "method.mutual")])
def test_an_axis_that_automatic_weights_ignore_is_refused(method: str, prefix: str, tmp_path: Path, capsys) -> None:
    words = f"sweep digits-regmix --method {method} --{prefix}.weights auto --space {prefix}.alpha=25,500 --out"
    assert main([*words.split(), str(tmp_path / "sweep")]) == 2
    assert f"{prefix}.alpha has no effect with --{prefix}.weights auto" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
