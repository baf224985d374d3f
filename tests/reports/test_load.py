import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.evaluated import folder
from regmix.reports.load import aligned, checkpoints, load
from regmix.reports.subject import subjects_of
from regmix.runs import Run
from regmix.runs.evaluations import Outcomes, add
from regmix.runs.records import Environment
from regmix.types import Sample, UserError
from reports.conftest import N


def test_reads_everything_that_a_run_holds(write_run, tmp_path):
    run = load(write_run(tmp_path / "run"))
    assert run.finished
    assert checkpoints(run) == ["best", "last", "averaged"]
    assert len(run.epochs) == 30
    assert run.epochs[0].loss == pytest.approx(sum(run.epochs[0].terms.values()))
    assert set(run.outcomes) == set(run.examples) == {"best", "last", "averaged"}
    assert run.outcomes["last"].survives["clean"].mean() == run.evaluations["last"].columns["clean"].accuracy
    assert run.examples["best"].attack == "pgd-50"
    assert run.examples["best"].eps == 0.1


def add_elsewhere(path, correct=N, attacked=False):
    """Adds later evaluations of all checkpoints on images of another folder, of which so many are correct.

    attacked: under attacks, too.
    """
    for stored in load(path).stored:
        evaluation = stored.evaluation
        subject = replace(evaluation.subject, data=replace(evaluation.subject.data, digest="9" * 32))
        shown = evaluation.columns if attacked else ["clean"]
        columns = {name: replace(evaluation.columns[name], correct=correct, accuracy=correct / N) for name in shown}
        other = replace(
            evaluation, subject=subject, columns=columns, elsewhere="photos", notes=["they are training images"],
            made="2027-01-01T00:00:00+00:00",
        )  # fmt: skip
        survives = np.arange(N) < correct
        add(path, other, Outcomes(np.arange(N), np.zeros(N, np.int64), dict.fromkeys(columns, survives)), None)


def test_the_result_is_that_of_the_runs_own_test_split(write_run, tmp_path):
    path = write_run(tmp_path / "run", checkpoints=("best",))
    own = load(path).evaluations
    add_elsewhere(path)
    run = load(path)
    assert run.evaluations == own
    assert [each.elsewhere for each in run.others] == ["photos"]


def test_runs_are_compared_on_the_images_that_they_share(write_run, tmp_path):
    first, second = write_run(tmp_path / "first", checkpoints=("best",)), write_run(tmp_path / "second", "standard")
    for path in (first, second):
        add_elsewhere(path, attacked=True)
    assert not any(run.evaluations["best"].elsewhere for run in aligned([load(first), load(second)]))
    for own in (second / "evaluations").glob("*"):
        if not json.loads((own / "evaluation.json").read_text())["elsewhere"]:
            shutil.rmtree(own)
    assert {run.evaluations["best"].elsewhere for run in aligned([load(first), load(second)])} == {"photos"}


def test_images_on_which_runs_share_no_attack_do_not_hide_those_that_were_attacked(write_run, tmp_path):
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second", "standard")
    add_elsewhere(first)
    add_elsewhere(second)
    for own in (second / "evaluations").glob("*"):
        if not json.loads((own / "evaluation.json").read_text())["elsewhere"]:
            shutil.rmtree(own)
    shown = aligned([load(first), load(second)])
    assert [run.evaluations["best"].elsewhere for run in shown] == ["", "photos"]


def test_a_run_of_one_file_is_a_run(tmp_path):
    (tmp_path / "config.json").write_text('{"threat": {"name": "linf"}}')
    run = load(tmp_path)
    assert not run.finished
    assert (run.epochs, run.environment, checkpoints(run), run.best_epoch) == ([], Environment(), [], None)


def test_best_epoch_of_an_unfinished_run_is_the_first_of_the_highest_validation_accuracy(write_run, tmp_path):
    run = load(write_run(tmp_path / "run", done=9))
    validated = {row.epoch: row.validation["pgd"] for row in run.epochs if row.validation}
    assert run.best_epoch == max(validated, key=validated.__getitem__)


