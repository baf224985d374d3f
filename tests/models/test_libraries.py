"""Networks of timm and transformers: built, trained, evaluated, exported and loaded, with random weights."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from contracts.torchvision_operators import declare_operators_of_torchvision
from regmix import load_model
from regmix.cli.entry import main
from regmix.evaluation.class_order import check_class_names
from regmix.models import Timm, Transformers, build, libraries
from regmix.types import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a tiny ViT of random weights for 3 classes."""
    declare_operators_of_torchvision()  # transformers imports torchvision where it is installed
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return folder


def test_timm_gets_classes_channels_and_normalised_images(timm: ModuleType) -> None:
    torch.manual_seed(0)
    model = build(Timm("test_resnet"), 7, 1, (0.3,), (0.5,)).eval()
    torch.manual_seed(0)
    bare = timm.create_model("test_resnet", num_classes=7, in_chans=1).eval()
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(model(x), bare((x - 0.3) / 0.5))
    names = {*bare.state_dict()}
    assert {*model.state_dict()} == names | {"normalise.mean", "normalise.std"}, "no prefix before the names"


def test_transformers_gets_classes_channels_and_normalised_images(vit: Path) -> None:
    model = build(Transformers(str(vit)), 5, 3, MEAN, STD).eval()
    x = torch.rand(2, 3, 16, 16)
    bare = type(model)(model.config).eval()
    bare.load_state_dict({name: value for name, value in model.state_dict().items() if "normalise" not in name})
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    assert model(x).shape == (2, 5)
    assert torch.equal(model(x), bare((x - mean) / std).logits)


def test_published_weights_come_with_their_normalisation(vit: Path) -> None:
    published = Transformers(str(vit)).published(3)
    assert published["normalise.mean"].flatten().tolist() == pytest.approx(MEAN)
    assert published["classifier.weight"].shape == (3, 16)


