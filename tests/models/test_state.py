"""Checkpoints in the layouts of public code bases, and files that are refused."""

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from regmix.models import ModelConfig, PreActResNet, ResNet, SmallCnn, WideResNet, build, load_weights
from regmix.types import UserError

SMALL = [ResNet(width=4), PreActResNet(width=4), WideResNet(depth=10, widen=2), SmallCnn(width=4)]
every = pytest.mark.parametrize("config", SMALL, ids=lambda config: config.name)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

State = dict[str, Tensor]


def trained(config: ModelConfig, seed: int = 1) -> nn.Module:
    """A model with normalisation, none of whose entries is that of a fresh one."""
    torch.manual_seed(seed)
    model = build(config, 10, 3, MEAN, STD)
    model(torch.rand(4, 3, 16, 16))
    return model.eval()


def bare(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("normalise.")}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def same(model: nn.Module, expected: State) -> bool:
    state = model.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)


def error(model: nn.Module, source: Any) -> str:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, source)
    assert same(model, before), "a refused checkpoint must leave the model as it was"
    message = str(caught.value)
    assert "\n" not in message
    return message


def sequential(state: State) -> State:
    """nn.Sequential(normalise, network)."""
    norm = {f"0.{k}": state[f"normalise.{k}"] for k in ("mean", "std")}
    return norm | prefixed("1.", bare(state))


def named_wrapper(state: State) -> State:
    """A Sequential of `normalize` and `model`, as RobustBench builds it."""
    norm = {f"normalize.{k}": state[f"normalise.{k}"] for k in ("mean", "std")}
    return norm | prefixed("model.", bare(state))


def mu_sigma(state: State) -> State:
    return {"mu": state["normalise.mean"], "sigma": state["normalise.std"]} | bare(state)


def robustness(state: State) -> State:
    """The package keeps a second copy of the model in its attacker, and statistics of shape [C, 1, 1]."""
    norm = {f"new_{k}": state[f"normalise.{k}"][0] for k in ("mean", "std")}
    outside = prefixed("normalizer.", norm) | prefixed("model.", bare(state))
    inside = prefixed("attacker.normalize.", norm) | prefixed("attacker.model.", bare(state))
    return prefixed("module.", outside | inside)


LAYOUTS = {
    "own": dict,
    "module": lambda state: prefixed("module.", state),
    "module module": lambda state: prefixed("module.module.", state),
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled DDP": lambda state: prefixed("module._orig_mod.", state),
    "DDP model": lambda state: prefixed("model.module.", state),
    "state_dict": lambda state: {"epoch": 3, "state_dict": prefixed("module.", state), "best_acc": 0.5},
    "net": lambda state: {"net": OrderedDict(state), "acc": 95.0},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "nested": lambda state: {"model": {"state_dict": prefixed("model.", state)}},
    "Sequential": sequential,
    "RobustBench": named_wrapper,
    "DDP of RobustBench": lambda state: prefixed("module.", named_wrapper(state)),
    "mu, sigma": mu_sigma,
    "robustness": robustness,
    "no counters": lambda state: {k: v for k, v in state.items() if "num_batches_tracked" not in k},
    "fc": lambda state: {re.sub("^linear", "fc", name): value for name, value in state.items()},
    "linear": lambda state: {re.sub("^fc", "linear", name): value for name, value in state.items()},
    "downsample": lambda state: {k.replace(".shortcut.", ".downsample."): v for k, v in state.items()},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(3)} | prefixed("module.", state),
}


@every
@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_layouts_are_read_whole(config: ModelConfig, layout: str, tmp_path: Path) -> None:
    source = trained(config)
    expected = source.state_dict()
    if layout == "no counters":
        expected = {k: torch.zeros_like(v) if k.endswith("tracked") else v for k, v in expected.items()}
    content = LAYOUTS[layout](source.state_dict())

    from_memory, from_file = build(config, 10), build(config, 10)
    load_weights(from_memory, content)
    torch.save(content, tmp_path / "weights.pth")
    load_weights(from_file, tmp_path / "weights.pth")

    assert same(from_memory, expected)
    assert same(from_file, expected)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(from_file.eval()(x), source(x))


