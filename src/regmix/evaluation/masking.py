"""Gradient masking: is a model robust, or does it only hide its gradients (arXiv 1802.00420, 1902.06705)?"""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.attacks import Apgd, Attack, Ensemble, Eot, Square, ascend
from regmix.draws import PerImage
from regmix.evaluation.one_batch import perturb, predict
from regmix.evaluation.outcomes import paired, wilson
from regmix.evaluation.preflight import zero_gradients
from regmix.objectives import cross_entropy
from regmix.runs.records import Masking, Paired, Probe, Verdict
from regmix.runtime.borrowed import borrowed
from regmix.threats import L1, L2, Linf, Threat
from regmix.types import Batch, Images, Labels, Model

WITHOUT_GRADIENT = re.compile(r"(square|hop-skip-jump)(-\d+)?$|transfer:")
"""Names of attacks that see no gradient of the model, with or without a number of queries."""
QUERIES = 300
WHITE_BOX = Ensemble((("apgd-ce", Apgd(steps=50)), ("apgd-dlr", Apgd("dlr", steps=50))))
"""Two losses, because Square maximises the margin loss: an honest model that was trained with a KL term has images that
the margin loss breaks and the cross-entropy does not."""
ENOUGH = 10
"""With fewer correctly classified images than this, or for a random model, no sign means "undecided"."""
FEW = 3
"""Fewer images than this are no sign, whatever their share: every attack misses one or two that another breaks."""
OTHERS = 8
"""How many images of other classes an image is moved towards at the large radius."""
PASSES = 10
"""Passes that are averaged for a random model."""


def judged(model: Model, batch: Batch, survived: Mapping[str, Bool[Tensor, "examples"]], threat: Threat) -> Masking:
    """The verdict from a probe of correctly classified images, and from which test images survived which attack."""
    measured = probe(model, batch.x, batch.y, threat)
    return Masking(*verdict(measured, survived, threat), measured)


def probe(model: Model, x: Images, y: Labels, threat: Threat) -> Probe:
    """Attacks correctly classified images in the ways that distinguish robust models from masked ones."""

    def survives(attack: Attack, within: Threat) -> Tensor:
        return predict(model, perturb(model, attack, x, y, within), y) == y

    with borrowed(model):
        start = threat.project(threat.uniform(x, PerImage(x, 0)), x)
        with torch.no_grad():
            before = cross_entropy(model(x + start).double(), y)
        zero = zero_gradients(model, x, y)
        after = before
        if zero < 1:
            delta = ascend(model, x, y, threat, start=start, steps=20, step_size=threat.eps / 4).delta
            with torch.no_grad():
                after = cross_entropy(model(x + delta).double(), y)
        everything = torch.ones_like(y, dtype=torch.bool)
        white = survives(WHITE_BOX, threat) if zero < 1 else everything
        black = survives(Square(queries=QUERIES), threat)
        wide = _wide(threat, x[0].numel())
        far = (survives(WHITE_BOX, wide) if zero < 1 else everything) & _breakable(model, x, y, wide)
        averaged = None
        if zero < 1 and not isinstance(model, Eot) and _is_random(model, x):
            mean = Eot(model, PASSES)
            left = predict(mean, perturb(mean, WHITE_BOX, x, y, threat), y) == y
            averaged = paired(white.cpu().numpy(), left.cpu().numpy())
    shares = (after > before, white, black, white & ~black, far)
    rising, white_box, black_box, only_black, at_far = (float(share.double().mean()) for share in shares)
    return Probe(len(x), zero, rising, white_box, black_box, only_black, at_far, averaged)


def _wide(threat: Threat, size: int) -> Threat:
    """The threat at a radius that can turn every image of `size` values into grey."""
    radius = 0.5 if isinstance(threat, Linf) else 0.5 * (size**0.5 if isinstance(threat, L2) else size)
    wide: Threat = replace(threat, eps=radius)  # type: ignore[type-var]
    return wide


