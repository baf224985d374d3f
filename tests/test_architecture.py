"""The shape of the package: which part may import which, what an import loads, and how long files and functions are."""

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "regmix"
FILES = sorted(PACKAGE.rglob("*.py"))

# Which other parts a part (a folder or file of the package) may import, from the bottom to the top.
CORE = {"types", "draws", "threats", "objectives"}
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "shorthand": {"errors"},
    "arguments": {"errors"},
    "types": {"errors"},
    "draws": {"types"},
    "threats": {"types", "draws"},
    "objectives": {"types"},
    "runtime": CORE,
    "data": {"types", "runtime"},
    "models": {"types", "runtime"},
    "corruptions": {"types", "data"},
    "attacks": CORE | {"runtime"},
    "methods": CORE | {"runtime", "data", "attacks"},
}
MAY_IMPORT["config"] = CORE | {"runtime", "data", "models", "methods"}
MAY_IMPORT["runs"] = {"version", "arguments", "types", "runtime", "data", "models", "config"}
MAY_IMPORT["evaluation"] = MAY_IMPORT["config"] | {"version", "arguments", "attacks", "corruptions", "config", "runs"}
MAY_IMPORT["training"] = MAY_IMPORT["evaluation"] | {"evaluation"}
MAY_IMPORT["recipes"] = CORE | {"data", "models", "methods", "config"}
MAY_IMPORT["reports"] = {"types", "version", "threats", "runtime", "runs", "evaluation", "methods"}
MAY_IMPORT["studies"] = MAY_IMPORT["training"] | {"training", "reports", "shorthand"}
MAY_IMPORT["exports"] = {"types", "version", "threats", "runtime", "models", "methods", "config", "runs"}
MAY_IMPORT["jobs"] = MAY_IMPORT["training"] | {"training", "recipes", "reports", "shorthand"}
MAY_IMPORT["cli"] = MAY_IMPORT["studies"] | {"errors", "shorthand", "studies", "recipes", "exports", "jobs"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = {*MAY_IMPORT} - {"__main__"}


def part(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(file: Path) -> set[str]:
    """The full names of all that a file imports, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(file: Path) -> set[str]:
    inside = {name.split(".")[1] for name in imports(file) if name.startswith("regmix.")}
    return {"version" if name == "__version__" else name for name in inside} - {part(file)}


def libraries(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def test_the_table_of_parts_is_the_package() -> None:
    assert {part(file) for file in FILES} == {*MAY_IMPORT}


def test_the_table_of_parts_has_no_circle() -> None:
    settled: set[str] = set()
    waiting = {name: {*allowed} for name, allowed in MAY_IMPORT.items()}
    while waiting:
        free = {name for name, allowed in waiting.items() if allowed <= settled}
        assert free, f"a circle among {sorted(waiting)}"
        settled |= free
        waiting = {name: allowed for name, allowed in waiting.items() if name not in free}


def test_imports_point_one_way() -> None:
    wrong = {name(file): parts_imported(file) - MAY_IMPORT[part(file)] for file in FILES}
    assert {file: parts for file, parts in wrong.items() if parts} == {}


def taken_from(importer: str, imported: str) -> set[str]:
    """The names that a part takes from another part."""
    files = [file for file in FILES if part(file) == importer]
    found = {name for file in files for name in imports(file) if name.startswith(f"regmix.{imported}.")}
    return {name.removeprefix(f"regmix.{imported}.") for name in found}


def test_methods_know_of_the_data_only_how_images_are_augmented() -> None:
    assert taken_from("methods", "data") == {"augment.from_view", "augment.to_view"}


def test_reports_read_run_directories_and_measure_nothing() -> None:
    """Of what runs attacks they share only the words and the arithmetic that a table needs."""
    words, arithmetic = {"CHANCE", "CLEAN", "RANDOM", "Paired"}, {"at_every_look", "paired", "wilson"}
    assert taken_from("reports", "evaluation") <= words | arithmetic
    assert taken_from("reports", "threats") <= {"format_eps", "same_eps", "turns_grey"}
    # For their titles and settings; a method that is made is never called.
    titles = {"METHODS", "remedies.continued", "remedies.trained_with"}
    assert taken_from("reports", "methods") <= titles | {"base.Method", "mutual.Mutual", "regmix.RegMix"}


def test_exports_take_only_titles_from_the_methods() -> None:
    assert taken_from("exports", "methods") <= {"METHODS", "remedies.continued", "remedies.trained_with"}


def test_no_file_imports_torchvision_or_timm() -> None:
    for file in FILES:
        assert libraries(file).isdisjoint({"torchvision", "timm", "lightning", "pytorch_lightning"}), name(file)


def test_few_files_know_lightning_fabric() -> None:
    knowing = {str(file.relative_to(PACKAGE)) for file in FILES if "lightning_fabric" in libraries(file)}
    assert {file.split("/")[0] for file in knowing} <= {"runtime", "training", "studies"}


def test_only_reports_draw_and_nothing_trains_with_sklearn() -> None:
    for file in FILES:
        assert "matplotlib" not in libraries(file) or part(file) == "reports"
        assert "sklearn" not in libraries(file) or part(file) == "data"


SHARED_LINES = {
    ("__init__.py", "methods/__init__.py"): "both list the names of the methods that they export",
}
"""Pairs of files that share a run of lines, and why."""
RUN = 6
"""So many equal lines of code in a row are a repetition."""


@cache
def lines_of_code(file: Path) -> list[tuple[int, str]]:
    """Numbers and texts of the lines of a file, without indentation, empty lines, comments, docstrings and imports."""
    text = file.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        literal = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if literal or isinstance(node, (ast.Import, ast.ImportFrom)):
            assert isinstance(node, ast.stmt)
            assert node.end_lineno is not None
            skipped.update(range(node.lineno, node.end_lineno + 1))
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in skipped)
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def test_files_stay_short() -> None:
    for file in FILES:
        ceiling = {"attacks": 120, "methods": 130}.get(part(file), 300)
        lines = len(file.read_text(encoding="utf-8").splitlines())
        assert lines <= ceiling, name(file)


def test_functions_stay_short() -> None:
    for file in FILES:
        code = {number for number, _ in lines_of_code(file)}
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                lines = code & {*range(node.lineno, node.end_lineno + 1)}
                assert len(lines) <= 60, f"{name(file)} {node.name}"


def test_no_two_places_share_six_lines() -> None:
    """Lines of brackets alone do not count: they are equal everywhere."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in FILES:
        lines = [line for _, line in lines_of_code(file) if sum(map(str.isalnum, line)) > 3]
        for first in range(len(lines) - RUN + 1):
            places[tuple(lines[first : first + RUN])].append(file.relative_to(PACKAGE).as_posix())
    repeated = {pair: run for run, files in places.items() for pair in combinations(files, 2)}
    assert {pair: run for pair, run in repeated.items() if pair not in SHARED_LINES} == {}


def test_importing_regmix_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "pydantic", "tyro", "lightning_fabric", "sklearn"]
    program = f"import sys, regmix; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""