@pytest.mark.parametrize(
    ("method", "best_of", "epoch"),
    [("regmix", "weights", 2), ("regmix", "either", 3), ("standard", "weights", 4), ("standard", "either", 1)],
)
def test_best_epoch_of_an_unfinished_run_is_chosen_as_the_training_chooses(write_run, tmp_path, method, best_of, epoch):
    """Standard training chooses by clean accuracy; where the average may be best, it stands beside the others."""
    path = write_run(tmp_path / "run", method, done=4)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "best_of": best_of}))
    names = "clean", "pgd", "averaged_clean", "averaged_pgd"
    values = [(0.5, 0.1, 0.9, 0.1), (0.6, 0.4, 0.6, 0.2), (0.6, 0.2, 0.6, 0.5), (0.7, 0.3, 0.7, 0.3)]
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [
        {**row, "validation": dict(zip(names, known, strict=True))} for row, known in zip(rows, values, strict=True)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load(path).best_epoch == epoch


def test_a_run_that_is_being_lengthened_forgets_the_old_best_epoch(write_run, tmp_path):
    path = write_run(tmp_path / "run", epochs=10)
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps({**result, "best_epoch": 2, "best_pgd": 0.1}))
    Run(path).lengthen((path / "config.json").read_text())
    run = load(path)
    assert (run.result.lengthened, run.finished, run.result.train_seconds) == ([10], False, None)
    validated = {row.epoch: row.pgd for row in run.validated}
    assert run.best_epoch == max(validated, key=validated.__getitem__) != 2


def test_half_a_last_line_of_metrics_is_left_out(write_run, tmp_path):
    path = write_run(tmp_path / "run", done=3)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "epo')
    assert [row.epoch for row in load(path).epochs] == [1, 2, 3]


def test_an_evaluation_without_attacks_has_no_examples(write_run, tmp_path):
    path = write_run(tmp_path / "run")
    (folder(path, "best") / "examples.npz").unlink()
    assert "best" not in load(path).examples


