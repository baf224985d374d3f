import os
import shutil
import unicodedata
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.cli.entry import main
from regmix.config import Experiment, to_json
from regmix.data import Folder, learned_from, load, load_training
from regmix.runs import Run
from regmix.types import UserError


@pytest.fixture
def root(tmp_path, encode):
    """Two classes, cats darker than dogs, each split with two images per class; those for testing are wider."""
    for split, width in (("train", 12), ("test", 14)):
        for name, grey in (("dog", 200), ("cat", 50)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                (folder / f"{i}.png").write_bytes(encode(np.full((8, width), grey + i, np.uint8)))
    return tmp_path


def read(root, split="train", size=8):
    return load(Folder(root=str(root), size=size), split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_the_sorted_folder_names(root, split):
    images = read(root, split)
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.images.shape == (4, 3, 8, 8)
    assert images.images[:, 0, 0, 0].tolist() == [50, 51, 200, 201]


def test_val_stands_in_for_test(root):
    (root / "test").rename(root / "val")
    assert len(read(root, "test")) == 4


def test_images_are_brought_to_the_size(root):
    assert read(root, size=5).images.shape == (4, 3, 5, 5)
    with pytest.raises(UserError, match="at least 1 pixel"):
        read(root, size=0)


def test_files_count_at_any_depth_and_in_either_case(root, encode):
    deeper = root / "train" / "cat" / "images" / "more"
    deeper.mkdir(parents=True)
    (deeper / "X.JPEG").write_bytes(encode(np.zeros((8, 8), np.uint8), "JPEG"))
    assert read(root).labels.tolist() == [0, 0, 0, 1, 1]


def test_hidden_files_other_suffixes_and_loose_files_are_ignored(root):
    for name in ("cat/.hidden.png", "cat/notes.txt", "cat/model.npy", "cat/README", "loose.png"):
        (root / "train" / name).write_bytes(b"no image")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / ".thumbnails").mkdir()
    (root / "train" / "cat" / ".thumbnails" / "a.png").write_bytes(b"no image")
    (root / "train" / "cat" / "folder.png").mkdir()
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    images = read(root)
    assert images.classes == ("cat", "dog")
    assert len(images) == 4
    assert images.notes == (
        f"{root / 'train'}: 3 files were skipped, because their suffix is not that of a readable image: "
        "1 .npy, 1 .txt, 1 without a suffix; convert photographs among them to JPEG or PNG",
        f"{root / 'train'}: 1 files beside the class folders were skipped",
    )


def test_clutter_of_operating_systems_is_not_reported(root):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (root / "train" / name).write_bytes(b"clutter")
        (root / "train" / "cat" / name).write_bytes(b"clutter")
    images = read(root)
    assert (len(images), images.notes) == (4, ())


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".jfif", "JPEG"), (".JPE", "JPEG"), (".avif", "AVIF"), (".jp2", "JPEG2000"), (".TGA", "TGA"), (".pnm", "PPM"),
     (".apng", "PNG"), (".pbm", "PPM"), (".jpf", "JPEG2000")],
)  # fmt: skip
def test_suffixes_of_readable_images(root, encode, suffix, kind):
    (root / "train" / "cat" / f"more{suffix}").write_bytes(encode(np.full((8, 8), 77, np.uint8), kind))
    images = read(root)
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert abs(int(images.images[2, 0, 4, 4]) - 77) < 4
    assert images.notes == ()


def test_photographs_that_cannot_be_read_are_reported(root):
    for name in ("a.HEIC", "b.HEIC", "c.cr2"):
        (root / "train" / "cat" / name).write_bytes(b"no image")
    (note,) = read(root).notes
    assert "3 files were skipped" in note
    assert "2 .HEIC, 1 .cr2; convert photographs" in note
    for path in (root / "train" / "cat").glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"train/cat has no images, only 2 \.HEIC, 1 \.cr2; convert photographs"):
        read(root)


