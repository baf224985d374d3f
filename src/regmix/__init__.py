"""Fast adversarial training with RegMix and its family, and an honest measurement of the robustness it buys."""

from regmix.attacks import Fgsm, Pgd, ascend
from regmix.evaluation import Outcomes, evaluate
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
from regmix.runs.load import Trained, load_model
from regmix.threats import L1, L2, Linf
from regmix.types import Batch, Losses, UserError
from regmix.version import __version__

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
    "Standard",
    "Trades",
    "Trained",
    "UserError",
    "ZeroGrad",
    "__version__",
    "ascend",
    "evaluate",
    "load_model",
]
