"""What the command line answers without the library: it loads nothing heavy, and the library would say the same."""

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
import tyro

from regmix.cli import help_pages, help_texts, quick
from regmix.cli.evaluate import _foreign_flags
from regmix.cli.generate import COMMANDS, generated
from regmix.cli.table import FILE, Flag, command_flags, part_flags, table, training_flags
from regmix.cli.train import TrainFlags, parse_training, with_kinds
from regmix.config import UNIONS, Experiment
from regmix.types import UserError

FAST = (
    "--help",
    "--version",
    "recipes",
    "recipes --json",
    "trian",
    "train digits-regmx",
    "train digits-regmix --epochss 3",
    "train digits-regmix --method pgd",
    "train digits-regmix --help",
    "train digits-regmix --method trades --help-all",
    "train --resume run --help",
    "evaluate run --atacks x",
    "evaluate --help",
    "compare digits-regmix --sedds 3",
    "sweep --help",
    "bench step --help",
    "report --help",
    "diagnose --help",
)


def test_quick_answers_load_nothing_heavy() -> None:
    program = f"""
import sys
from regmix.cli import main
for words in {FAST!r}:
    main(words.split())
heavy = {{"torch", "numpy", "pydantic", "tyro", "rich", "lightning_fabric"}}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stderr.splitlines()) == 6  # the six mistakes


def test_the_table_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == generated(), "run: python -m regmix.cli.generate"


def flags_of_tyro(kind: type[Any], default: object = None) -> set[str]:
    """The flags that tyro accepts for a dataclass, from the help that it prints."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        tyro.cli(kind, args=["--help"], default=default, config=(tyro.conf.AvoidSubcommands,))
    heads = re.findall(r"^. (-.*?)(?:  | ?$)", shown.getvalue(), re.MULTILINE)
    return set(re.findall(r"(?<![\w-])--?[a-z][\w.-]*", " ".join(heads))) - {"-h", "--help"}


def spellings(flags: Iterable[Flag]) -> set[str]:
    return {spelling for flag in flags if flag.form != "KIND" for spelling in flag.spellings}


@pytest.mark.parametrize("part", UNIONS)
def test_the_table_holds_the_flags_that_a_training_accepts(part: str) -> None:
    for kind in UNIONS[part]:
        experiment = with_kinds(Experiment(), {part: kind})
        kinds = {name: getattr(experiment, name).name for name in UNIONS}
        assert spellings(training_flags(kinds)) == flags_of_tyro(TrainFlags, TrainFlags(experiment)), kind


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "foreign")])
def test_the_table_holds_the_flags_that_a_command_accepts(command: str) -> None:
    assert spellings(command_flags(command)) == flags_of_tyro(COMMANDS[command])


def test_the_table_holds_the_flags_for_a_model_from_elsewhere() -> None:
    _, start = _foreign_flags(["weights.pth"])
    kinds = {part: getattr(start, part).name for part in help_texts.FOREIGN_KINDS}
    assert kinds == help_texts.FOREIGN_KINDS
    flags = [
        flag
        for flag in command_flags("evaluate", "foreign")
        if flag.name not in ("model.source", "data.source", "data.root")
    ]
    assert spellings([*flags, *part_flags(kinds)]) == flags_of_tyro(COMMANDS["foreign"], start)


@pytest.mark.parametrize(
    "words",
    [
        "digits-regmx",
        "digits-regmix --epochss 3",
        "digits-regmix --method pgd",
        "digits-regmix --method trades --method.alpha 3",
        "digits-regmix --method",
        "digits-regmix --qqqqq",
    ],
)
def test_the_library_gives_the_same_line(words: str) -> None:
    with pytest.raises(UserError) as fast:
        quick.answer(["train", *words.split()])
    with pytest.raises(UserError) as slow:
        parse_training(words.split())
    assert str(fast.value) == str(slow.value)


@pytest.mark.parametrize("form", ["--{}", "--{}=1"])
def test_a_flag_may_be_written_with_underscores(form: str) -> None:
    assert not quick.answer(["train", "digits-regmix", form.format("batch_size")])


def pages() -> dict[str, help_pages.Page]:
    recipes = table().recipes
    found = {name: help_pages.train(name, settings, settings.kinds) for name, settings in recipes.items()}
    found |= {"train": help_pages.train("RECIPE", None, {}), "evaluate": help_pages.evaluate({})}
    found |= {"resume": help_pages.resume()} | {name: help_pages.many(name) for name in help_texts.ABOUT}
    return found


@pytest.mark.parametrize("name", pages())
def test_every_flag_is_in_one_section(name: str) -> None:
    page = pages()[name]
    listed = [flag for section in page.sections for flag in (*section.usual, *section.rest)]
    assert sorted(listed) == sorted(page.flags)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", pages())
def test_help_fits_the_terminal(name: str, columns: int) -> None:
    assert max(map(len, pages()[name].text(everything=False, columns=columns).splitlines())) < columns


def test_every_flag_is_explained_in_sentences() -> None:
    kinds = [kind for part in table().parts.values() for kind in part.kinds.values()]
    flags = [*training_flags(), *command_flags(*table().commands), *(flag for kind in kinds for flag in kind.flags)]
    for flag in flags:
        assert flag.help.endswith("."), flag
        assert flag.help[0].isupper() or flag.help[0] in "`aABC", flag


def test_all_help_shows_every_flag() -> None:
    settings = table().recipes["cifar10-regmix"]
    shown = help_pages.train("cifar10-regmix", settings, settings.kinds).text(everything=True, columns=200)
    for flag in training_flags(settings.kinds):
        assert re.search(rf"^  --{re.escape(flag.name)}[ ,]", shown, re.MULTILINE), flag
    assert "(default: 8/255)" in shown
    assert "loss = CE(z_F, y)" in shown