def test_linked_folders_are_read_once_and_circles_end(root, tmp_path_factory, encode):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "linked.png").write_bytes(encode(np.full((8, 8), 9, np.uint8)))
    cat = root / "train" / "cat"
    (cat / "b").symlink_to(elsewhere)
    (cat / "a").symlink_to(elsewhere)
    (cat / "self").symlink_to(cat)
    (elsewhere / "up").symlink_to(root / "train")
    images = read(root)
    assert images.images[:, 0, 0, 0].tolist()[:3] == [50, 51, 9]
    assert len(images) == 7, "through up, cat holds the dogs, too"


@pytest.mark.parametrize("name", ["broken.png", "folder"])
def test_a_link_to_nothing_is_named(root, name):
    (root / "train" / "cat" / name).symlink_to(root / "gone")
    with pytest.raises(UserError, match=rf"train/cat/{name} is a broken link; repair or remove it"):
        read(root)


def test_a_folder_that_may_not_be_looked_into_is_named(root, monkeypatch):
    (root / "train" / "cat" / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match="train/cat/locked cannot be read: Permission denied"):
        read(root)


def test_a_name_with_an_accent_is_one_class_however_it_is_spelled(root):
    one, other = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    (root / "train" / "cat").rename(root / "train" / one)
    (root / "test" / "cat").rename(root / "test" / other)
    for split in ("train", "test"):
        images = read(root, split)
        assert images.classes == (one, "dog")
        assert len(images) == 4
    (root / "train" / other).mkdir()
    with pytest.raises(UserError, match="are called 'café', in two spellings; merge them"):
        read(root)


def test_all_images_that_cannot_be_read_are_named_at_once(root):
    for split, name in product(("train",), ("cat", "dog")):
        for number in range(3):
            (root / split / name / f"broken{number}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken0\.png is not an image of a known format") as caught:
        read(root)
    said = str(caught.value)
    assert "; the same or other faults have " in said
    assert said.endswith("and 2 more")
    assert "cat/broken0.png is not" in said
    assert all(f"cat/broken{number}.png" in said for number in range(3))


def test_training_images_that_are_there_twice_are_told(root):
    assert not [note for note in read(root).notes if "byte for byte" in note]
    one, other = sorted((root / "train" / "cat").iterdir())[:2]
    (one.parent / "copy.png").write_bytes(one.read_bytes())
    (root / "train" / "dog" / "no dog.png").write_bytes(other.read_bytes())
    wrong, same = [note for note in read(root).notes if "byte for byte" in note]
    assert wrong.startswith("1 training images are in two classes")
    assert "no dog.png" in wrong
    assert same.startswith("1 of 6 training images are copies of others")
    assert "copy.png" in same
    assert not [note for note in read(root, "test").notes if "copies" in note]


def test_an_order_of_classes_that_others_have_otherwise_is_told(root):
    """ImageFolder sorts names as they are stored. Ours must not depend on the system that stores them."""
    names = [unicodedata.normalize("NFD", "élan"), "zebra"]  # the first begins with an e there, and not in NFC
    for split, (old, new) in product(("train", "test"), [*zip(("dog", "cat"), names, strict=True)]):
        (root / split / old).rename(root / split / new)
    for split in ("train", "test"):
        images = read(root, split)
        assert images.classes == ("zebra", "élan")
        (told,) = [note for note in images.notes if "ImageFolder" in note]
        assert "class 0 is 'zebra'" in told
        assert "class 0 is 'élan'" in told
    (root / "test" / names[0]).rename(root / "test" / unicodedata.normalize("NFC", names[0]))
    assert not [note for note in read(root, "test").notes if "ImageFolder" in note]
    assert read(root, "test").classes == read(root).classes


def test_names_that_are_not_utf_8(root):
    """As archives of Windows leave them. Records of classes and files are UTF-8."""
    image = next((root / "test" / "cat").iterdir())
    image.rename(image.with_name(os.fsdecode(b"caf\xe9.png")))
    assert "test/cat/caf\\xe9.png" in read(root, "test").files
    (root / "train" / "cat").rename(root / "train" / os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"caf\\xe9: the name of this class folder is not UTF-8; rename it"):
        read(root)
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        to_json(Experiment(data=Folder(root=os.fsdecode(b"caf\xe9"))))


