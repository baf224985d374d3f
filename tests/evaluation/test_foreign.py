"""Files of weights and functions, as run directories: what is loaded, what is asked, and what is not written."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from contracts.evaluated import folder, record
from regmix.cli.entry import main
from regmix.cli.evaluate import result_name
from regmix.config import Experiment
from regmix.data import Digits, ImageSet, draw, load, pick
from regmix.evaluation import foreign, subject
from regmix.evaluation.foreign import Foreign
from regmix.models import PreActResNet, SmallCnn, build, load_weights
from regmix.runs import evaluations
from regmix.runtime.files import digest
from regmix.types import UserError

OWN = """
import pathlib
import numpy as np
import torch
def net(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))
class Detached(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()
def blind(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), Detached(64, classes))
class Noise(torch.nn.Module):
    def forward(self, x):
        return x + 0.3 * torch.randn_like(x)
class Scaled(torch.nn.Linear):
    def forward(self, x):
        return super().forward(float(pathlib.Path("scale.txt").read_text()) * x)
def scaled(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), Scaled(64, classes))
class OtherNoise(torch.nn.Module):
    def forward(self, x):
        return x + 0.3 * torch.from_numpy(np.random.standard_normal(x.shape)).to(x)
def other_noise(classes):
    return torch.nn.Sequential(OtherNoise(), torch.nn.Flatten(), torch.nn.Linear(64, classes))
class Kept(torch.nn.Dropout):
    def train(self, mode=True):
        return super().train(True)
def mc(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), Kept(0.9), torch.nn.Linear(64, classes))
class InNumpy(torch.nn.Linear):
    def forward(self, x):
        return super().forward(torch.from_numpy(x.numpy().copy()))
def numpy(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), InNumpy(64, classes))
class Fails(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) / (x[:, 20:28].sum(1, keepdim=True) > 2)
def partly(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), Fails(64, classes))
def exported(classes):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))
    return torch.export.export(model, (torch.zeros(2, 1, 8, 8),)).module()
def noisy(classes):
    return torch.nn.Sequential(Noise(), torch.nn.Flatten(), torch.nn.Linear(64, classes))
"""


@pytest.fixture
def fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, float]:
    """A folder with nets.py and the weights of its model in plain.pt; the model, and its accuracy in percent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)  # of the test before
    batch = pick(train := load(Digits(), "train"), torch.arange(len(train)), "cpu")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()
    digits = load(Digits(), "test")
    test = pick(digits, draw(digits.labels, 100)[1], "cpu")
    right = float((model(test.x).argmax(1) == test.y).double().mean())
    assert right > 0.8
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    return model, 100 * right


WORDS = "--data digits --attacks fgsm --examples 100 --threat.eps 0.02 --no-verdict --out out"


def test_a_random_model_gets_the_same_record_again(fitted) -> None:
    """Also in what comes after the attacks: the verdict, and the images that are shown and saved."""
    found = []
    for number in range(2):
        torch.manual_seed(number)
        weights = {f"2.{name.removeprefix('1.')}": value for name, value in fitted[0].state_dict().items()}
        torch.save(weights, "noisy.pt")
        words = "evaluate noisy.pt --model function --model.source nets:noisy --data digits"
        asked = f"--examples 60 --out {number} --attacks pgd-2 --threat.eps 0.05 --draws 2 --save"
        assert main(f"{words} {asked}".split()) == 0
        kept = record(Path(f"{number}"))
        examples = (folder(Path(f"{number}")) / "examples.npz").read_bytes()
        rounded = kept["columns"]["pgd-2@0.05"]["rounded"]
        found.append((kept["masking"], rounded, kept["preflight"], examples))
    assert found[0] == found[1]


def test_models_whose_answers_are_random_are_not_taken_for_others(fitted, capsys) -> None:
    """Their random numbers need not be torch's."""
    torch.save({f"2.{name.removeprefix('1.')}": value for name, value in fitted[0].state_dict().items()}, "noisy.pt")
    words = f"evaluate noisy.pt --model function --model.source nets:other_noise {WORDS}"
    assert main(words.split()) == 0
    assert main(words.replace("fgsm", "pgd-2").split()) == 0
    assert "the model is random" in capsys.readouterr().out


