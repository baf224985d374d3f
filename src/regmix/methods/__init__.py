"""Training methods: (model, batch, threat, memory) -> loss terms, one file each."""

from regmix.methods.atas import Atas
from regmix.methods.base import Method
from regmix.methods.fgsm_at import FgsmAt
from regmix.methods.fgsm_bp import FgsmBp
from regmix.methods.fgsm_ep import FgsmEp
from regmix.methods.fgsm_mep import FgsmMep
from regmix.methods.fgsm_pgk import FgsmPgk
from regmix.methods.fgsm_rs import FgsmRs
from regmix.methods.free_at import FreeAt
from regmix.methods.gat import Gat
from regmix.methods.grad_align import GradAlign
from regmix.methods.mart import Mart
from regmix.methods.mutual import Mutual
from regmix.methods.n_fgsm import NFgsm
from regmix.methods.nu_at import NuAt
from regmix.methods.pgd_at import PgdAt
from regmix.methods.regmix import RegMix
from regmix.methods.standard import Standard
from regmix.methods.trades import Trades
from regmix.methods.zero_grad import ZeroGrad

MethodConfig = (
    Standard
    | FgsmAt
    | FgsmRs
    | NFgsm
    | ZeroGrad
    | GradAlign
    | FreeAt
    | PgdAt
    | Trades
    | Mart
    | Gat
    | NuAt
    | Atas
    | FgsmBp
    | FgsmEp
    | FgsmMep
    | FgsmPgk
    | RegMix
)

__all__ = [
    "Atas",
    "FgsmAt",
    "FgsmBp",
    "FgsmEp",
    "FgsmMep",
    "FgsmPgk",
    "FgsmRs",
    "FreeAt",
    "Gat",
    "GradAlign",
    "Mart",
    "Method",
    "MethodConfig",
    "Mutual",
    "NFgsm",
    "NuAt",
    "PgdAt",
    "RegMix",
    "Standard",
    "Trades",
    "ZeroGrad",
]
