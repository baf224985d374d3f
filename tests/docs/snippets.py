"""Reads the fenced blocks of a Markdown page and runs them.

Blocks of `bash` are commands, one a line; `regmix` commands run in this process. Blocks of `python` run in one
namespace per page. A comment directly above a block says what is special about it:

    <!-- test: skip (REASON) -->      it is not run
    <!-- test: slow -->               it is run with the slow tests only
    <!-- test: add FLAGS -->          FLAGS follow every `regmix` command of the block, to make it small
    <!-- test: slow; add FLAGS -->    both
    <!-- test: needs MODULE -->       it is run where this library is installed; also after `slow; `
    <!-- test: file NAME -->          it is written into the file NAME, not run
    <!-- test: setup
    Python code                       run before what follows
    -->

Every block is run or says why not.
"""

import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from contracts.torchvision_operators import declare_operators_of_torchvision
from regmix.cli.entry import main

ROOT = Path(__file__).parents[2]
TRAIN = "--train-examples 60 --validation 50 --epochs 1 --model.width 4"
SMALL = {
    "train": TRAIN,
    "evaluate": "--examples 20 --checkpoint last --no-verdict",
    "compare": f"{TRAIN} --seeds 1 --examples 20 --no-verdict",
    "diagnose": "--no-probe",
    "bench": f"{TRAIN} --epochs 4 --rounds 2 --batch-size 16",
}
"""Follows a command where a block says nothing else. The last value of a flag counts."""
PIECE = re.compile(
    r"^<!-- test: (?P<note>.*?)-->\n|^(?P<fence>```+|:::+)(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=fence)\s*$", re.M | re.S
)


class Block(NamedTuple):
    kind: str
    """Language of the fence: bash, python, text or a directive; `setup` for code in a comment."""
    text: str
    note: str
    line: int


def pages() -> list[Path]:
    """Every page whose blocks are run."""
    docs = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.relative_to(ROOT).parts[1][0] != "_"]
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "ARCHITECTURE.md",
        ROOT / "benchmarks/RESULTS.md",
        *docs,
    ]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page in their order."""
    note, end = "", 0
    for match in PIECE.finditer(page):
        line = page.count("\n", 0, match.start()) + 1
        if (said := match["note"]) is not None:
            if said.startswith("setup\n"):
                yield Block("setup", said.removeprefix("setup\n"), "", line)
                continue
            note, end = said.strip(), match.end()
            continue
        yield Block(match["kind"].strip(), match["text"], note if match.start() == end else "", line)
        note = ""


def runs(block: Block, *, slow: bool) -> bool:
    """Whether the block is code that is to be run."""
    return block.kind in ("bash", "python", "setup") and not (
        block.note.startswith("skip") or (block.note.startswith("slow") and not slow)
    )


def library(block: Block) -> str:
    """The library that a block is about; empty for most."""
    found = re.search(r"needs (\w+)$", block.note)
    return found[1] if found else ""


def run(page: Path, *, slow: bool) -> set[str]:
    """Runs a page's blocks in the current folder; returns the libraries without which some of them were left out."""
    names: dict[str, Any] = {"__name__": "snippet"}
    missing = set()
    for block in blocks(page.read_text(encoding="utf-8")):
        if not runs(block, slow=slow):
            continue
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if (name := library(block)) and find_spec(name) is None:
            missing.add(name)
        elif name:
            declare_operators_of_torchvision()
            with warnings.catch_warnings(action="ignore"):  # other libraries' own
                exec(compile(block.text, where, "exec"), names)
        elif block.note.startswith("file "):
            Path(block.note.removeprefix("file ")).write_text(block.text, encoding="utf-8")
        elif block.kind == "bash":
            for words in commands(block):
                command(words, where)
        else:
            exec(compile(block.text, where, "exec"), names)
    return missing


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a block as they are run: small, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            if "add " in block.note:
                words += shlex.split(block.note.partition("add ")[2])
            elif words[0] == "regmix" and "--resume" not in words and "--help" not in words:
                words += SMALL.get(words[1], "").split()
            yield words


def command(words: list[str], where: str) -> None:
    """Runs one command, in this process if it is regmix's."""
    if words[0] == "regmix":
        try:
            code = main(words[1:])
        except SystemExit as stop:  # after --help
            code = int(stop.code or 0)
    else:
        program = Path(sys.executable).with_name(words[0])
        code = subprocess.run([program if program.exists() else words[0], *words[1:]], check=False).returncode
    assert code == 0, f"{where}: `{shlex.join(words)}` ended with exit code {code}"