@pytest.mark.parametrize(
    "kept",
    [
        {"image_mean": MEAN, "image_std": STD, "do_normalize": False},
        {"do_normalize": False, "rescale_factor": 1 / 127.5},
        {"image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 127.5},
        {"image_mean": MEAN, "image_std": STD, "do_rescale": False},
        {"image_mean": 0.5, "image_std": 0.25},
        {"image_mean": MEAN, "image_std": STD},
    ],
)
def test_published_weights_see_what_the_librarys_processor_makes(vit: Path, tmp_path: Path, kept: dict) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "vit"
    shutil.copytree(vit, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(kept))
    theirs = transformers.ViTImageProcessorPil(**{"do_resize": False, **kept})
    levels = torch.randint(256, (3, 16, 16), generator=torch.Generator().manual_seed(0))
    expected = theirs(levels.permute(1, 2, 0).byte().numpy(), return_tensors="pt")["pixel_values"][0]
    state = Transformers(str(folder)).published(3)
    ours = (levels / 255 - state["normalise.mean"]) / state["normalise.std"]
    torch.testing.assert_close(ours.view_as(expected), expected, rtol=1e-5, atol=1e-4)


def test_a_processor_that_does_more_is_refused(vit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(vit, folder)
    kept = {"image_mean": MEAN, "image_std": STD, "do_flip_channel_order": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match="says do_flip_channel_order, which is not supported"):
        Transformers(str(folder)).published(3)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Timm("resnet_of_nobody"), "timm:resnet_of_nobody cannot be made: "),
        (Timm(), "--model timm:NAME"),
        (Transformers(), "--model hf:NAME"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(timm: ModuleType, config: Timm | Transformers, said: str) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=said) as caught:
        build(config, 3)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> None:
        def imported(name: str) -> ModuleType:
            raise error

        monkeypatch.setattr(libraries.importlib, "import_module", imported)

    fails(ModuleNotFoundError("No module named 'timm'"))
    with pytest.raises(UserError, match=r'pip install "regmix\[models\]"'):
        build(Timm("resnet18"), 3)
    fails(RuntimeError("operator torchvision::nms does not exist"))
    with pytest.raises(UserError, match=r"install the torchvision that fits torch"):
        build(Timm("resnet18"), 3)


def logits(run: Path, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return load_model(run).model(x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_a_model_is_fine_tuned_evaluated_exported_and_loaded(
    timm: ModuleType, vit: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from regmix.data import Digits, load

    run, size = tmp_path / "run", 16
    root = tmp_path / "photos"
    digits = load(Digits(), "train")
    from PIL import Image

    for number in range(240):
        label = int(digits.labels[number])
        if label < 4:
            pixels = digits.pixels()[number, 0].numpy().repeat(2, 0).repeat(2, 1)
            for split in ("train", "test"):
                folder = root / split / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    words = ["timm:test_resnet"] if kind == "timm" else [f"hf:{vit}", "--init", "pretrained"]
    small = f"--data.root {root} --data.size {size} --epochs 2 --threat.eps 2/255 --batch-size 16".split()
    assert main(["train", "photos", "--model", *words, *small, "--out", str(run)]) == 0
    said = capsys.readouterr().out
    assert ("of another number of classes, so they start anew: classifier" in said) == (kind == "transformers")
    assert main(["evaluate", str(run), "--attacks", "clean,pgd-5", "--examples", "20"]) == 0
    x = torch.rand(3, 3, size, size)
    before = logits(run, x)
    if kind == "transformers":
        assert load_model(run).model.normalise.mean.flatten().tolist() == pytest.approx(MEAN)
    for form in ("onnx", "hub"):
        assert main(["export", str(run), "--format", form, "--out", str(tmp_path / form)]) == 0
    (file,) = (tmp_path / "onnx").glob("*.onnx")
    session = onnxruntime.InferenceSession(str(file))
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.abs(got - before.numpy()).max() < 1e-4
    assert torch.equal(logits(tmp_path / "hub", x), before)


@pytest.mark.slow
def test_a_published_model_is_evaluated_by_its_name(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    words = f"--data folder --data.root {tmp_path / 'photos'} --data.size 16 --threat.eps 8/255 --attacks clean,fgsm"
    assert main(["evaluate", f"hf:{vit}", *words.split(), "--out", str(tmp_path / "run")]) == 0
    assert logits(tmp_path / "run", torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert sys.modules["transformers"]


@pytest.mark.slow
def test_names_of_classes_in_another_order_are_refused(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    shutil.copytree(vit, "vit")
    config = json.loads(Path("vit/config.json").read_text())
    for name in ("hot dog", "cat", "bee"):
        Path("photos", name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (16, 16), (90 * number, 50, 20)).save(f"photos/{name}/{number}.png")

    def refused(names: dict[str, str]) -> str:
        config["id2label"], config["label2id"] = names, {name: int(key) for key, name in names.items()}
        Path("vit/config.json").write_text(json.dumps(config))
        shutil.rmtree("run", ignore_errors=True)
        words = "--data folder --data.root photos --data.size 16 --threat.eps 8/255 --attacks clean --out run"
        code = main(["evaluate", "hf:vit", *words.split()])
        last = (capsys.readouterr().err.splitlines() or [""])[-1]  # transformers shows its progress before
        assert Path("run").exists() == (code == 0)
        return last if code else ""

    said = refused({"0": "Hot_Dog", "1": "bee", "2": "Cat"})
    assert "hf:vit has the classes in another order: output 1 is 'bee', which is class 0 of the images (moved" in said
    assert "(moved: bee, cat, hot dog)" in said
    assert "output 2 is 'bee', which is class 0" in refused({"0": "LABEL_0", "1": "cat", "2": "bee"})
    assert not refused({"0": "Bee", "1": "cat", "2": "hot-dog"})
    assert not refused({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"})
    assert not refused({"0": "crane", "1": "cat", "2": "crane"})


def test_names_that_are_numbers_are_not_compared() -> None:
    check_class_names("net.pth", [str(number) for number in range(1, 11)], [str(number) for number in range(10)])
    with pytest.raises(UserError, match="output 0 is 'cat', which is class 1"):
        check_class_names("net.pth", ["cat", "1"], ["1", "cat"])
