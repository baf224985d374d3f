"""What a space means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regmix.config import Experiment
from regmix.methods import PgdAt
from regmix.studies.sweep import Axis, grid, parse_space, typed
from regmix.studies.sweep.space import NO_SETTINGS
from regmix.types import UserError

words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=6).filter(lambda word: word not in NO_SETTINGS)


def test_lists_and_ranges() -> None:
    assert parse_space("method.alpha=25,50 lr=0.05..0.2 --weight-decay=log:1e-5..1e-3") == [
        Axis("method.alpha", ("25", "50")),
        Axis("lr", (), 0.05, 0.2),
        Axis("weight-decay", (), 1e-5, 1e-3, log=True),
    ]


def test_a_grid_is_every_combination() -> None:
    assert grid(parse_space("a=1,2 b=x,y")) == [
        {"a": "1", "b": "x"},
        {"a": "1", "b": "y"},
        {"a": "2", "b": "x"},
        {"a": "2", "b": "y"},
    ]


@given(st.dictionaries(words, st.lists(words, min_size=1, max_size=4, unique=True), min_size=1, max_size=4))
def test_what_is_written_is_what_is_read(space: dict[str, list[str]]) -> None:
    axes = parse_space(" ".join(f"{flag}={','.join(values)}" for flag, values in space.items()))
    assert {axis.flag: list(axis.values) for axis in axes} == space
    points = grid(axes)
    assert len({tuple(point.items()) for point in points}) == len(points)
    assert all(point[flag] in values for point in points for flag, values in space.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("alpha", "cannot be read"),
        ("alpha=", "cannot be read"),
        ("=3", "cannot be read"),
        ("a=1,1", "repeated"),
        ("a=1,,2", "empty"),
        ("a=1 a=2", "is given twice"),
        ("seed=1,2", "--seeds"),
        ("--device=cpu,cuda", "--device"),
        ("a=1 out=x,y", "--out"),
        ("a=1..x", "is not a range"),
        ("a=2..1", "less than"),
        ("a=nan..1", "less than"),
        ("a=0..inf", "less than"),
        ("a=log:0..1", "positive"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_space(text)


def test_a_range_has_no_grid() -> None:
    with pytest.raises(UserError, match="optuna"):
        grid(parse_space("lr=0.1..0.2"))


def test_a_range_of_a_whole_setting_is_one_of_whole_numbers() -> None:
    axes = parse_space("epochs=1..2 batch-size=log:8..20000 train-examples=40..60 method.steps=1..3 lr=1..2 pad=0,4")
    settings = [Experiment(), Experiment(method=PgdAt())]
    whole = {axis.flag: axis.whole for axis in typed(axes, settings)}
    assert whole == {
        "epochs": True, "batch-size": True, "train-examples": True, "method.steps": True, "lr": False, "pad": True,
    }  # fmt: skip
    assert axes[1].ends() == ("8", "20000")
    assert axes[4].ends() == ("1", "2")
    assert not typed(parse_space("method.alpha=1..2 method.no=1..2 no.such=1..2"), settings)[0].whole


@pytest.mark.parametrize("word", ["lr=0.01234567..0.2", "lr=log:1e-5..1e-3", "epochs=1..20000"])
def test_what_a_range_gives_lies_in_it(word: str) -> None:
    (axis,) = parse_space(word)
    assert all(axis.has(axis.text(axis.low + share * (axis.high - axis.low))) for share in (0, 0.123456, 0.5, 1))
    for outside in ("-1", "1e9", "nan", "inf", "x", "", "0.1 --model.source=a:b"):
        assert not axis.has(outside)
