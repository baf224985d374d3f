"""Fast adversarial training with RegMix and its family, and an honest measurement of the robustness it buys."""

from regmix.attacks import Fgsm, Pgd, ascend
from regmix.evaluation import Outcomes, evaluate
from regmix.methods import FgsmPgk, FgsmRs, PgdAt, RegMix, Standard
from regmix.threats import L2, Linf
from regmix.types import Batch, Losses, UserError
from regmix.version import __version__

__all__ = [
    "L2",
    "Batch",
    "Fgsm",
    "FgsmPgk",
    "FgsmRs",
    "Linf",
    "Losses",
    "Outcomes",
    "Pgd",
    "PgdAt",
    "RegMix",
    "Standard",
    "UserError",
    "__version__",
    "ascend",
    "evaluate",
]
