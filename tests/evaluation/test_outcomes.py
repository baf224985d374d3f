"""The table of an evaluation and the numbers made of it."""

import csv
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regmix.evaluation import Outcomes, wilson

TABLE = torch.tensor(
    [[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]],
    dtype=torch.bool,
)
LABELS = torch.tensor([3, 1, 4, 1, 5])


def a_table() -> Outcomes:
    return Outcomes(("clean", "fgsm", "pgd"), LABELS, TABLE)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_scipys(counts: tuple[int, int]) -> None:
    correct, examples = counts
    expected = stats.binomtest(correct, examples).proportion_ci(0.95, method="wilson")
    assert wilson(correct, examples) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_wilsons_interval_stays_in_range_and_holds_the_proportion() -> None:
    for correct, examples in ((0, 1), (1, 1), (0, 500), (500, 500), (250, 500)):
        low, high = wilson(correct, examples)
        assert 0 <= low <= correct / examples + 1e-15
        assert correct / examples - 1e-15 <= high <= 1
        assert low < high


@pytest.mark.parametrize(("correct", "low", "high"), [(0, 0, 0.2775), (5, 0.2366, 0.7634), (10, 0.7225, 1)])
def test_wilsons_interval_has_its_textbook_values(correct: int, low: float, high: float) -> None:
    assert wilson(correct, 10) == pytest.approx((low, high), abs=5e-5)


def test_accuracy_is_the_share_that_survives() -> None:
    table = a_table()
    assert len(table) == 5
    assert [table.accuracy(name) for name in table.names] == [0.8, 0.4, 0.4]
    assert table.column("pgd").tolist() == [True, True, False, False, False]


def test_the_worst_case_survives_every_attack() -> None:
    table = a_table()
    assert table.worst_case(["fgsm", "pgd"]).tolist() == [True, False, False, False, False]
    assert table.worst_case(["fgsm"]).tolist() == table.column("fgsm").tolist()
    assert table.worst_case(table.names).double().mean() <= min(map(table.accuracy, table.names))


def test_joining_adds_the_columns_that_are_new() -> None:
    more = Outcomes(("clean", "apgd"), LABELS, torch.tensor([[1, 0]] * 5, dtype=torch.bool))
    joined = a_table().join(more)
    assert joined.names == ("clean", "fgsm", "pgd", "apgd")
    assert torch.equal(joined.column("clean"), TABLE[:, 0])
    assert joined.accuracy("apgd") == 0
    assert len(joined) == 5


def test_tables_of_different_examples_do_not_join() -> None:
    with pytest.raises(AssertionError, match="different examples"):
        a_table().join(Outcomes(("clean",), LABELS.flip(0), TABLE[:, :1]))


def test_joined_tables_keep_the_predictions_and_what_was_not_attacked() -> None:
    idle = torch.tensor([[0, 1]] * 5, dtype=torch.bool)
    one = Outcomes(("clean", "fgsm"), LABELS, TABLE[:, :2], idle, LABELS)
    other = Outcomes(("clean", "pgd"), LABELS, TABLE[:, ::2], ~idle, LABELS)
    both = one.join(other)
    assert torch.equal(both.predicted, LABELS)
    assert (both.not_attacked("fgsm"), both.not_attacked("pgd")) == (5, 0)
    assert one.join(a_table()).untried is None, "not known of every column"


def test_the_csv_has_a_row_for_every_example() -> None:
    text = a_table().to_csv(torch.arange(len(a_table())))
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["index", "label", "clean", "fgsm", "pgd"]
    assert [[int(cell) for cell in row] for row in rows] == [
        [index, label, *row]
        for index, (label, row) in enumerate(zip(LABELS.tolist(), TABLE.int().tolist(), strict=True))
    ]
    assert text.endswith("\n")
    assert "\r" not in text


def test_names_with_commas_and_quotes_survive_the_csv() -> None:
    table = Outcomes(("clean", 'a "b", c'), LABELS, TABLE[:, :2])
    assert next(csv.reader(io.StringIO(table.to_csv(torch.arange(len(table))))))[2:] == ["clean", 'a "b", c']
