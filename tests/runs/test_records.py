"""Records that anybody may have written: a value, or one line that names the file."""

import json
from pathlib import Path

import pytest

from regmix.runtime.files import parse_json, read_json, read_object
from regmix.types import UserError


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe{}", "not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"NaN", "NaN is not a number that a record may hold: NaN"),
        (b'{"a": [-Infinity]}', "-Infinity is not a number"),
        (b"1e400", "is not a number that a record may hold"),
        (b"-1e400", "is not a number that a record may hold"),
        (b"9" * 5000, "is not a number that a record may hold"),
        (str(2**63).encode(), "is not a number that a record may hold"),
        (b'"\\ud800"', "surrogates"),
        (b"", "Expecting value"),
        (b'{"a": 1', "damaged"),
    ],
)
def test_damage_is_one_line_that_names_the_file(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as found:
        read_json(path)
    line = str(found.value)
    assert told in line
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < 400


def test_what_a_run_writes_is_read_as_it_was() -> None:
    value = {"a": [1, -(2**63), 2**63 - 1, 1e308, 1e-320, None, True, "é 😀"], "b": {}}
    assert parse_json(json.dumps(value), "x") == value
    assert parse_json(json.dumps(value, ensure_ascii=False), "x") == value


def test_an_object_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(UserError, match="must hold a JSON object, not a list"):
        read_object(tmp_path / "a.json")
