"""The pieces that methods share."""

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from regmix.methods import Atas, FgsmAt, FgsmEp, FreeAt, Mart, Method, PgdAt, RegMix, Setup, Standard, Trades
from regmix.methods.memory import Memory
from regmix.methods.shared import batchnorm_mode
from regmix.threats import Linf
from regmix.types import Batch, Clock, UserError

X, Y = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 1, 0])
SETUP, CLOCK = Setup(6, 4, (3, 8, 8), Linf(8 / 255)), Clock(epoch=0, epochs=1, step=0, steps=1)


def a_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))


def total(method: Method, batch: object, model: nn.Module | None = None, memory: Memory | None = None) -> Tensor:
    torch.manual_seed(0)
    return method(model or a_model(), batch, Linf(8 / 255), memory, CLOCK).total


@pytest.mark.parametrize("method", [Standard(), PgdAt(2), Trades(steps=1), RegMix()], ids=lambda method: method.name)
def test_labels_of_any_integer_type_mean_the_same(method: Method) -> None:
    expected = total(method, Batch(X, Y))
    for kind in (torch.int32, torch.int16, torch.int8, torch.uint8):
        assert torch.equal(total(method, (X, Y.to(kind))), expected)
    assert torch.equal(total(method, [X, Y > 1]), total(method, Batch(X, (Y > 1).long())))


WRONG = {
    "0..255": (X * 255, Y, r"\[0, 1\].*255"),
    "normalised": ((X - 0.48) / 0.25, Y, r"\[0, 1\].*normalis"),
    "a little outside": (X * 1.01 + 1e-4, Y, r"\[0, 1\]"),
    "NaN": (X.where(X > 0.01, torch.nan), Y, "NaN"),
    "infinity": (X.where(X > 0.01, torch.inf), Y, "infinity"),
    "half": (X.half(), Y, "float32"),
    "uint8": ((X * 255).byte(), Y, "/ 255"),
    "NHWC": (X.permute(0, 2, 3, 1), Y, r"permute\(0, 3, 1, 2\)"),
    "double": (X.double(), Y, "float64"),
    "flat": (X.flatten(1), Y, r"\[batch, channels, height, width\]"),
    "another size": (X[:, :, :4], Y, "fails"),
    "no image": (X[:0], Y[:0], "empty"),
    "an array": (X.numpy(), Y, "ndarray"),
    "three labels": (X, Y[:3], r"\[3\] for 6 images"),
    "one label": (X, Y[0], "for 6 images"),
    "a list": (X, Y.tolist(), "list"),
    "float labels": (X, Y.float(), r"y\.long"),
    "a column of labels": (X, Y[:, None], r"class indices \[6\]"),
    "one-hot integers": (X, nn.functional.one_hot(Y, 4), "probabilities"),
    "logits for labels": (X, torch.randn(6, 4), "probabilities"),
    "probabilities of five": (X, torch.full((6, 5), 0.2), "5 classes.*has 4"),
    "label -1": (X, Y - 1, "-1"),
    "label 4": (X, Y + 1, "reach 4.*4 classes"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("method", [PgdAt(2), RegMix()], ids=lambda method: method.name)
def test_a_batch_that_means_nothing_is_refused_in_one_line(method: Method, name: str) -> None:
    x, y, words = WRONG[name]
    model = a_model()
    state = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    with pytest.raises(UserError, match=words) as refused:
        total(method, Batch(x, y), model)
    assert "\n" not in str(refused.value)
    if "fails" not in words:
        assert all(module.training for module in model.modules())
    assert state.keys() <= model.state_dict().keys()


def test_rounding_beyond_the_range_is_taken() -> None:
    assert total(Standard(), Batch(X * 0 + 1 + 9e-7, Y)).isfinite()


@pytest.mark.parametrize("given", [X, (X,), (X, Y, Y), {"x": X}, None], ids=["x", "one", "three", "dict", "none"])
def test_what_is_no_batch_is_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"Batch\(x, y\)"):
        total(Standard(), given)


@pytest.mark.parametrize("threat", [8 / 255, "8/255", Linf, None], ids=str)
def test_what_is_no_threat_is_refused(threat: object) -> None:
    with pytest.raises(UserError, match=r"write Linf\(8 / 255\)"):
        Standard()(a_model(), Batch(X, Y), threat)


def test_a_model_must_return_logits() -> None:
    class Wrapped(nn.Module):
        def __init__(self, change) -> None:
            super().__init__()
            self.net, self.change = a_model(), change

        def forward(self, x: Tensor) -> object:
            return self.change(self.net(x))

    for change, words in (
        (lambda z: (z, z), "returns a tuple of 2"),
        (lambda z: {"logits": z}, "returns a dict of logits"),
        (lambda z: z[:, :, None], r"returns \[6, 4, 1\]"),
        (lambda z: z[:, 0], r"returns \[6\]"),
        (lambda z: z[:, :1], "one output"),
    ):
        for method in (Standard(), FgsmAt(), RegMix()):
            with pytest.raises(UserError, match=words):
                total(method, Batch(X, Y * 0), Wrapped(change))


def test_another_failure_of_the_model_stays_what_it_is() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.asked = a_model(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.asked += 1
            if self.asked == 2:
                raise RuntimeError("no luck")
            return self.net(x)

    with pytest.raises(RuntimeError, match="no luck"):
        total(FgsmAt(), Batch(X, Y), Fails())


@pytest.mark.parametrize("method", [Atas(), FreeAt(), RegMix(start="carried")], ids=lambda m: m.name)
def test_a_missing_memory_is_told_with_the_line_that_makes_one(method: Method) -> None:
    with pytest.raises(
        UserError, match=r"memory = method\.memory\(Setup\(.*shape=\(3, 8, 8\), threat=threat, device=x\.device\)\)"
    ):
        total(method, Batch(X, Y, torch.arange(6)))
    memory = method.memory(SETUP)
    assert total(method, Batch(X, Y, torch.arange(6)), memory=memory).isfinite()


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (None, r"Batch\(x, y, index\)"),
        (torch.arange(5), "one position"),
        (torch.arange(6.0), "one position"),
        (torch.arange(6) - 1, "-1 to 4.*6 images"),
        (torch.arange(6) + 1, "1 to 6.*6 images"),
    ],
    ids=str,
)
def test_positions_must_be_those_of_the_memory(index: Tensor | None, words: str) -> None:
    method = FgsmEp()
    with pytest.raises(UserError, match=words):
        total(method, Batch(X, Y, index), memory=method.memory(SETUP))