def _breakable(model: Model, x: Images, y: Labels, threat: Threat) -> Tensor:
    """Which images change their class when turned into grey or moved towards another image of the batch: bool [B].

    A model that predicts one class everywhere near an image is not masked, and an attack rightly finds nothing there.
    """
    broken = predict(model, torch.full_like(x, 0.5), y) != y
    for shift in range(1, min(OTHERS, len(x) - 1) + 1):
        moved = x + threat.project(x.roll(shift * len(x) // (OTHERS + 1) or shift, 0) - x, x)
        broken |= predict(model, moved.clamp(0, 1), y) != y
    return broken


@torch.no_grad()
def _is_random(model: Model, x: Images) -> bool:
    return not torch.allclose(model(x), model(x), rtol=1e-3, atol=1e-5)


def verdict(
    probe: Probe, survived: Mapping[str, Bool[Tensor, "examples"]], threat: Threat
) -> tuple[Verdict, list[str]]:
    """The verdict, and a sentence with a 95 % interval for every sign of masking.

    A share of the probe is a sign if it covers three images or more and the lower end of its Wilson interval exceeds
    what honest models show. A difference of two attacks is a sign if the lower end of its paired interval does.

    Args:
        survived: which of the test images survive an attack, by its name (pgd-10, pgd-50, autoattack,
            strongest, square, transfer:..., hop-skip-jump), at one radius.
        threat: the threat of the probe and of these attacks.
    """
    signs = []

    def share(value: float, usual: float, text: str) -> None:
        count = round(value * probe.examples)
        low, high = wilson(count, probe.examples)
        if count >= FEW and low > usual:
            signs.append(text.format(f"{100 * value:.1f}% (95% interval {100 * low:.1f}% to {100 * high:.1f}%)"))

    def gap(measured: Paired, usual: float, text: str) -> None:
        if measured.low > usual:
            low, high = 100 * measured.low, 100 * measured.high
            signs.append(text.format(f"{100 * measured.difference:.1f} points (95% interval {low:.1f} to {high:.1f})"))

    def less(weaker: str, stronger: str) -> Paired:
        return paired(survived[weaker].numpy(), survived[stronger].numpy())

    share(probe.zero_gradients, 0.05, "{} of the images have no gradient")
    share(1 - probe.rising, 0.2, "the loss does not rise along PGD-20 for {} of the images")
    share(probe.only_black_box, 0.02, "Square, which sees no gradient, breaks {} of the images that APGD does not")
    grey = (
        "at a radius at which every image can be turned into grey, APGD leaves {} of the images, which a mixture breaks"
    )
    share(probe.far, 0.02, grey)
    if probe.averaged is not None:
        gap(probe.averaged, 0.02, f"the model is random: of the mean of {PASSES} passes APGD leaves {{}} less")
    if (pgd := _strongest_pgd(survived, threat)) is not None:
        for name, title in (("autoattack", "AutoAttack"), ("strongest", "strongest")):
            if name in survived:
                gap(less(pgd, name), 0.1, f"{title} leaves {{}} less than PGD")
        # PGD uses the cross-entropy: honest RegMix runs lose up to 4.6 points more to the margin (benchmarks/LOG.md).
        for name in survived:
            if WITHOUT_GRADIENT.match(name):
                gap(less(pgd, name), 0.05, f"{name}, which sees no gradient of the model, leaves {{}} less than PGD")
        if {"pgd-10", "pgd-50"} <= survived.keys():
            gap(less("pgd-10", "pgd-50"), 0.1, "PGD-50 leaves {} less than PGD-10")
    if signs:
        return "masked", signs
    return ("undecided" if probe.examples < ENOUGH or probe.averaged is not None else "no sign of masking"), []


def _strongest_pgd(survived: Mapping[str, Tensor], threat: Threat) -> str | None:
    """The strongest PGD of those that other attacks are known to beat only slightly on honest models.

    With fewer than 10 steps PGD does not reach the ball's surface. Under L1 a step changes a twentieth of the image.
    """
    if isinstance(threat, L1):
        return None
    long = [name for name in survived if (steps := re.match(r"pgd-(\d+)", name)) and int(steps[1]) >= 10]
    return min(long, key=lambda name: int(survived[name].sum()), default=None)
