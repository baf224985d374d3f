"""Expectation over transformation."""

from torch import nn

from regmix.types import Images, Logits, Model


class Eot(nn.Module):
    """A randomised model, replaced by the mean of its logits over several passes (arXiv 1707.07397).

        z(x) = 1/draws sum_i model_i(x)

    Attacks then follow the gradient of the mean logits, and the mean logits decide whether an image is misclassified.
    """

    def __init__(self, model: Model, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, images: Images) -> Logits:
        total = self.model(images)
        for _ in range(self.draws - 1):
            total = total + self.model(images)
        return total / self.draws
