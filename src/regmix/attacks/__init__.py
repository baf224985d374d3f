"""Attacks, each a value that one calls: (model, x, y, threat) -> delta; one file per attack."""

from regmix.attacks.adaptive import Adaptive
from regmix.attacks.adversary import Adversary
from regmix.attacks.apgd import Apgd
from regmix.attacks.ascent import Ascent, ascend
from regmix.attacks.attempt import Attempt, attempt, has_gradient, like_images
from regmix.attacks.base import Attack, Screened, packed, passes
from regmix.attacks.cw import Cw, CwL2
from regmix.attacks.ddn import Ddn
from regmix.attacks.deepfool import DeepFool
from regmix.attacks.diagnosis import IN_PLACE, explained, logits_in
from regmix.attacks.ensemble import AUTOATTACK, AUTOATTACK_SCREENED, STRONGEST, Ensemble
from regmix.attacks.eot import Eot
from regmix.attacks.fab import Fab
from regmix.attacks.fgsm import Fgsm
from regmix.attacks.fmn import Fmn
from regmix.attacks.given import Given
from regmix.attacks.hop_skip_jump import HopSkipJump
from regmix.attacks.malt import Malt
from regmix.attacks.mi_fgsm import MiFgsm
from regmix.attacks.minimal import Minimal
from regmix.attacks.named import TRANSFER, NamedAttack, parse_attacks
from regmix.attacks.names import CLEAN, NAMES, named_attacks, parse_attack
from regmix.attacks.pgd import Pgd
from regmix.attacks.relaxation import Relaxation
from regmix.attacks.shortened import Shortened
from regmix.attacks.square import Square
from regmix.attacks.transfer import Transfer

__all__ = [
    "AUTOATTACK",
    "AUTOATTACK_SCREENED",
    "CLEAN",
    "IN_PLACE",
    "NAMES",
    "STRONGEST",
    "TRANSFER",
    "Adaptive",
    "Adversary",
    "Apgd",
    "Ascent",
    "Attack",
    "Attempt",
    "Cw",
    "CwL2",
    "Ddn",
    "DeepFool",
    "Ensemble",
    "Eot",
    "Fab",
    "Fgsm",
    "Fmn",
    "Given",
    "HopSkipJump",
    "Malt",
    "MiFgsm",
    "Minimal",
    "NamedAttack",
    "Pgd",
    "Relaxation",
    "Screened",
    "Shortened",
    "Square",
    "Transfer",
    "ascend",
    "attempt",
    "explained",
    "has_gradient",
    "like_images",
    "logits_in",
    "named_attacks",
    "packed",
    "parse_attack",
    "parse_attacks",
    "passes",
]
