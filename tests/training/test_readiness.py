"""Models of other people's under `regmix train`: refused before anything is written, or trained rightly."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import regmix
from regmix.cli.entry import main
from regmix.data import Digits, load, pick
from regmix.models import SmallCnn, build
from regmix.runtime import devices
from regmix.training.readiness import kept_in_eval, ready

Make = Callable[..., nn.Module]
SOURCE = "their_models:make"


class Net(nn.Module):
    def __init__(self, classes: int, answer: Callable[[nn.Module, Tensor], Any] = lambda m, z: z) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head, self.aux, self.answer = nn.Linear(8, classes), nn.Linear(8, 2), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self, self.head(F.relu(self.norm(self.conv(x))).mean((2, 3))))


class InPlace(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.sub_(0.5))


class InPlaceWithoutEffect(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.relu_())


class Keeps(Net):
    """As for Grad-CAM."""

    def forward(self, x: Tensor) -> Any:
        self.maps = self.conv(x)
        return self.head(F.relu(self.norm(self.maps)).mean((2, 3)))


class OtherNoise(Net):
    """Its random numbers are not torch's."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x + 0.3 * torch.from_numpy(np.random.standard_normal(x.shape)).to(x))


class Hooked(Net):
    """Its hook knows the model, and so a copy's hook knows the original."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.maps: dict[str, Tensor] = {}
        self.conv.register_forward_hook(lambda module, given, made: self.maps.update(last=made))

    def forward(self, x: Tensor) -> Any:
        self.conv(x)
        return self.head(F.relu(self.norm(self.maps["last"])).mean((2, 3)))


class Extra(Net):
    def get_extra_state(self) -> object:
        return {"version": 1}

    def set_extra_state(self, state: object) -> None: ...


class Float32Only(Net):
    def forward(self, x: Tensor) -> Any:
        maps = self.conv(x)
        out = torch.zeros(maps.shape, device=maps.device)
        out[torch.arange(len(maps))] = maps
        return self.head(self.norm(out).mean((2, 3)))


def aliased(classes: int) -> nn.Module:
    model = Net(classes)
    model.aux.weight = nn.Parameter(model.head.weight.data[:2])
    return model


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., tuple]:
    def trained(make: Make, words: str = "", name: str = "run") -> tuple[int, str, Path]:
        module = ModuleType("their_models")
        module.make = make  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "their_models", module)
        start = "train digits-regmix --train-examples 60 --validation 30 --epochs 2"
        more = f"--model function --model.source their_models:make --out {tmp_path / name} {words}"
        code = main(f"{start} {more}".split())
        printed = capsys.readouterr()
        return code, printed.err if code else " ".join(printed.out.split()), tmp_path / name

    return trained


REFUSED: dict[str, tuple[Make, str, str]] = {
    "tuple": (lambda classes: Net(classes, lambda m, z: (z, z)), "a tuple of 2", ""),
    "tuple in train mode": (
        lambda classes: Net(classes, lambda m, z: (z, z) if m.training else z),
        "in train mode, the model returns a tuple",
        "",
    ),
    "in place without effect": (lambda classes: InPlaceWithoutEffect(classes), "changes its input in place", ""),
    "hooks": (lambda classes: Hooked(classes), "(do its hooks lead back to the original?)", "--averaging ema"),
    "too few": (lambda classes: Net(classes - 1), "9 logits for 10 classes", ""),
    "too many": (lambda: Net(1000), "1000 logits for 10 classes", ""),
    "size": (lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(3072, classes)), "the model fails", ""),
    "channels": (lambda classes: nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten()), "the model fails", ""),
    "double": (lambda classes: Net(classes).double(), "must be float32", ""),
    "double, asked for": (lambda classes: Net(classes).double(), "must be float32", "--precision 64"),
    "in place": (lambda classes: InPlace(classes), "in place", ""),
    "NaN": (lambda classes: Net(classes, lambda m, z: z / 0), "not finite", ""),
    "detached": (lambda classes: Net(classes, lambda m, z: z.detach()), "no_grad, detach", ""),
    "decision": (lambda classes: Net(classes, lambda m, z: F.one_hot(z.argmax(1), 10).float()), "no_grad", ""),
    "nothing learns": (lambda classes: Net(classes).requires_grad_(False), "requires a gradient", ""),
    "no tensor": (lambda classes: Extra(classes), "_extra_state", ""),
    "aliased": (aliased, "head.weight and aux.weight share memory", ""),
    "bfloat16": (lambda classes: Float32Only(classes), "--precision 32 leaves out", "--precision bf16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_in_one_line_before_a_folder_is_made(name: str, train) -> None:
    make, said, words = REFUSED[name]
    code, told, out = train(make, words)
    assert code == 2
    assert said in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_what_fails_under_autocast_alone_is_trained_without(train) -> None:
    assert train(lambda classes: Float32Only(classes), "--precision 32")[0] == 0


def test_a_model_that_keeps_a_tensor_of_its_last_pass_is_trained(train) -> None:
    code, told, _ = train(lambda classes: Keeps(classes), "--averaging ema")
    assert code == 0, told
    assert train(lambda classes: Hooked(classes), "--averaging none --method standard", "hooked")[0] == 0
    code, told, _ = train(lambda classes: OtherNoise(classes), "--averaging ema", "noise")
    assert code == 0, told


@pytest.mark.parametrize("answer", [lambda m, z: z.softmax(1), lambda m, z: 100 * z.softmax(1)])
def test_probabilities_in_place_of_logits_are_told(answer, train) -> None:
    code, told, _ = train(lambda classes: Net(classes, answer))
    assert code == 0
    assert "as probabilities do; the loss needs logits" in told
    assert "as probabilities do" not in train(lambda classes: Net(classes), name="logits")[1]


def test_a_parameter_without_effect_is_told_and_stays(train) -> None:
    code, told, out = train(lambda classes: Net(classes), "--seed 0")
    assert code == 0
    assert "of two images, and trained only where they have one: aux.weight, aux.bias" in told
    torch.manual_seed(0)
    expected = Net(10).aux.weight
    assert torch.equal(regmix.load_model(out, "last", source=SOURCE).model.aux.weight, expected)


def frozen(classes: int) -> nn.Module:
    model = Net(classes)
    model.norm.eval().requires_grad_(False)
    model.norm.running_mean.fill_(0.1)
    model.norm.weight.data.fill_(1.3)
    model.conv.bias.requires_grad_(False).fill_(0.25)
    return model


@pytest.mark.parametrize("method", ["regmix", "trades --method.attack-batchnorm train", "free_at"])
def test_what_is_frozen_stays_so_in_the_weights_and_in_their_average(method: str, train) -> None:
    code, told, out = train(frozen, f"--method {method} --averaging ema --awp 0.01 --weight-decay 0.1")
    assert code == 0
    assert "kept in it: norm" in told
    for checkpoint in ("last", "averaged"):
        norm = regmix.load_model(out, checkpoint, source=SOURCE).model.norm
        assert torch.equal(norm.running_mean, torch.full((8,), 0.1))
        assert torch.equal(norm.running_var, torch.ones(8))
        assert norm.num_batches_tracked == 0
        assert torch.equal(norm.weight, torch.full((8,), 1.3))
        conv = regmix.load_model(out, checkpoint, source=SOURCE).model.conv
        assert torch.equal(conv.bias, torch.full((8,), 0.25))


def test_a_model_that_comes_in_evaluation_mode_as_a_whole_is_trained_as_a_whole(train) -> None:
    code, told, out = train(lambda classes: Net(classes).eval())
    assert code == 0
    assert "kept in it" not in told
    assert regmix.load_model(out, "last", source=SOURCE).model.norm.num_batches_tracked > 0


class Tied(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False), nn.Linear(64, classes)
        self.b.weight = self.a.weight
        self.head = self.out

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(F.relu(self.a(x.flatten(1)))))


@pytest.mark.parametrize("checkpoint", ["last", "averaged", "best"])
def test_weights_of_two_names_are_saved_and_loaded_whole(checkpoint, train, capsys) -> None:
    code, _, out = train(lambda classes: Tied(classes), "--averaging ema")
    assert code == 0
    model = regmix.load_model(out, checkpoint, source=SOURCE).model
    assert model.a.weight is model.b.weight
    held = load_file(out / f"{checkpoint}.safetensors")
    assert held.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in held.items())
    words = (
        f"evaluate {out} --attacks fgsm --no-verdict --examples 20 --checkpoint {checkpoint} --model.source {SOURCE}"
    )
    assert main(words.split()) == 0


class Viewing(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(288, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(len(x), -1))


def test_a_model_that_fails_in_channels_last_is_trained_contiguous(train) -> None:
    code, told, _ = train(lambda classes: Viewing(classes), "--averaging ema")
    assert code == 0
    assert "fails in channels_last" in told


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_model_is_trained(train) -> None:
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)
    code, told, _ = train(lambda classes: torch.jit.script(nn.Sequential(*layers)), "--averaging ema")
    assert code == 0, told


def test_the_trial_leaves_weights_statistics_modes_and_random_numbers_as_they_are() -> None:
    model = nn.Sequential(build(SmallCnn(width=4), 10, 1), nn.Dropout())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    few = pick(load(Digits(), "train"), torch.arange(2), "cpu")
    fabric = devices.start("cpu", "auto")
    torch.manual_seed(1)
    random = torch.get_rng_state()
    (line,) = ready(model, few.x, few.y, 10, fabric, copied=True, whole=True)
    assert "evaluation mode" in line
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert kept_in_eval(model) == [norms[0]]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
