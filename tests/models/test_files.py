"""Files with several sets of weights, values that no network has, and networks that share their names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from regmix.models import ResNet, SmallCnn, build, load_weights
from regmix.types import UserError

State = dict[str, Tensor]


def drawn(seed: int, config: Any = None) -> State:
    torch.manual_seed(seed)
    return build(config or SmallCnn(width=2), 10, 1).state_dict()


def refused(source: Any, weights: str | None = None) -> str:
    model = build(SmallCnn(width=2), 10, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, source, weights)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before), "a refused file leaves the model alone"
    message = str(caught.value)
    assert "\n" not in message
    return message


RAW, AVERAGED = drawn(1), drawn(2)


@pytest.mark.parametrize(
    ("raw", "averaged", "content"),
    [
        ("state_dict", "ema_state_dict", {"state_dict": RAW, "ema_state_dict": AVERAGED}),
        ("state_dict", "state_dict_ema", {"state_dict_ema": AVERAGED, "epoch": 3, "state_dict": RAW}),
        ("model", "model_ema", {"model": RAW, "model_ema": {f"module.{k}": v for k, v in AVERAGED.items()}}),
        ("model", "swa_model", {"model": RAW, "swa_model": {"n_averaged": torch.tensor(3), **AVERAGED}}),
        ("net", "averaged_model", {"net": RAW, "averaged_model": AVERAGED}),
        ("model.state_dict", "model.ema", {"model": {"state_dict": RAW, "ema": AVERAGED}}),
        ("net", "ema.shadow", {"net": RAW, "ema": {"decay": 0.999, "shadow": AVERAGED}}),
        ("top", "ema", {**RAW, "ema": AVERAGED}),
        (
            "state_dict",
            "state_dict.ema_model",
            {
                "state_dict": {
                    **{f"model.{k}": v for k, v in RAW.items()},
                    **{f"ema_model.{k}": AVERAGED[k] for k in RAW},
                }
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_raw_and_averaged_weights_in_one_file_are_a_choice(raw: str, averaged: str, content: dict[str, Any]) -> None:
    message = refused(content)
    assert f"--weights raw ({raw})" in message
    assert f"--weights averaged ({averaged})" in message
    for choice, expected in (("raw", RAW), ("averaged", AVERAGED), (raw, RAW), (averaged, AVERAGED)):
        model = build(SmallCnn(width=2), 10, 1)
        loaded = load_weights(model, content, choice)
        assert torch.equal(model.state_dict()["conv1.weight"], expected["conv1.weight"])
        unused, used = (raw, averaged) if expected is AVERAGED else (averaged, raw)
        assert f"tensors loaded from {used}" in loaded.summary()
        assert unused in loaded.left_over
    damaged = {name: value for name, value in RAW.items() if name != "conv1.weight"}
    assert "--weights raw (top)" in refused({**damaged, "ema": AVERAGED}), "not the average, silently"
    assert "has no best weights" in refused(content, "best")


def test_entries_of_any_name_that_fit_the_model_are_a_choice_too() -> None:
    model = build(SmallCnn(width=2), 10, 1)
    load_weights(model, {"best_checkpoint": RAW, "optimizer": {"state": {"conv1.weight": {"exp_avg": torch.ones(3)}}}})
    assert torch.equal(model.state_dict()["linear.bias"], RAW["linear.bias"])
    assert "--weights NAME, of student, teacher" in refused({"student": RAW, "teacher": AVERAGED})
    load_weights(model, {"student": RAW, "teacher": AVERAGED}, "teacher")
    assert torch.equal(model.state_dict()["linear.bias"], AVERAGED["linear.bias"])
    # another network's weights beside them are no choice
    load_weights(model, {"student": RAW, "teacher": drawn(3, SmallCnn(width=4))})
    assert torch.equal(model.state_dict()["linear.bias"], RAW["linear.bias"])


def test_a_file_that_holds_itself_ends() -> None:
    loop: dict[str, Any] = {}
    loop["state_dict"] = loop
    assert "holds no weights" in refused(loop)


def test_the_same_weights_under_two_names_are_no_choice(tmp_path: Path) -> None:
    torch.save({"state_dict": RAW, "model_ema": RAW}, tmp_path / "same.pt")
    load_weights(build(SmallCnn(width=2), 10, 1), tmp_path / "same.pt")


def test_averages_alone_are_no_choice() -> None:
    model = build(SmallCnn(width=2), 10, 1)
    told = load_weights(model, {"model_ema": AVERAGED, "epoch": 7}).summary()
    assert told == f"the state dict: {len(AVERAGED)} of {len(AVERAGED)} tensors loaded"
    assert torch.equal(model.state_dict()["conv2.weight"], AVERAGED["conv2.weight"])
    assert refused({"model_ema": AVERAGED}, "raw").startswith("the state dict has no raw weights; it has model_ema")


def test_what_was_loaded_kept_left_over_and_converted_is_told(tmp_path: Path) -> None:
    state = {f"module.{name}": value.half() for name, value in RAW.items() if not name.startswith("normalise.")}
    save_file({**state, "n_averaged": torch.tensor(5)}, tmp_path / "w.safetensors")
    told = load_weights(build(SmallCnn(width=2), 10, 1), tmp_path / "w.safetensors").summary()
    assert told == (
        f"{tmp_path / 'w.safetensors'}: {len(RAW) - 2} of {len(RAW)} tensors loaded; "
        "kept from the model: normalise.mean, normalise.std; left over: n_averaged; converted from float16"
    )


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats_are_the_same_weights(kind: torch.dtype) -> None:
    model = build(SmallCnn(width=2), 10, 1)
    loaded = load_weights(model, {name: value.to(kind) for name, value in RAW.items()})
    assert loaded.converted == (str(kind).removeprefix("torch."),)
    assert torch.equal(model.state_dict()["conv1.weight"], RAW["conv1.weight"].to(kind).float())
    assert model.state_dict()["bn1.num_batches_tracked"].dtype == torch.int64


def test_averaged_counters_are_no_fault() -> None:
    model = build(SmallCnn(width=2), 10, 1)
    load_weights(model, RAW | {"bn1.num_batches_tracked": torch.tensor(3.7)})
    assert int(model.state_dict()["bn1.num_batches_tracked"]) == 3


def quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.to(torch.int8), "int8"),
        (lambda value: value.to(torch.int64), "int64"),
        (lambda value: value > 0, "bool"),
        (lambda value: value.to(torch.complex64) * 1j, "complex64"),
        (lambda value: value.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda value: value.to_sparse(), "sparse"),
        (lambda value: value.to("meta"), "without values"),
        pytest.param(
            quantised, "quantised", marks=pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
        ),
    ],
    ids=["int8", "int64", "bool", "complex", "float8", "sparse", "meta", "quantised"],
)  # fmt: skip
def test_values_that_are_no_plain_floats_are_refused(change: Callable[[Tensor], Tensor], said: str) -> None:
    for name in ("conv2.weight", "normalise.std"):
        message = refused(RAW | {name: change(RAW[name])})
        assert message.startswith(f"the state dict: {name} is {said}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["linear.weight", "bn3.running_var", "bn1.running_mean", "normalise.mean"])
def test_values_that_are_not_finite_are_refused(name: str, value: float) -> None:
    broken = RAW[name].clone()
    broken.view(-1)[-1] = value
    message = refused(RAW | {name: broken})
    assert f"is not finite in 1 of {len(RAW)} tensors (such as {name})" in message


def test_values_that_overflow_the_models_type_are_refused() -> None:
    double = RAW["conv1.weight"].double()
    double[0] = 1e300
    assert "is not finite" in refused(RAW | {"conv1.weight": double})


def test_negative_variances_and_deviations_of_zero_are_refused() -> None:
    for value in (-1.0, -1e-45):
        broken = RAW["bn2.running_var"].clone()
        broken[1] = value
        assert "negative variances in bn2.running_var" in refused(RAW | {"bn2.running_var": broken})
    assert "must be positive" in refused(RAW | {"normalise.std": torch.zeros(1, 1, 1, 1)})


class Net(nn.Module):
    """A foreign model whose names invite wrong renamings: two heads, a learned mean, and a layer called 1."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.linear, self.classifier = (nn.Linear(3, 3) for _ in range(3))
        self.mean, self.std = (nn.Parameter(torch.rand(3)) for _ in range(2))
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def test_foreign_models_are_filled_by_their_own_names() -> None:
    expected = Net().state_dict()
    for state in (expected, {f"module.{k}": v for k, v in expected.items()}, {"model": expected}):
        model = Net()
        loaded = load_weights(model, state)
        assert not loaded.kept
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    wrapped = nn.Sequential(nn.Identity(), Net())
    load_weights(wrapped, expected)
    assert all(torch.equal(value, expected[name]) for name, value in wrapped[1].state_dict().items())


