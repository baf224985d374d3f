"""`regmix train` and `--model`: what names a network."""

import pytest

from regmix.cli.train import parse_training
from regmix.models import Function, ModelConfig, ResNet, Timm, Transformers
from regmix.types import UserError


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("timm:resnet18.a1_in1k", Timm("resnet18.a1_in1k")),
        ("hf:google/vit-base-patch16-224", Transformers("google/vit-base-patch16-224")),
        ("my_models:make", Function("my_models:make")),
        ("resnet", ResNet()),
    ],
)
def test_a_model_is_named_in_one_word(text: str, model: ModelConfig) -> None:
    for words in (["digits-regmix", "--model", text], ["digits-regmix", f"--model={text}"]):
        assert parse_training(words)[1].experiment.model == model


def test_pretrained_weights_need_a_library_that_has_them() -> None:
    with pytest.raises(UserError, match="--init pretrained is for a model of timm or transformers"):
        parse_training(["digits-regmix", "--init", "pretrained"])
    with pytest.raises(UserError, match="leave out --normalise"):
        parse_training(["digits-regmix", "--model", "timm:resnet18", "--init", "pretrained", "--normalise"])
