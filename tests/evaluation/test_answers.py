"""Models that change their input, give no gradient, cannot be copied, or cannot work in channels_last."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regmix.attacks import AUTOATTACK, Fgsm, HopSkipJump, Pgd, Square
from regmix.evaluation import evaluate, gradient_fault, like_probabilities, preflight
from regmix.evaluation.screening import NoCopy, screened
from regmix.runtime import devices
from regmix.runtime.layout import is_contiguous, place, settle
from regmix.threats import Linf
from regmix.types import Batch, UserError

CLASSES = 4


def images(count: int = 12) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, before: Callable[[Tensor], Tensor] = lambda x: x, after: Callable[[Tensor], Any] = lambda z: z):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, CLASSES)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.head(F.relu(self.norm(self.conv(self.before(x)))).mean((2, 3))))


def labels(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(images().clone()).argmax(1)


def outside(x: Tensor) -> Tensor:
    x.data.sub_(0.5)
    return x


CHANGING = {
    "sub_": lambda x: x.sub_(0.5),
    "on a view": lambda x: x.flatten(1).mul_(0.5).view_as(x),
    "detached": lambda x: x.detach().clamp_(0.2, 0.8),
    ".data": outside,
    "out": lambda x: torch.add(x, 0.1, out=x.detach()),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_model_that_changes_its_input_is_refused_and_the_images_stay(name: str) -> None:
    model, x, y = Net(CHANGING[name]).eval(), images(), torch.zeros(12, dtype=torch.long)
    for ask in (lambda: preflight(model, x, y), lambda: evaluate(model, [Batch(x, y)], Linf(0.1), {"fgsm": Fgsm()})):
        with pytest.raises(UserError, match="in place"):
            ask()
        assert torch.equal(x, images())


WITHOUT = {
    "detached": lambda z: z.detach(),
    "a decision": lambda z: F.one_hot(z.argmax(1), CLASSES).float(),
    "integers": lambda z: (100 * z).long(),
    "numpy": lambda z: torch.from_numpy(z.detach().numpy()),
}


@pytest.mark.filterwarnings("ignore:hop-skip-jump")  # finds no start: the model answers one class
@pytest.mark.parametrize("name", WITHOUT)
def test_without_a_gradient_only_attacks_run_that_need_none(name: str) -> None:
    model = Net(after=WITHOUT[name])
    x, y = images(), labels(model)
    assert sum("no gradient flows" in line for line in preflight(model, x, y)) == 1
    for attack in (Fgsm(), AUTOATTACK):
        with pytest.raises(UserError, match=r"theirs cannot attack the model; use square, hop-skip-jump"):
            preflight(model, x, y, CLASSES, {"theirs": attack, "square": Square()})
        if name == "integers":  # which the annotations of the attacks, checked in tests, rule out
            continue
        with pytest.raises(UserError, match="theirs cannot attack the model"):
            evaluate(model, [Batch(x, y)], Linf(0.1), {"theirs": attack})
    blind = {"square": Square(queries=30), "hop-skip-jump": HopSkipJump(queries=150)}
    preflight(model, x, y, CLASSES, blind)
    if name == "integers":
        return
    outcomes = evaluate(model, [Batch(x, y)], Linf(0.5), blind)
    assert outcomes.accuracy("clean") == 1
    assert outcomes.accuracy("square") < 1


def test_a_gradient_that_is_zero_is_a_gradient() -> None:
    assert gradient_fault(Net(after=lambda z: 0 * z), images()) is None
    assert gradient_fault(Net(), images()) is None


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (lambda z: [z, z], "a list of 2; .* model\\(x\\)\\[0\\]"),
        (lambda z: {"out": z}, 'a dict of out; .*"out"'),
        (lambda z: SimpleNamespace(logits=z), r"a SimpleNamespace; .*model\(x\)\.logits"),
        (lambda z: z[:, 0], r"\[12\] for 12 images"),
    ],
)
def test_what_is_no_tensor_of_logits_is_named_with_the_remedy(after, said: str) -> None:
    model, x, y = Net(after=after), images(), torch.zeros(12, dtype=torch.long)
    for ask in (lambda: preflight(model, x, y), lambda: evaluate(model, [Batch(x, y)], Linf(0.1), {})):
        with pytest.raises(UserError, match=said):
            ask()


@pytest.mark.parametrize("classes", [3, 5])
def test_the_logits_must_be_as_many_as_the_classes_of_the_data(classes: int) -> None:
    model = Net()
    with pytest.raises(UserError, match=f"4 logits for {classes} classes"):
        preflight(model, images(), labels(model) % 3, classes)
    preflight(model, images(), labels(model), CLASSES)


def checked(x: Tensor) -> Tensor:
    if x.min() < 0 or x.max() > 1:
        raise ValueError("images must lie in [0, 1]")
    return x


@pytest.mark.parametrize(
    "before",
    [checked, lambda x: x + 0 * torch.zeros(256)[(255 * x).long()], lambda x: x[:, :, : int((x <= 1).all()) * 6]],
)
def test_a_model_that_needs_images_in_the_range_is_shown_no_others(before) -> None:
    model = Net(before)
    wrong = (labels(model) + 1) % CLASSES
    preflight(model, images(), wrong)


class View(nn.Module):
    """Fails, or computes something else, where the maps are in channels_last."""

    def __init__(self, flat: Callable[[Tensor], Tensor], channels: int = 3) -> None:
        super().__init__()
        self.conv, self.head, self.flat = nn.Conv2d(channels, 4, 3), nn.Linear(64, CLASSES), flat

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flat(self.conv(x)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("flat", "said"),
    [
        (lambda m: m.view(len(m), -1), "fails in channels_last"),
        (lambda m: m.as_strided((len(m), 64), (64, 1)), "other logits in channels_last"),
    ],
)
def test_a_model_that_cannot_work_in_channels_last_runs_contiguous(
    flat, said: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "computes_in_bfloat16", lambda device: True)
    model, x = View(flat, channels), images()[:, :channels]
    expected = model(x)
    line = settle(model, x[:2])
    assert line is not None
    assert said in line
    place(model, torch.device("cpu"))
    assert torch.equal(model(x.contiguous(memory_format=torch.channels_last)), expected)
    y = expected.argmax(1)
    assert preflight(model, x, y) == []
    assert gradient_fault(screened(model.eval(), x, y), x) is None


def test_other_models_run_in_channels_last_and_are_left_as_they_are() -> None:
    torch.manual_seed(5)
    model, random = nn.Sequential(Net(), nn.Dropout()), torch.get_rng_state()
    model[0].norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert settle(model, images()[:2]) is None
    assert not is_contiguous(model)
    assert model[0].conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert (model.training, model[0].norm.training) == (True, False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def keeps_outputs() -> nn.Module:
    model = Net()
    model.seen = []
    model.norm.register_forward_hook(lambda module, args, out: model.seen.append(out))
    return model


def locked() -> nn.Module:
    model = Net()
    model.lock = threading.Lock()
    return model


class Closure(Net):
    """Its copy asks the original, a number that the copy cannot know, for its scale."""

    def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
        copy = Net(after=lambda z: -z)
        copy.load_state_dict(self.state_dict())
        return copy


def blind_copy() -> nn.Module:
    class Blind(Net):
        def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
            return Net(after=lambda z: z.detach())

    return Blind()


def index_put(z: Tensor) -> Tensor:
    out = torch.zeros(z.shape)
    out[torch.arange(len(z))] = z
    return out


@pytest.mark.parametrize("make", [keeps_outputs, locked, Closure, blind_copy, lambda: Net(after=index_put)])
def test_where_no_copy_can_be_trusted_there_is_none(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    model(images())
    with pytest.raises(NoCopy):
        screened(model, images(), torch.zeros(12, dtype=torch.long))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
    ],
)
def test_weights_that_are_computed_are_copied_rightly(change: Callable[[nn.Module], nn.Module]) -> None:
    model = Net()
    change(model.conv)
    model.eval()
    y = labels(model)
    rough = screened(model, images(), y)
    with torch.no_grad():
        assert (rough(images()) - model(images())).abs().max() < 0.05
    assert evaluate(rough, [Batch(images(), y)], Linf(0.01), {"pgd": Pgd(2)}).accuracy("clean") == 1


def test_gradients_of_the_copy_are_those_of_the_model() -> None:
    """Those of a transposed convolution to 16 channels, kernel 4 and stride 4, are wrong in bfloat16 on some CPUs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, stride=4, bias=False), nn.ReLU(),
        nn.Conv2d(16, 8, 3, stride=4, padding=1), nn.Flatten(), nn.Linear(512, 5),
    ).eval()  # fmt: skip
    x, y = torch.rand(16, 3, 8, 8), torch.arange(16) % 5
    gradients = []
    for answers in (model, screened(model, x, y)):
        images = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(answers(images)[:, 0].sum(), images)[0].flatten(1))
    assert torch.cosine_similarity(*gradients).min() > 0.95


def test_logits_of_a_network_that_has_learned_nothing_are_not_taken_for_probabilities() -> None:
    x, flagged = torch.rand(100, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 0
    for seed in range(20):
        torch.manual_seed(seed)
        for model in (nn.Linear(192, 3), nn.Sequential(nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2), nn.ReLU())):
            flagged += like_probabilities(model(x.flatten(1))) is not None
            assert like_probabilities(model(x[:1].flatten(1))) is None
    assert flagged == 0
    assert like_probabilities(torch.tensor([[3, 1, 0.5]])) is None
    assert "add up to 1," in like_probabilities(torch.tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5]]))
