"""Evaluations of a run add up, and do not outlive what they are about."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regmix.runs import Run
from regmix.runs.evaluations import Outcomes, add, folder_of, has_columns, settings_digest
from regmix.runs.records import Column, Corruptions, Cost, Environment, Evaluation, Masking, Source, Subject
from regmix.runtime.files import digest
from regmix.types import Fingerprint, Sample, UserError

CONFIG = {"model": {"name": "small_cnn", "width": 4}, "threat": {"name": "linf", "eps": 0.1}, "epochs": 3}
SPLIT = Fingerprint(("a", "b"), (2, 2), "pixels", "0" * 32)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    directory = Run.create(tmp_path / "run", json.dumps(CONFIG), Environment())
    directory.weights("last").write_bytes(b"weights")
    return directory


def subject(run: Run, **changes: object) -> Subject:
    base = Subject("last", digest(run.weights("last")), settings_digest(json.dumps(CONFIG)), SPLIT, Sample(4, 4, "all"))
    return replace(base, **changes)


def found(about: Subject, **survives: list[int]) -> tuple[Evaluation, Outcomes]:
    table = {name: np.array(values, dtype=bool) for name, values in survives.items()}
    columns = {name: Column(name, 0.1, "0.1", v.mean(), 0.0, 1.0, int(v.sum())) for name, v in table.items()}
    labels = np.array([0, 0, 1, 1])
    return Evaluation(about, columns, made="2026-01-01"), Outcomes(np.arange(4), labels, table)


def test_columns_of_one_subject_are_put_together_and_the_newer_one_counts(run: Run) -> None:
    about = subject(run)
    add(run.path, *found(about, clean=[1, 1, 1, 0], fgsm=[1, 0, 0, 0]), None)
    add(run.path, *found(about, clean=[1, 1, 1, 0], autoattack=[0, 0, 0, 0], fgsm=[1, 1, 0, 0]), None)
    (one,) = run.evaluations()
    assert set(one.evaluation.columns) == {"clean", "fgsm", "autoattack"}
    assert one.evaluation.columns["fgsm"].correct == 2
    assert one.outcomes().survives["fgsm"].tolist() == [True, True, False, False]
    assert one.outdated == ""


def test_what_is_not_asked_again_is_kept(run: Run) -> None:
    about = subject(run)
    evaluation, outcomes = found(about, clean=[1, 1, 1, 1])
    fog, more = (
        Corruptions("computed", {"fog": {1: 0.5}}, Cost(8, 8, 0, 0.5)),
        Corruptions("computed", {"fog": {2: 0.25}, "snow": {1: 0.75}}, Cost(16, 16, 0, 0.25)),
    )
    first = replace(evaluation, seconds=2.0, masking=Masking("masked", ["a sign"]), corruptions=[fog])
    second = replace(evaluation, seconds=3.0, corruptions=[more])
    add(run.path, first, outcomes, None)
    whole, _ = add(run.path, second, outcomes, None)
    assert whole == run.evaluations()[0].evaluation
    assert whole.masking == first.masking
    assert whole.corruptions == [
        Corruptions("computed", {"fog": {1: 0.5, 2: 0.25}, "snow": {1: 0.75}}, Cost(24, 24, 0, 0.75))
    ]
    assert whole.seconds == 5.0


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "other"},
        {"data": replace(SPLIT, digest="1" * 32)},
        {"sample": Sample(4, 9, "stratified", 0)},
        {"sample": Sample(4, 9, "stratified", 1)},
        {"sample": Sample(4, 9, "first")},
        {"draws": 20},
        {"code": {"/some/model.py": "digest"}},
        {"settings": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_subject_is_another_evaluation(run: Run, change: dict[str, object]) -> None:
    one, other = subject(run), subject(run, **change)
    assert one.key != other.key
    add(run.path, *found(one, clean=[1, 1, 1, 1]), None)
    add(run.path, *found(other, clean=[0, 0, 0, 0]), None)
    assert {stored.evaluation.columns["clean"].correct for stored in run.evaluations()} == {0, 4}


def test_the_clean_interval_and_the_note_of_a_rule_stay(run: Run) -> None:
    """A rule chose the number of images; who adds to them with that number does not make the interval narrower."""
    about = subject(run)
    evaluation, outcomes = found(about, clean=[1, 1, 1, 0], fgsm=[1, 0, 0, 0])
    wide = replace(evaluation.columns["clean"], low=0.1, high=0.99, within=0.5, rule="by a rule")
    columns = {**evaluation.columns, "clean": wide}
    add(run.path, replace(evaluation, columns=columns, notes=["an image"]), outcomes, None)
    newer, outcomes = found(about, clean=[1, 1, 1, 0], pgd=[1, 0, 0, 0])
    narrow = replace(newer.columns["clean"], low=0.3, high=0.9)
    add(run.path, replace(newer, columns={**newer.columns, "clean": narrow}, notes=["an image"]), outcomes, None)
    (one,) = run.evaluations()
    assert one.evaluation.columns["clean"] == wide
    assert one.evaluation.about_images == ["an image", "by a rule"]


@pytest.mark.parametrize(
    ("older", "newer", "kept"), [("", "", "new"), ("a", "b", "new"), ("a", "", "new"), ("", "b", "old")]
)
def test_notes_about_images_are_those_of_the_latest_evaluation_of_the_runs_own(
    run: Run, older: str, newer: str, kept: str
) -> None:
    """What a reader of images said once does not stick; a copy of the run's own images tells nothing of them."""
    for elsewhere, note in ((older, "old"), (newer, "new")):
        evaluation, outcomes = found(subject(run), clean=[1, 1, 1, 0])
        add(run.path, replace(evaluation, elsewhere=elsewhere, notes=[note]), outcomes, None)
    (one,) = run.evaluations()
    assert one.evaluation.notes == [kept]