def test_columns_of_two_models_are_not_mixed(fitted, capsys) -> None:
    """Nothing but the answers shows that a file which the model reads has changed."""
    words = f"evaluate plain.pt --model function --model.source nets:scaled {WORDS}"
    Path("scale.txt").write_text("1")
    assert main(words.split()) == 0
    Path("scale.txt").write_text("1.0001")
    assert main(words.replace("fgsm", "pgd-2").split()) == 0, "a rounding flips no more than an image"
    before = record(Path("out"))
    Path("scale.txt").write_text("-1")
    capsys.readouterr()
    assert main(words.replace("fgsm", "pgd-3").split()) == 2
    assert "is about another model" in capsys.readouterr().err
    assert record(Path("out")) == before


def test_what_a_model_keeps_on_in_evaluation_mode_stays_on(fitted, capsys) -> None:
    torch.save({f"2.{name.removeprefix('1.')}": value for name, value in fitted[0].state_dict().items()}, "mc.pt")
    assert main(f"evaluate mc.pt --model function --model.source nets:mc {WORDS}".split()) == 0
    assert "the model is random" in capsys.readouterr().out
    assert record(Path("out"))["columns"]["clean"]["accuracy"] < fitted[1] / 100 - 0.1


def test_a_model_that_fails_on_images_with_a_gradient_is_attacked_without(fitted, capsys) -> None:
    words = f"evaluate plain.pt --model function --model.source nets:numpy {WORDS}"
    assert main(words.split()) == 2
    assert "the model fails on images that need a gradient" in capsys.readouterr().err
    assert not Path("out").exists()
    assert main(words.replace("fgsm", "square-20").split()) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nets:partly", "not finite"),  # on a few images only
        (
            "plain.pt --model function --model.source nets:net --threat l1 --attacks hop-skip-jump",
            "made for L-inf and L2",
        ),
        ("plain.pt --model function --model.source nets:net --curve ddn", "L2 threat"),
    ],
)
def test_nothing_is_written_for_what_is_refused(fitted, words: str, said: str, capsys) -> None:
    assert (
        main(f"evaluate {words} {WORDS if 'hop' not in words else WORDS.replace('--attacks fgsm ', '')}".split()) == 2
    )
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_module_of_torch_export_is_refused(fitted, capsys) -> None:
    assert main(f"evaluate nets:exported {WORDS}".split()) == 2
    assert "return the nn.Module that was exported" in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_weights_of_a_file_are_a_functions_too(fitted, capsys) -> None:
    assert main(f"evaluate plain.pt --model function --model.source nets:net {WORDS}".split()) == 0
    told = capsys.readouterr().out
    assert "plain.pt: 2 of 2 tensors loaded\n" in told
    assert f"{fitted[1]:.1f}%" in told


def test_examples_are_not_transferred_from_a_model_without_a_gradient(fitted, capsys) -> None:
    same = "--data digits --examples 20 --threat.eps 0.02 --no-verdict"
    assert main(f"evaluate nets:blind {same} --attacks square-5 --out blind".split()) == 0
    assert main(f"evaluate nets:net {same} --attacks transfer:blind --trust-code --out out".split()) == 2
    error = capsys.readouterr().err
    assert "/blind: no gradient flows from the model's logits to the images" in error
    assert error.count("\n") == 1


