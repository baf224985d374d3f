"""What a column costs is counted where the model is called."""

import torch
from torch import Tensor, nn

from regmix.attacks import Fgsm, Pgd, Square
from regmix.attacks.base import Screened
from regmix.evaluation.counting import Counter, counted
from regmix.threats import Linf


class Net(nn.Module):
    """Counts by itself, in its own way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.forward_rows, self.backward_rows = nn.Linear(12, 3), 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forward_rows += len(x)
        if x.requires_grad:
            x.register_hook(self.went_back)  # at the images, where the counter looks at the logits
        return self.head(x.flatten(1))

    def went_back(self, gradient: Tensor) -> None:
        self.backward_rows += len(gradient)


def a_batch(rows: int = 5) -> tuple[Tensor, Tensor]:
    x = torch.rand(rows, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(rows) % 3


def test_it_counts_what_the_model_itself_sees() -> None:
    x, y = a_batch()
    for attack in (Fgsm(), Pgd(steps=4, restarts=2), Square(queries=30)):
        model, counter = Net(), Counter()
        attack(counted(model, counter), x, y, Linf(0.01))
        assert counter.forward == model.forward_rows > 0
        assert counter.backward == model.backward_rows
        assert (counter.backward == 0) == isinstance(attack, Square)


def test_a_step_of_pgd_is_one_pass_forward_and_one_back() -> None:
    x, y = a_batch()
    few, more = Counter(), Counter()
    for counter, steps in ((few, 3), (more, 10)):
        Pgd(steps=steps)(counted(Net(), counter), x, y, Linf(0.01))
    assert more.forward - few.forward == more.backward - few.backward == 7 * len(x)


def test_perturbations_stay_bit_for_bit_and_both_parts_of_a_screening_model_count() -> None:
    x, y = a_batch()
    model, counter = Net(), Counter()
    plain = Pgd(steps=5)(model, x, y, Linf(0.1))
    assert torch.equal(Pgd(steps=5)(counted(model, Counter()), x, y, Linf(0.1)), plain)
    pair = counted(Screened(Net(), Net(), 100.0), counter)
    assert isinstance(pair, Screened)
    pair(x)
    pair.exact(x)
    pair.nearby()(x, x, 1)
    assert counter.forward == 3 * len(x)
