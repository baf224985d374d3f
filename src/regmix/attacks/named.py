"""An attack by name, parsed once: the value that says how its columns are called and what it transfers from."""

import os
from dataclasses import dataclass
from pathlib import Path

from regmix.attacks.base import Attack
from regmix.attacks.names import CLEAN, parse_attack
from regmix.threats import format_eps
from regmix.types import UserError

TRANSFER = "transfer:"


@dataclass(frozen=True)
class NamedAttack:
    """An attack that was asked for by name, such as pgd-50 or transfer:runs/a."""

    name: str
    """As it stands in tables: pgd-50; transfer:a for the run directory runs/a."""
    attack: Attack | None
    """None for a transfer attack, whose model is not loaded yet, and for images from elsewhere."""
    source: Path | None = None
    """The absolute path of the run directory that a transfer attack takes its examples from."""
    given: Path | None = None
    """The absolute path of a file or folder of adversarial images, which are not loaded yet."""

    @classmethod
    def parse(cls, text: str) -> "NamedAttack":
        """Reads a name of `parse_attack`, or transfer:RUN. Raises UserError for an unknown name."""
        if not text.startswith(TRANSFER):
            return cls(text, parse_attack(text))
        if not (path := text.removeprefix(TRANSFER)):
            raise UserError(f"{text!r} names no run; write {TRANSFER}RUN with the path of a run directory")
        source = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would give a link the name of its target
        return cls(TRANSFER + source.name, None, source)

    def column(self, eps: float) -> str:
        """The name of its column at a radius, such as pgd-50@8/255."""
        return f"{self.name}@{format_eps(eps)}"


def parse_attacks(text: str) -> tuple[NamedAttack, ...]:
    """The attacks of a list such as "clean,fgsm,transfer:runs/a", each once and without `clean`, which is always there.

    Raises:
        UserError: an unknown name, or two runs to transfer from whose folders have the same name.
    """
    names = [name.strip() for name in text.split(",")]
    attacks = tuple(dict.fromkeys(NamedAttack.parse(name) for name in names if name != CLEAN))
    sources: dict[str, Path | None] = {}
    for attack in attacks:
        if (known := sources.setdefault(attack.name, attack.source)) != attack.source:
            raise UserError(
                f"{known} and {attack.source} would both be called {attack.name}; rename one of the folders"
            )
    return attacks
