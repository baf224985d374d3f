"""The features of a model: the input of the linear layer that makes the logits."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from contracts.torchvision_operators import declare_operators_of_torchvision
from regmix.cli.entry import main
from regmix.methods.features import logits_and_features
from regmix.models import PreActResNet, ResNet, SmallCnn, Timm, Transformers, WideResNet, build
from regmix.models.base import Normalise
from regmix.models.function import only_logits
from regmix.types import UserError


@pytest.mark.parametrize("config", [SmallCnn(width=4), ResNet(width=4), PreActResNet(width=4), WideResNet(10, 1)])
def test_every_network_here_has_them(config) -> None:
    model, x = build(config, 7).eval(), torch.rand(2, 3, 16, 16)
    logits, features = logits_and_features(model, x)
    assert torch.equal(logits, model(x))
    (last,) = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 7]
    assert features.shape == (2, last.in_features)
    assert torch.equal(last(features), logits)
    assert not last._forward_hooks


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_networks_of_timm_have_them(architecture: str) -> None:
    declare_operators_of_torchvision()
    pytest.importorskip("timm")
    model = Timm(architecture=architecture).network(5, Normalise(3, (0.5,), (0.25,)))
    assert logits_and_features(model.eval(), torch.rand(1, 3, 160, 160))[1].ndim == 2


def test_networks_of_transformers_have_them(tmp_path: Path) -> None:
    declare_operators_of_torchvision()
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.ViTConfig(image_size=16, patch_size=8, **sizes).save_pretrained(tmp_path)
    model = Transformers(repository=str(tmp_path)).network(5, Normalise(3, (0.5,), (0.25,)))
    assert logits_and_features(model.eval(), torch.rand(2, 3, 16, 16))[1].shape == (2, 16)


class Own(nn.Module):
    """A model of a user, whose logits lie in an object."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.body, self.head, self.scale = nn.Linear(12, 6), nn.Linear(6, 3), scale
        self.register_forward_hook(only_logits)

    def forward(self, x: Tensor) -> object:
        logits = self.head(self.body(x.flatten(1)).relu())
        return SimpleNamespace(logits=logits if self.scale == 1 else self.scale * logits)


def test_a_model_of_your_own_has_them_if_it_ends_with_a_linear_layer() -> None:
    model, x = Own(), torch.rand(4, 3, 2, 2)
    logits, features = logits_and_features(model, x)
    assert torch.equal(features, model.body(x.flatten(1)).relu())
    assert logits.requires_grad
    assert features.requires_grad


@pytest.mark.parametrize(
    "model",
    [
        Own(scale=2.0),
        nn.Sequential(nn.Conv2d(3, 3, 2), nn.Flatten()),
    ],
    ids=["scaled logits", "no linear layer"],
)
def test_another_model_is_refused_in_one_line(model: nn.Module) -> None:
    with pytest.raises(UserError, match="end the model with such a layer") as refused:
        logits_and_features(model, torch.rand(4, 3, 2, 2))
    assert "\n" not in str(refused.value)


def test_training_refuses_such_a_model_before_it_writes_anything(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "scaled.py").write_text(
        "from torch import nn\n\nclass Scaled(nn.Sequential):\n    def forward(self, x):\n"
        "        return 2 * super().forward(x)\n\ndef make(classes):\n"
        "    return Scaled(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    asked = "train digits-regmix --train-examples 60 --validation 20 --epochs 1 --model scaled:make"
    assert main(f"{asked} --method fgsm_law --out {run}".split()) != 0
    assert "end the model with such a layer" in capsys.readouterr().err
    assert not run.exists()