@pytest.mark.parametrize("name", ["Cat", "cat ", "CAT"])
def test_names_that_could_be_one_class_are_reported(root, name):
    for split in ("train", "test"):
        shutil.copytree(root / split / "cat", root / split / name)
    for split in ("train", "test"):
        images = read(root, split)
        assert len(images.classes) == 3
        assert "differ only in case or spaces" in images.notes[0]


def test_test_images_that_are_training_images_are_reported(root):
    assert read(root, "test").notes == ()
    shutil.copy(root / "train" / "cat" / "1.png", root / "test" / "dog" / "copy.png")
    images = read(root, "test")
    assert images.notes == (
        f"1 of 5 test images are also training images, byte for byte, such as {root / 'test' / 'dog' / 'copy.png'} "
        f"and {root / 'train' / 'cat' / '1.png'}: accuracy on them says nothing about new images",
    )
    assert images.subset(torch.tensor([0])).notes == images.notes


def test_classes_may_be_linked_folders(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "cats"
    (root / "train" / "cat").rename(elsewhere)
    (root / "train" / "cat").symlink_to(elsewhere)
    assert len(read(root)) == 4


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"text"])
def test_a_file_that_is_no_image_is_named(root, content):
    (root / "train" / "dog" / "0.png").write_bytes(content)
    with pytest.raises(UserError, match=r"train/dog/0\.png .*repair or remove it"):
        read(root)


def test_a_truncated_image_is_named(root):
    path = root / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(UserError, match=r"train/dog/1\.png cannot be read as an image .*truncated"):
        read(root)


def test_an_empty_class_folder_is_named(root):
    for path in (root / "test" / "dog").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="test/dog has no images"):
        read(root, "test")


def test_a_class_without_training_images_cannot_be_trained(root, encode):
    (root / "test" / "bee").mkdir()
    (root / "test" / "bee" / "0.png").write_bytes(encode(np.zeros((8, 8), np.uint8)))
    with pytest.raises(UserError, match=r"the class 'bee' is in .*test but not in .*train: no model could learn it"):
        read(root)
    test = read(root, "test")
    assert test.classes == ("bee", "cat", "dog"), "a model from elsewhere may know it"
    assert test.labels.tolist() == [0, 1, 1, 2, 2]
    assert any("1 of 3 classes have no training images: bee" in note for note in test.notes)