@every
def test_safetensors(config: ModelConfig, tmp_path: Path) -> None:
    expected = trained(config).state_dict()
    save_file(prefixed("module.", expected), tmp_path / "weights.safetensors")
    model = build(config, 10)
    load_weights(model, str(tmp_path / "weights.safetensors"))
    assert same(model, expected)


def test_trades_unused_stage_is_dropped() -> None:
    expected = trained(WideResNet(depth=10, widen=2)).state_dict()
    extra = {f"sub_{name}": value for name, value in expected.items() if name.startswith("block1.")}
    model = build(WideResNet(depth=10, widen=2), 10)
    load_weights(model, prefixed("module.", expected | extra))
    assert same(model, expected)


@every
def test_without_statistics_in_the_file_the_models_own_stay(config: ModelConfig) -> None:
    expected = trained(config).state_dict()
    model = build(config, 10, 3, MEAN, STD)
    load_weights(model, bare(expected))
    assert same(model, expected)


def test_half_of_a_normalisation_is_refused() -> None:
    state = trained(SmallCnn()).state_dict()
    del state["normalise.std"]
    assert "missing normalise.std" in error(build(SmallCnn(), 10), state)


def test_wrapped_and_foreign_models_can_be_filled() -> None:
    source = trained(SmallCnn(width=4))
    wrapped = AveragedModel(build(SmallCnn(width=4), 10))
    load_weights(wrapped.module, source.state_dict())
    assert same(wrapped.module, source.state_dict())

    foreign = nn.Sequential(OrderedDict(normalize=nn.Identity(), model=build(SmallCnn(width=4), 10)))
    load_weights(foreign, source.state_dict())
    assert same(foreign.model, source.state_dict())

    pair = nn.ModuleDict({"model": nn.Linear(2, 2), "net": nn.Linear(2, 2)})
    expected = {name: torch.randn_like(value) for name, value in pair.state_dict().items()}
    load_weights(pair, expected)
    assert same(pair, expected)


def test_weights_take_the_models_type() -> None:
    expected = trained(SmallCnn()).state_dict()
    model = build(SmallCnn(), 10).double()
    load_weights(model, {k: v.half() if v.is_floating_point() else v for k, v in expected.items()})
    weight = model.state_dict()["conv1.weight"]
    assert weight.dtype == torch.float64
    torch.testing.assert_close(weight, expected["conv1.weight"].half().double())


@pytest.mark.parametrize(
    ("theirs", "ours", "guess"),
    [
        (ResNet(width=16), ResNet(width=4), "the file looks like width 16, the model has 4"),
        (PreActResNet(width=8), PreActResNet(width=4), "the file looks like width 8, the model has 4"),
        (SmallCnn(width=8), SmallCnn(width=4), "the file looks like width 8, the model has 4"),
        (
            WideResNet(depth=10, widen=2),
            WideResNet(depth=10, widen=1),
            "the file looks like widen 2, the model has 1",
        ),
        (
            WideResNet(depth=16, widen=1),
            WideResNet(depth=10, widen=1),
            "the file looks like depth 16, the model has 10",
        ),
        (
            ResNet(depth=34, width=4),
            ResNet(depth=18, width=4),
            "the file looks like depth 34, the model has 18",
        ),
        (
            ResNet(depth=18, width=4),
            ResNet(depth=34, width=4),
            "the file looks like depth 18, the model has 34",
        ),
        (
            ResNet(width=4),
            WideResNet(depth=10, widen=1),
            "the file looks like architecture ResNet, the model has WideResNet",
        ),
        (
            SmallCnn(width=4),
            PreActResNet(width=4),
            "the file looks like architecture SmallCnn, the model has PreActResNet",
        ),
    ],
    ids=str,
)
def test_another_models_weights_are_explained(theirs: ModelConfig, ours: ModelConfig, guess: str) -> None:
    message = error(build(ours, 10), prefixed("module.", trained(theirs).state_dict()))
    assert message.startswith("the state dict does not fit the model: ")
    assert message.endswith(guess)