def _without(text: str, key: str) -> str:
    result = json.loads(text)
    del result["columns"]["clean"][key]
    return json.dumps(result)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", lambda text: text[:-20]),
        ("config.json", lambda text: "[]"),
        ("environment.json", lambda text: "no json"),
        ("result.json", lambda text: text[: len(text) // 2]),
        ("evaluation.json", lambda text: _without(text, "accuracy")),
        ("metrics.jsonl", lambda text: text.replace('"lr"', "lr", 1)),
        ("metrics.jsonl", lambda text: text.replace('"terms"', '"things"', 1)),
        ("outcomes.csv", lambda text: text.replace("index,label", "label,index")),
        ("outcomes.csv", lambda text: text + "1,2\n"),
        ("outcomes.csv", lambda text: text.replace("\n3,", "\nthree,")),
        ("outcomes.csv", lambda text: text[: text.index("\n400,") + 1]),
        ("outcomes.csv", lambda text: ""),
    ],
)
def test_damage_is_told_in_one_line_that_names_the_file(write_run, tmp_path, name, damage):
    path = write_run(tmp_path / "run")
    file = (folder(path, "best") if name in ("evaluation.json", "outcomes.csv") else path) / name
    file.write_text(damage(file.read_text()))
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_examples_are_named(write_run, tmp_path):
    path = write_run(tmp_path / "run")
    whole = (folder(path) / "examples.npz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense"):
        (folder(path) / "examples.npz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"examples\.npz is damaged"):
            load(path)
    np.savez_compressed(folder(path) / "examples.npz", x=np.zeros((2, 1, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"examples\.npz is damaged"):
        load(path)


def test_damaged_thumbnails_are_named(write_run, tmp_path):
    path = write_run(tmp_path / "run")
    file = folder(path) / "thumbnails.npz"
    for arrays in ({"index": np.arange(2)}, {"index": np.arange(2), "pixels": np.zeros((3, 1, 8, 8), np.uint8)}):
        np.savez_compressed(file, **arrays)
        with pytest.raises(UserError, match=r"thumbnails\.npz is damaged"):
            load(path)
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"thumbnails\.npz is damaged"):
        load(path)


def test_thumbnails_of_an_older_version_name_no_files(write_run, tmp_path):
    path = write_run(tmp_path / "run")
    pixels = np.zeros((2, 1, 8, 8), np.uint8)
    np.savez_compressed(folder(path) / "thumbnails.npz", index=np.array([4, 7]), pixels=pixels)
    (few,) = load(path).thumbnails.values()
    assert few.files.tolist() == ["", ""]


def test_damaged_loss_surfaces_are_named(write_run, tmp_path):
    path = write_run(tmp_path / "run")
    file, one = folder(path) / "loss-surfaces.npz", np.zeros(1)
    sound = {"index": one, "label": one, "broken": one, "steps": np.zeros(3), "loss": np.zeros((1, 3, 3))}
    np.savez_compressed(file, **sound)
    assert load(path).surfaces
    for arrays in ({"index": one}, sound | {"loss": np.zeros((2, 3, 3))}, sound | {"steps": np.zeros(5)}):
        np.savez_compressed(file, **arrays)
        with pytest.raises(UserError, match=r"loss-surfaces\.npz is damaged"):
            load(path)


def test_bytes_that_are_no_text_are_damage(write_run, tmp_path):
    path = write_run(tmp_path / "run")
    (path / "result.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match=r"result\.json cannot be read"):
        load(path)


@pytest.mark.parametrize("name", ["", "missing"])
def test_another_folder_is_no_run_directory(tmp_path: Path, name: str):
    with pytest.raises(UserError, match="not a run directory"):
        load(tmp_path / name)


def shrink(path, checkpoint, count, made="2027-01-01T00:00:00+00:00"):
    """Adds a later evaluation of a checkpoint, on the first images only and under a weak attack."""
    stored = next(one for one in load(path).stored if one.evaluation.subject.checkpoint == checkpoint)
    table, held = stored.outcomes(), stored.evaluation
    few = {name: table.survives[name][:count] for name in ("clean", "fgsm@0.1")}
    columns = {
        name: replace(held.columns[name], correct=int(few[name].sum()), accuracy=float(few[name].mean()))
        for name in few
    }
    subject = replace(held.subject, sample=Sample(count, N, "first"))
    evaluation = replace(held, subject=subject, columns=columns, made=made)
    add(path, evaluation, Outcomes(table.index[:count], table.label[:count], few), None)


def test_a_later_evaluation_of_fewer_images_is_not_the_result(write_run, tmp_path):
    path = write_run(tmp_path / "run", checkpoints=("best",))
    shrink(path, "best", 4)
    run = load(path)
    assert (run.evaluations["best"].examples, len(run.outcomes["best"].label)) == (N, N)
    assert [each.examples for each in run.others] == [4]


def test_checkpoints_on_other_images_are_not_in_the_same_table(write_run, tmp_path):
    path = write_run(tmp_path / "run", checkpoints=("best",))
    last = write_run(tmp_path / "other", checkpoints=("last",))
    shrink(last, "last", 60)
    for folder_of_few in (last / "evaluations").glob("last-60-*"):
        shutil.copytree(folder_of_few, path / "evaluations" / folder_of_few.name)
    run = load(path)
    assert checkpoints(run) == ["best"]
    assert [each.subject.checkpoint for each in run.others] == ["last"]


def test_images_on_which_a_run_was_attacked_come_first(write_run, tmp_path):
    """More of them without an attack say nothing about robustness."""
    path = write_run(tmp_path / "run", checkpoints=("best",))
    shrink(path, "best", 60)
    (large,) = (path / "evaluations").glob(f"best-{N}-*")
    record = json.loads((large / "evaluation.json").read_text())
    record["columns"] = {"clean": record["columns"]["clean"]}
    (large / "evaluation.json").write_text(json.dumps(record))
    assert load(path).evaluations["best"].examples == 60


def test_a_run_is_judged_by_its_first_attacked_checkpoint(write_run, tmp_path):
    path = write_run(tmp_path / "run", checkpoints=("best", "last"))
    (own,) = (path / "evaluations").glob("best-*")
    record = json.loads((own / "evaluation.json").read_text())
    record["columns"] = {"clean": record["columns"]["clean"]}
    (own / "evaluation.json").write_text(json.dumps(record))
    (subject,) = subjects_of([load(path)])
    assert (subject.checkpoint, subject.attack) == ("last", "pgd-50")
