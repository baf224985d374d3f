"""The names of the attacks, and what they mean."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from regmix.attacks.adaptive import Adaptive
from regmix.attacks.apgd import Apgd
from regmix.attacks.base import Attack
from regmix.attacks.cw import Cw, CwL2
from regmix.attacks.ddn import Ddn
from regmix.attacks.deepfool import DeepFool
from regmix.attacks.ensemble import AUTOATTACK, AUTOATTACK_SCREENED, STRONGEST
from regmix.attacks.fab import Fab
from regmix.attacks.fgsm import Fgsm
from regmix.attacks.fmn import Fmn
from regmix.attacks.hop_skip_jump import HopSkipJump
from regmix.attacks.malt import Malt
from regmix.attacks.mi_fgsm import MiFgsm
from regmix.attacks.pgd import Pgd
from regmix.attacks.relaxation import Relaxation
from regmix.attacks.square import Square
from regmix.types import UserError

CLEAN = "clean"
"""The name of the column without an attack, the first of every table."""

FIXED: dict[str, Attack] = {
    "fgsm": Fgsm(),
    "apgd-ce": Apgd("ce"),
    "apgd-dlr": Apgd("dlr"),
    "apgd-t": Apgd(targets=9),
    "pma": Apgd("pm"),
    "malt-apgd-t": Malt(),
    "cr": Relaxation(),
    "fab-t": Fab(targets=9),
    "square": Square(),
    "fmn": Fmn(),
    "ddn": Ddn(),
    "deepfool": DeepFool(),
    "cw-l2": CwL2(),
    "hop-skip-jump": HopSkipJump(),
    "adaptive": Adaptive(),
    "autoattack": AUTOATTACK,
    "autoattack-screened": AUTOATTACK_SCREENED,
    "strongest": STRONGEST,
}
WITH_STEPS: dict[str, Callable[[int], Attack]] = {
    "pgd": lambda steps: Pgd(steps=steps),
    "cw": lambda steps: Cw(steps=steps),
    "mi-fgsm": lambda steps: MiFgsm(steps=steps),
    "square": lambda queries: Square(queries=queries),
    "hop-skip-jump": lambda queries: HopSkipJump(queries=queries),
}
NAMES = (*FIXED, *(f"{name}-N" for name in WITH_STEPS), "pgd-NxR")
"""The names of the attacks; N is a number of steps (of queries for square and hop-skip-jump) and R one of restarts."""


def parse_attack(name: str) -> Attack:
    """The attack that a conventional name means: fgsm, pgd-50, pgd-50x10 (10 restarts), apgd-t, autoattack, ..."""
    if name in FIXED:
        return FIXED[name]
    if match := re.fullmatch(r"pgd-([1-9]\d{0,4})x([1-9]\d{0,2})", name):
        return Pgd(steps=int(match[1]), restarts=int(match[2]))
    if (match := re.fullmatch(r"(.+)-([1-9]\d{0,4})", name)) and match[1] in WITH_STEPS:
        return WITH_STEPS[match[1]](int(match[2]))
    kind, _, number = name.rpartition("-")
    if number.isdecimal() and (near := difflib.get_close_matches(kind, WITH_STEPS, 1)):
        raise UserError(f"unknown attack {name!r}; did you mean {near[0]}-{number}?")
    close = difflib.get_close_matches(name, [CLEAN, *FIXED, "pgd-10", "pgd-50", "cw-30", "mi-fgsm-10"], 1)
    hint = f"; did you mean {close[0]}?" if close else f"; known are {CLEAN}, {', '.join(NAMES)}"
    raise UserError(f"unknown attack {name!r}{hint}")


def named_attacks(attacks: str | Iterable[str | Attack] | Mapping[str, str | Attack]) -> dict[str, Attack]:
    """Names and attacks, from names ("pgd-50,autoattack", or a list), attacks (a list), or either by a name of yours.

    An attack without a name gets its conventional one, and otherwise what Python shows of it. `clean` is left out.

    Raises:
        UserError: an unknown name, the same name twice, or what is no attack.
    """
    if isinstance(attacks, str):
        attacks = [name.strip() for name in attacks.split(",") if name.strip()]
    if isinstance(attacks, Mapping):
        pairs = list(attacks.items())
    elif callable(attacks) or not isinstance(attacks, Iterable):
        raise UserError(
            f"attacks are {attacks!r}; give names, such as 'pgd-50,autoattack', or a list or dict of attacks"
        )
    else:
        pairs = [(given if isinstance(given, str) else _name(given), given) for given in attacks]
    suite: dict[str, Attack] = {}
    for name, given in pairs:
        if name == CLEAN and given == name:
            continue  # it is always there
        if name == CLEAN or name in suite:
            raise UserError(f"two attacks would be called {name}; give a dict with a name for each")
        if isinstance(given, type):
            raise UserError(f"the attack {name} is {given.__name__}, a class; write {given.__name__}()")
        if not (isinstance(given, str) or callable(given)):
            raise UserError(f"the attack {name} is {given!r}, which is no attack; give a name or a function")
        suite[name] = parse_attack(given) if isinstance(given, str) else given
    return suite


def _name(attack: Attack) -> str:
    steps, restarts = getattr(attack, "steps", 0), getattr(attack, "restarts", 1)
    for name in (*FIXED, *(f"{kind}-{steps}" for kind in WITH_STEPS), f"pgd-{steps}x{restarts}"):
        with suppress(UserError):
            if parse_attack(name) == attack:
                return name
    return str(getattr(attack, "__name__", repr(attack)))
