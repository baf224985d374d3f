import csv
import errno
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from contracts.evaluated import change, evaluated, folder, record
from regmix.evaluation import wilson
from regmix.reports import comparison, details, remarks, write_report
from regmix.reports.curves import eps_charts
from regmix.reports.findings import Case
from regmix.reports.load import load
from regmix.reports.page import comparisons
from regmix.reports.subject import subjects_of
from regmix.runs import Run
from regmix.runs.evaluations import Stored, settings_digest
from regmix.types import Sample, UserError


class Page(HTMLParser):
    """The words of a page, its elements' names, and every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self._cells: list[list[str]] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.words.append(data)


def page(output: Path) -> Page:
    return Page(output.read_text(encoding="utf-8"))


def report(tmp_path: Path, *runs: Path) -> Page:
    write_report(runs, tmp_path / "report.html")
    return page(tmp_path / "report.html")


@pytest.fixture(scope="module")
def compared(write_run, tmp_path_factory):
    """A RegMix run and a standard run, and the page about both."""
    folder = tmp_path_factory.mktemp("compared")
    runs = write_run(folder / "regmix"), write_run(folder / "standard", "standard")
    return runs, report(folder, *runs)


def test_notes_about_the_images_stand_beside_the_headline(write_run, tmp_path):
    run = write_run(tmp_path / "run", checkpoints=("best",))
    change(run, "best", lambda content: content.update(elsewhere="photos", notes=["they are training images"]))
    page = report(tmp_path, run)
    head = page.text.split("What to do next")[0]
    assert "of the 500 images of photos correctly" in head
    assert "About the images: they are training images." in head


def column(run: Path, checkpoint: str, name: str) -> list[int]:
    with (folder(run, checkpoint) / "outcomes.csv").open() as file:
        return [int(row[name]) for row in csv.DictReader(file)]


def percent(values: list[int]) -> str:
    return f"{100 * sum(values) / len(values):.1f}%"


def test_summary_says_what_each_run_keeps(compared):
    (regmix, standard), text = compared[0], compared[1].text
    kept = [percent(column(run, "best", "pgd-50@0.1")) for run in (regmix, standard)]
    clean = [percent(column(run, "best", "clean")) for run in (regmix, standard)]
    assert (
        f"RegMix classifies {kept[0]} of the 500 test digits correctly under PGD-50 at ε = 0.1, "
        f"standard training {kept[1]}. "
        f"Without an attack: RegMix {clean[0]} and standard training {clean[1]}."
    ) in text


def test_limits_and_selection_are_told(compared):
    text = compared[1].text
    assert "L∞ at ε = 0.1" in text
    assert "upper bound on robust accuracy, not a guarantee" in text
    assert "AutoAttack was not run" in text
    assert "The best epoch is chosen on 200 images held out from the training set" in text


def test_every_accuracy_is_there_with_its_interval(compared):
    runs, shown = compared
    for run in runs:
        for evaluation in (record(run, checkpoint) for checkpoint in evaluated(run)):
            for cell in evaluation["columns"].values():
                low, high = f"{100 * cell['low']:.1f}", f"{100 * cell['high']:.1f}"
                assert re.search(rf"{100 * cell['accuracy']:.1f}% {low}.{high} ", shown.text)


def test_the_worst_case_is_that_of_the_single_examples(compared):
    (regmix, _), shown = compared
    rows = re.findall(r"Worst case((?: [\d.]+% [\d.]+.[\d.]+){3})", shown.text)
    expected = []
    for eps in ("0.05", "0.1", "0.15", "0.2"):
        cells = ""
        for checkpoint in ("best", "last", "averaged"):
            attacks = [column(regmix, checkpoint, f"{name}@{eps}") for name in ("fgsm", "pgd-10", "pgd-50")]
            survivors = sum(min(values) for values in zip(*attacks, strict=True))
            low, high = wilson(survivors, 500)
            cells += f" {100 * survivors / 500:.1f}% {100 * low:.1f}\N{EN DASH}{100 * high:.1f}"
        expected.append(cells)
    assert rows[:4] == expected
    assert len(rows) == 8


def test_the_gap_is_that_of_the_paired_examples(compared):
    (regmix, _), shown = compared
    best, last = column(regmix, "best", "pgd-50@0.1"), column(regmix, "last", "pgd-50@0.1")
    gained = sum(b > a for a, b in zip(last, best, strict=True))
    lost = sum(b < a for a, b in zip(last, best, strict=True))
    assert f"{gained} are correct under attack only with best, and {lost} only with last" in shown.text
    assert f"{100 * (sum(best) - sum(last)) / 500:+.1f} gap in points" in shown.text
    assert "exceeds the noise of this test sample" in shown.text
    assert "Neither checkpoint classifies any attacked example correctly" in shown.text


def test_runs_on_the_same_examples_are_compared_in_pairs(compared):
    (regmix, standard), shown = compared
    difference = sum(column(regmix, "best", "pgd-50@0.1")) - sum(column(standard, "best", "pgd-50@0.1"))
    where = "under PGD-50 at ε = 0.1, on the same 500 examples"
    assert f"RegMix minus standard training {where}: {100 * difference / 500:+.1f} points" in shown.text


def test_curves_pictures_and_settings_are_there(compared):
    shown = compared[1]
    for words in (
        *("mutual main", "mutual aux", "generalise", "classify", "clean, averaged", "Learning rate", "best: epoch"),
        *(
            "The perturbation is magnified 5 times",
            "Where the runs differ",
            "method.name",
            "regmix train digits-regmix",
        ),
        *("outcomes.csv", "git_commit", "ε = 0.2", "ε of training"),
    ):
        assert words in shown.text
    assert sum(load.startswith("data:image/png;base64,") for load in shown.loads) == 2 * 8 * 3


def test_the_page_loads_nothing(compared):
    (folder, _), shown = compared
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in shown.loads)
    assert not shown.tags & {"script", "link", "iframe", "object", "embed", "base"}
    text = (folder.parent / "report.html").read_text()
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(set(shown.ids)) == len(shown.ids)
    assert {load for load in shown.loads if load.startswith("#")} == {f"#{name}" for name in shown.ids}


def test_nasty_strings_are_only_text(write_run, tmp_path):
    nasty = '<script>alert(1)</script>"&'
    run = write_run(
        tmp_path / 'run "<script>alert(1)<' / "a&b", method_name=nasty, command=nasty, classes=[nasty, *"123456789"]
    )
    shown = report(tmp_path, run)
    text = (tmp_path / "report.html").read_text()
    assert "script" not in shown.tags
    assert "<script" not in text
    assert "alert" not in "".join(shown.loads)
    assert shown.text.count(nasty) >= 4


def test_a_run_without_evaluation_says_so(write_run, tmp_path):
    shown = report(tmp_path, write_run(tmp_path / "run", checkpoints=()))
    assert "RegMix has not been evaluated on test images yet." in shown.text
    assert f"regmix evaluate {tmp_path / 'run'}" in shown.text
    assert "The gap is not known yet. Not evaluated: best and last." in shown.text
    assert "There is no evaluation at an ε above 0 yet" in shown.text
    assert "There are no example images" in shown.text
    assert "Learning rate" in shown.text


def test_an_unfinished_run_says_so(write_run, tmp_path):
    shown = report(tmp_path, write_run(tmp_path / "run", done=3))
    assert "Not finished: 3 of 30 epochs are complete." in shown.text


def test_a_run_before_its_first_epoch_says_so(tmp_path):
    (tmp_path / "config.json").write_text('{"model": {"name": "resnet"}}')
    shown = report(tmp_path, tmp_path)
    assert "Not finished: no epoch is complete yet." in shown.text
    assert "metrics.jsonl has no epoch yet." in shown.text
    assert "The settings name no threat model." in shown.text
    assert "The run has no environment.json" in shown.text


def test_what_a_run_lacks_is_said(write_run, tmp_path):
    run = write_run(tmp_path / "run", "standard", checkpoints=("last",), averaged=False)
    (folder(run) / "outcomes.csv").unlink()
    shown = report(tmp_path, run)
    assert "This run keeps no averaged weights." in shown.text
    assert "The best checkpoint has not been evaluated." in shown.text
    assert "The worst case of last cannot be computed: its outcomes.csv is missing." in shown.text
    assert "Not evaluated: best." in shown.text
    assert "This method has no divergences with a weight." in shown.text
    assert "This is the last checkpoint: the weights after the last epoch." in shown.text


def test_another_radius_than_the_trainings_is_said(write_run, tmp_path):
    shown = report(tmp_path, write_run(tmp_path / "run", eps=(0.05, 0.08)))
    assert "RegMix was not evaluated at the ε of its training, 0.1; this report uses the nearest ε, 0.08," in shown.text


def test_an_evaluation_without_attacks(write_run, tmp_path):
    shown = report(tmp_path, write_run(tmp_path / "run", eps=()))
    assert "The gap is not known yet: the evaluation had no attack." in shown.text
    assert "There is no evaluation at an ε above 0 yet" in shown.text
    assert "Worst case" not in shown.text


def test_autoattack_among_the_columns_takes_the_warning_back(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    for file in run.rglob("*"):
        if file.suffix in (".csv", ".json"):
            file.write_text(file.read_text().replace("pgd-50", "autoattack"))
    shown = report(tmp_path, run)
    assert "AutoAttack was not run" not in shown.text
    assert "not a guarantee" in shown.text


def test_runs_of_one_method_are_told_apart_by_their_folders(write_run, tmp_path):
    runs = [write_run(tmp_path / f"seed{seed}", seed=seed, epochs=30 + seed) for seed in range(4)]
    shown = report(tmp_path, *runs)
    assert "Comparison of 4 runs" in shown.text
    shares = {f"seed{n}": sum(column(run, "best", "pgd-50@0.1")) / 500 for n, run in enumerate(runs)}
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    assert (
        f"Of the 500 test digits, {most} classifies the most correctly under PGD-50 at ε = 0.1, "
        f"{100 * shares[most]:.1f}%, "
        f"and {least} the least, {100 * shares[least]:.1f}%."
    ) in shown.text


def test_the_runs_are_only_read_and_the_output_is_replaced_whole(write_run, tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")

    def held() -> dict[str, tuple[int, bytes]]:
        return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in run.rglob("*") if file.is_file()}

    before = held()
    output = tmp_path / "out" / "report.html"
    output.parent.mkdir()
    output.write_text("old. Written by regmix 0.1")
    write_report([run], output)
    assert page(output).text
    assert [file.name for file in output.parent.iterdir()] == ["report.html"]
    assert held() == before
    output.write_text("old. Written by regmix 0.1")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_report([run], output)
    assert output.read_text() == "old. Written by regmix 0.1"
    assert [file.name for file in output.parent.iterdir()] == ["report.html"]


def test_mistakes_are_told_in_one_line(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    with pytest.raises(UserError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(UserError, match="nowhere does not exist"):
        write_report([run], tmp_path / "nowhere" / "report.html")
    with pytest.raises(UserError, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match="not a run directory"):
        write_report([run, tmp_path], tmp_path / "report.html")


def test_alarms_of_the_guard_are_shown_with_what_was_done(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    reason = "catastrophic overfitting: PGD accuracy fell from 40.0% to 0.5%"
    result |= {"status": "stopped", "alarms": [{"epoch": 12, "reason": reason, "action": "stop"}]}
    (run / "result.json").write_text(json.dumps(result))
    text = report(tmp_path, run).text
    assert "Alarm in epoch 12" in text
    assert f"{reason}. The run was stopped." in text
    assert "Stopped by the guard against catastrophic overfitting after 30 of 30 epochs." in text


def test_a_run_that_was_rolled_back_is_called_by_all_its_methods(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    reason = "catastrophic overfitting: PGD accuracy fell"
    result["alarms"] = [{"epoch": 12, "reason": reason, "action": "rollback"}] * 2
    (run / "result.json").write_text(json.dumps(result))
    text = report(tmp_path, run).text
    assert "RegMix, then PGD-AT classifies" in text
    assert "Trained with RegMix (epochs 1 to 10), then PGD-AT (epochs 11 to 30)." in text
    for remedy in ("N-FGSM", "PGD-AT"):
        assert f"{reason}. The run went back to epoch 10 and continued with {remedy}." in text


def test_a_corruption_has_a_mean_only_over_the_severities_of_all(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    for severities, means in (({1, 5}, ["45.0", "", ""]), ({1}, ["50.0", "30.0", "40.0"])):
        accuracy = {"fog": {1: 0.5, 5: 0.4}, "contrast": {1: 0.3}}
        kept = {kind: {s: v for s, v in row.items() if s in severities} for kind, row in accuracy.items()}
        corruptions = [{"source": "computed", "accuracy": kept}]
        change(run, "best", lambda one, new=corruptions: one.update(corruptions=new))
        (subject,) = subjects_of([load(run)])
        ((_, table),) = details.corruptions([subject])
        assert [row[1] for row in table.rows] == means


def test_alarms_of_one_kind_are_one_line_with_their_span(write_run, tmp_path):
    reason = "catastrophic overfitting: PGD accuracy fell from 40.0% to 0.5%"
    alarms = [{"epoch": epoch, "reason": reason, "action": "continue"} for epoch in range(3, 27)]
    for method in ("regmix", "standard"):
        run = write_run(tmp_path / method, method)
        result = json.loads((run / "result.json").read_text()) | {"alarms": alarms}
        (run / "result.json").write_text(json.dumps(result))
    text = report(tmp_path, tmp_path / "regmix").text
    assert text.count(reason) == 1
    assert f"24 alarms in epochs 3 to 26 : the first: {reason}." in text
    assert "catastrophic" not in report(tmp_path, tmp_path / "standard").text  # an old run's: it is not adversarial


def test_a_model_that_answers_one_class_has_no_gap(write_run, tmp_path):
    run = write_run(tmp_path / "run", averaged=False, checkpoints=("best", "last"))
    said = {"name": "3", "share": 1.0}
    for checkpoint in ("best", "last"):
        change(run, checkpoint, lambda evaluation: evaluation.update(one_answer=said))
    text = report(tmp_path, run).text
    assert 'The gap means nothing: with the best weights the model answers "3" for 100.0% of the test images' in text
    assert "robust overfitting), and choosing" not in text
    assert "Robust overfitting" not in text


def test_what_to_do_next_has_evidence_and_a_command(write_run, tmp_path):
    text = report(tmp_path, write_run(tmp_path / "run", epochs=30, done=10)).text
    assert "What to do next" in text
    assert "The training has ended, or is at work, after 10 of 30 epochs." in text
    assert f"regmix train --resume {tmp_path / 'run'}" in text


def test_screened_autoattack_is_not_autoattack_and_says_so_beside_its_numbers(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    for file in run.rglob("*"):
        if file.suffix in (".csv", ".json"):
            text = file.read_text().replace("pgd-50", "autoattack-screened")
            file.write_text(text.replace('"note": ""', '"note": "A note."'))
    shown = report(tmp_path, run)
    assert "AutoAttack was not run" in shown.text
    assert shown.text.count("autoattack-screened: A note.") >= 2


def test_the_verdict_on_masking_and_the_stages_of_autoattack_are_told(write_run, tmp_path):
    run = write_run(tmp_path / "run")
    assert "Can the numbers be trusted?" not in report(tmp_path, run).text
    masked = {"verdict": "masked", "signs": ["12.0% of the images have no gradient"], "probe": None}
    change(run, "best", lambda best: best.update(masking=masked))

    def told(last: dict[str, Any]) -> None:
        last["masking"] = {"verdict": "no sign of masking", "signs": []}
        last["preflight"] = ["the outputs are <probabilities>"]
        last["columns"]["pgd-50@0.1"]["stages"] = [{"attack": "apgd-ce", "accuracy": 0.5, "seconds": 3.0}]

    change(run, "last", told)
    text = report(tmp_path, run).text
    assert "Can the numbers be trusted?" in text
    assert "The gradients are masked: the accuracies under attack are too high." in text
    assert "12.0% of the images have no gradient." in text
    assert "No sign of masked gradients." in text
    assert "Before the attacks: the outputs are <probabilities>." in text
    assert "pgd-50@0.1: 50.0% after apgd-ce." in text


def test_the_page_allows_no_script_and_loads_nothing(compared, tmp_path: Path) -> None:
    runs, _ = compared
    write_report(runs, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert policy is not None
    assert text.index(policy[0]) < text.index("<title>")
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules.keys() == {"default-src", "img-src", "style-src", "base-uri", "form-action"}
    assert rules["img-src"] == "data:"


HOSTILE = [
    "<script>document.x = 1</script>",
    '"><img src=x onerror="document.x = 1">',
    "</title></style><script>document.x = 1</script>",
    "javascript:document.x = 1",
    "{{ 7*191 }}{% for x in () %}",
    "&lt;b&gt;",
    "x" * 5000,
]


def with_text(run: Path, text: str) -> None:
    """Puts a text into every place of a run directory that a page shows."""
    config = json.loads((run / "config.json").read_text())
    config["method"]["name"] = config["threat"]["name"] = config["data"]["name"] = config[text] = text
    (run / "config.json").write_text(json.dumps(config))
    (run / "environment.json").write_text(json.dumps({text: text, "command": text}))
    result = json.loads((run / "result.json").read_text())
    result |= {"classes": [text] * 10, "alarms": [{"epoch": 1, "reason": text, "action": "stop"}]}
    (run / "result.json").write_text(json.dumps(result))

    def hostile(evaluation: dict[str, Any]) -> None:
        evaluation["subject"]["settings"] = settings_digest(json.dumps(config))
        evaluation["subject"]["data"]["classes"] = [text] * 10
        evaluation |= {"preflight": [text], "notes": [text], "masking": {"verdict": "masked", "signs": [text]}}
        evaluation["corruptions"] = [{"source": text, "accuracy": {text: {1: 0.5}}}]
        for name, column in evaluation["columns"].items():
            if name != "clean":
                column |= {"attack": text, "eps_text": text, "note": text}

    for checkpoint in evaluated(run):
        change(run, checkpoint, hostile)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_a_run_directory_are_shown_and_nothing_else(write_run, tmp_path: Path, text: str) -> None:
    harmless = page_about(write_run, tmp_path / "a", "harmless")
    hostile = page_about(write_run, tmp_path / "b", text)
    assert hostile.tags == harmless.tags
    assert {each.partition(",")[0] for each in hostile.loads} == {each.partition(",")[0] for each in harmless.loads}
    assert " ".join(text.split()) in hostile.text


def page_about(write_run, folder: Path, text: str) -> Page:
    run = write_run(folder / "run")
    with_text(run, text)
    return report(folder, run)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("a\u2066b\u2069", "a\\u2066b\\u2069"),
        ("a\u200fb", "a\\u200fb"),
        ("a\u2028b", "a\\u2028b"),
        ("\x1b]0;x\x07", "\\u001b]0;x\\u0007"),
        ("a\x00b\x01", "a\\u0000b\\u0001"),
        ("bird \u5c71 \u0645\u200c\u0646 \U0001f426", "bird \u5c71 \u0645\u200c\u0646 \U0001f426"),
    ],
)
def test_characters_that_hide_others_are_shown_as_their_code(write_run, tmp_path: Path, text: str, shown: str) -> None:
    assert shown in page_about(write_run, tmp_path, text).text
    assert text == shown or text not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_mean_of_several_passes_is_told_beside_every_number(write_run, tmp_path):
    """Also in the summary, on the first screen, and where the run is shown in a terminal."""
    run = write_run(tmp_path / "run", checkpoints=["best"])
    change(run, "best", lambda content: content["subject"].update(draws=10))
    text = report(tmp_path, run).text
    assert "The logits of 10 passes were averaged for every prediction." in text
    assert "correct under PGD-50 at ε = 0.1, mean of 10 passes" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "correct without an attack, mean of 10 passes" in text
    assert "best checkpoint, mean of 10 passes, worst case over the attacks" in text
    assert "all 500 test digits, mean of 10 passes" in text
    assert "accuracy on all 500 test images, mean of 10 passes, in percent" in repr(Run.open(run))


def imported(write_run, path: Path, name: str = "linf", trained: float = 0.1) -> Path:
    """A run that looks like one of a model from elsewhere, with this threat model in its settings."""
    run = write_run(path, checkpoints=["best"])
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "source": "net.pth"}))
    return with_threat(run, name, trained)


def with_threat(run: Path, name: str, eps: float) -> Path:
    """The run with another threat model in its settings; its evaluations hold."""
    config = {**json.loads((run / "config.json").read_text()), "threat": {"name": name, "eps": eps}}
    (run / "config.json").write_text(json.dumps(config))
    digest = settings_digest(json.dumps(config))
    for checkpoint in evaluated(run):
        change(run, checkpoint, lambda content: content["subject"].update(settings=digest))
    return run


@pytest.mark.parametrize("eps", [0.1, 8 / 255])
def test_no_training_eps_of_a_model_from_elsewhere_or_trained_without_attacks(write_run, tmp_path, eps):
    """The radius in their settings is that of an evaluation, or a default."""
    standard = with_threat(write_run(tmp_path / "standard", "standard", checkpoints=["best"]), "linf", eps)
    for run in (imported(write_run, tmp_path / "own", trained=eps), standard):
        text = report(tmp_path, run).text.replace("\N{NO-BREAK SPACE}", " ")
        assert "of the training)" not in text
        assert "ε of training" not in text
        assert "ε of its training" not in text
        assert f"L∞ at ε = {'0.1' if eps == 0.1 else '0.05'}: an attacker" in text  # the one that is measured


def test_a_model_from_elsewhere_has_no_checkpoints_and_no_training(write_run, tmp_path):
    """Its weights are filed as a checkpoint, which says nothing to its owner."""
    own = imported(write_run, tmp_path / "own")
    alone = report(tmp_path, own).text
    assert alone.startswith("Robustness of net.pth")
    for word in ("checkpoint", "best to last", "From the best epoch", "Training curves", "averaged weights"):
        assert word not in alone, word
    both = report(tmp_path, own, write_run(tmp_path / "run")).text
    assert "From the best epoch" in both
    assert "The gap is not known" not in both, "of the model from elsewhere there is none"


def test_the_table_of_classes_claims_no_eps_of_training(write_run, tmp_path):
    text = report(tmp_path, with_threat(write_run(tmp_path / "run", eps=(0.2,)), "linf", 0.1)).text
    assert "What the strongest attack does to each class, at the ε named on each card" in text
    assert "Best checkpoint, PGD-50 at ε = 0.2" in text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_remark_names_the_columns_that_it_is_about(write_run, tmp_path):
    runs = [write_run(tmp_path / name, name, eps=(0.1, 0.2)) for name in ("regmix", "standard")]
    texts = {"best": "92 of 200 not attacked.", "last": "4 of 200 not attacked.", "averaged": "4 of 200 not attacked."}
    for run in runs:
        for checkpoint, text in texts.items():
            radii = ("0.1",) if checkpoint == "averaged" else ("0.1", "0.2")
            notes = {f"pgd-50@{radius}": text for radius in radii} | {f"fgsm@{eps}": "Weak." for eps in ("0.1", "0.2")}
            change(run, checkpoint, lambda content, n=notes: [content["columns"][c].update(note=n[c]) for c in n])
    alone, both = (remarks.notes([load(run) for run in those]) for those in (runs[:1], runs))
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in alone] == [
        "FGSM: Weak.",
        "PGD-50 (best): 92 of 200 not attacked.",
        "PGD-50 (last; averaged at ε = 0.1): 4 of 200 not attacked.",
    ]
    assert both[1] == "PGD-50 (RegMix, best; standard training, best): 92 of 200 not attacked."
    assert len(both) == 3
    page = report(tmp_path, *runs).text
    assert all(" ".join(text.split()) in page for text in both)


def test_autoattack_counts_only_for_the_numbers_that_it_was_run_for(write_run, tmp_path):
    """Not that of another radius, checkpoint or run."""

    def caution(*those: Path) -> list[str]:
        text = remarks.limits(subjects_of([load(run) for run in those])).replace("\N{NO-BREAK SPACE}", " ")
        return re.findall("AutoAttack was not run on the (.*), so the true", text)

    def ran(run: Path, checkpoint: str, eps: str) -> None:
        change(run, checkpoint, lambda content: content["columns"][f"fgsm@{eps}"].update(attack="autoattack"))

    first, second = (write_run(tmp_path / name, name, eps=(0.1, 0.2)) for name in ("regmix", "standard"))
    ran(first, "best", "0.2")
    ran(first, "last", "0.1")
    assert caution(first) == ["best checkpoint at ε = 0.1"]
    assert caution(first, second) == ["best checkpoint of RegMix and standard training at ε = 0.1"]
    ran(first, "best", "0.1")
    assert caution(first) == []
    assert caution(first, second) == ["best checkpoint of standard training at ε = 0.1"]


@pytest.mark.parametrize("kind", ["autoattack", "one by one", "another radius", "another checkpoint"])
def test_autoattack_on_other_images_is_told(write_run, tmp_path, kind):
    path = write_run(tmp_path / "run", checkpoints=("best", "last"), eps=(0.1, 0.2))
    run = load(path)
    held = run.evaluations["last" if kind == "another checkpoint" else "best"]
    column = held.columns["pgd-50@0.2" if kind == "another radius" else "pgd-50@0.1"]
    column = replace(column, accuracy=0.6, low=0.387, high=0.781)
    names = ["apgd-ce", "apgd-t", "fab-t", "square"] if kind == "one by one" else ["autoattack"]
    columns = {f"{name}@{column.eps_text}": replace(column, attack=name) for name in names}
    few = replace(held, columns=columns, subject=replace(held.subject, sample=Sample(20, 500, "stratified", 0)))
    run = replace(run, stored=[*run.stored, Stored(path, few)])
    text = remarks.limits(subjects_of([run])).replace("\N{NO-BREAK SPACE}", " ")
    told = {
        "autoattack": "AutoAttack was run on other images only: 60.0% (38.7% to 78.1%) of 20 of 500 test digits",
        "one by one": "AutoAttack was run on other images only: its four attacks one by one on 20 of 500 test digits",
    }
    assert told.get(kind, "AutoAttack was not run on the best checkpoint at ε = 0.1") in text
    assert ("was not run" in text) == (kind not in told)


def test_runs_in_different_norms_are_not_compared(write_run, tmp_path):
    """Their columns and radii have the same names. Two runs in one norm beside a third are compared."""
    runs = [
        write_run(tmp_path / name, method) for name, method in (("a", "regmix"), ("b", "standard"), ("c", "regmix"))
    ]
    config = json.loads((runs[2] / "config.json").read_text())
    (runs[2] / "config.json").write_text(json.dumps({**config, "epochs": 31}))  # another arm than a's
    same = report(tmp_path, *runs[:2]).text
    assert "RegMix minus standard training under PGD-50" in same
    assert "different norms" not in same

    with_threat(runs[1], "l2", 0.1)
    text = report(tmp_path, *runs[:2]).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "minus standard training" not in text
    assert "The runs were attacked in different norms, L∞ and L2; accuracies under attack are compared only" in text
    assert "under PGD-50 at ε = 0.1 in L∞. Without an attack" in text
    assert "under PGD-50 at ε = 0.1 in L2. Without an attack" in text
    assert "attacked in another norm: that of standard training" in text

    subjects = subjects_of([load(run) for run in runs])
    assert [chart.title for chart in eps_charts(subjects)][2:4] == ["PGD-50 in L∞", "FGSM in L2"]
    arms = comparison.arms([load(run) for run in runs])
    assert comparison.shared_columns(arms)["best"] == ["clean"]
    assert "pgd-50@0.1" in comparison.shared_columns([arms[0], arms[2]])["best"]
    case = Case(subjects[0], subjects[1:])
    assert [case.against(peer, "pgd-50@0.1") is None for peer in case.peers] == [True, False]
    assert all(case.against(peer, "clean") is not None for peer in case.peers)
    assert [text.split(" under")[0] for text in comparisons(subjects)] == ["a minus c"]
