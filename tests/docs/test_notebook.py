"""The notebook of the docs: its outputs are there, and its code runs."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from docs.snippets import ROOT

PAGE = ROOT / "docs/notebook.ipynb"
CELLS: list[dict[str, Any]] = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def test_it_was_executed_from_top_to_bottom() -> None:
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}, (
        "no error, nothing to standard error"
    )
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    assert "\\u001b" not in PAGE.read_text(encoding="utf-8"), "codes of a terminal"


def test_runs_show_their_accuracies_in_it() -> None:
    shown = "".join("".join(output.get("data", {}).get("text/html", "")) for cell in CODE for output in cell["outputs"])
    assert shown.count("<td>pgd-50@0.15</td>") == 2


@pytest.mark.slow
def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in CODE:
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(PAGE), "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)
            assert not hasattr(value, "_repr_html_") or value._repr_html_()
    assert (tmp_path / "report.html").is_file()
