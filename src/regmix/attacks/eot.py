"""Expectation over transformation."""

from torch import nn

from regmix.types import Images, Logits, Model


class Eot(nn.Module):
    """A randomised model made nearly deterministic: the mean of the logits of several passes (arXiv 1707.07397).

    Every attack on it then climbs the expected logits, and every verdict is about them.
    """

    def __init__(self, model: Model, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, images: Images) -> Logits:
        total = self.model(images)
        for _ in range(self.draws - 1):
            total = total + self.model(images)
        return total / self.draws