def test_a_function_without_a_file_says_whose_weights_they_are(fitted, capsys) -> None:
    assert main(f"evaluate nets:net {WORDS}".split()) == 0
    told = capsys.readouterr().out
    assert "nets:net: no file was loaded; the weights are those that nets:net returns\n" in told


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        (lambda state: {"1.weight": state["1.weight"]}, "", "missing 1.bias"),
        (lambda state: state | {"2.weight": torch.zeros(3)}, "", "unexpected 2.weight"),
        (lambda state: state | {"1.bias": torch.zeros(11)}, "", "1.bias [11] instead of [10]"),
        (lambda state: state | {"1.bias": torch.full((10,), torch.inf)}, "", "not finite"),
        (
            lambda state: {"state_dict": state, "ema": {name: -value for name, value in state.items()}},
            "",
            "--weights raw (state_dict) or --weights averaged (ema)",
        ),
        (lambda state: state, "--weights averaged", "has no averaged weights"),
        (lambda state: {name: 3e38 * value.sign() for name, value in state.items()}, "", "logits are not finite"),
    ],
)
def test_a_file_that_is_refused_leaves_nothing(fitted, tmp_path, capsys, change, more, said) -> None:
    torch.save(change(torch.load("plain.pt")), "plain.pt")
    before = sorted(tmp_path.rglob("*.p*t*"))
    assert main(f"evaluate plain.pt --model function --model.source nets:net {WORDS} {more}".split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert sorted(tmp_path.rglob("*.p*t*")) == before
    assert not (tmp_path / "out").exists()


def test_one_of_two_sets_of_weights_is_evaluated_and_told(fitted, capsys) -> None:
    state = torch.load("plain.pt")
    wrong = {name: -value for name, value in state.items()}
    torch.save({"state_dict": wrong, "state_dict_ema": state}, "plain.pt")
    words = f"evaluate plain.pt --model function --model.source nets:net --weights averaged {WORDS}"
    assert main(words.split()) == 0
    told = capsys.readouterr().out
    assert "plain.pt: 2 of 2 tensors loaded from state_dict_ema; left over: state_dict" in told
    assert f"{fitted[1]:.1f}%" in told


@pytest.mark.parametrize("source", ["plain.pt --model function --model.source nets:net", "nets:net"])
def test_a_model_is_built_once_and_the_test_set_read_once(fitted, monkeypatch, source) -> None:
    counts: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(*words: Any, **more: Any) -> Any:
            counts.update([f"{name} weights" if str(words[0]).endswith(".safetensors") else name])
            return real(*words, **more)

        monkeypatch.setattr(module, name, counted)

    for module, name in ((foreign, "build"), (foreign, "load_weights"), (subject, "build_model"),
                         (subject, "load_weights"), (subject, "load"), (evaluations, "digest")):  # fmt: skip
        count(module, name)
    assert main(f"evaluate {source} {WORDS}".split()) == 0
    assert counts["build"] + counts["build_model"] == 1
    assert counts["load_weights"] == (1 if source.startswith("plain") else 0)
    assert counts["load"] == 1
    assert counts["digest weights"] == 0, "no evaluation to compare the weights with"
    counts.clear()
    assert main(f"evaluate {source} {WORDS.replace('--no-verdict ', '')}".split()) == 0
    assert counts["digest weights"] == 1, "once for the evaluation that is there"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nets", "for a function in nets.py write nets:FUNCTION"),
        ("nets.py", "for a function in nets.py write nets:FUNCTION"),
        ("nets:made", "nets:made is a model, not a function that returns one; write such a function beside it"),
        ("nets:nett", "nets has no function nett; did you mean nets:net?"),
        ("plain.pt", "without --model it was read as resnet: name the network with --model KIND, or as"),
        ("plain.pt --model nets:made", "nets:made is a model, not a function that returns one"),
        ("nets:net --checkpoint best", "--checkpoint best chooses from a run directory; leave it out for nets:net"),
        ("nets:net --severities 1,2", "name them with --corruptions"),
        ("nets:net --corruption-files .", "name them with --corruptions"),
        ("plain.pt --black-box", "plain.pt is a file of weights; --black-box is for module:function"),
        ("net.pt2", "net.pt2 is not a run directory, nor a file of weights by its ending (.safetensors, .pt, .pth"),
    ],
)
def test_the_right_form_is_told(fitted, tmp_path, capsys, source: str, said: str) -> None:
    (tmp_path / "nets.py").write_text(f"{OWN}\nmade = net(10)\n")
    (tmp_path / "net.pt2").touch()
    assert main(f"evaluate {source} {WORDS if 'plain' in source or ':' in source else ''}".split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", ["nets:net --model resnet", "nets:net --model.source nets:other", "nets:net --weights raw"]
)
def test_contradictions_about_a_function_are_refused(fitted, tmp_path, capsys, words) -> None:
    assert main(f"evaluate {words} {WORDS}".split()) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nets:net --mean 0.5 --std 0.25", "--mean has no effect on a model of your own"),
        ("nets:net --std 0.25", "--std has no effect on a model of your own"),
        ("plain.pt --model nets:net --mean 0.5", "--mean has no effect on a model of your own"),
        ("nets:own --std 0.5", "--std has no effect: nets:own has its own, 0.25"),
        ("own.pt --model small_cnn --model.width 2 --mean 0.1", "--mean has no effect: own.pt has its own, 0.5"),
    ],
)
def test_a_normalisation_that_is_not_used_is_refused(fitted, tmp_path, capsys, words: str, said: str) -> None:
    (tmp_path / "nets.py").write_text(
        f"{OWN}\nfrom regmix.models import SmallCnn, build\n"
        "def own(classes):\n    return build(SmallCnn(width=2), classes, 1, [0.5], [0.25])\n"
    )
    torch.save(build(SmallCnn(width=2), 10, 1, [0.5], [0.25]).state_dict(), "own.pt")
    assert main(f"evaluate {words} {WORDS}".split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_normalisation_is_used_where_the_file_has_none_and_may_be_repeated(fitted, tmp_path, capsys) -> None:
    weights = build(SmallCnn(width=2), 10, 1, [0.5], [0.25]).state_dict()
    torch.save(weights, "own.pt")
    torch.save({name: value for name, value in weights.items() if "normalise" not in name}, "bare.pt")
    for name in ("own", "bare"):
        words = f"evaluate {name}.pt --model small_cnn --model.width 2 --mean 0.5 --std 0.25 {WORDS}"
        assert main(words.replace("--out out", f"--out {name}").split()) == 0
    assert record(tmp_path / "own")["subject"]["weights"] == record(tmp_path / "bare")["subject"]["weights"]


def images() -> ImageSet:
    torch.manual_seed(0)
    grey = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8)
    return ImageSet(grey, torch.arange(60) % 10, tuple("0123456789"))


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("shortcut", ["activated", "raw"])
def test_networks_of_the_same_names_are_asked_about(shortcut: Any, final_norm: bool, tmp_path: Path) -> None:
    config = PreActResNet(width=2, shortcut=shortcut, final_norm=final_norm)
    torch.manual_seed(3)
    model = build(config, 10, 1)
    x = images().images / 255
    for _ in range(60):  # until BatchNorm knows the images
        model.train()(x)
    path, out = str(tmp_path / "theirs.pth"), tmp_path / "out"
    torch.save(model.state_dict(), path)
    experiment = Experiment(model=PreActResNet(width=2))

    with pytest.raises(UserError) as caught:
        Foreign(path, experiment).adopt(images(), out, torch.device("cpu"), {})
    message = str(caught.value)
    assert "--model.shortcut activated" in message
    assert "--model.shortcut raw" in message
    assert f"if read as {shortcut}, " in message, "what BatchNorm's statistics speak for"
    assert not out.exists()

    chosen = replace(experiment, model=PreActResNet(width=2, shortcut=shortcut))
    run, origin, loaded = Foreign(path, chosen, settled=("shortcut",)).adopt(images(), out, torch.device("cpu"), {})
    assert ("without a final norm, as in the file" in origin) != final_norm
    assert f'"final_norm": {str(final_norm).lower()}' in run.config()
    again = build(config, 10, 1)
    load_weights(again, run.weights("last"))
    assert torch.equal(again.eval()(x), model.eval()(x))
    assert loaded.weights == digest(run.weights("last"))


