"""`regmix reproduce`: claims come from the runs, runs are shared and never repeated, a killed command goes on."""

import csv
import html
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from regmix.cli.entry import main
from regmix.data import Digits, load, pick
from regmix.evaluation import Evaluator, flatness
from regmix.evaluation.subject import choose_images
from regmix.jobs.console import ConsoleDisplay
from regmix.recipes import recipe
from regmix.runs.load import load_model
from regmix.studies.reproduce import SCALES, Runner, Scale, Study
from regmix.studies.reproduce.claims import Battery
from regmix.studies.reproduce.verdict import estimate, judge
from regmix.studies.trainings import Planned, TrainingError
from regmix.training.start import run
from regmix.types import UserError

TINY = ["--train-examples", "60", "--validation", "50", "--epochs", "2", "--model.width", "4", "--batch-size", "16"]


def reproduce(*words: str) -> int:
    return main(["reproduce", *words, *TINY])


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trains in this process and notes what was trained; makes batteries cheap."""
    done: list[str] = []

    def train(self: Planned, **more: object) -> None:
        done.append(self.path.name)
        run(self.experiment, self.path, ConsoleDisplay(Console(quiet=True)))

    monkeypatch.setattr(Planned, "train", train)
    cheap = {
        "main": Battery("clean,pgd-10,pgd-50", examples=40),
        "after": Battery("clean,pgd-50", examples=40, checkpoints=("last", "averaged")),
        "strongest": Battery("apgd-ce", examples=20),
        "double": Battery("pgd-50", (2.0,), 40),
        "curve": Battery("pgd-50", (0.5, 1.0), 40),
        "hard": Battery("pgd-50,adaptive,square,transfer", examples=4),
        "decisions": Battery("pgd-50,hop-skip-jump", examples=3),
    }
    digits = SCALES["digits"]
    scale = Scale("digits", digits.recipe, 2, cheap, "apgd-ce", digits.grid, rounds=2, flat=6)
    monkeypatch.setitem(SCALES, "digits", scale)
    return done


def claims(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "claims.json").read_text())
    return found


def survives(out: Path, arm: str, column: str) -> np.ndarray:
    """Which of the 40 images every run of an arm gets right, float [seeds, 40], read from its tables."""
    rows = []
    for path in sorted((out / "runs").glob(f"{arm}-seed?")):
        (place,) = (path / "evaluations").glob("best-40-*")
        with (place / "outcomes.csv").open() as file:
            table = [*csv.DictReader(file)]
        rows.append([float(row[column]) for row in table])
    return np.array(rows)


@pytest.mark.slow
def test_claims_are_computed_from_the_tables_of_the_runs(tmp_path, monkeypatch, trainings, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert reproduce("agr", "--out", "out") == 0
    assert sorted(trainings) == ["gamma0-seed0", "gamma0-seed1", "regmix-seed0", "regmix-seed1"]
    result = claims(Path("out"))
    (section,) = result["sections"]
    assert len(section["claims"]) == 5
    at_eps, at_twice, over_curve, _, clean = section["claims"]
    means = {
        name: survives(Path("out"), "regmix", name) for name in ("pgd-50@0.15", "pgd-50@0.3", "pgd-50@0.075", "clean")
    }
    others = {name: survives(Path("out"), "gamma0", name) for name in means}
    for claim, columns in (
        (at_eps, ["pgd-50@0.15"]), (at_twice, ["pgd-50@0.3"]), (over_curve, ["pgd-50@0.075", "pgd-50@0.15"]),
        (clean, ["clean"]),
    ):  # fmt: skip
        first, second = (np.mean([those[name] for name in columns], axis=0) for those in (means, others))
        expected = judge(estimate(first, second, same_runs=False), 0.0, 5)
        assert claim["difference"] == pytest.approx(first.mean() - second.mean())
        assert claim["by_seed"] == pytest.approx((first - second).mean(1).tolist())
        assert (claim["low"], claim["high"]) == pytest.approx((expected.low, expected.high))
        assert (claim["verdict"], claim["images"], claim["seeds"]) == (expected.verdict, 40, [2, 2])
    page = html.unescape(Path("out/reproduce.html").read_text())
    assert all(claim["statement"] in page and claim["cannot_show"] in page for claim in section["claims"])
    assert section["command"].startswith("regmix reproduce agr ")

    # The same command finds everything; another experiment trains only what is new.
    trainings.clear()
    attacked: list[object] = []
    monkeypatch.setattr(Evaluator, "survivors", lambda *words, **more: attacked.append(words))
    assert reproduce("agr", "--out", "out") == 0
    assert trainings == []
    assert attacked == []
    assert claims(Path("out")) == result
    # The same without the weights, as evidence is published; what is not there cannot be made from it.
    for weights in Path("out/runs").glob("*/*.safetensors"):
        weights.unlink()
    assert reproduce("agr", "--out", "out") == 0
    assert (trainings, claims(Path("out"))) == ([], result)
    (there,) = Path("out/runs/regmix-seed0/evaluations").glob("best-40-*")
    there.rename("aside")
    assert reproduce("agr", "--out", "out") == 2
    assert "regmix-seed0 was not evaluated for main, and its weights were removed" in capfd.readouterr().err
    Path("aside").rename(there)
    assert section["command"].startswith("regmix reproduce agr --out out ")
    assert reproduce("amr", "--out", "out", "--list") == 0
    assert "8 of 12 trainings left" in capfd.readouterr().out
    assert reproduce("agr", "--out", "out", "--lr", "0.01") == 2
    assert "was trained with lr = 0.1, not 0.01" in capfd.readouterr().err


@pytest.mark.slow
def test_transferred_examples_are_a_worst_case_over_all_other_runs(tmp_path, trainings) -> None:
    assert reproduce("attacks", "--out", str(tmp_path)) == 0
    (section,) = claims(tmp_path)["sections"]
    means = []
    for seed in (0, 1):
        (place,) = (tmp_path / f"runs/regmix-seed{seed}/evaluations").glob("best-4-*")
        rows = [*csv.DictReader((place / "outcomes.csv").read_text().splitlines())]
        columns = [name for name in rows[0] if name.startswith("transfer:")]
        others = {f"transfer:{arm}-seed{s}@0.15" for arm in ("regmix", "pgk", "pgd2") for s in (0, 1)}
        assert {*columns} == others - {f"transfer:regmix-seed{seed}@0.15"}
        means.append(np.mean([all(row[name] == "1" for name in columns) for row in rows]))
    (claim,) = [one for one in section["claims"] if one["statement"].startswith("Transfer breaks")]
    assert claim["first_mean"] == pytest.approx(np.mean(means))
    assert claim["threshold"] == -0.01


@pytest.mark.slow
def test_more_seeds_and_removed_weights_repeat_no_attack(tmp_path, trainings) -> None:
    def made() -> dict[str, dict[str, str]]:
        records = (tmp_path / "runs").glob("*-seed0/evaluations/best-4-*/evaluation.json")
        columns = {path.parts[-4]: json.loads(path.read_text())["columns"] for path in records}
        return {run: {name: column["made"] for name, column in those.items()} for run, those in columns.items()}

    assert reproduce("attacks", "--out", str(tmp_path), "--seeds", "1") == 0
    before = made()
    assert {len(columns) for columns in before.values()} == {6}  # clean, 3 attacks, 2 other runs
    assert reproduce("attacks", "--out", str(tmp_path)) == 0
    after = made()
    assert {len(columns) for columns in after.values()} == {9}
    kept = [name for name in before["pgk-seed0"] if name != "clean"]  # the clean answers are always asked
    assert all(after[run][name] == before[run][name] for run in before for name in before[run] if name in kept)
    result = claims(tmp_path)
    for weights in (tmp_path / "runs").glob("*/*.safetensors"):
        weights.unlink()
    assert reproduce("attacks", "--out", str(tmp_path)) == 0
    assert claims(tmp_path) == result


@pytest.mark.slow
def test_what_its_records_tell_apart_is_no_seed_of_an_arm(tmp_path, trainings, capfd) -> None:
    def change(file: str, name: str, value: object) -> None:
        path = tmp_path / "runs" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    def differing() -> list[str]:
        """Without what the tiny models themselves give reason to doubt."""
        (section,) = claims(tmp_path)["sections"]
        return [doubt for doubt in section["doubts"] if doubt.startswith("The ")]

    words = "agr", "--out", str(tmp_path)
    assert reproduce(*words) == 0
    assert differing() == []
    change("gamma0-seed1/environment.json", "precision", "bf16")
    capfd.readouterr()
    assert reproduce(*words) == 2
    assert "gamma0-seed1 is no further seed of " in (said := capfd.readouterr().err)
    assert "different precision (32 and bf16); remove that folder" in said
    change("gamma0-seed0/environment.json", "precision", "bf16")
    assert reproduce(*words) == 0
    told = "The trainings differ in precision (32: regmix-seed0, regmix-seed1; bf16: gamma0-seed0, gamma0-seed1)."
    assert differing() == [told]
    (record, *_) = (tmp_path / "runs/regmix-seed0/evaluations").glob("*/evaluation.json")
    record.write_text(record.read_text().replace('"package": "', '"package": "x'))
    assert reproduce(*words) == 0
    assert "different states of the code of regmix (" in differing()[1]
    change("regmix-seed0/result.json", "lengthened", [1])
    change("regmix-seed1/result.json", "lengthened", [1])
    assert reproduce(*words) == 2
    assert "regmix-seed0 is no seed of its arm: it was lengthened" in capfd.readouterr().err


@pytest.mark.slow
def test_doubts_about_runs_come_from_all_of_their_evaluations(tmp_path, trainings) -> None:
    words = "agr", "--out", str(tmp_path), "--seeds", "1"
    assert reproduce(*words) == 0
    (few,) = (tmp_path / "runs/regmix-seed0/evaluations").glob("best-20-*/evaluation.json")
    record = json.loads(few.read_text())
    masking = {"verdict": "masked", "signs": ["a sign"], "probe": None}
    few.write_text(json.dumps({**record, "masking": masking, "preflight": ["a check failed"]}))
    assert reproduce(*words) == 0
    (section,) = claims(tmp_path)["sections"]
    assert any("a check failed" in doubt for doubt in section["doubts"])
    assert any("a sign" in doubt for doubt in section["doubts"])


@pytest.mark.slow
def test_epochs_and_passes_are_counted_until_all_runs_have_reached_the_level(tmp_path, trainings) -> None:
    assert reproduce("convergence", "cost", "--out", str(tmp_path)) == 0
    curves = {
        path.parent.name: [json.loads(line)["validation"]["pgd"] for line in path.read_text().splitlines()]
        for arm in ("regmix", "pgk", "pgd2")
        for path in (tmp_path / "runs").glob(f"{arm}-seed?/metrics.jsonl")
    }
    level = 0.95 * min(max(curve) for curve in curves.values())
    epochs = {
        arm: np.mean([1 + next(n for n, v in enumerate(curves[f"{arm}-seed{s}"]) if v >= level) for s in (0, 1)])
        for arm in ("regmix", "pgk", "pgd2")
    }
    first, passes, *_ = claims(tmp_path)["sections"][0]["claims"]
    assert (first["unit"], first["first_mean"], first["second_mean"]) == ("epochs", epochs["pgk"], epochs["regmix"])
    assert (passes["unit"], passes["first_mean"]) == ("passes", 5 * epochs["pgk"])
    assert passes["second_mean"] == 9 * epochs["regmix"]
    times = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "cost").iterdir()}
    assert {*times} == {"regmix", "gamma0", "pgk", "pgd2", "pgd10", "trades"}
    assert "4 F 2 I 3 P" in (tmp_path / "reproduce.html").read_text()


@pytest.mark.slow
def test_flatness_is_that_of_the_runs_on_the_same_images(tmp_path, trainings, capfd) -> None:
    assert reproduce("flatness", "--out", str(tmp_path)) == 0
    experiment = recipe("digits-regmix")
    test = choose_images(experiment.data, 6).images
    rise = {}
    for arm in ("regmix", "pgk"):
        rows = []
        for path in sorted((tmp_path / "runs").glob(f"{arm}-seed?")):
            batch = pick(test, torch.arange(6), "cpu")
            rows.append(flatness(load_model(path).model, batch.x, batch.y, experiment.threat).rise.numpy())
        rise[arm] = np.stack(rows)
    claim = claims(tmp_path)["sections"][0]["claims"][0]
    assert (claim["unit"], claim["images"]) == ("loss", 6)
    # float32 losses of size 1, in another memory layout
    assert claim["difference"] == pytest.approx(rise["pgk"].mean() - rise["regmix"].mean(), rel=1e-4, abs=1e-6)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "flatness").iterdir()}
    assert len(before) == 8
    assert reproduce("flatness", "--out", str(tmp_path)) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "flatness").iterdir()} == before
    # Of weights that were trained again and then removed, nothing is known.
    stale = tmp_path / "flatness" / "regmix-seed0.json"
    stale.write_text(json.dumps({**json.loads(stale.read_text()), "weights": "0" * 16}))
    for weights in (tmp_path / "runs").glob("*/best.safetensors"):
        weights.unlink()
    assert reproduce("flatness", "--out", str(tmp_path)) == 2
    assert "regmix-seed0 was not measured, and its weights were removed" in capfd.readouterr().err


@pytest.mark.slow
def test_a_training_that_fails_costs_its_own_claims_only(tmp_path, trainings, monkeypatch, capfd) -> None:
    train, error = Planned.train, TrainingError

    def fail(self: Planned, **more: Any) -> None:
        if self.path.name == "pgk-kl-seed0":
            raise error("pgk-kl-seed0: the training lost its steps")
        train(self, **more)

    monkeypatch.setattr(Planned, "train", fail)
    words = "amr", "agr", "--out", str(tmp_path), "--seeds", "1"
    assert reproduce(*words) == 2
    said = capfd.readouterr().err
    assert said == (
        "regmix: error: pgk-kl failed, and 3 claims have no verdict; pgk-kl-seed0: the training lost its steps\n"
    )
    first, second = claims(tmp_path)["sections"]
    assert (len(first["claims"]), len(second["claims"])) == (10, 5)
    assert first["doubts"][0] == "pgk-kl is left out: pgk-kl-seed0: the training lost its steps"
    lost = [doubt for doubt in first["doubts"] if doubt.startswith("No verdict: FGSM-PGK with its l2 term replaced")]
    assert len(lost) == 3
    assert [row[0] for row in first["table"]] == ["arm", "regmix", "pgk", "gamma0", "pgd2", "pgd10"]
    assert "pgk-kl is left out" in (tmp_path / "reproduce.html").read_text()
    # What failed is tried again; a training that was ended otherwise ends the command.
    error = UserError
    (tmp_path / "claims.json").unlink()
    assert reproduce(*words) == 2
    assert "the training lost its steps" in capfd.readouterr().err
    assert not (tmp_path / "claims.json").exists()
    monkeypatch.setattr(Planned, "train", train)
    assert reproduce(*words) == 0
    assert len(claims(tmp_path)["sections"][0]["claims"]) == 13


@pytest.mark.slow
def test_what_is_judged_is_written_before_the_next_experiment(tmp_path, trainings, monkeypatch) -> None:
    evaluate = Runner.evaluate

    def stop(self: Runner, study: Study, *more: Any) -> None:
        if study.name == "agr":
            raise UserError("no space left")
        evaluate(self, study, *more)

    monkeypatch.setattr(Runner, "evaluate", stop)
    assert reproduce("amr", "agr", "--out", str(tmp_path), "--seeds", "1") == 2
    result = claims(tmp_path)
    assert ([section["name"] for section in result["sections"]], result["left"]) == (["amr"], ["agr"])
    assert "Not evaluated yet: agr." in (tmp_path / "reproduce.html").read_text()


@pytest.mark.slow
def test_other_images_get_runs_of_their_own(tmp_path, trainings, monkeypatch) -> None:
    """The digits again, as a folder of pictures with three of the classes."""
    digits = load(Digits(), "train"), load(Digits(), "test")
    for split, images in zip(("train", "test"), digits, strict=True):
        for label in range(3):
            place = tmp_path / "pictures" / split / str(label)
            place.mkdir(parents=True)
            for number in (images.labels == label).nonzero()[:40, 0].tolist():
                Image.fromarray(images.images[number, 0].numpy()).save(place / f"{number}.png")
    words = [
        "auto",
        "data",
        "--other-data",
        f"folder:root={tmp_path / 'pictures'}:size=8",
        "--out",
        str(tmp_path / "out"),
    ]
    assert reproduce(*words, "--seeds", "1") == 0
    assert sorted(trainings) == [f"folder-{arm}-seed0" for arm in ("auto", "pgd2", "pgk", "regmix")]
    names = [section["name"] for section in claims(tmp_path / "out")["sections"]]
    assert names == ["auto", "data"]


@pytest.mark.slow
def test_one_seed_is_undecided_and_says_why(tmp_path, trainings) -> None:
    assert reproduce("agr", "--out", str(tmp_path), "--seeds", "1") == 0
    for claim in claims(tmp_path)["sections"][0]["claims"]:
        assert (claim["verdict"], claim["smallest_effect"]) == ("undecided", None)
        assert "seed" in claim["why"] or "varies" in claim["why"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("amrr", "did you mean amr?"),
        ("amr --method trades", "reproduce sets --method itself"),
        ("amr --averaging none", "reproduce sets --averaging itself"),
        ("amr --seed 3", "reproduce sets --seed itself"),
        ("amr --seeds 0", "it must be at least 1"),
        ("auto", "give them with --other-data"),
        ("data --other-data cifar200:root=x", "unknown data"),
        ("data --other-data folder:x", "write folder:FIELD=VALUE"),
        ("data --other-data folder:root=a:root=b", "root is set twice"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, capfd, words: str, complaint: str) -> None:
    assert reproduce(*words.split(), "--out", str(tmp_path / "out")) == 2
    said = capfd.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_kills_change_nothing(tmp_path: Path) -> None:
    """Killed once in a training and once in an evaluation, the command ends with the claims of an undisturbed one."""
    words = [sys.executable, "-P", "-m", "regmix", "reproduce", "agr", "--seeds", "1", "--out", "out", *TINY]
    folders = {name: tmp_path / name for name in ("calm", "killed")}
    for path in folders.values():
        path.mkdir()
    subprocess.run(words, cwd=folders["calm"], check=True, capture_output=True)

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words, cwd=folders["killed"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    runs = folders["killed"] / "out" / "runs"
    for sign in ("regmix-seed0/metrics.jsonl", "*/evaluations/best-*"):
        command = started()
        deadline = time.monotonic() + 300
        while not [*runs.glob(sign)]:
            assert command.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        assert not (runs.parent / "claims.json").exists()
    subprocess.run(words, cwd=folders["killed"], check=True, capture_output=True)
    calm, killed = (path / "out" / "claims.json" for path in folders.values())
    assert killed.read_bytes() == calm.read_bytes()