def test_a_class_without_test_images_keeps_the_numbers_of_the_others(root):
    shutil.rmtree(root / "test" / "cat")
    train, test = read(root), read(root, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert test.labels.tolist() == [1, 1]
    assert test.notes == ("1 of 2 classes have no test images: cat",)


@pytest.mark.parametrize("name", ["test", "val", "."])
def test_test_images_need_no_training_images(root, name):
    shutil.rmtree(root / "train")
    if name == ".":
        for folder in (root / "test").iterdir():
            folder.rename(root / folder.name)
        (root / "test").rmdir()
    else:
        (root / "test").rename(root / name)
    test = read(root, "test")
    assert test.classes == ("cat", "dog")
    assert test.images[:, 0, 0, 0].tolist() == [50, 51, 200, 201]
    assert len(test.notes) == (name == ".")
    with pytest.raises(UserError, match="train is missing"):
        read(root)


def test_of_two_folders_of_test_images_the_unused_one_is_reported(root):
    shutil.rmtree(root / "train")
    (root / "val").mkdir()
    assert read(root, "test").notes == (f"{root / 'val'} was skipped: the test images are those in {root / 'test'}",)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_named(root, split):
    (root / split).rename(root / "other")
    with pytest.raises(UserError, match=r"(train|val) is missing: images are expected as train/CLASS/\*"):
        read(root, split)


def test_a_training_needs_no_test_images(root):
    whole = read(root)
    (root / "test").rename(root / "other")
    alone = read(root)
    assert torch.equal(alone.images, whole.images)
    assert f"there are no test images; to evaluate the model, put some into {root}/test/CLASS" in alone.notes


def test_a_split_without_class_folders_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train has no class folders"):
        read(tmp_path)


@pytest.mark.slow
def test_train_and_evaluate_tell_what_was_left_out_and_turned(root, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "test"):
        (root / split / "cat" / "a.HEIC").write_bytes(b"no image")
        Image.new("RGB", (20, 10)).save(root / split / "dog" / "turned.jpg", exif=exif)
    run = root / "run"
    small = "--method standard --averaging none --epochs 1 --validation 1 --batch-size 4 --model.width 4 --device cpu"
    words = f"train digits-regmix --data folder --data.root {root} --data.size 8 {small} --out {run}"
    assert main(words.split()) == 0
    output = capsys.readouterr().out
    assert "1 .HEIC" in output
    assert "1 of 5 images were turned upright, as their EXIF orientation says" in output
    assert main(f"evaluate {run} --attacks clean --checkpoint last --no-verdict --device cpu".split()) == 0
    output = capsys.readouterr().out
    assert "1 .HEIC" in output
    assert "1 of 5 images were turned upright" in output


def test_all_classes_without_images_are_named_at_once(root):
    for name in ("ant", "bee", "cow", "eel"):
        (root / "train" / name).mkdir()
    told = rf"4 of 6 folders of {root}/train have no images: ant, bee, cow, eel; add some as JPEG or PNG"
    with pytest.raises(UserError, match=told):
        read(root)
    for name in ("ant", "bee", "cow", "eel"):
        (root / "train" / name).rmdir()
        (root / "test" / name).mkdir()
    with pytest.raises(UserError, match=r"the classes 'ant', 'bee', 'cow', 'eel' are in .*/test but not in .*/train"):
        read(root)


def test_a_folder_that_a_training_does_not_use_is_told(root):
    shutil.copytree(root / "test", root / "dev")
    told = f"{root}: dev/ is not used; the validation images are taken from {root}/train (--validation)"
    assert told in read(root).notes
    shutil.copytree(root / "test", root / "val")
    assert f"{root}: dev/ is not used" in read(root).notes


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_stand_in_for_missing_test_images(root, name):
    test = read(root, "test")
    (root / "test").rename(root / name)
    assert torch.equal(read(root, "test").images, test.images)
    told = f"{root}/{name} holds the test images; the validation images are taken from {root}/train (--validation)"
    assert told in read(root).notes
    assert Folder(root=str(root)).read_validation() is None


@pytest.fixture
def held_out(root, encode):
    """The folder with validation images: three of each class, of other greys."""
    for name, grey in (("dog", 230), ("cat", 20)):
        (root / "val" / name).mkdir(parents=True)
        for i in range(3):
            (root / "val" / name / f"{i}.png").write_bytes(encode(np.full((8, 8), grey + i, np.uint8)))
    return root


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_folder_of_validation_images_is_used_for_validation(held_out, name, stream):
    (held_out / "val").rename(held_out / name)
    config = Folder(root=str(held_out), size=8, stream=stream)
    train, validation = load_training(config, None, None, seed=0)
    assert train.pixels()[:, 0, 0, 0].tolist() == [50, 51, 200, 201], "nothing is taken from train/"
    assert validation.pixels()[:, 0, 0, 0].tolist() == [20, 21, 22, 230, 231, 232]
    assert validation.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert validation.files == tuple(f"{name}/{label}/{n}.png" for label in ("cat", "dog") for n in range(3))
    assert train.notes == (f"the validation images are those of {held_out}/{name} (--validation)",)
    assert read(held_out, "test").notes == ()


def test_numbers_of_training_and_validation_images_are_chosen_evenly(held_out):
    train, validation = load_training(Folder(root=str(held_out), size=8), 2, 4, seed=0)
    assert train.labels.tolist() == [0, 1]
    assert validation.labels.tolist() == [0, 0, 1, 1]
    assert len(load_training(Folder(root=str(held_out), size=8), None, 0, seed=0)[1]) == 0
    with pytest.raises(UserError, match="7 validation images are not available: their folder has 6; ask for fewer"):
        load_training(Folder(root=str(held_out), size=8), None, 7, seed=0)
    with pytest.raises(UserError, match="must not be negative"):
        load_training(Folder(root=str(held_out), size=8), None, -1, seed=0)


def test_the_classes_of_validation_images_are_those_of_the_training(held_out):
    for split in ("train", "test"):
        shutil.copytree(held_out / split / "cat", held_out / split / "ant")
    config = Folder(root=str(held_out), size=8)
    train, validation = load_training(config, None, None, seed=0)
    assert validation.classes == train.classes == ("ant", "cat", "dog")
    assert validation.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert "1 of 3 classes have no validation images: ant" in train.notes
    (held_out / "val" / "dog").rename(held_out / "val" / "fox")
    with pytest.raises(UserError, match=r"the class 'fox' is in .*val but not in .*train: no model could learn it"):
        load_training(config, None, None, seed=0)


def test_images_in_two_of_three_splits_are_reported(held_out):
    shutil.copy(held_out / "train" / "cat" / "1.png", held_out / "val" / "cat" / "copy.png")
    shutil.copy(held_out / "val" / "dog" / "2.png", held_out / "test" / "dog" / "copy.png")
    shutil.copy(held_out / "val" / "dog" / "2.png", held_out / "val" / "beside.png")
    own = Folder(root=str(held_out), size=8)
    assert read(held_out, "test").notes == (), "not every model was validated on them"
    assert [*learned_from(own, own, "")] == []
    (note,) = learned_from(own, own, "val")
    assert note.startswith("1 of 5 test images are also validation images, byte for byte, such as ")
    assert note.endswith("val/dog/2.png: where the best weights were chosen on them, their accuracy is too high")
    train, _ = load_training(own, None, None, seed=0)
    assert [note.split(",")[0] for note in train.notes[-2:]] == [
        "1 of 7 validation images are also training images",
        "1 of 7 validation images are also test images",
    ]
    elsewhere = Folder(root=str(held_out / "elsewhere"), size=8)
    shutil.copytree(held_out / "val", held_out / "elsewhere" / "test")
    notes = [*learned_from(elsewhere, own, "val")]
    assert [note.split(",")[0] for note in notes] == [
        "1 of 7 test images are also training images",
        "7 of 7 test images are also validation images",
    ]
    (held_out / "elsewhere" / "train").symlink_to(held_out / "train")
    assert [note.split(",")[0] for note in learned_from(elsewhere, own, "val")] == notes[1].split(",")[:1]


def test_copies_among_training_images_do_not_matter_for_validation_images_of_their_own(held_out):
    shutil.copy(held_out / "train" / "cat" / "1.png", held_out / "train" / "cat" / "copy.png")
    (note,) = (note for note in read(held_out).notes if "are copies of others" in note)
    assert "drawn for validation" not in note


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (
            lambda root: shutil.copytree(root / "test" / "cat", root / "val" / "cat"),
            "all images in .*val are",
        ),
        (
            lambda root: shutil.copytree(root / "test", root / "val" / "images"),
            "the class 'images' is in .*val",
        ),
        (lambda root: (root / "val").mkdir(), "val has no class folders"),
        (lambda root: shutil.copytree(root / "test" / "cat", root / "valid"), "valid has no class folders"),
    ],
)
def test_a_folder_that_holds_no_validation_images_is_refused_with_a_way_out(root, spoil, complaint):
    spoil(root)
    with pytest.raises(UserError, match=complaint) as refused:
        load_training(Folder(root=str(root), size=8, stream=True), None, None, seed=0)
    assert "/ holds the validation images; rename it to take them from train/)" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_link_from_one_of_two_splits_to_the_other_is_refused(root):
    (root / "val").symlink_to("test")
    for stream in (False, True):
        with pytest.raises(UserError, match=r"val and .*test are the same folder; remove the link"):
            load_training(Folder(root=str(root), size=8, stream=stream), None, None, seed=0)


