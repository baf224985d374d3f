"""The help of every command as plain text: the usual flags by group, and all of them with --help-all."""

import inspect
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from regmix.cli.help_texts import ABOUT, FOREIGN_KINDS, SECTIONS, Section
from regmix.cli.table import Flag, Settings, command_flags, table

HELP = ("-h", "--help", "--help-all")

USUAL_PER_KIND = 4
"""How many flags of a kind, such as a method, the short help shows."""
MOST_COLUMNS = 120
INDENT = 27


@dataclass(frozen=True)
class Page:
    """The help of one command."""

    usage: Sequence[str]
    about: str
    sections: Sequence[Section]
    flags: Mapping[str, Flag]
    """The command's own flags and, for an experiment, its plain fields, by name."""
    kinds: Mapping[str, str]
    """The chosen kinds; a part without one shows only the flag that chooses it."""
    defaults: Mapping[str, str | None]
    """Defaults that differ from the flags' own; None: do not show one."""
    example: str = ""
    """A command line that chooses a kind."""

    def text(self, *, everything: bool, columns: int | None = None) -> str:
        """The page, wrapped to the terminal's width or to `columns`."""
        width = min(columns or shutil.get_terminal_size().columns, MOST_COLUMNS) - 1
        usages = [f"{'usage: ' if number == 0 else '       '}{line}" for number, line in enumerate(self.usage)]
        blocks = ["\n".join(usages), textwrap.fill(self.about, width)]
        hidden = 0
        for section in self.sections:
            lines, left_out = self._section(section, width, everything)
            hidden += left_out
            if lines:
                blocks.append("\n".join([f"{section.title}:", *lines]))
        footer = f"--help-all shows {hidden} more flags." if hidden else ""
        if any(section.parts for section in self.sections):
            footer += f" To see the flags of another kind, choose it: {self.example} --help."
        return "\n\n".join([*blocks, *([textwrap.fill(footer.strip(), width)] if footer else [])])

    def _section(self, section: Section, width: int, everything: bool) -> tuple[list[str], int]:
        """The lines of a section, and the number of flags that it leaves out."""
        lines: list[str] = []
        left_out = 0 if everything else len(section.rest)
        for part in section.parts:
            kinds = table().parts[part].kinds
            chosen = self.kinds.get(part)
            help_text = f"{table().parts[part].help} One of: {', '.join(kinds)}."
            lines += _flag_lines(Flag(part, "KIND", help_text, chosen or self.defaults.get(part)), width)
            if chosen is None:
                continue
            if kinds[chosen].flags or everything:
                lines += _about_kind(chosen, kinds[chosen].about, width, everything)
            shown = kinds[chosen].flags[: None if everything else USUAL_PER_KIND]
            left_out += len(kinds[chosen].flags) - len(shown)
            lines += [line for flag in shown for line in self._lines(flag, width)]
        for name in (*section.usual, *(section.rest if everything else ())):
            lines += self._lines(self.flags[name], width)
        return lines, left_out

    def _lines(self, flag: Flag, width: int) -> Iterator[str]:
        return _flag_lines(replace(flag, default=self.defaults.get(flag.name, flag.default)), width)


def train(recipe: str, settings: Settings | None, kinds: Mapping[str, str]) -> Page:
    """The help of `regmix train`, with the defaults of an experiment if one is given."""
    flags = _by_name("train") | {flag.name: flag for flag in table().experiment}
    about = "Train a model and write it to a run directory. "
    if settings is None:
        about += "Every setting has a default from the recipe; `regmix train RECIPE --help` shows them."
        defaults: dict[str, str | None] = dict.fromkeys((flag.name for flag in table().experiment), None)
    else:
        about += f"The defaults below are those of {recipe}."
        defaults = {
            name: value
            for name, value in settings.defaults.items()
            if (part := name.partition(".")[0]) not in settings.kinds or kinds[part] == settings.kinds[part]
        }
    usage = (
        f"regmix train {recipe} [flags]",
        "regmix train --from RUN [flags]   train anew with the settings of a run",
        "regmix train --resume RUN         continue an interrupted run",
    )
    return Page(usage, about, SECTIONS["train"], flags, kinds, defaults, f"regmix train {recipe} --method trades")


def resume() -> Page:
    """The help of `regmix train --resume`."""
    about = "Continue an interrupted run with its own settings, from its last saved state."
    usage = ("regmix train --resume RUN [flags]",)
    return Page(usage, about, SECTIONS["resume"], _by_name("resume"), {}, {})


def evaluate(kinds: Mapping[str, str]) -> Page:
    """The help of `regmix evaluate`."""
    usage = (
        "regmix evaluate RUN [flags]              a run directory",
        "regmix evaluate weights.pth [flags]      .safetensors, .pt or .pth",
        "regmix evaluate module:function [flags]  your own function",
    )
    example = "regmix evaluate weights.pth --data folder --threat linf"
    about = "Attack a model on the test images. Print the accuracy under each attack with a 95% confidence interval."
    return Page(usage, about, SECTIONS["evaluate"], _by_name("evaluate", "foreign"), kinds, FOREIGN_KINDS, example)


def many(command: str) -> Page:
    """The help of a command whose page does not depend on its other words."""
    usage, about = ABOUT[command]
    return Page((usage,), about, SECTIONS[command], _by_name(command), {}, {})


def _by_name(*commands: str) -> dict[str, Flag]:
    return {flag.name: flag for flag in command_flags(*commands)}


def _flag_lines(flag: Flag, width: int) -> Iterator[str]:
    """A flag and its help in two columns."""
    names = flag.spellings[:1] if flag.default == "off" else flag.spellings
    head = f"  {', '.join(names)} {flag.form}".rstrip()
    text, found, meaning = flag.help.rpartition(" None: ")
    if not found:
        text = flag.help
    if flag.default == "None" and found:
        text += f" (default: {meaning.removesuffix('.')})"
    elif flag.default:
        text = f"{flag.help} (default: {flag.default})"
    body = textwrap.wrap(text, width - INDENT, break_on_hyphens=False)
    if len(head) < INDENT - 1:
        yield f"{head:<{INDENT}}{body[0]}"
        body = body[1:]
    else:
        yield head
    yield from (" " * INDENT + line for line in body)


def _about_kind(kind: str, about: str, width: int, everything: bool) -> Iterator[str]:
    """What a kind is: its first paragraph, or its whole docstring with the formula as it is written."""
    text = inspect.cleandoc(about)
    first, _, rest = text.partition("\n\n")
    margin = " " * 4
    lines = textwrap.wrap(f"{kind}: {' '.join(first.split())}", width, initial_indent=margin, subsequent_indent=margin)
    yield from lines
    if everything and rest:
        for paragraph in rest.split("\n\n"):
            yield ""
            if paragraph.startswith((" ", "- ")) or "\n    " in paragraph:
                yield from (margin + line for line in paragraph.splitlines())
            else:
                text = " ".join(paragraph.split())
                yield from textwrap.wrap(text, width, initial_indent=margin, subsequent_indent=margin)
        yield ""
