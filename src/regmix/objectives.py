"""Objectives: one number per example, in float32 or better, from logits or log-probabilities."""

import torch
from torch import Tensor
from torch.nn import functional as F

from regmix.types import Labels, Logits, PerExample, Target


def precise(logits: Tensor) -> Tensor:
    """The logits in float32 if they are in half precision; float32 and float64 stay as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_probabilities(logits: Logits) -> Logits:
    """log softmax(logits) over the classes, in float32 or better."""
    return F.log_softmax(precise(logits), 1)


def hard(target: Target) -> Labels:
    """The most likely class [B] of each label, which may be class indices [B] or probabilities [B, classes]."""
    return target if target.ndim == 1 else target.argmax(1)


def smooth(labels: Target, classes: int, mass: float, dtype: torch.dtype | None = None) -> Logits:
    """Soft labels [B, classes]: probability `mass` for the true class, and 1 - mass spread evenly over the others.

    Labels that are mixtures become the mixtures of their smoothed classes.

    The other convention of label smoothing mixes the label, with weight s, with the uniform distribution over all
    classes: mass = 1 - s * (classes - 1) / classes. The dtype is torch's default without a given one.
    """
    rest = (1 - mass) / (classes - 1)
    if labels.ndim == 2:
        return rest + (mass - rest) * labels
    soft = torch.full((len(labels), classes), rest, dtype=dtype, device=labels.device)
    return soft.scatter_(1, labels[:, None], mass)


def smooth_by(labels: Target, shares: Logits, mass: float) -> Logits:
    """Soft labels [B, classes]: probability `mass` for the true class; the others divide the rest as `shares` do.

    Labels that are mixtures become the mixtures of their smoothed classes. Shares are not negative.
    """
    shares = shares.clamp_min(torch.finfo(shares.dtype).tiny)
    if labels.ndim == 1:
        shares = shares.scatter(1, labels[:, None], 0)
        return ((1 - mass) * shares / shares.sum(1, keepdim=True)).scatter(1, labels[:, None], mass)
    apart = 1 - torch.eye(shares.shape[1], dtype=shares.dtype, device=shares.device)
    # Sums over the other classes, and not the whole sum less one's own share, which would cancel.
    return mass * labels + (1 - mass) * shares * ((labels / (shares @ apart)) @ apart)


def cross_entropy(logits: Logits, target: Target) -> PerExample:
    """-sum_c target_c log softmax(logits)_c; the target is class indices or probabilities [B, classes]."""
    log_p = log_probabilities(logits)
    if target.ndim == 1:
        return F.nll_loss(log_p, target, reduction="none")
    return -(target * log_p).sum(1)


def kl(log_p: Logits, log_q: Logits) -> PerExample:
    """KL(p || q) = sum_c p_c (log p_c - log q_c), from the log-probabilities of both.

    Gradients flow to both sides and stay finite where a probability underflows to 0, which they do not in
    torch.nn.functional.kl_div with a target that is not in log space.
    """
    return (log_p.exp() * (log_p - log_q)).sum(1)


def margin(logits: Logits, target: Target) -> PerExample:
    """max_{c != y} logits_c - logits_y: positive exactly where the example is misclassified (arXiv 1608.04644)."""
    y = hard(target)[:, None]
    logits = precise(logits)
    others = logits.scatter(1, y, float("-inf"))
    return others.amax(1) - logits.gather(1, y)[:, 0]


def dlr(logits: Logits, target: Target) -> PerExample:
    """-(z_y - max_{c != y} z_c) / (z_(1) - z_(3)), with z_(k) the k-th largest logit (arXiv 2003.01690).

    With two classes there is no third logit, and the margin itself is returned.
    """
    logits = precise(logits)
    if logits.shape[1] < 3:
        return margin(logits, target)
    top = logits.topk(3, 1).values
    return margin(logits, target) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits: Logits, target: Tensor) -> PerExample:
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) for target = (y, t), int [B, 2] (arXiv 2003.01690).

    With fewer than four classes there is no fourth logit, and the difference -(z_y - z_t) itself is returned: divided
    by z_(1) - z_(3) it would be constant where z_t is the lowest of three.
    """
    logits = precise(logits)
    distance = logits.gather(1, target[:, 1:]) - logits.gather(1, target[:, :1])
    if logits.shape[1] < 4:
        return distance[:, 0]
    top = logits.topk(4, 1).values
    return distance[:, 0] / (top[:, 0] - top[:, 2:].mean(1)).clamp_min(1e-12)


def accuracy(logits: Tensor, target: Target) -> Tensor:
    """The share of examples whose largest logit is the label's, as a scalar on the device."""
    return precise((logits.argmax(1) == hard(target)).to(logits.dtype)).mean()
