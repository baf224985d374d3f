"""The way of somebody with photographs and a model of their own, on real traffic signs: every number is right."""

import re
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regmix
from contracts.evaluated import record, table
from regmix.cli.entry import main
from regmix.data import Folder, ImageSet, draw, load
from regmix.training.trainee import Trainee

CODE = """
import torch
from torch import nn

def net(classes):
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2), nn.BatchNorm2d(24), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(216, classes),
    )
"""
EPS = 2 / 255
SOURCE = "signs_net:net"
DATA = "--data folder --data.root signs --data.size 24"
TRAIN = f"train digits-regmix {DATA} --method pgd_at --method.steps 2 --model function --model.source {SOURCE} "
TRAIN += "--threat.eps 2/255 --epochs 6 --validation 200 --averaging none --lr 0.1 --out run"
EXAMPLES = 172


class Words(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text())
        self.text = " ".join(" ".join(self.found).split())

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def report(run: str = "run") -> str:
    assert main(["report", run, "-o", "report.html"]) == 0
    return Words(Path("report.html")).text


def percent(right: Tensor) -> str:
    return f"{100 * right.double().mean():.1f}%"


def fgsm(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images are right without an attack and after one step of eps along the sign of the gradient."""
    x = images.float() / 255
    x.requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)
    bad = (x + EPS * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        return (logits.argmax(1) == labels) & (model(bad).argmax(1) == labels)


@pytest.fixture
def signs(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the photographs and the code of a network."""
    with tarfile.open(shared / "gtsrb-small.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "gtsrb-small").rename(tmp_path / "signs")
    (tmp_path / "signs_net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def learned(images: ImageSet) -> nn.Module:
    """The network after a little plain training, by a loop of one's own."""
    torch.manual_seed(0)
    space: dict[str, Any] = {}
    exec(CODE, space)
    model: nn.Module = space["net"](len(images.classes))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(3):
        for part in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images.images[part].float() / 255), images.labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.real_data
def test_own_photographs_and_own_weights(signs: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    train, test = (load(Folder(root="signs", size=24), split) for split in ("train", "test"))
    assert len(test.classes) == 43

    # weights of one's own are those that are evaluated
    plain = learned(train)
    torch.save(plain.state_dict(), "plain.pt")
    own = (
        f"evaluate plain.pt --model function --model.source {SOURCE} {DATA} --threat.eps 2/255 --attacks fgsm --out own"
    )
    assert main(own.split()) == 0
    with torch.no_grad():
        right = plain(test.images.float() / 255).argmax(1) == test.labels
    assert record(Path("own"))["columns"]["clean"]["correct"] == int(right.sum())
    assert record(Path("own"))["columns"]["fgsm@2/255"]["correct"] == int(fgsm(plain, test.images, test.labels).sum())
    text = report("own")
    assert percent(right) in text
    assert "unknown method" not in text
    assert "Not finished" not in text
    assert "regmix train" not in text

    # a training that is interrupted, evaluated as it is, and resumed
    real, steps = Trainee.learn, []

    def interrupted(self: Trainee, *words: Any) -> None:
        steps.append(1)
        if len(steps) > 45:
            raise KeyboardInterrupt
        real(self, *words)

    monkeypatch.setattr(Trainee, "learn", interrupted)
    assert main(TRAIN.split()) == 130
    monkeypatch.setattr(Trainee, "learn", real)
    evaluate = f"evaluate run --examples {EXAMPLES} --checkpoint last --no-verdict --model.source {SOURCE} --attacks"
    assert main([*evaluate.split(), "fgsm"]) == 0
    early = record(Path("run"))["columns"]["fgsm@2/255"]
    assert main(["train", "--resume", "run", "--model.source", SOURCE]) == 0
    text = report()
    assert "is outdated: the last weights have changed since" in text
    assert "correct under" not in text

    # three evaluations with different attacks add up
    for attacks in ("clean,fgsm", "pgd-10", "square"):
        assert main([*evaluate.split(), attacks]) == 0
    model, classes, _ = regmix.load_model("run", "last", source=SOURCE)
    sample, index = draw(test.labels, EXAMPLES)
    images, labels = test.images[index], test.labels[index]
    with torch.no_grad():
        right = model(images.float() / 255).argmax(1) == labels
    header, *rows = table(Path("run"))
    columns = {name: torch.tensor([int(row[n]) for row in rows]) == 1 for n, name in enumerate(header) if n > 1}
    assert list(columns) == ["clean", "fgsm@2/255", "pgd-10@2/255", "square@2/255"]
    assert [int(row[0]) for row in rows] == index.tolist()
    assert torch.equal(columns["clean"], right)
    assert torch.equal(columns["fgsm@2/255"], fgsm(model, images, labels))
    assert columns["fgsm@2/255"].double().mean() != early["accuracy"]
    text = report()
    for name, survives in columns.items():
        low, high = record(Path("run"))["columns"][name]["low"], record(Path("run"))["columns"][name]["high"]
        assert f"{percent(survives)} {100 * low:.1f}\N{EN DASH}{100 * high:.1f}" in text, name
    worst = torch.stack([survives for name, survives in columns.items() if name != "clean"]).all(0)
    assert re.search(rf"Worst case {percent(worst)}", text)
    assert sample.text() in text
    assert classes == test.classes

    # another class moves the numbers of the others: refused by name, and right again without it
    for split in ("train", "test"):
        (signs / "signs" / split / "00000").rename(signs / "signs" / split / "zebra")
    capsys.readouterr()
    assert main([*evaluate.split(), "fgsm"]) == 2
    assert "zebra is new" in capsys.readouterr().err
    assert main(["train", "--resume", "run", "--model.source", SOURCE]) == 2
    assert "zebra is new" in capsys.readouterr().err
    for split in ("train", "test"):
        (signs / "signs" / split / "zebra").rename(signs / "signs" / split / "00000")
    assert main([*evaluate.split(), "fgsm"]) == 0
    assert table(Path("run")) == [header, *rows]