def test_the_flag_that_answers_is_the_one_that_is_asked_for(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(build(PreActResNet(width=2, final_norm=False), 10, 1).state_dict(), "net.pt")
    words = f"evaluate net.pt --model preact_resnet --model.width 2 {WORDS}".replace("--examples 100", "--examples 20")
    assert main(words.split()) == 2
    assert "--model.shortcut raw" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words.split(), "--model.shortcut=raw"]) == 0


def test_a_file_that_is_no_weights_is_named_before_flags_that_do_not_fit_it(tmp_path, capsys) -> None:
    (tmp_path / "model.pt2").write_bytes(b"")
    for words in (["--data", "folder"], ["--model", "resnet"], []):
        assert main(["evaluate", str(tmp_path / "model.pt2"), *words]) == 2
        assert "model.pt2 is not a run directory" in capsys.readouterr().err


def test_a_result_of_another_program_beside_the_weights_is_none_of_ours(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("result.json", "config.json"):
        Path(name).write_text('{"accuracy": 0.9}')
    torch.save(build(SmallCnn(width=4), 10, 1).state_dict(), "best.pth")
    words = (
        "evaluate best.pth --model small_cnn --model.width 4 --data digits --attacks clean --threat.eps 0.1 --out out"
    )
    assert main([*words.split(), "--no-verdict", "--examples", "20"]) == 0


def test_files_of_common_names_have_results_of_their_own() -> None:
    assert [result_name(source) for source in ("exports/a/model.onnx", "runs/b/best.safetensors", "model.pt")] == [
        "a-model", "b-best", "model",
    ]  # fmt: skip
    assert [result_name(source) for source in ("net.pth", "exports/net.pth", "my_models:make")] == [
        "net", "net", "my_models-make",
    ]  # fmt: skip