def test_positions_may_be_int32_and_a_batchs_memory_needs_none() -> None:
    method, free = FgsmEp(), FreeAt()
    small = Batch(X, Y, torch.arange(6, dtype=torch.int32))
    assert total(method, small, memory=method.memory(SETUP)).isfinite()
    assert total(free, (X, Y), memory=free.memory(SETUP)).isfinite()


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_batchnorm_mode_switches_batchnorm_alone_and_puts_it_back(fails: bool, before: bool, mode: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.BatchNorm1d(3)).train(before)
    net[3].train(not before)
    modes = [module.training for module in net.modules()]
    with suppress(RuntimeError), batchnorm_mode(net, mode):
        assert net[1].training == (mode == "train")
        frozen = before and mode == "train"  # in evaluation mode in a model that is not
        assert net[3].training == (mode == "train" and not frozen)
        assert net[0].training == net[2].training == before
        if fails:
            raise RuntimeError("inside")
    assert [module.training for module in net.modules()] == modes


def test_eval_leaves_the_running_statistics_alone_and_train_moves_them() -> None:
    net = nn.BatchNorm1d(3)
    with batchnorm_mode(net, "eval"):
        net(torch.rand(4, 3))
    assert net.num_batches_tracked == 0
    assert (net.running_mean == 0).all()
    net.eval()
    with batchnorm_mode(net, "train"):
        net(torch.rand(4, 3))
    assert net.num_batches_tracked == 1
    assert (net.running_mean != 0).all()


@pytest.mark.parametrize("method", [Standard(), Trades(), Mart(), RegMix()], ids=lambda method: method.name)
def test_a_model_that_works_in_place_is_refused(method: Method) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.sub_(0.5).flatten(1))

    with pytest.raises(UserError, match="changes its input in place"):
        method(InPlace(), Batch(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])), Linf(8 / 255))
