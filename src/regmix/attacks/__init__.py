"""Attacks: (model, x, y, threat) -> delta, one file each."""

import difflib
import re

from regmix.attacks.ascent import Ascent, ascend
from regmix.attacks.base import Attack, borrowed
from regmix.attacks.fgsm import Fgsm
from regmix.attacks.pgd import Pgd
from regmix.types import UserError

__all__ = ["Ascent", "Attack", "Fgsm", "Pgd", "ascend", "borrowed", "parse_attack"]


def parse_attack(name: str) -> Attack:
    """The attack that a conventional name means: fgsm, or pgd-N (N steps of a quarter of eps)."""
    if name == "fgsm":
        return Fgsm()
    if match := re.fullmatch(r"pgd-([1-9]\d{0,4})", name):
        return Pgd(steps=int(match[1]))
    known = ["clean", "fgsm", "pgd-10", "pgd-20", "pgd-50"]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)} (any number of steps)"
    raise UserError(f"unknown attack {name!r}{hint}")