def test_the_same_corruptions_measured_twice_cost_once(run: Run) -> None:
    """Two hosts that share the work each count all of it."""
    evaluation, outcomes = found(subject(run), clean=[1, 1, 1, 1])
    fog = Corruptions("computed", {"fog": {1: 0.5}}, Cost(8, 8, 0, 0.5))
    for _ in range(2):
        add(run.path, replace(evaluation, corruptions=[fog]), outcomes, None)
    (one,) = run.evaluations()
    assert one.evaluation.corruptions == [fog]


def test_code_that_was_only_moved_is_the_same_subject(run: Run) -> None:
    here, there = (subject(run, code={f"/{place}/model.py": "digest"}) for place in ("here", "there"))
    assert folder_of(run.path, here) == folder_of(run.path, there)


def test_evaluations_at_once_lose_nothing(run: Run) -> None:
    about = subject(run)
    names = [f"pgd-{number}" for number in range(12)]
    workers = [
        threading.Thread(target=add, args=(run.path, *found(about, **{name: [1, 0, 1, 0]}), None)) for name in names
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (one,) = run.evaluations()
    assert set(one.evaluation.columns) == set(one.outcomes().survives) == set(names)


def test_an_evaluation_is_outdated_as_soon_as_what_it_is_about_has_changed(run: Run, tmp_path: Path) -> None:
    code = tmp_path / "model.py"
    code.write_text("one")
    add(run.path, *found(subject(run, code={str(code): digest(code)}), clean=[1, 1, 1, 1]), None)

    def reason() -> str:
        return run.evaluations()[0].outdated

    assert reason() == ""
    code.write_text("another")
    assert reason() == f"{code} has changed since"
    code.unlink()
    assert reason() == "", "somewhere else, as on another machine"
    (run.path / "config.json").write_text(json.dumps({**CONFIG, "epochs": 9}))
    assert reason() == ""
    (run.path / "config.json").write_text(json.dumps({**CONFIG, "threat": {"name": "l2", "eps": 0.1}}))
    assert "config.json has changed since" in reason()
    (run.path / "config.json").write_text(json.dumps(CONFIG))
    run.weights("last").write_bytes(b"trained on")
    assert reason() == "the last weights have changed since"
    run.weights("last").unlink()
    assert reason() == "", "removed weights are no others: the record says which they were"


def test_names_with_commas_and_quotes_survive_the_table(run: Run) -> None:
    about = subject(run)
    evaluation, outcomes = found(about, **{'a "b", c': [1, 0, 0, 1]})
    add(run.path, evaluation, outcomes, None)
    assert run.evaluations()[0].outcomes().survives['a "b", c'].tolist() == [True, False, False, True]


def test_a_transfer_column_does_not_outlive_the_weights_that_it_came_from(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source.safetensors"
    source.write_bytes(b"one")
    evaluation, outcomes = found(subject(run), transfer=[1, 1, 0, 0])
    column = replace(evaluation.columns["transfer"], source=Source(str(source), digest(source)))
    whole, _ = add(run.path, replace(evaluation, columns={"transfer": column}), outcomes, None)
    assert has_columns({"transfer": column.source}, whole)
    assert "transfer" in run.evaluations()[0].evaluation.columns
    source.write_bytes(b"two")
    (shown,) = run.evaluations()
    assert "transfer" not in shown.evaluation.columns
    assert shown.left_out == [f"transfer: {source} has changed since"]
    assert not has_columns({"transfer": Source(str(source), digest(source))}, whole), "other weights of the same name"
    assert not has_columns({"fgsm": None}, whole)


def test_a_transfer_column_does_not_outlive_the_model_that_it_came_from(run: Run, tmp_path: Path) -> None:
    weights, config, code = (tmp_path / name for name in ("best.safetensors", "config.json", "net.py"))
    weights.write_bytes(b"one")
    config.write_text(json.dumps(CONFIG))
    code.write_text("one")
    source = Source(str(weights), digest(weights), settings_digest(config.read_text()), {str(code): digest(code)})
    evaluation, outcomes = found(subject(run), transfer=[1, 1, 0, 0])
    column = replace(evaluation.columns["transfer"], source=source)
    whole, _ = add(run.path, replace(evaluation, columns={"transfer": column}), outcomes, None)
    assert run.evaluations()[0].left_out == []
    assert has_columns({"transfer": replace(source, code={})}, whole), "code is read when the model is built"
    assert not has_columns({"transfer": replace(source, settings="another network")}, whole)
    config.write_text(json.dumps({**CONFIG, "model": {"name": "another"}}))
    assert run.evaluations()[0].left_out == [f"transfer: {config} has changed since"]
    config.write_text(json.dumps(CONFIG))
    code.write_text("two")
    assert run.evaluations()[0].left_out == [f"transfer: {code} has changed since"]
    older = replace(column, source=replace(source, settings="", code={}))
    assert has_columns({"transfer": source}, replace(whole, columns={"transfer": older})), "it did not say"


def test_a_record_in_another_subjects_folder_is_named(run: Run) -> None:
    about = subject(run)
    add(run.path, *found(about, clean=[1, 1, 1, 0]), None)
    record = folder_of(run.path, about) / "evaluation.json"
    tampered = json.loads(record.read_text())
    tampered["subject"]["weights"] = "0" * 16
    record.write_text(json.dumps(tampered))
    with pytest.raises(UserError, match="another subject"):
        add(run.path, *found(about, fgsm=[1, 0, 0, 0]), None)


@pytest.mark.parametrize("damage", ["index,label,clean\n0,0,1\n", "nonsense", "index,label,clean\n" + "0,0,0\n" * 4])
def test_a_table_that_does_not_agree_with_the_record_is_named(run: Run, damage: str) -> None:
    add(run.path, *found(subject(run), clean=[1, 1, 1, 1]), None)
    (one,) = run.evaluations()
    (one.folder / "outcomes.csv").write_text(damage)
    with pytest.raises(UserError, match=r"outcomes\.csv"):
        one.outcomes()


def test_a_column_that_does_not_agree_is_mended_by_measuring_it_again(run: Run) -> None:
    about = subject(run)
    add(run.path, *found(about, clean=[1, 1, 1, 1], fgsm=[1, 0, 0, 0]), None)
    (one,) = run.evaluations()
    (one.folder / "outcomes.csv").write_text("index,label,clean,fgsm\n0,0,1,0\n1,0,1,0\n2,1,1,0\n3,1,1,0\n")
    with pytest.raises(UserError, match="do not agree about fgsm; evaluate the run again"):
        add(run.path, *found(about, clean=[1, 1, 1, 1]), None)
    add(run.path, *found(about, clean=[1, 1, 1, 1], fgsm=[1, 0, 0, 0]), None)
    assert run.evaluations()[0].outcomes().survives["fgsm"].tolist() == [True, False, False, False]
