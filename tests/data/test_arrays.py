"""Images from Python: what is taken, what is refused, and how a run reads them back."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import regmix
from regmix.cli.entry import main
from regmix.config import Experiment, from_json, to_json
from regmix.data import DataFunction, Digits, Images, ImageSet, fingerprint, image_set, load
from regmix.types import Trust, UserError

CODES = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])


class Items:
    """A map-style data set."""

    def __init__(self, images: Any, labels: Any = LABELS) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return self.images[number], self.labels[number]


FORMS = {
    "uint8 array": (CODES, LABELS),
    "uint8 tensor": (torch.from_numpy(CODES), torch.from_numpy(LABELS)),
    "float array": (CODES / 255, LABELS.tolist()),
    "float tensor": (torch.from_numpy(CODES).float() / 255, torch.from_numpy(LABELS).int()),
    "list": [CODES, LABELS],
    "with classes": (CODES, LABELS, ["0", "1", "2"]),
    "TensorDataset": torch.utils.data.TensorDataset(torch.from_numpy(CODES) / 255, torch.from_numpy(LABELS)),
    "items": Items(CODES),
    "Pillow": Items([Image.fromarray(code.transpose(1, 2, 0)) for code in CODES]),
    "ImageSet": ImageSet(torch.from_numpy(CODES), torch.from_numpy(LABELS), ("0", "1", "2")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_images(form: str) -> None:
    images = image_set(FORMS[form])
    assert torch.equal(images.images, torch.from_numpy(CODES))
    assert torch.equal(images.labels, torch.from_numpy(LABELS))
    assert images.classes == ("0", "1", "2")
    assert images.notes == ()


def test_what_is_dropped_of_pillow_images_is_told() -> None:
    """Transparent pixels and the EXIF orientation, of a picture each."""
    upright = [Image.fromarray(code.transpose(1, 2, 0)) for code in CODES]
    glass, turned = upright[0].convert("RGBA"), upright[1].copy()
    glass.putpixel((0, 0), (1, 2, 3, 0))
    turned.getexif()[0x0112] = 6
    notes = image_set(Items([glass, turned, *upright[2:]])).notes
    assert [note.split(" images ")[0] for note in notes] == [f"1 of {len(CODES)}"] * 2
    assert "transparent pixels" in notes[0]
    assert "EXIF orientation, which is not applied" in notes[1]


def test_grey_pillow_images_have_one_channel() -> None:
    images = image_set(Items([Image.fromarray(code[0]) for code in CODES]))
    assert torch.equal(images.images, torch.from_numpy(CODES[:, :1]))


def test_pillow_images_of_16_bits_are_scaled_and_of_32_refused() -> None:
    deep = [Image.fromarray((257 * code[0].astype(np.uint16)).astype(np.uint16)) for code in CODES]
    assert torch.equal(image_set(Items(deep)).images[:, :1], torch.from_numpy(CODES[:, :1]))
    with pytest.raises(UserError, match="the image of item 0 cannot be read: its pixels have no"):
        image_set(Items([Image.fromarray(code[0].astype(np.int32)) for code in CODES]))


def test_names_come_from_the_data_set_or_from_the_caller() -> None:
    items = Items(CODES)
    items.classes = ["cat", "dog", "fox"]
    assert image_set(items).classes == ("cat", "dog", "fox")
    assert image_set(items, ["a", "b", "c", "d"]).classes == ("a", "b", "c", "d")


def test_values_between_grey_levels_are_rounded_and_a_note_says_so() -> None:
    values = np.full((2, 1, 3, 3), 0.4999 / 255 + 100 / 255)
    images = image_set((values, [0, 1]))
    assert (images.images == 100).all()
    assert images.notes == ("the images: values were rounded to 8 bits, by at most 0.0020",)


def changed(place: int, value: float) -> np.ndarray:
    x = CODES / 255
    x.flat[place] = value
    return x


class Unsteady(Items):
    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return torch.rand(3, 4, 4), 0


REFUSED: dict[str, tuple[Any, str]] = {
    "floats in 0..255": ((CODES.astype(np.float32), LABELS), "divide by 255"),
    "negative": ((CODES / 127.5 - 1, LABELS), "leave normalisation to the model"),
    "slightly above 1": ((changed(7, 1.01), LABELS), "must lie in \\[0, 1\\]"),
    "NaN": ((changed(7, np.nan), LABELS), "NaN"),
    "infinity": ((changed(7, np.inf), LABELS), "infinity"),
    "divided twice": ((CODES / 255 / 255, LABELS), "twice"),
    "uint8 of floats": (((CODES / 255).astype(np.uint8), LABELS), "black"),
    "int64": ((CODES.astype(np.int64), LABELS), "give uint8"),
    "channels last": ((CODES.transpose(0, 2, 3, 1), LABELS), "channels are last: use x.transpose"),
    "no channels": ((CODES[:, 0], LABELS), "\\[N, channels, height, width\\]"),
    "four channels": ((np.concatenate([CODES, CODES[:, :1]], 1), LABELS), "1 or 3 channels"),
    "no images": ((CODES[:0], LABELS[:0]), "no images"),
    "a label too high": ((CODES, LABELS, ["a", "b"]), "label of image 2 is 2; it must lie in 0..1"),
    "a negative label": ((CODES, LABELS - 1), "label of image 0 is -1"),
    "labels as floats": ((CODES, LABELS / 1), "integer"),
    "one-hot labels": ((CODES, np.eye(3)[LABELS]), "one integer per image"),
    "too few labels": ((CODES, LABELS[:5]), "one integer per image: \\[6\\]"),
    "two equal names": ((CODES, LABELS, ["a", "b", "b"]), "same name"),
    "no numbers": ((np.array(["a", "b"], dtype=object), [0, 1]), "no array of numbers"),
    "something else": (7, "give \\(x, y\\) arrays"),
    "an empty data set": (Items([]), "no items"),
    "items without labels": (list(CODES), "the label of item 0 is ndarray \\[5, 4\\]"),
    "items with float labels": (Items(CODES, LABELS / 1), "number of a class"),
    "items of two sizes": (Items([CODES[0], CODES[1, :, :4]]), "item 1 is .* all images must have the same size"),
    "random items": (Unsteady(CODES), "differs from one access to the next"),
    "failing items": (Items(CODES, LABELS[:4]), "item 4 is not \\(image, label\\): IndexError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_give_wrong_numbers_is_refused_in_one_line(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        image_set(given)
    assert "\n" not in str(caught.value)


def test_kept_images_are_read_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = Images.of((CODES, LABELS), Items(CODES[:3], LABELS[:3]), classes=["a", "b", "c"])
    assert Path(data.root).parent == Path("data")
    for split, count in (("train", 6), ("test", 3)):
        images = load(data, split)
        assert torch.equal(images.images, torch.from_numpy(CODES[:count]))
        assert torch.equal(images.labels, torch.from_numpy(LABELS[:count]))
        assert images.classes == ("a", "b", "c")
    experiment = Experiment(data=data)
    assert from_json(to_json(experiment)) == experiment
    again = Images.of((CODES, LABELS), (CODES[:3], LABELS[:3]), classes=["a", "b", "c"])
    assert again == data
    other = Images.of((CODES[::-1].copy(), LABELS), (CODES[:3], LABELS[:3]), classes=["a", "b", "c"])
    assert other.root != data.root


def test_one_split_alone_can_be_kept(tmp_path: Path) -> None:
    data = Images.of(test=(CODES, LABELS), root=tmp_path / "it")
    assert len(load(data, "test")) == 6
    with pytest.raises(UserError, match=r"train.safetensors is missing; make it with Images.of"):
        load(data, "train")
    with pytest.raises(UserError, match="needs training images"):
        Images.of(root=tmp_path)


def test_a_folder_with_other_images_is_left_alone(tmp_path: Path) -> None:
    Images.of((CODES, LABELS), root=tmp_path)
    with pytest.raises(UserError, match="holds other images"):
        Images.of((CODES[:4], LABELS[:4]), root=tmp_path)
    with pytest.raises(UserError, match="holds other images"):
        Images.of(test=(CODES, LABELS), root=tmp_path)
    assert len(load(Images(root=str(tmp_path)), "train")) == 6


def test_splits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="other classes"):
        Images.of((CODES, LABELS), (CODES[:2], LABELS[:2]), root=tmp_path)
    with pytest.raises(UserError, match="give one shape"):
        Images.of((CODES, LABELS), (CODES[:, :, :4], LABELS), root=tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("harm", ["changed", "cut off", "foreign"])
def test_files_that_are_not_as_they_were_written_are_refused(harm: str, tmp_path: Path) -> None:
    data = Images.of((CODES, LABELS), root=tmp_path)
    path = tmp_path / "train.safetensors"
    content = path.read_bytes()
    if harm == "foreign":
        save_file(load_file(path), path)
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if harm == "changed" else content[:-9])
    with pytest.raises(UserError, match="make it again"):
        load(data, "train")


CODE = """
from pathlib import Path
import numpy as np
Path({mark!r}).touch()
def make(split):
    random = np.random.default_rng(split == "train")
    labels = np.arange(120) % 3
    codes = random.integers(0, 150, (120, 1, 8, 8)) + 50 * labels[:, None, None, None]
    return codes / 255, labels, ["low", "middle", "high"]
