"""Training methods, one file each: (model, batch, threat, memory, clock) to the terms of the loss."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from regmix.methods.base import Method as Method
from regmix.methods.memory import Memory as Memory
from regmix.methods.memory import Setup as Setup
from regmix.methods.mutual import Mutual as Mutual

# isort: off
# The registry: one line per method, in the order in which the command line lists them.
from regmix.methods.standard import Standard as Standard
from regmix.methods.fgsm_at import FgsmAt as FgsmAt
from regmix.methods.fgsm_rs import FgsmRs as FgsmRs
from regmix.methods.fgsm_rs_cs import FgsmRsCs as FgsmRsCs
from regmix.methods.n_fgsm import NFgsm as NFgsm
from regmix.methods.zero_grad import ZeroGrad as ZeroGrad
from regmix.methods.grad_align import GradAlign as GradAlign
from regmix.methods.aaer import NAaer as NAaer
from regmix.methods.aaer import RsAaer as RsAaer
from regmix.methods.ssat import Ssat as Ssat
from regmix.methods.fgsm_law import FgsmLaw as FgsmLaw
from regmix.methods.fgsm_sdi import FgsmSdi as FgsmSdi
from regmix.methods.elle import Elle as Elle
from regmix.methods.free_at import FreeAt as FreeAt
from regmix.methods.pgd_at import PgdAt as PgdAt
from regmix.methods.trades import Trades as Trades
from regmix.methods.mart import Mart as Mart
from regmix.methods.gat import Gat as Gat
from regmix.methods.nu_at import NuAt as NuAt
from regmix.methods.atas import Atas as Atas
from regmix.methods.fgsm_bp import FgsmBp as FgsmBp
from regmix.methods.fgsm_ep import FgsmEp as FgsmEp
from regmix.methods.fgsm_mep import FgsmMep as FgsmMep
from regmix.methods.fgsm_mep_cs import FgsmMepCs as FgsmMepCs
from regmix.methods.fgsm_pgk import FgsmPgk as FgsmPgk
from regmix.methods.fgsm_uap import FgsmUap as FgsmUap
from regmix.methods.fgsm_uap import FgsmCuap as FgsmCuap
from regmix.methods.fgsm_fuap import FgsmFuap as FgsmFuap
from regmix.methods.fgsm_pco import FgsmPco as FgsmPco
from regmix.methods.tdat import Tdat as Tdat
from regmix.methods.liet import Liet as Liet
from regmix.methods.regmix import RegMix as RegMix
# isort: on

METHODS: dict[str, type[Method]] = {
    kind.name: kind  # type: ignore[misc]  # the default of the field
    for kind in [*globals().values()]
    if isinstance(kind, type) and issubclass(kind, Method) and kind is not Method
}
"""The methods by their names."""

DEFAULT_METHOD = RegMix

if TYPE_CHECKING:
    MethodConfig = Method
else:
    MethodConfig = reduce(or_, METHODS.values())
    """A method as a setting, which its `name` chooses."""
