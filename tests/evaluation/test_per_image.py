"""images.csv says of every image what the model sees in it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.evaluated import folder, table
from regmix.cli.entry import main
from regmix.data import ImageSet
from regmix.evaluation.per_image import images_csv
from regmix.runs.evaluations import Outcomes
from regmix.runs.thumbnails import Thumbnails


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two classes that differ in brightness, in folders within folders."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 20), ("test", 6)):
        for label, level in (("a cat, old", 60), ("dög", 150)):
            for n in range(count):
                place = root / split / label / f"part{n % 2}"
                place.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng(n + count).integers(-50, 50, (8, 8, 3))
                Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(place / f"{n}.png")
    return root


def test_every_photograph_has_its_file_its_class_and_what_each_attack_makes_of_it(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = f"--data.root {photos} --data.size 8 --epochs 2 --model.width 2 --batch-size 20 --out {run}"
    assert main(["train", "photos", *words.split()]) == 0
    for attacks in ("fgsm", "pgd-2"):  # the second one adds to what the first one wrote
        assert main(f"evaluate {run} --attacks {attacks} --checkpoint last --eps 0.3 --no-verdict".split()) == 0
    with (folder(run) / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["index", "file", "class", "clean", "fgsm@0.3", "pgd-2@0.3"]
    assert len({row["file"] for row in rows}) == len(rows) == 12
    header, *lines = table(run)
    for row, line in zip(rows, lines, strict=True):
        outcome = dict(zip(header, line, strict=True))
        assert (photos / row["file"]).is_file()
        assert Path(row["file"]).parts[1] == row["class"]
        assert row["index"] == outcome["index"]
        for column in ("clean", "fgsm@0.3", "pgd-2@0.3"):
            assert row[column] in ("a cat, old", "dög")
            assert (row[column] == row["class"]) == (outcome[column] == "1")
    assert main(f"report {run} -o {tmp_path / 'report.html'}".split()) == 0
    page, shown = (tmp_path / "report.html").read_text(), Thumbnails.read(folder(run))
    assert shown is not None
    assert [*shown.files] == [rows[place]["file"] for place in shown.index]
    assert all(file in page for file in shown.files)


def test_images_without_files_have_no_such_column_and_unknown_predictions_stay_empty() -> None:
    labels = np.array([0, 1, 1])
    images = ImageSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.from_numpy(labels), ("cat", "dog"))
    predicted = {"clean": np.array([0, 0, 1]), "x": np.array([1, 0, -1])}
    survives = {name: classes == labels for name, classes in predicted.items()}
    table = {"clean": survives["clean"], "without predictions": survives["x"], "x": survives["x"]}
    rows = images_csv(Outcomes(np.array([4, 7, 9]), labels, table, predicted), images).splitlines()
    assert rows == ["index,class,clean,x", "4,cat,cat,dog", "7,dog,cat,cat", "9,dog,dog,"]


def test_a_subset_keeps_the_files_of_its_images() -> None:
    images = ImageSet(
        torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("cat", "dog"), files=("a", "b", "c")
    )
    assert images.subset(torch.tensor([2, 0])).files == ("c", "a")
    assert images.resident().files == ("a", "b", "c")