@pytest.mark.parametrize("missing", ["mean", "fc.weight", "classifier.bias", "body.1.weight"])
def test_nothing_of_a_foreign_model_is_guessed(missing: str) -> None:
    state = Net().state_dict()
    state[f"other_{missing}"] = state.pop(missing)
    with pytest.raises(UserError, match=f"missing {missing}; unexpected other_{missing}"):
        load_weights(Net(), state)


def test_a_heads_other_name_is_understood_in_our_networks_only() -> None:
    state = {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    with pytest.raises(UserError, match=r"missing linear\.weight"):
        load_weights(nn.ModuleDict({"linear": nn.Linear(2, 2)}), state)


def test_a_foreign_wrappers_normalisation_may_be_missing_and_is_told() -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.full((3,), 0.5))
            self.register_buffer("std", torch.full((3,), 0.25))
            self.net = nn.Linear(3, 2)

    model = Outside()
    loaded = load_weights(model, {"weight": torch.ones(2, 3), "bias": torch.ones(2)})
    assert loaded.kept == ("mean", "std")
    assert torch.equal(model.net.weight, torch.ones(2, 3))


def test_tied_tensors_are_in_a_file_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items() if name != "1.weight"}
    assert not load_weights(model, state).kept
    assert torch.equal(second.weight, state["0.weight"])


def test_names_of_a_file_reach_no_terminal_unescaped() -> None:
    message = refused(RAW | {"a\n\x1b[31mb": torch.zeros(1)})
    assert "\x1b" not in message


def test_the_stem_of_imagenets_networks_is_explained() -> None:
    state = drawn(1, ResNet(width=4)) | {"conv1.weight": torch.zeros(4, 1, 7, 7)}
    with pytest.raises(UserError, match="looks like kernel of conv1 7, the model has 3"):
        load_weights(build(ResNet(width=4), 10, 1), state)