def test_other_classes_channels_and_a_missing_final_bn_are_explained() -> None:
    state = trained(SmallCnn(width=4)).state_dict()
    assert error(build(SmallCnn(width=4), 100), state).endswith(
        "other shape linear.weight [10, 16] instead of [100, 16], linear.bias [10] instead of [100]; "
        "the file looks like classes 10, the model has 100"
    )
    grey = build(SmallCnn(width=4), 10, channels=1)
    assert error(grey, bare(state)).endswith("the file looks like channels 3, the model has 1")
    state = trained(PreActResNet(width=4)).state_dict()
    message = error(build(PreActResNet(width=4), 10), {k: v for k, v in state.items() if not k.startswith("bn.")})
    assert "missing bn.weight, bn.bias, bn.running_mean and 1 more" in message
    assert message.endswith("looks like final_norm False, the model has True")


def test_missing_and_unexpected_entries_are_named() -> None:
    state = trained(SmallCnn()).state_dict()
    state["extra.weight"] = state.pop("conv2.weight")
    message = error(build(SmallCnn(), 10), state)
    assert "missing conv2.weight; unexpected extra.weight" in message


def test_two_sets_of_weights_in_one_state_are_refused() -> None:
    state = trained(SmallCnn()).state_dict()
    both = prefixed("module.", state) | prefixed("model.", state)
    assert "twice" in error(build(SmallCnn(), 10), both)


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_pickled_code_is_refused_and_not_run(form: str, suffix: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / f"weights{suffix}"
    content = {"state_dict": {}, "bait": Payload(victim)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = error(build(SmallCnn(), 10), path)
    assert not victim.exists()
    assert message.startswith(f"{path} ")
    if suffix == ".pth" and form != "pickle":
        assert message.startswith(f"{path} needs pickled code (posix.mkdir)")


def test_a_whole_pickled_model_or_numpy_in_the_file_is_refused(tmp_path: Path) -> None:
    model, path = build(SmallCnn(), 10), tmp_path / "weights.pt"
    torch.save(model, path)
    assert "needs pickled code (regmix.models.small.SmallNetwork)" in error(model, path)
    torch.save({"state_dict": model.state_dict(), "accuracy": np.float64(0.5)}, path)
    assert "needs pickled code (numpy" in error(model, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.5, 0.99])
def test_truncated_files_are_reported_with_their_path(suffix: str, keep: float, tmp_path: Path) -> None:
    model, path = build(SmallCnn(width=4), 10), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(model.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert error(model, path).startswith(f"{path} is truncated or not a ")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"not a checkpoint\n" * 100, b"\x80\x02garbage", b"PK\x03\x04" + bytes(500)])
def test_files_of_another_kind_are_reported(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert error(build(SmallCnn(), 10), tmp_path / name).startswith(f"{tmp_path / name} is truncated or not a ")


def test_files_without_weights_are_told(tmp_path: Path) -> None:
    model, path = build(SmallCnn(), 10), tmp_path / "weights.pt"
    assert error(model, path).startswith(f"{path} is not a file; give")
    assert error(model, tmp_path).startswith(f"{tmp_path} is not a file; give")
    torch.save({"epoch": 3, "lr": 0.1}, path)
    assert error(model, path) == f"{path} holds no weights; its entries are epoch, lr"
    torch.save({}, path)
    assert error(model, path) == f"{path} holds no weights; it is empty"
    torch.save([torch.zeros(3)], path)
    assert error(model, path) == f"{path} must hold a state dict, not a list; save model.state_dict() alone"


def test_an_archive_with_a_damaged_directory_is_one_line(tmp_path: Path) -> None:
    model, path = build(SmallCnn(width=4), 10), tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 2] = 9
    path.write_bytes(content)
    assert error(model, path).startswith(f"{path} is truncated or not a PyTorch checkpoint")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("loader", ["torch.jit.load", "torch.export.load"])
def test_programs_are_told_from_damaged_files(loader: str, tmp_path: Path) -> None:
    model, path = build(SmallCnn(width=4), 10).eval(), tmp_path / "weights.pt"
    if loader == "torch.jit.load":
        torch.jit.trace(model, torch.zeros(1, 3, 8, 8)).save(path)
    else:
        torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 8, 8),)), tmp_path / "weights.pt2")
        (tmp_path / "weights.pt2").rename(path)
    assert error(model, path) == (
        f"{path} is a program, not a file of weights; save the state dict of what {loader} returns"
    )
