"""FGSM-FUAP: one step from one of many universal perturbations, which a small network chooses by the features."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.methods.features import logits_and_features
from regmix.methods.fgsm_uap import FgsmUap
from regmix.methods.learned import Learned
from regmix.methods.memory import Memory, Setup
from regmix.methods.storage import OneForAll
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Images, Tag, require

RATE = 0.001


@dataclass(frozen=True)
class FgsmFuap(FgsmUap):
    """FGSM-UAP with `count` perturbations u_k and momenta m_k, of which the features of a noisy image choose one.

    With h the features (the input of the last layer of f), eta ~ U(-eps, eps) and a head of two linear layers,

        s = W_1 h(clip(x + eta, 0, 1)) + b_1,   k = argmax s,   delta = P[clip(x + eta, 0, 1) - x + u_k]

    and the rest as in FgsmUap, where the images that chose u_k move it. The head learns in every step, after it has
    chosen, by Adam at a rate of 0.001 on CE(W_2 relu(s) + b_2, t); no gradient of that reaches the model.

    Source: the public code of FGSM-UAP (fzjcdt/fgsm_uap, there the method with features) and of the FastAT benchmark.
    Deviations: those of FgsmUap; of several processes the images of rank 0 train the head.
    """

    title = "FGSM-FUAP"
    needs_features = True
    name: Tag[Literal["fgsm_fuap"]] = field(default="fgsm_fuap", kw_only=True)  # type: ignore[assignment]
    count: int = 50
    """Number of shared perturbations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.count >= 1, f"method count is {self.count}; it must be at least 1")

    def memory(self, setup: Setup) -> Memory:
        shape, device = (self.count, *setup.shape), setup.device
        head = OneForAll((0,), device)  # as wide as the features, which the first batch shows
        return Memory(delta=OneForAll(shape, device), momentum=OneForAll(shape, device), head=head)

    def chosen(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory) -> tuple[Tensor, Images]:
        noise = (batch.x + threat.uniform(batch.x)).clamp(0, 1) - batch.x
        # Not under no_grad, where autocast keeps weights without gradients for the passes that follow (torch 2.6).
        logits, features = logits_and_features(model, batch.x + noise)
        features = features.detach().to(batch.x.dtype)
        head = Learned(partial(_Head, features.shape[1], self.count, logits.shape[1]), rate=RATE)
        state = memory["head"].read(batch)
        state = state if len(state) else head.fresh(batch.x.device).to(batch.x.dtype)
        weights, statistics, *_ = head.parts(state)
        with torch.enable_grad():
            weights = weights.detach().requires_grad_()
            both = head(weights, statistics, features, train=True)
            scores, answers = torch.split(both, [self.count, logits.shape[1]], 1)
            (gradient,) = torch.autograd.grad(cross_entropy(answers, batch.target).mean(), weights)
        memory["head"].write(batch, head.stepped(state, statistics, gradient))
        return scores.detach().argmax(1), noise


class _Head(nn.Module):
    def __init__(self, features: int, count: int, classes: int) -> None:
        super().__init__()
        self.choose, self.classify = nn.Linear(features, count), nn.Linear(count, classes)

    def forward(self, features: Tensor) -> Tensor:
        """The scores of the perturbations and the logits, side by side [B, count + classes]."""
        scores = self.choose(features)
        return torch.cat([scores, self.classify(scores.relu())], 1)
