"""A value of another type than a function or class names ends in one line, which says what to give."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import regmix
from regmix.arguments import check_fields, checked
from regmix.attacks import Pgd
from regmix.evaluation.questions import Questions
from regmix.types import UserError


@checked
def place(
    where: str | Path, kind: Literal["a", "b"] = "a", *, sizes: Sequence[int] = (), share: float = 0.5, **more: Any
):
    """Says where."""
    return where, kind, sizes, share, more


def test_fitting_arguments_arrive_as_they_are() -> None:
    assert place.__doc__ == "Says where."
    assert place(Path("x"), "b", sizes=[1, 2], share=1, other=object) == (Path("x"), "b", [1, 2], 1, {"other": object})


@pytest.mark.parametrize(
    ("arguments", "more", "line"),
    [
        ((3,), {}, "where is 3; give str or Path"),
        (("x", "c"), {}, "kind is 'c'; give 'a' or 'b'"),
        (("x",), {"sizes": [1, 2, 2.5]}, "sizes is [1, 2, 2.5]; give a list of int"),
        (("x",), {"sizes": 3}, "sizes is 3; give a list of int"),
        (("x",), {"share": True}, "share is True; give float"),
        (("x",), {"share": "0.5"}, "share is '0.5'; give float"),
        (("x" * 1000, None), {}, "kind is None; give 'a' or 'b'"),
    ],
)
def test_another_type_is_told_in_one_line(arguments: tuple, more: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        place(*arguments, **more)
    assert str(error.value) == line


def test_the_fields_of_a_dataclass_are_checked_alike() -> None:
    @dataclass
    class Size:
        side: int
        name: str | None = None

    check_fields(Size(3))
    with pytest.raises(UserError, match="name is 3; give str or None"):
        check_fields(Size(3, 3))  # type: ignore[arg-type]


ODD = {
    "run": lambda: regmix.evaluate_run(3),
    "attacks": lambda: regmix.evaluate_run("run", [Pgd()]),
    "eps": lambda: regmix.evaluate_run("run", eps=object()),
    "device": lambda: regmix.evaluate_run("run", device=3),
    "runs": lambda: regmix.report(None),
    "out": lambda: regmix.train("digits-regmix", out=3),
    "experiment": lambda: regmix.train(None),
    "log": lambda: regmix.resume("run", log=[3]),
    "checkpoint": lambda: regmix.load_model("run", 3),
    "within": lambda: Questions((), within="1"),
    "batch_size": lambda: Questions((), batch_size=2.5),
    "sample_seed": lambda: Questions((), sample_seed=2**63),
}


@pytest.mark.parametrize("name", ODD)
def test_what_python_calls_is_checked(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is ") as error:
        ODD[name]()
    assert "\n" not in str(error.value)
