"""Exported models: what is read back gives the model's logits, and what does not is refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

import regmix
from exports.runs import CLASSES, evaluate, random_run
from regmix.cli.entry import main
from regmix.exports import FORMATS, export
from regmix.exports.check import TOLERANCE, difference, random_images
from regmix.exports.export import FormatName
from regmix.models import Function, ModelConfig, PreActResNet, ResNet, SmallCnn, WideResNet
from regmix.types import UserError

ARCHITECTURES: tuple[ModelConfig, ...] = (
    SmallCnn(width=4), ResNet(width=4), PreActResNet(width=4), PreActResNet(width=4, shortcut="raw", final_norm=False),
    WideResNet(depth=10, widen=1),
)  # fmt: skip
WEIGHTS: tuple[FormatName, ...] = ("safetensors", "hub", "robustbench")


def outside(folder: Path, form: FormatName) -> Callable[[torch.Tensor], torch.Tensor]:
    """The exported file as another program reads it, without regmix."""
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    loaded = torch.export.load(folder / "model.pt2").module()
    return lambda x: loaded(x)


@pytest.mark.parametrize("model", ARCHITECTURES, ids=lambda model: f"{model.name}-{getattr(model, 'shortcut', '')}")
def test_weights_are_read_back_with_classes_and_shape(model: ModelConfig, tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", model, (3, 16, 16), 0.4, 0.25)
    done = export(run.path, "safetensors", tmp_path / "out")
    assert done.difference == 0
    theirs, ours = regmix.load_model(done.folder), regmix.load_model(run.path, "best")
    assert theirs[1:] == ours[1:] == (CLASSES, (3, 16, 16))
    x = torch.rand(5, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(theirs.model(x), ours.model(x))
    with safe_open(done.folder / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == [*CLASSES]
        assert json.loads(file.metadata()["threat"])["eps"] == 8 / 255


@pytest.mark.parametrize("model", [ARCHITECTURES[0], ARCHITECTURES[-1]], ids=lambda model: model.name)
def test_robustbench_calls_the_normalisation_mu_and_sigma(model: ModelConfig, tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", model, (3, 16, 16), 0.4, 0.25)
    done = export(run.path, "robustbench", tmp_path / "out")
    assert done.difference == 0
    state = torch.load(done.folder / "model.pt", weights_only=True)
    own = regmix.load_model(run.path).model.state_dict()
    assert {*state} == {*own} - {"normalise.mean", "normalise.std"} | {"mu", "sigma"}
    assert state["mu"].shape == state["sigma"].shape == (1, 3, 1, 1)
    assert torch.equal(state["sigma"], torch.full((1, 3, 1, 1), 0.25))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
@pytest.mark.parametrize("model", ARCHITECTURES, ids=lambda model: f"{model.name}-{getattr(model, 'shortcut', '')}")
@pytest.mark.filterwarnings("ignore")  # of the tracer
def test_another_program_computes_the_same_for_any_number_of_images(
    model: ModelConfig, form: FormatName, tmp_path: Path
) -> None:
    if form == "onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library, reason='pip install "regmix[export]"')
    run = random_run(tmp_path / "run", model, (3, 16, 16), 0.4, 0.25)
    done = export(run.path, form, tmp_path / "out")
    theirs, ours = outside(done.folder, form), regmix.load_model(run.path).model
    for count in (1, 3, 10):
        x = torch.rand(count, 3, 16, 16)
        with torch.no_grad():
            expected, found = ours(x), theirs(x)
        assert float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    assert {path.name for path in done.folder.iterdir()} == {f"model.{form}", "model.json", "MODEL_CARD.md"}
    assert json.loads((done.folder / "model.json").read_text())["classes"] == [*CLASSES]


def test_the_difference_is_relative_to_the_largest_logit() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([3.0, -8.0]).expand(len(x), 2)

    assert difference(model, lambda x: model(x) + torch.tensor([0.5, 0.0]), (1, 4, 4)) == 0.5 / 8
    assert difference(model, lambda x: model(x) * float("nan"), (1, 4, 4)) == float("inf")
    assert difference(lambda x: 0 * model(x), lambda x: 0 * model(x), (1, 4, 4)) == 0
    with pytest.raises(UserError, match=r"returns \[1, 1\] where the model returns \[1, 2\]"):
        difference(model, lambda x: model(x)[:, :1], (1, 4, 4))
    with pytest.raises(UserError, match="the model is random"):
        difference(lambda x: torch.rand(len(x), 2), model, (1, 4, 4))


def test_an_export_that_normalises_twice_or_ignores_the_image_is_seen(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", ResNet(width=4), (3, 16, 16), 0.4, 0.25)
    model = regmix.load_model(run.path).model
    assert difference(model, lambda x: model((x - 0.4) / 0.25), (3, 16, 16)) > TOLERANCE
    assert difference(model, lambda x: model(x.mean(0, keepdim=True).expand_as(x)), (3, 16, 16)) > TOLERANCE
    assert difference(model, lambda x: model(x.flip(1)), (3, 16, 16)) > TOLERANCE


def test_the_images_lie_in_the_unit_box_and_differ_in_colour() -> None:
    images = random_images((3, 8, 6), 30)
    assert images.shape == (30, 3, 8, 6)
    assert 0 <= float(images.min()) < 0.1 < 0.9 < float(images.max()) <= 1
    assert float(images.mean((2, 3)).std()) > 0.1


@pytest.mark.parametrize("form", WEIGHTS)
def test_a_tampered_file_is_refused_and_removed(
    form: FormatName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = random_run(tmp_path / "run", SmallCnn(width=4))
    honest = FORMATS[form]

    def tampered(chosen, path, facts):
        honest.write(chosen, path, facts)
        content = bytearray(path.read_bytes())
        weight = chosen.model.state_dict()["linear.weight"].numpy().tobytes()
        place = content.index(weight[:16])
        content[place : place + 4] = torch.tensor(0.9).numpy().tobytes()
        path.write_bytes(bytes(content))

    monkeypatch.setitem(FORMATS, form, honest._replace(write=tampered))
    with (
        pytest.raises(UserError, match="gives other logits than the model")
        if form != "robustbench"
        else pytest.raises(UserError)
    ):  # torch.load may find the changed checksum itself
        export(run.path, form, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_weights_that_were_changed_after_the_export_are_not_loaded(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", SmallCnn(width=4))
    folder = export(run.path, "hub", tmp_path / "out").folder
    (folder / "model.safetensors").write_bytes(run.weights("last").read_bytes())
    with pytest.raises(UserError, match=r"is not the file that .*config\.json describes"):
        regmix.load_model(folder)


def test_without_normalisation_the_entries_go_only_where_they_do_nothing(tmp_path: Path) -> None:
    plain, normalised = (
        random_run(tmp_path / "plain", ResNet(width=4)),
        random_run(tmp_path / "normalised", ResNet(width=4), mean=0.4),
    )
    done = export(plain.path, "robustbench", tmp_path / "out", normalisation=False)
    state = torch.load(done.folder / "model.pt", weights_only=True)
    assert not any(name in ("mu", "sigma") or name.startswith("normalise") for name in state)
    with pytest.raises(UserError, match="the model normalises its input"):
        export(normalised.path, "robustbench", tmp_path / "other", normalisation=False)
    with pytest.raises(UserError, match="belongs to --format robustbench"):
        export(plain.path, "hub", tmp_path / "other", normalisation=False)
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_written_is_said_before_anything_is(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", SmallCnn(width=4))
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists; give another --out"):
        export(run.path, "hub", tmp_path / "there")
    with pytest.raises(UserError, match="an export is a folder"):
        export(run.path, "onnx", tmp_path / "model.onnx")
    with pytest.raises(UserError, match="no averaged weights; it has: best, last"):
        export(run.path, "hub", tmp_path / "out", "averaged")
    with pytest.raises(UserError, match="not a run directory"):
        export(tmp_path, "hub", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "there"}
    export(run.path, "hub", tmp_path / "out")
    with pytest.raises(UserError, match="is an exported model, not a run directory"):
        export(tmp_path / "out", "onnx", tmp_path / "other")


OWN = """
import torch
from torch import nn

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 3)
        self.other = nn.Linear(12, 3)
        self.other.weight = self.head.weight  # shared

    def forward(self, x):
        flat = x.flatten(1)
        return {"logits": self.head(flat) if float(x.mean()) > 0.5 else self.other(flat)}

