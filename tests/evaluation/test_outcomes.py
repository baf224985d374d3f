"""The table of an evaluation and the numbers made of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regmix.evaluation import Outcomes, wilson
from regmix.types import UserError

TABLE = torch.tensor(
    [[1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]],
    dtype=torch.bool,
)
LABELS = torch.tensor([3, 1, 4, 1, 5])


def a_table() -> Outcomes:
    return Outcomes(("clean", "fgsm", "pgd"), LABELS, TABLE)


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    outcomes = Outcomes(("clean", "pgd-10"), LABELS, TABLE[:, :2], untried=TABLE[:, :2])
    for ask in (outcomes.accuracy, outcomes.column, outcomes.not_attacked, lambda name: outcomes.worst_case([name])):
        with pytest.raises(UserError, match="there is no column 'pgd'; there are: clean, pgd-10"):
            ask("pgd")
    with pytest.raises(UserError, match="name at least one column; there are: clean, pgd-10"):
        outcomes.worst_case([])


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
