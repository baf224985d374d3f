"""Random damage to configs, states and weights for a minute: a UserError in one line, or a value that is read."""

import io
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from regmix.cli.entry import main
from regmix.config import from_json
from regmix.models import ResNet, build, load_weights
from regmix.runs import Run
from regmix.types import UserError

SECONDS = 30
STRANGE: list[Any] = [
    None, True, -1, 0, 1e308, -1e-308, 10**30, "", "x", "8/255", "8/0", "\x00", "a" * 10_000, [], {}, [[]], {"name": 3},
    {"name": "regmix"}, [1, "2"], float("nan"), float("inf"),
]  # fmt: skip


def flipped(data: bytes, draw: random.Random) -> bytes:
    """The data with some bytes changed, left out, doubled or added."""
    content = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 50])):
        place = draw.randrange(len(content) + 1)
        kind = draw.randrange(4)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del content[place : place + draw.choice([1, 4, 100, len(content)])]
        elif kind == 2:
            content[place:place] = content[place : place + draw.choice([1, 20, 500])]
        else:
            content[place:place] = draw.randbytes(draw.choice([1, 3, 40]))
        if not content:
            break
    return bytes(content)


def retold(tree: Any, draw: random.Random) -> Any:
    """The tree with one value replaced by something strange, or one key by another."""
    if not isinstance(tree, dict) or not tree or draw.random() < 0.3:
        return draw.choice(STRANGE)
    key = draw.choice([*tree])
    if draw.random() < 0.2:
        return {(draw.choice(["", "seed", "né"]) if name == key else name): value for name, value in tree.items()}
    if draw.random() < 0.1:
        return {name: value for name, value in tree.items() if name != key}
    return {name: retold(value, draw) if name == key else value for name, value in tree.items()}


def one_line(error: UserError) -> None:
    assert str(error)
    assert "\n" not in str(error)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    words = "train digits-regmix --train-examples 60 --validation 50 --epochs 1 --model.width 4"
    assert main([*words.split(), "--out", str(path)]) == 0
    return path


@pytest.mark.slow
def test_configs(run: Path) -> None:
    text = (run / "config.json").read_text()
    end, seed, read = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        draw = random.Random(seed)
        if seed % 2:
            broken = json.dumps(retold(json.loads(text), draw))
        else:
            broken = flipped(text.encode(), draw).decode(errors="replace")
        try:
            from_json(broken)
            read += 1
        except UserError as error:
            one_line(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {broken[:2000]}") from error
        seed += 1
    assert 0 < read < seed


@pytest.mark.slow
def test_weights_and_states(run: Path, tmp_path: Path) -> None:
    model = build(ResNet(width=2), 3, 1, [0.0], [1.0])
    pickled = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "epoch": 3, "name": "x"}, pickled)
    old = io.BytesIO()
    torch.save(model.state_dict(), old, _use_new_zipfile_serialization=False)
    files = {
        "weights.safetensors": save(model.state_dict()),
        "weights.pth": pickled.getvalue(),
        "old.pt": old.getvalue(),
    }
    (state,) = run.glob("state-*.pt")
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "config.json").write_text((run / "config.json").read_text())
    told: list[str] = []
    end, seed = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        draw = random.Random(seed)
        name = draw.choice([*files])
        path = tmp_path / name
        path.write_bytes(flipped(files[name], draw))
        broken = copy / state.name
        broken.write_bytes(flipped(state.read_bytes(), draw))
        for attempt in (
            lambda path=path: load_weights(model, path),
            lambda: Run.open(copy).load_state(told.append),
        ):
            try:
                attempt()
            except UserError as error:
                one_line(error)
            except Exception as error:
                raise AssertionError(f"seed {seed}, {name}") from error
        seed += 1
