"""Which parts of a model are gathered on their own where weights are sharded; the rest is in tests/distributed."""

import torch
from torch import nn

from regmix.models import ResNet, build
from regmix.runtime import sharded


def test_blocks_are_what_is_called_as_a_whole() -> None:
    """Not attention, whose output is a view, nor a sequence that a model may walk through, nor a lone layer."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.TransformerEncoder(layer, 2)), nn.Linear(8, 2))
    found = [type(block).__name__ for block in sharded._blocks(model)]
    assert found == ["TransformerEncoder", "TransformerEncoderLayer", "TransformerEncoderLayer"]
    assert [type(block).__name__ for block in sharded._blocks(build(ResNet(width=4), 10))] == ["ResidualBlock"] * 8


def test_weights_that_are_not_sharded_stay_what_they_are() -> None:
    model = nn.Linear(2, 3)
    state = model.state_dict()
    assert sharded.whole({"model": state, "t": 1}) == {"model": state, "t": 1}
    assert sharded.local(model.weight) is model.weight
    assert sharded.share(state["weight"], model.weight) is state["weight"]
    assert not sharded.is_sharded(model.parameters())
    sharded.load(model, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)})
    assert torch.equal(model.weight, torch.ones(3, 2))