def test_a_broken_link_to_a_split_is_named(held_out):
    own = Folder(root=str(held_out), size=8)
    shutil.rmtree(held_out / "val")
    (held_out / "val").symlink_to("nowhere")
    with pytest.raises(UserError, match="val is a broken link; repair or remove it"):
        read(held_out)
    assert len(read(held_out, "test")) == 4, "an evaluation needs no validation images"
    assert [*learned_from(own, own, "val")] == []
    (held_out / "val").unlink()
    (held_out / "val").mkdir()
    assert [*learned_from(own, own, "val")] == [], "empty"
    shutil.rmtree(held_out / "test")
    (held_out / "test").symlink_to("nowhere")
    with pytest.raises(UserError, match="test is a broken link; repair or remove it"):
        read(held_out, "test")


TINY = "--data.size 8 --epochs 1 --batch-size 2 --model small_cnn --model.width 2 --averaging none"


def test_a_run_validates_on_the_folder_and_goes_on_only_with_it(held_out, tmp_path, capsys):
    assert main(f"train photos --data.root {held_out} {TINY} --out {tmp_path / 'run'}".split()) == 0
    assert f"the validation images are those of {held_out}/val" in capsys.readouterr().out
    run = Run.open(tmp_path / "run")
    assert run.data().train.counts == (2, 2)
    assert run.data().validation.counts == (3, 3)
    assert run.data().held_out == "val"
    assert main(f"report {tmp_path / 'run'} -o {tmp_path / 'r.html'}".split()) == 0
    assert "The best epoch is chosen on 6 images of the folder val/" in (tmp_path / "r.html").read_text()
    capsys.readouterr()
    (held_out / "val").rename(held_out / "unused")
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "2"]) == 2
    assert "its validation images were those of val/, which is gone" in capsys.readouterr().err


