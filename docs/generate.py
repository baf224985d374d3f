"""Writes the parts of the site that come from the program itself: methods, commands, API pages."""

import contextlib
import importlib
import inspect
import io
import os
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import regmix
from regmix.cli.entry import main
from regmix.cli.quick import COMMANDS
from regmix.methods import MethodConfig

SECTIONS = {"Args:": "param", "Raises:": "raises", "Returns:": "returns", "Yields:": "yields"}
HELP = {"train": "train digits-regmix", "bench": "bench step"}
"""What to ask for the help of a command, where it is not the command's name alone."""
NOT_LIBRARY = {"cli", "runtime", "shorthand", "version", "__main__"}
"""Rooms without an API page."""


def write(folder: Path) -> None:
    """Writes all parts anew."""
    (folder / "api").mkdir(parents=True, exist_ok=True)
    for old in folder.rglob("*.md"):
        old.unlink()
    (folder / "methods.md").write_text(methods(), encoding="utf-8")
    (folder / "commands.md").write_text(commands(), encoding="utf-8")
    for name in ["regmix", *rooms()]:
        (folder / "api" / f"{name}.md").write_text(api(name), encoding="utf-8")


def blocks(lines: Iterable[str]) -> list[tuple[str, list[str]]]:
    """A docstring as blocks of one kind each: text, formula (or a table in spaces) or section (Args, Raises)."""
    found: list[tuple[str, list[str]]] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        rows = paragraph.split("\n")
        kind = "section" if rows[0].strip() in SECTIONS else "formula" if "    " in paragraph else "text"
        start = next((n for n, row in enumerate(rows) if row.strip() in SECTIONS), None)
        if start:
            found.append(("text", rows[:start]))
            rows, kind = rows[start:], "section"
        found.append((kind, rows))
    return found


def escaped(text: str, special: str, code: Callable[[str], str]) -> str:
    """The text with special characters escaped outside of `code`."""
    parts = re.split(r"`+([^`]+)`+", text)
    return "".join(code(part) if n % 2 else re.sub(special, r"\\\g<0>", part) for n, part in enumerate(parts))


def rst(lines: list[str]) -> list[str]:
    """A docstring of this project (plain text, `code`, indented formulas) as reStructuredText."""
    done: list[str] = []
    for kind, rows in blocks(lines):
        if kind == "formula":
            done += ["::", "", *(f"    {row}" for row in rows), ""]
            continue
        text = escaped("\n".join(rows), r"[*|\\]|_(?!\w)", lambda code: f"``{code}``").split("\n")
        done += [*(fields(SECTIONS[text[0].strip()], text[1:]) if kind == "section" else text), ""]
    return done


def fields(role: str, rows: list[str]) -> list[str]:
    """The entries `name: text` of a section, whose further lines are indented, as fields of reStructuredText."""
    if role in ("returns", "yields"):
        return [f":{role}: " + " ".join(row.strip() for row in rows)]
    done: list[str] = []
    for row in rows:
        name, colon, text = row.strip().partition(": ")
        starts = colon and row.startswith("    ") and not row.startswith("     ")
        done.append(f":{role} {name}: {text}" if starts else f"    {row.strip()}")
    return done


def markdown(docstring: str) -> str:
    """The same as Markdown."""
    done = []
    for kind, rows in blocks(docstring.split("\n")):
        if kind == "formula":
            done.append("\n".join(["```text", textwrap.dedent("\n".join(rows)), "```"]))
        else:
            done.append(escaped("\n".join(rows), r"[*_<|\\]", lambda code: f"`{code}`"))
    return "\n\n".join(done) + "\n"


def methods() -> str:
    """A section for every training method, with the formula of its docstring."""
    done = []
    for kind in get_args(MethodConfig):
        link = f"{{py:class}}`Settings <regmix.methods.{kind.__name__}>`"
        done.append(
            f"### {kind.__name__}: `--method {kind().name}`\n\n{markdown(inspect.getdoc(kind) or '')}\n{link}\n"
        )
    return "\n".join(done)


def help_of(words: str) -> str:
    """What the command prints when it is asked for all of its help."""
    printed = io.StringIO()
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "96"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main(words.split())
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    assert "usage:" in text or "regmix" in text, f"no help for {words}"
    return text


def commands() -> str:
    """A section for every command of the command line."""
    done = []
    for name in COMMANDS:
        words = HELP.get(name, name)
        text = help_of(f"{words} --help")
        if "--help-all" in text:
            text = help_of(f"{words} --help-all")
        done.append(f"## regmix {name}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(done)


def rooms() -> list[str]:
    """The modules and folders at the top of the package that have an API page."""
    return sorted({module.name for module in pkgutil.iter_modules(regmix.__path__)} - NOT_LIBRARY)


def api(name: str) -> str:
    """The API page of a room, or of the package itself."""
    if name == "regmix":
        return front()
    room = importlib.import_module(f"regmix.{name}")
    members = ":members:" if hasattr(room, "__all__") or not hasattr(room, "__path__") else ":no-members:"
    return f"# regmix.{name}\n\n```{{eval-rst}}\n.. automodule:: regmix.{name}\n   {members}\n```\n"


def front() -> str:
    """The page of the package itself: links to the names that rooms describe, and the descriptions of the others."""
    links, here = "", ""
    for label in (label for label in regmix.__all__ if label[0] != "_"):
        value = getattr(regmix, label)
        room = importlib.import_module(".".join(value.__module__.split(".")[:2]))
        if label in getattr(room, "__all__", [label]):
            links += f"- {{py:obj}}`{label} <{room.__name__}.{label}>`\n"
        else:
            directive, options = ("autoclass", "   :members:\n") if inspect.isclass(value) else ("autofunction", "")
            here += f".. {directive}:: regmix.{label}\n{options}\n"
    start = f"# regmix\n\n`import regmix` gives the names that most programs need:\n\n{links}"
    return f"{start}\n```{{eval-rst}}\n{here}```\n"
