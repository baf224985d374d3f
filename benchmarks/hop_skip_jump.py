"""How short HopSkipJump's perturbations are after so many decisions, beside Foolbox's.

python benchmarks/hop_skip_jump.py [--images 30] [--queries 1000 5000] [--cifar FOLDER]

Both attack the same images one at a time. A model in between counts the images that it is asked about and keeps the
distance of the nearest misclassified one, so that neither attack's own bookkeeping matters. Models: a small network on
the digits after standard training and after PGD-2-AT; with --cifar, a narrow ResNet-18 on 4,000 images of CIFAR-10
after PGD-2-AT. Our attack sees the images of a batch together, as in an evaluation, and pays one decision per image for
it. Foolbox is pip install foolbox.
"""

import argparse
import warnings
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from regmix.attacks import HopSkipJump
from regmix.data import Cifar10, Digits, ImageSet, batches, load
from regmix.methods import Method, PgdAt, Standard
from regmix.models import ResNet, SmallCnn, build
from regmix.models.base import Architecture
from regmix.threats import L2, Linf, Threat
from regmix.types import Batch


class SpentError(Exception):
    """The decisions are used up."""


class Counted(nn.Module):
    """Answers so many images, and keeps how near to x the nearest misclassified one was after each of the budgets."""

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, budgets: Sequence[int], used: int
    ) -> None:
        super().__init__()
        self.model, self.x, self.y, self.threat, self.budgets = model, x, y, threat, budgets
        self.used, self.nearest = used, torch.tensor(float("inf"))
        self.reached: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        wrong = logits.argmax(1) != self.y
        lengths = torch.where(wrong, self.threat.norm(images - self.x), torch.inf)
        for length in lengths:
            self.used += 1
            self.nearest = torch.minimum(self.nearest, length)
            if len(self.reached) < len(self.budgets) and self.used >= self.budgets[len(self.reached)]:
                self.reached.append(float(self.nearest))
        if len(self.reached) == len(self.budgets):
            raise SpentError
        return logits


def trained(method: Method, images: ImageSet, settings: Architecture, eps: float, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    model = build(settings, len(images.classes), images.shape[0])
    (batch,) = batches(images, len(images), torch.device("cpu"))
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    for _ in range(epochs):
        for index in torch.randperm(len(batch.x)).split(64):
            optimizer.zero_grad()
            method(model, Batch(batch.x[index], batch.y[index]), Linf(eps)).total.backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def ours(model: nn.Module, x: Tensor, y: Tensor, row: int, threat: Threat, budgets: Sequence[int]) -> list[float]:
    counted = Counted(model, x[row], y[row], threat, budgets, 1)  # one decision for each image of the batch
    others = x[model(x).argmax(1) != y[row]]
    attack, generator = HopSkipJump(queries=10 * max(budgets)), torch.Generator().manual_seed(0)
    with suppress(SpentError):
        attack.walk(lambda images: counted(images).argmax(1) != y[row], x[row], others, threat, generator)
    return counted.reached + [float(counted.nearest)] * (len(budgets) - len(counted.reached))


def theirs(model: nn.Module, x: Tensor, y: Tensor, row: int, threat: Threat, budgets: Sequence[int]) -> list[float]:
    import foolbox

    counted = Counted(model, x[row], y[row], threat, budgets, 0).eval()
    attack = foolbox.attacks.HopSkipJumpAttack(constraint="l2" if isinstance(threat, L2) else "linf", steps=10_000)
    wrapped = foolbox.PyTorchModel(counted, bounds=(0, 1), device="cpu")
    # no start, or a point that rounding has put on the other side
    with suppress(SpentError, ValueError, AssertionError):
        attack.run(wrapped, x[row : row + 1], y[row : row + 1])
    return counted.reached + [float(counted.nearest)] * (len(budgets) - len(counted.reached))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--cifar", help="folder of CIFAR-10's files")
    parser.add_argument("--without-foolbox", action="store_true")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    digits, test = load(Digits(), "train"), load(Digits(), "test")
    cases = [
        ("digits, standard", trained(Standard(), digits, SmallCnn(width=8), 0.1, 10), test),
        ("digits, PGD-2-AT", trained(PgdAt(steps=2), digits, SmallCnn(width=8), 0.15, 10), test),
    ]
    if flags.cifar:
        some = load(Cifar10(root=flags.cifar), "train").subset(torch.arange(4000))
        model = trained(PgdAt(steps=2), some, ResNet(width=8), 8 / 255, 6)
        cases.append(("CIFAR-10, PGD-2-AT", model, load(Cifar10(root=flags.cifar), "test").subset(torch.arange(300))))
    print("| model | norm | decisions | ours, median | Foolbox | ratio of means of logs |\n|---|---|---|---|---|---|")
    for name, model, images in cases:
        (batch,) = batches(images, len(images), torch.device("cpu"))
        right = (model(batch.x).argmax(1) == batch.y).nonzero()[: flags.images, 0]
        x, y = batch.x[right].contiguous(), batch.y[right]
        for threat in (Linf(1e-6), L2(1e-6)):
            found = {}
            for who in (ours,) if flags.without_foolbox else (ours, theirs):
                torch.manual_seed(0)
                found[who] = torch.tensor([who(model, x, y, row, threat, flags.queries) for row in range(len(x))])
            for column, budget in enumerate(flags.queries):
                middle = [float(one[:, column].median()) for one in found.values()]
                logs = [float(one[:, column].log().mean()) for one in found.values()]
                ratio = "" if len(logs) < 2 else f"{torch.tensor(logs[0] - logs[1]).exp():.3f}"
                cells = [name, threat.name, str(budget), *(f"{value:.4f}" for value in middle), ratio]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
