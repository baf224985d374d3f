"""What the command line answers at once, before the library is imported: help, lists and mistyped words."""

import json
from collections.abc import Sequence
from pathlib import Path

from regmix.cli import help_pages
from regmix.cli.help_pages import HELP
from regmix.cli.help_texts import FOREIGN_KINDS, OVERVIEW
from regmix.cli.mistyped import check
from regmix.cli.table import command_flags, part_flags, table, take, take_kinds, training_flags
from regmix.errors import UserError, known
from regmix.version import __version__

COMMANDS = (
    *("recipes", "train", "evaluate", "compare", "sweep", "reproduce"),
    *("report", "diagnose", "predict", "export", "bench"),
)


def answer(words: Sequence[str]) -> bool:
    """Answers a command line that needs no work; False if there is work to do.

    Raises:
        UserError: an unknown command, recipe, kind or flag.
    """
    if not words or words[0] in HELP:
        print(OVERVIEW)
        return True
    command, rest = words[0], list(words[1:])
    if command == "--version":
        print(f"regmix {__version__}")
        return True
    known(command, COMMANDS, "command", see="regmix --help")
    pages = {"train": _train, "evaluate": _evaluate, "bench": _bench, "recipes": _recipes, "reproduce": _reproduce}
    pages |= dict.fromkeys(("report", "diagnose", "predict", "export"), _of_runs)
    help_words = [word for word in rest if word in HELP]
    page = pages.get(command, _many)(command, [word for word in rest if word not in HELP], bool(help_words))
    if help_words and page is not None:
        print(page.text(everything="--help-all" in help_words))
        return True
    return command == "recipes"


def check_recipe(name: str) -> str:
    """Returns the name of a recipe. Raises UserError if there is none of that name."""
    return known(name, table().recipes, "recipe", see="regmix recipes")


def _train(command: str, words: list[str], wants_help: bool) -> help_pages.Page | None:
    if take(words, "--resume") is not None:
        check(words, command_flags("resume"), "train --resume RUN")
        return help_pages.resume()
    source, kinds = take(words, "--from"), take_kinds(words, table().parts)
    name = _positional(words)
    if name is None and source is not None:
        check(words, training_flags(), command)
        return None  # only the run knows its kinds and defaults
    if name is not None and source is None:
        if (Path(name) / "config.json").is_file():
            raise UserError(f"{name} is a folder, not a recipe; to train with the settings of a run: --from {name}")
        settings = table().recipes[check_recipe(name)]
        kinds = settings.kinds | kinds
        check(words, training_flags(kinds), command)
        return help_pages.train(name, settings, kinds)
    if name is not None:
        raise UserError(f"give the recipe {name}, or --from {source}; not both")
    if not wants_help:
        raise UserError("train needs a recipe as its first word (see: regmix recipes), or --from RUN, or --resume RUN")
    return help_pages.train("RECIPE", None, kinds)


def _evaluate(command: str, words: list[str], wants_help: bool) -> help_pages.Page:
    source = _positional(words)
    of_run = source is not None and Path(source).is_dir()
    kinds = {} if of_run else take_kinds(words, FOREIGN_KINDS)
    flags = command_flags("evaluate")
    if not of_run:
        flags += [*command_flags("foreign"), *part_flags(dict.fromkeys(FOREIGN_KINDS, "") | kinds)]
    check(words, flags, "evaluate RUN" if of_run else command)
    return help_pages.evaluate(kinds)


def _many(command: str, words: list[str], wants_help: bool) -> help_pages.Page:
    """`compare` and `sweep`: their own flags, and those of `train` for every run."""
    if (name := _positional(words)) is not None:
        check_recipe(name)
    take_kinds(words, table().parts)
    check(words, [*command_flags(command), *training_flags()], command)
    return help_pages.many(command)


def _bench(command: str, words: list[str], wants_help: bool) -> help_pages.Page:
    what = _positional(words)
    if what != "step" and (what is not None or not wants_help):
        raise UserError("write: regmix bench step RECIPE")
    return _many(command, words[1:], wants_help)


def _of_runs(command: str, words: list[str], wants_help: bool) -> help_pages.Page:
    check(words, command_flags(command), command)
    return help_pages.many(command)


def _reproduce(command: str, words: list[str], wants_help: bool) -> help_pages.Page:
    take_kinds(words, table().parts)
    check(words, [*command_flags(command), *training_flags()], command)
    return help_pages.many(command)


def _recipes(command: str, words: list[str], wants_help: bool) -> help_pages.Page:
    check(words, command_flags(command), command)
    if unexpected := [word for word in words if word not in ("--json", "--no-json")]:
        raise UserError(f"unexpected argument {unexpected[0]!r}; write: regmix recipes")
    if not wants_help:
        lines = {name: recipe.about for name, recipe in table().recipes.items()}
        width = max(map(len, lines))
        as_json = words[-1:] == ["--json"]
        print(json.dumps(lines, indent=2) if as_json else "\n".join(f"{n:<{width}}  {t}" for n, t in lines.items()))
    return help_pages.many(command)


def _positional(words: Sequence[str]) -> str | None:
    """The first word, unless it is a flag."""
    return words[0] if words and not words[0].startswith("-") else None
