"""`import regmix`: its names are there, whenever their modules are imported."""

import ast
from pathlib import Path

import pytest

import regmix


def test_every_public_name_is_there() -> None:
    for name in regmix.__all__:
        assert getattr(regmix, name) is not None
    assert {*regmix.__all__} <= {*dir(regmix)}


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(regmix.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {*regmix.__all__} - {"__version__"}


def test_modules_are_attributes() -> None:
    assert regmix.methods.RegMix is regmix.RegMix
    assert regmix.runs.load.load_model is regmix.load_model


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'RegMux'"):
        _ = regmix.RegMux