def broken(split): raise RuntimeError("no " + split)
def wrong(split): return make(split)[0] * 255, make(split)[1]
"""
TINY = "--method standard --epochs 1 --validation 30 --model.width 4 --averaging none"
QUICK = "--attacks clean,fgsm --no-verdict --checkpoint last"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current folder; it leaves a file RAN when its code runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"own_data_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE.format(mark=str(tmp_path / "RAN")))
    return name


def test_a_run_on_a_functions_images_is_evaluated_where_its_code_is_named(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"{module}:make"
    assert main(f"train digits-regmix --data {source} {TINY} --out run".split()) == 0
    assert f"--data.source {source}" in capsys.readouterr().out
    assert from_json((tmp_path / "run/config.json").read_text(), trust=Trust(data=source)).data == DataFunction(
        source=source
    )
    (tmp_path / "RAN").unlink()
    del sys.modules[module]
    for words in (f"evaluate run {QUICK}", "train --resume run", f"train --from run {TINY} --out new"):
        assert main(words.split()) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"asks for the code {source}" in line
        assert f"allow it with --data.source {source} or --trust-code" in line
    assert not (tmp_path / "RAN").exists()
    assert regmix.load_model("run").classes == ("low", "middle", "high")  # which reads no data
    assert not (tmp_path / "RAN").exists()
    assert main(f"evaluate run {QUICK} --data.source {source} --json".split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        told["evaluations"][0]["subject"]["data"]["digest"]
        == fingerprint(load(DataFunction(source=source), "test")).digest
    )
    assert main(f"train --from run --trust-code {TINY} --out new".split()) == 0


def test_a_run_on_kept_images_is_evaluated(module: str, tmp_path: Path) -> None:
    images = load(DataFunction(source=f"{module}:make"), "train")
    data = Images.of(images, images, root="kept")
    assert main(f"train digits-regmix --data images --data.root {data.root} {TINY} --out run".split()) == 0
    assert main(f"evaluate run {QUICK}".split()) == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", r"broken\('train'\) failed: RuntimeError: no train"),
        ("wrong", "divide by 255"),
        ("gone", "has no function gone"),
    ],
)
def test_a_function_that_fails_is_a_line(
    function: str, message: str, module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=message):
        load(DataFunction(source=f"{module}:{function}"), "train")
    assert main(f"train digits-regmix --data {module}:{function} {TINY} --out run".split()) == 2
    assert not (tmp_path / "run").exists()


def test_without_a_function_the_flag_to_give_is_named() -> None:
    with pytest.raises(UserError, match=r"--data\.source ''"):
        load(DataFunction(), "train")


def test_the_digits_survive_being_kept(tmp_path: Path) -> None:
    digits = load(Digits(), "test")
    kept = load(Images.of(test=digits, root=tmp_path), "test")
    assert fingerprint(kept) == fingerprint(digits)