class Plain(Branching):
    def forward(self, x):
        return {"logits": self.head(x.flatten(1)) + self.other(x.flatten(1))}

class Counting(Branching):
    def forward(self, x):
        return self.head(x.flatten(1)) + self.other.bias.expand(len(x), 3)

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True)
        self.embed, self.head = nn.LazyLinear(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layer(self.embed(x.flatten(2).transpose(1, 2))).mean(1))

class Noisy(Branching):
    def forward(self, x):
        return self.head(x.flatten(1) + torch.rand_like(x.flatten(1)))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a run with a model of the user's."""
    (tmp_path / "exported_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "exported_models", raising=False)
    return lambda name: random_run(tmp_path / "run", Function(f"exported_models:{name}"), (3, 2, 2)).path


def test_a_model_of_ones_own_is_exported_and_loaded_only_by_name(own: Callable[[str], Path], tmp_path: Path) -> None:
    run, source = own("Plain"), "exported_models:Plain"
    with pytest.raises(UserError, match="asks for the code exported_models:Plain"):
        export(run, "hub", tmp_path / "out")
    folder = export(run, "hub", tmp_path / "out", source=source).folder
    with pytest.raises(UserError, match=r"config\.json asks for the code exported_models:Plain"):
        regmix.load_model(folder)
    theirs, ours = (regmix.load_model(place, source=source).model for place in (folder, run))
    assert isinstance(theirs, nn.Module)
    x = torch.rand(4, 3, 2, 2)
    with torch.no_grad():
        assert torch.equal(theirs(x), ours(x))
    with pytest.raises(UserError, match="leave out --no-normalisation"):
        export(run, "robustbench", tmp_path / "rb", source=source, normalisation=False)
    assert export(run, "robustbench", tmp_path / "rb", source=source).difference == 0


def test_a_random_model_is_refused(own: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the model is random"):
        export(own("Noisy"), "safetensors", tmp_path / "out", source="exported_models:Noisy")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_a_graph_of_ones_own_model_is_right_or_refused_in_one_line(
    form: FormatName, own: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript", reason='pip install "regmix[export]"')
        pytest.importorskip("onnxruntime", reason='pip install "regmix[export]"')
    run = own("Branching")
    words = ["export", str(run), "--format", form, "--out", str(tmp_path / "out"), "--trust-code"]
    assert main(words) == 2
    printed = capfd.readouterr()
    assert f"the model cannot be exported as {form}" in printed.err
    assert len((printed.out + printed.err).splitlines()) == 1
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace("Branching", "Counting"))
    assert main(words) == 2
    assert "write x.shape[0] where it has len(x)" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    (run / "config.json").write_text(config.replace("Branching", "Plain"))
    assert main(words) == 0
    theirs, ours = outside(tmp_path / "out", form), regmix.load_model(run, trust_code=True).model
    x = torch.rand(3, 3, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=1e-5 * float(ours(x).abs().max()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_attention_and_lazy_modules_are_exported(form: FormatName, own: Callable[[str], Path], tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript", reason='pip install "regmix[export]"')
        pytest.importorskip("onnxruntime", reason='pip install "regmix[export]"')
    run, source = own("Attention"), "exported_models:Attention"
    assert export(run, form, tmp_path / "out", source=source).difference <= TOLERANCE
    theirs, ours = outside(tmp_path / "out", form), regmix.load_model(run, source=source).model
    x = torch.rand(6, 3, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=1e-5 * float(ours(x).abs().max()))


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = random_run(tmp_path / "run", SmallCnn(width=4))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r'needs onnx: pip install "regmix\[export\]"'):
        export(run.path, "onnx", tmp_path / "out")


def test_the_command_says_how_to_measure_what_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = random_run(tmp_path / "run", SmallCnn(width=4))
    words = f"export {run.path} --format safetensors --out {tmp_path}"
    assert main(f"{words}/a".split()) == 0
    printed = capsys.readouterr().out
    assert f"measure it with: regmix evaluate {run.path} --checkpoint best" in printed
    evaluate(run, clean=8, pgd_50=4)
    assert main(f"{words}/b".split()) == 0
    assert "not measured" not in capsys.readouterr().out
    assert main(f"{words}/c --push me/mine".split()) == 2
    assert "add --format hub" in capsys.readouterr().err


def test_weights_are_not_evaluated_on_images_whose_classes_have_another_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    run = random_run(tmp_path / "run", SmallCnn(width=4), (3, 8, 8), 0.0, 1.0)
    export(run.path, "safetensors", tmp_path / "out")
    export(run.path, "hub", tmp_path / "hub")
    files = [tmp_path / "out/model.safetensors", tmp_path / "hub/model.safetensors", run.path / "best.safetensors"]
    (tmp_path / "alone").mkdir()  # away from its description, it still has the names inside
    files.append(Path(shutil.copy(files[0], tmp_path / "alone/renamed.safetensors")))

    def evaluated(file: Path) -> int:
        words = f"--model small_cnn --model.width 4 --data folder --data.root {tmp_path} --data.size 8 --attacks clean"
        out = str(tmp_path / f"evaluated-{file.parent.name}")
        return main(["evaluate", str(file), *words.split(), "--threat.eps", "8/255", "--out", out])

    for names, code in ((CLASSES, 2), (("0 cat", "1 dog", "2 ab"), 0)):
        for name in names:
            (tmp_path / "test" / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (9, 5, 2)).save(tmp_path / "test" / name / "0.png")
        for file in files:
            assert evaluated(file) == code
            said = f"{file} has the classes in another order: output 2 is 'a|b', which is class 0 of the images"
            assert (said in capsys.readouterr().err) == (code == 2)
        shutil.rmtree(tmp_path / "test")


def test_an_onnx_file_away_from_its_description_still_names_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason='pip install "regmix[export]"')
    run = random_run(tmp_path / "run", SmallCnn(width=4), (3, 8, 8), 0.0, 1.0)
    export(run.path, "onnx", tmp_path / "out")
    file = Path(shutil.move(tmp_path / "out/model.onnx", tmp_path / "alone.onnx"))
    for name in CLASSES:
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (9, 5, 2)).save(tmp_path / "test" / name / "0.png")
    words = f"--data folder --data.root {tmp_path} --data.size 8 --threat.eps 8/255 --queries 20"
    assert main(["evaluate", str(file), *words.split(), "--out", str(tmp_path / "evaluated")]) == 2
    assert f"{file} has the classes in another order: output 2 is 'a|b'" in capsys.readouterr().err
    assert not (tmp_path / "evaluated").exists()
