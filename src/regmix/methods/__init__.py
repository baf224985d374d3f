"""Training methods: (model, batch, threat, memory) -> loss terms, one file each."""

from regmix.methods.base import Method
from regmix.methods.fgsm_pgk import FgsmPgk
from regmix.methods.fgsm_rs import FgsmRs
from regmix.methods.mutual import Mutual
from regmix.methods.n_fgsm import NFgsm
from regmix.methods.pgd_at import PgdAt
from regmix.methods.regmix import RegMix
from regmix.methods.standard import Standard

MethodConfig = Standard | PgdAt | FgsmRs | NFgsm | FgsmPgk | RegMix

__all__ = ["FgsmPgk", "FgsmRs", "Method", "MethodConfig", "Mutual", "NFgsm", "PgdAt", "RegMix", "Standard"]