def test_a_run_without_the_folder_does_not_go_on_with_it(held_out, tmp_path, capsys):
    (held_out / "val").rename(held_out / "unused")
    words = f"train photos --data.root {held_out} {TINY} --validation 2 --out {tmp_path / 'run'}".split()
    assert main(words) == 0
    (held_out / "unused").rename(held_out / "val")
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "2"]) == 2
    assert "would now be those of val/ (rename that folder to keep them)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_comparison_tells_of_test_images_that_are_validation_images(held_out, tmp_path_factory, capsys):
    shutil.copy(held_out / "val" / "dog" / "2.png", held_out / "test" / "dog" / "copy.png")
    out = tmp_path_factory.mktemp("compared") / "out"
    words = f"compare photos --data.root {held_out} {TINY} --methods standard --seeds 1 --attacks clean --no-verdict"
    assert main([*words.split(), "--out", str(out)]) == 0
    (stored, *_) = Run.open(out / "standard-seed0").evaluations()
    assert any("1 of 5 test images are also validation images" in note for note in stored.evaluation.notes)


def test_validation_images_do_not_stand_in_for_test_images_that_are_gone(held_out, tmp_path_factory, capsys):
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(f"train photos --data.root {held_out} {TINY} --out {run}".split()) == 0
    evaluate = f"evaluate {run} --attacks clean --no-verdict".split()
    copied = run.with_name("copied")
    shutil.copytree(held_out / "val", copied / "val")
    shutil.rmtree(held_out / "test")
    assert main(evaluate) == 2
    error = capsys.readouterr().err
    assert f"{held_out}/val holds the validation images on which the run's best weights were chosen; put test" in error
    assert error.count("\n") == 1
    other = run.with_name("other")
    shutil.copytree(held_out, other)
    assert main([*evaluate, "--data.root", str(other)]) == 0
    assert "if the run was validated on them, their accuracy is too high" in " ".join(capsys.readouterr().out.split())
    shutil.rmtree(held_out)
    assert main([*evaluate, "--data.root", str(other)]) == 2, "the folder was moved"
    assert "put test images into" in capsys.readouterr().err
    assert main([*evaluate, "--data.root", str(copied)]) == 0
    said = "the test images are the run's validation images, on which its best weights were chosen"
    assert said in " ".join(capsys.readouterr().out.split())


def test_no_evaluation_is_proposed_without_test_images(root, tmp_path, capsys):
    words = f"train photos --data.root {root} --data.size 8 --epochs 1 --batch-size 2 --validation 2 --model small_cnn"
    assert main([*words.split(), "--out", str(tmp_path / "with")]) == 0
    assert capsys.readouterr().out.endswith(f"(next: regmix evaluate {tmp_path}/with)\n")
    shutil.rmtree(root / "test")
    assert main([*words.split(), "--out", str(tmp_path / "without")]) == 0
    command = f"regmix evaluate {tmp_path}/without --data.root FOLDER_OF_TEST_IMAGES"
    assert capsys.readouterr().out.endswith(f"(next: {command})\n")
