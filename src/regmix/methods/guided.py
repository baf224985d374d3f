"""What GAT and NuAT share: an attack that is guided, every other step, by the distance of its output from the clean."""

from collections.abc import Callable

from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.shared import batchnorm_mode
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Losses


def guided_losses(
    model: nn.Module,
    batch: Batch,
    threat: Threat,
    distance: Callable[[Tensor, Tensor], Tensor],
    weight: float,
    *,
    guide: bool,
) -> Losses:
    """CE(f(x), y) + weight D(f(x), f(x + delta)), delta = P[delta_0 + eps sign(grad (CE + weight D))].

    delta_0 is a random corner of the ball of eps / 2. The attack runs BatchNorm on its running statistics, and counts
    D only if `guide`; D compares with the clean output in train mode, whose forward pass is made for it.
    """
    x, y = batch.x, batch.y
    start = threat.project(threat.corner(x) / 2, x)
    # Not under no_grad, where autocast keeps weights without gradients for the passes that follow (torch 2.6).
    clean = model(x).detach() if guide else None

    def objective(logits: Tensor, target: Tensor) -> Tensor:
        loss = cross_entropy(logits, target).mean()
        return loss if clean is None else loss + weight * distance(clean, logits)

    with batchnorm_mode(model, "eval"):
        delta = ascend(model, x, y, threat, start=start, steps=1, step_size=threat.eps, objective=objective).delta
    logits, clean_logits = model(x + delta), model(x)
    gap = distance(clean_logits, logits)
    terms = {"classify": batch.mean(cross_entropy(clean_logits, batch.target)), "guide": weight * gap}
    return Losses(terms, logits, {"guide": gap.detach()})
