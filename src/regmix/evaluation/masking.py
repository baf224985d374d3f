"""Is a model robust, or does it only hide its gradients? A verdict from evidence (arXiv 1802.00420, 1902.06705)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from regmix.attacks import Apgd, Ensemble, Pgd, Square, ascend, borrowed
from regmix.evaluation.battery import perturb, predict
from regmix.evaluation.preflight import zero_gradients
from regmix.objectives import cross_entropy
from regmix.threats import L2, Linf, Threat
from regmix.types import Images, Labels, Model

Verdict = Literal["masked", "no sign of masking"]
QUERIES = 300
WHITE_BOX = Ensemble((("apgd-ce", Apgd(steps=50)), ("apgd-dlr", Apgd("dlr", steps=50))))
"""Of both losses, because Square climbs the margin: an honest model whose outputs were drawn together by a KL term has
images that the cross-entropy does not break and the margin does."""


@dataclass(frozen=True)
class Probe:
    """What some correctly classified images say; shares and accuracies in [0, 1]."""

    examples: int
    zero_gradients: float
    """The share of images without a gradient."""
    rising: float
    """The share of images whose cross-entropy is larger after PGD-20 than at its start."""
    white_box: float
    """Accuracy under APGD-CE and APGD-DLR with 50 steps each."""
    black_box: float
    """Accuracy under Square with 300 queries."""
    only_black_box: float
    """The share of images that Square breaks and APGD does not."""
    far: float
    """Accuracy under PGD-20 at a radius at which an unhindered attack always wins."""


def probe(model: Model, x: Images, y: Labels, threat: Threat) -> Probe:
    """Attacks correctly classified images in the ways that tell robust models from masked ones."""

    def survives(attack: Ensemble | Pgd | Square, within: Threat) -> Tensor:
        return predict(model, perturb(model, attack, x, y, within), y) == y

    with borrowed(model):
        start = threat.project(threat.uniform(x, torch.Generator(x.device).manual_seed(0)), x)
        with torch.no_grad():
            before = cross_entropy(model(x + start), y)
        zero = zero_gradients(model, x, y)
        after = before
        if zero < 1:
            delta = ascend(model, x, y, threat, start=start, steps=20, step_size=threat.eps / 4).delta
            with torch.no_grad():
                after = cross_entropy(model(x + delta), y)
        white = survives(WHITE_BOX, threat) if zero < 1 else torch.ones_like(y, dtype=torch.bool)
        black = survives(Square(queries=QUERIES), threat)
        size = x[0].numel()
        radius = 0.5 if isinstance(threat, Linf) else 0.5 * (size**0.5 if isinstance(threat, L2) else size)
        far = survives(Pgd(20), replace(threat, eps=radius)) if zero < 1 else white  # type: ignore[type-var]
    shares = (after > before, white, black, white & ~black, far)
    rising, white_box, black_box, only_black, at_far = (float(share.double().mean()) for share in shares)
    return Probe(len(x), zero, rising, white_box, black_box, only_black, at_far)


def verdict(probe: Probe, accuracies: Mapping[str, float], examples: int) -> tuple[Verdict, list[str]]:
    """The verdict, and every sign of masking in a sentence.

    Args:
        accuracies: by attack name (pgd-10, pgd-50, autoattack, square, transfer:..., hop-skip-jump), at one radius.
        examples: how many test images they are shares of.
    """
    signs = []

    def sign(holds: bool, text: str) -> None:
        if holds:
            signs.append(text)

    def percent(share: float) -> str:
        return f"{100 * share:.1f}%"

    few = max(0.02, 2 / probe.examples)
    sign(probe.zero_gradients > 0.05, f"{percent(probe.zero_gradients)} of the images have no gradient")
    sign(probe.rising < 0.8, f"the loss rises along PGD-20 for only {percent(probe.rising)} of the images")
    sign(
        probe.only_black_box > few,
        f"Square, which sees no gradient, breaks {percent(probe.only_black_box)} of the images that APGD does not",
    )
    sign(
        probe.far > 0.05,
        f"accuracy is still {percent(probe.far)} at a radius at which every image can be turned into grey",
    )
    pgd = min((value for name, value in accuracies.items() if name.startswith("pgd-")), default=None)
    if pgd is not None:
        noise = 3 * (max(pgd * (1 - pgd), 0.01) / examples) ** 0.5
        if "autoattack" in accuracies:
            gap = pgd - accuracies["autoattack"]
            sign(gap > max(0.1, noise), f"AutoAttack leaves {100 * gap:.1f} points less than PGD")
        # PGD climbs the cross-entropy: honest RegMix runs lose up to 4.6 points more to the margin (benchmarks/LOG.md).
        usual = max(0.05, noise)
        for name in ("square", "hop-skip-jump", *(name for name in accuracies if name.startswith("transfer:"))):
            if name in accuracies:
                gap = pgd - accuracies[name]
                sign(
                    gap > usual,
                    f"{name}, which sees no gradient of the model, leaves {100 * gap:.1f} points less than PGD",
                )
    if {"pgd-10", "pgd-50"} <= accuracies.keys():
        gap = accuracies["pgd-10"] - accuracies["pgd-50"]
        sign(gap > 0.1, f"PGD-50 leaves {100 * gap:.1f} points less than PGD-10")
    return ("masked" if signs else "no sign of masking"), signs
