"""Fast adversarial training with RegMix and related methods, and honest evaluation of robustness.

The names below are imported when they are first used, so that the command line starts at once.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from regmix.version import __version__

if TYPE_CHECKING:
    from regmix.attacks import Fgsm, Pgd, ascend
    from regmix.evaluation import Outcomes, evaluate
    from regmix.jobs import Report, evaluate_run, report, resume, train
    from regmix.methods import (
        Atas,
        FgsmAt,
        FgsmBp,
        FgsmEp,
        FgsmMep,
        FgsmPgk,
        FgsmRs,
        FreeAt,
        Gat,
        GradAlign,
        Mart,
        Mutual,
        NFgsm,
        NuAt,
        PgdAt,
        RegMix,
        Standard,
        Trades,
        ZeroGrad,
    )
    from regmix.runs import Run
    from regmix.runs.load import Trained, load_model
    from regmix.threats import L1, L2, Linf
    from regmix.types import Batch, Losses, UserError

__all__ = [
    "L1",
    "L2",
    "Atas",
    "Batch",
    "Fgsm",
    "FgsmAt",
    "FgsmBp",
    "FgsmEp",
    "FgsmMep",
    "FgsmPgk",
    "FgsmRs",
    "FreeAt",
    "Gat",
    "GradAlign",
    "Linf",
    "Losses",
    "Mart",
    "Mutual",
    "NFgsm",
    "NuAt",
    "Outcomes",
    "Pgd",
    "PgdAt",
    "RegMix",
    "Report",
    "Run",
    "Standard",
    "Trades",
    "Trained",
    "UserError",
    "ZeroGrad",
    "__version__",
    "ascend",
    "evaluate",
    "evaluate_run",
    "load_model",
    "report",
    "resume",
    "train",
]

_HOMES = ("types", "threats", "attacks", "methods", "evaluation", "runs", "runs.load", "jobs")
"""The modules of these names, the light ones first."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"regmix.{home}")
            if hasattr(module, name):
                globals()[name] = value = getattr(module, name)
                return value
    elif not name.startswith("_") and find_spec(f"regmix.{name}") is not None:
        return import_module(f"regmix.{name}")  # such as regmix.methods
    raise AttributeError(f"module 'regmix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
