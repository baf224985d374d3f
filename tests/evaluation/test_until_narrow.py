"""`regmix evaluate --within`: the number of images is chosen by a rule, whatever interrupts or shares the work."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from contracts.evaluated import folder, journals, record, table
from contracts.torchrun import in_two_processes
from regmix.attacks import parse_attacks
from regmix.cli.entry import main
from regmix.corruptions import OfficialFiles
from regmix.data import Digits, draw, load
from regmix.evaluation import checkpoint
from regmix.evaluation.against import evaluate_both
from regmix.evaluation.assessment import Assessment
from regmix.evaluation.checkpoint import CheckpointEvaluation
from regmix.evaluation.questions import Questions
from regmix.evaluation.sequential import Rule, exact_interval
from regmix.evaluation.subject import choose_images
from regmix.evaluation.task import Task
from regmix.reports.load import load as load_run
from regmix.reports.remarks import intervals
from regmix.reports.statistics import worst_case
from regmix.runs import Journal, Run

TINY = "--train-examples 200 --validation 50 --epochs 4 --model.width 4 --averaging none --method standard"
FLAGS = "--attacks fgsm,pgd-2 --eps 0.05 --batch-size 32 --checkpoint last --no-verdict --within 4"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        assert main(f"train digits-regmix {TINY} --seed {seed} --out {root / str(seed)}".split()) == 0
    return [root / "0", root / "1"]


def evaluate(path: Path, *more: str) -> int:
    return main(["evaluate", str(path), *FLAGS.split(), *more])


def test_it_ends_at_the_first_look_at_which_every_column_and_the_worst_case_are_narrow(runs, tmp_path, capsys) -> None:
    path = shutil.copytree(runs[0], tmp_path / "run")
    assert evaluate(path) == 0
    labels = load(Digits(), "test").labels
    rule, held, header = Rule(len(labels), 10, 0.04), record(path), table(path)[0]
    count = held["subject"]["sample"]["count"]
    assert count in rule.looks()[:-1], "the case must not need all images"
    rows = np.array(table(path)[1:], dtype=int)
    # The rows are the stratified sample of that size, so --examples with the number is about the same images.
    assert held["subject"]["sample"] == {"count": count, "of": len(labels), "how": "stratified", "seed": 0}
    assert rows[:, 0].tolist() == draw(labels, count)[1].tolist()
    columns = {name: rows[:, place] for place, name in enumerate(header) if place >= 2}
    columns["worst"] = np.minimum.reduce([*columns.values()])

    def narrow(looked: int) -> bool:
        seen = np.isin(rows[:, 0], draw(labels, looked)[1].numpy())
        return all(rule.is_narrow(int(column[seen].sum()), looked) for column in columns.values())

    assert narrow(count)
    assert not any(narrow(looked) for looked in rule.looks() if looked < count)
    for name, column in held["columns"].items():
        assert column["within"] == 0.04
        correct = int(columns[name].sum())
        assert (column["low"], column["high"]) == rule.interval(correct, count)
    said = f"{count} of {len(labels)} test images: chosen by a rule (--within 4)"
    assert said in capsys.readouterr().out
    assert all(said in column["rule"] for column in held["columns"].values())
    assert not journals(path)
    page = tmp_path / "report.html"
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert said in page.read_text()
    # An evaluation with the number joins it.
    words = f"evaluate {path} --attacks pgd-1 --eps 0.05 --checkpoint last --no-verdict --examples {count}"
    assert main(words.split()) == 0
    assert len(record(path)["columns"]) == 4
    assert record(path)["columns"]["pgd-1@0.05"]["rule"] == ""
    assert record(path)["notes"] == held["notes"]


@pytest.mark.slow
def test_what_a_killed_evaluation_found_out_is_not_told_of_other_images(runs, tmp_path, monkeypatch) -> None:
    """Smallest perturbations are of the images that the rule has chosen, counted from 0, and so are corruptions."""
    whole, broken = (shutil.copytree(runs[0], tmp_path / name) for name in ("whole", "broken"))

    def evaluate(path: Path, seed: int) -> int:
        words = "--attacks fgsm --curve fmn --eps 0.05 --batch-size 1 --checkpoint last --no-verdict --within 12"
        return main(["evaluate", str(path), *words.split(), "--sample-seed", str(seed)])

    def stops(self: CheckpointEvaluation) -> None:
        raise KeyboardInterrupt

    assert evaluate(whole, 1) == 0
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointEvaluation, "write", stops)
        assert evaluate(broken, 0) == 130
    assert evaluate(broken, 1) == 0
    assert (folder(broken) / "distances.csv").read_text() == (folder(whole) / "distances.csv").read_text()
    assert not journals(whole)


@pytest.mark.slow
def test_a_killed_evaluation_ends_with_the_same_table(runs, tmp_path, monkeypatch) -> None:
    whole, broken = (shutil.copytree(runs[0], tmp_path / name) for name in ("whole", "broken"))
    assert evaluate(whole) == 0
    real, added = Journal.add, []

    def kills(self, *words):
        added.append(words)
        if len(added) % 15 == 0:
            raise KeyboardInterrupt
        real(self, *words)

    monkeypatch.setattr(Journal, "add", kills)
    codes = [evaluate(broken)]
    while codes[-1] == 130:
        codes.append(evaluate(broken))
    assert len(codes) > 2
    assert codes[-1] == 0
    assert table(broken) == table(whole)
    passes = [
        {name: (column["cost"]["forward"], column["cost"]["backward"]) for name, column in record(p)["columns"].items()}
        for p in (whole, broken)
    ]
    assert passes[0] == passes[1]


@pytest.mark.slow
def test_two_processes_take_the_same_images(runs, tmp_path) -> None:
    one, two = (shutil.copytree(runs[0], tmp_path / name) for name in ("one", "two"))
    assert evaluate(one) == 0
    in_two_processes(f"evaluate {two} {FLAGS}")
    assert table(two) == table(one)
    costs = [{n: c["cost"]["forward"] for n, c in record(path)["columns"].items()} for path in (one, two)]
    assert costs[0] == costs[1]


def test_two_runs_are_reported_together_and_a_radius_that_turns_all_grey_is_told(runs, tmp_path, capsys) -> None:
    first, second = (shutil.copytree(path, tmp_path / path.name) for path in runs)
    capsys.readouterr()
    words = f"evaluate {first} --against {second} --attacks fgsm --eps 0.1,0.5 --examples 20 --no-verdict"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    assert f"regmix report {first} {second} -o report.html" in said
    assert said.count("eps 0.5: at 1/2 every image can be turned into the same grey") == 2
    assert "eps 0.1: " not in said


@pytest.mark.slow
def test_two_runs_are_compared_on_the_same_images_until_the_differences_are_narrow(runs, tmp_path, capsys) -> None:
    first, second = (shutil.copytree(path, tmp_path / path.name) for path in runs)
    capsys.readouterr()
    assert evaluate(first, "--against", str(second), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    mine, theirs = (np.array(table(path)[1:], dtype=int) for path in (first, second))
    assert (mine[:, :2] == theirs[:, :2]).all(), "the same images"
    count, header = len(mine), table(first)[0]
    rule = Rule(len(load(Digits(), "test").labels), 10, 0.04)
    assert count in rule.looks()
    found = {each["column"]: each["paired"] for each in printed["differences"]}
    assert [*found] == ["clean", "fgsm@0.05", "pgd-2@0.05", "worst case@0.05"]
    for place, name in enumerate(header):
        if place < 2:
            continue
        gained = int(((mine[:, place] == 1) & (theirs[:, place] == 0)).sum())
        lost = int(((mine[:, place] == 0) & (theirs[:, place] == 1)).sum())
        assert (found[name]["gained"], found[name]["lost"]) == (gained, lost)
        assert rule.is_narrow_difference(gained, lost, count)
        assert (found[name]["low"], found[name]["high"]) == rule.difference_interval(gained, lost, count)
        # The rule has looked at differences, so a column's own interval holds at every look at once, and is wider.
        column = record(first)["columns"][name]
        assert column["within"] is None
        assert column["low"] < column["accuracy"] < column["high"]
    shown = load_run(first)
    survivors = int(np.minimum(mine[:, header.index("fgsm@0.05")], mine[:, header.index("pgd-2@0.05")]).sum())
    worst = worst_case(shown, "last", 0.05)
    assert worst is not None
    assert (worst.low, worst.high) == exact_interval(survivors, count, rule.total, 1 - 0.05 / len(rule.looks()))
    assert "those of the rule that chose the images" in intervals([shown])


def test_the_official_files_of_corruptions_are_read_at_the_images_that_are_left(tmp_path) -> None:
    test = choose_images(Digits(), None)
    sample, rows = draw(test.images.labels, 20)
    source = OfficialFiles(tmp_path, test.index)
    whole = Task(None, None, None, test, None, None, {}, source, ())  # type: ignore[arg-type]
    few = whole.only(rows, sample)
    assert few.test.index.tolist() == few.corruptions.positions.tolist() == rows.tolist()
    assert few.test.images.labels.tolist() == test.images.labels[rows].tolist()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--examples", "50"), "leave out --examples"),
        (("--sample", "first"), "leave out --examples"),
        (("--save",), "do not go together"),
        (("--within", "0"), "must lie above 0"),
        (("--within", "50"), "must lie above 0 and below 50"),
    ],
)
def test_what_contradicts_the_rule_is_refused(runs, more, says, capsys) -> None:
    assert evaluate(runs[0], *more) == 2
    assert says in capsys.readouterr().err
    assert not (runs[0] / "evaluations").exists()


@pytest.mark.slow
def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path, capsys) -> None:
    other = tmp_path / "other"
    assert main(f"train digits-regmix {TINY} --threat.eps 0.2 --out {other}".split()) == 0
    words = f"evaluate {runs[0]} --against {other} --attacks fgsm --examples 20"
    assert main(words.split()) == 2
    assert "give --eps" in capsys.readouterr().err


class Lines:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stage(self, description: str, left: int) -> None: ...
    def work(self, amount: int) -> None: ...
    def note(self, text: str) -> None:
        self.told.append(text)

    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float, cost: str) -> None:
        self.told.append(name)

    def corruption(self, checkpoint: str, name: str, accuracies: Sequence[float]) -> None:
        self.told.append(name)


@pytest.mark.parametrize("within", [None, 0.2])
def test_what_is_told_of_two_runs_stands_under_the_name_of_its_run(runs, tmp_path, monkeypatch, within) -> None:
    """Checks before the attacks, columns, and what is measured after them."""
    paths = [shutil.copytree(path, tmp_path / path.name) for path in runs]
    found = iter(["found in the first", "found in the second"])
    monkeypatch.setattr(checkpoint, "preflight", lambda *_: [next(found)])
    examples = 20 if within is None else None
    questions = Questions(parse_attacks("fgsm"), (0.05,), examples=examples, within=within, curve=parse_attacks("fmn"))
    first, second = (Assessment(Run.open(path), questions) for path in paths)
    shown = Lines()
    evaluate_both(first, second, ["last"], "cpu", shown)
    headings = [str(path) + ":" for path in paths]
    whose, of = "", {name: [] for name in headings}
    for text in shown.told:
        if text in headings:
            whose = text
        elif whose:
            of[whose].append(text)
    for heading, said in zip(headings, ("found in the first", "found in the second"), strict=True):
        lines = of[heading]
        assert [line for line in lines if "found in" in line] == [f"last      {said}"]
        assert {"clean", "fgsm@0.05"} <= {*lines}
        assert any("smallest perturbation by fmn" in line for line in lines)
