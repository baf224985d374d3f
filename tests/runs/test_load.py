"""A run's model, loaded to be used: without the data, from weights of our own and from elsewhere."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

import regmix
from contracts.evaluated import folder
from regmix.cli.entry import main
from regmix.data import Digits, load
from regmix.runs import CHECKPOINTS
from regmix.types import Doubt, UserError

TINY = "--train-examples 200 --validation 50 --epochs 3 --model.width 4 --seed 3"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(f"train digits-regmix {TINY} --out {path}".split()) == 0
    assert main(f"evaluate {path} --attacks clean --no-verdict".split()) == 0
    return path


def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: Digits, split: str) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr(Digits, "read", lost)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_it_is_right_where_the_evaluation_saw_it_right(checkpoint, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = load(Digits(), "test")
    without_data(monkeypatch)
    model, classes, shape = regmix.load_model(run, checkpoint)
    assert classes == tuple("0123456789")
    assert shape == (1, 8, 8)
    assert not model.training
    with torch.no_grad():
        right = model(test.images.float() / 255).argmax(1) == test.labels
    with (folder(run, checkpoint) / "outcomes.csv").open() as file:
        seen = [row["clean"] for row in csv.DictReader(file)]
    assert [str(int(value)) for value in right] == seen
    assert 0 < right.float().mean() < 1


def test_the_best_weights_are_meant_where_none_are_named(run: Path) -> None:
    unnamed, best, last = (regmix.load_model(str(run), *name).model.state_dict() for name in ((), ("best",), ("last",)))
    opened = regmix.load_model(regmix.Run.open(str(run))).model.state_dict()
    assert all(torch.equal(unnamed[name], best[name]) and torch.equal(opened[name], best[name]) for name in best)
    assert {*best} == {*last}


def test_a_model_from_elsewhere_is_loaded_like_our_own(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = regmix.load_model(run)
    torch.save(ours.model.state_dict(), tmp_path / "theirs.pth")
    words = f"evaluate {tmp_path / 'theirs.pth'} --data digits --model small_cnn --model.width 4 --threat.eps 0.1"
    assert main([*words.split(), *f"--attacks clean --no-verdict --examples 20 --out {tmp_path / 'out'}".split()]) == 0
    without_data(monkeypatch)
    theirs = regmix.load_model(tmp_path / "out")
    assert theirs[1:] == ours[1:]
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(theirs.model(x), ours.model(x))


def test_the_transform_makes_of_a_picture_what_the_run_was_tested_on(run: Path) -> None:
    from PIL import Image

    trained = regmix.load_model(run)
    test = load(Digits(), "test")
    picture = Image.fromarray(test.images[7, 0].numpy())
    assert torch.equal(trained.transform(picture), test.images[7].float() / 255)
    assert tuple(trained.transform(picture.resize((31, 20))).shape) == trained.shape


def test_a_file_of_weights_stands_for_its_checkpoint(run: Path, tmp_path: Path) -> None:
    x = torch.rand(5, 1, 8, 8)
    for checkpoint in CHECKPOINTS:
        with torch.no_grad():
            from_file = regmix.load_model(run / f"{checkpoint}.safetensors").model(x)
            assert torch.equal(from_file, regmix.load_model(run, checkpoint).model(x))
    with pytest.raises(UserError, match="holds the last weights; leave out checkpoint='best'"):
        regmix.load_model(run / "last.safetensors", "best")
    (tmp_path / "last.safetensors").write_bytes((run / "last.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"nothing beside .* says which network its weights are for"):
        regmix.load_model(tmp_path / "last.safetensors")


def test_a_run_is_loaded_from_any_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = regmix.load_model(run).model.state_dict()
    monkeypatch.chdir(tmp_path)
    relative = os.path.relpath(run)
    found = regmix.load_model(relative).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_run_that_was_killed_is_loaded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regmix.training import validation

    real, calls = validation.validate, []

    def interrupted(*arguments, **more):
        calls.append(0)
        if len(calls) > 2:  # the weights and their average, once each
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(validation, "validate", interrupted)
    assert main(f"train digits-regmix {TINY} --out {tmp_path / 'killed'}".split()) == 130
    assert regmix.load_model(tmp_path / "killed", "last").shape == (1, 8, 8)


def test_what_is_missing_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        regmix.load_model(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "result.json", "last.safetensors"):
        (copy / name).write_bytes((run / name).read_bytes())
    with pytest.raises(UserError, match="no best weights; it has: last"):
        regmix.load_model(copy, "best")
    with pytest.warns(Doubt, match=r"best\.safetensors, the weights of epoch \d+, was removed"):
        assert regmix.load_model(copy).classes
    facts = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({"status": facts["status"]}))
    with pytest.raises(UserError, match="does not say which images the model takes"):
        regmix.load_model(copy)
    (copy / "last.safetensors").unlink()
    with pytest.raises(UserError, match="it has: none yet"):
        regmix.load_model(copy)
