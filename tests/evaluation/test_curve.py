"""The curve of accuracy against eps: its numbers, and that it agrees with attacks at fixed radii image by image."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from contracts.evaluated import folder, record, table
from regmix.attacks import Fgsm, Fmn, Pgd
from regmix.cli.entry import main
from regmix.evaluation import checkpoint, curve, distances
from regmix.evaluation.curve import smallest
from regmix.runs.distances import Distances
from regmix.threats import L2, Linf
from regmix.types import Batch, UserError

RADII = (0.02, 0.05, 0.1, 0.15, 0.2)


def test_the_curve_counts_images_whose_distance_is_larger_and_the_quantiles_are_order_statistics() -> None:
    least = np.array([0.0, 0.0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.5, math.inf, math.inf])
    drawn = curve(least, ["fmn"], [0.2])
    assert drawn.eps[0] == 0.0
    assert drawn.eps[-1] == 0.5
    assert drawn.eps == sorted(drawn.eps)
    assert drawn.accuracy == [float((least > eps).mean()) for eps in drawn.eps]
    assert drawn.accuracy[drawn.eps.index(0.2)] == 0.5
    assert all(low <= share <= high for low, share, high in zip(drawn.low, drawn.accuracy, drawn.high, strict=True))
    assert {q.share: q.distance for q in drawn.quantiles} == {0.1: 0.0, 0.25: 0.1, 0.5: 0.2, 0.75: 0.5, 0.9: None}
    assert drawn.unbroken == 2


def test_the_interval_of_the_median_covers_it_at_95_percent() -> None:
    """It lies between order statistics l and u, with P(l <= Binomial(n, 1/2) < u) at least 95 %."""
    least = np.arange(1.0, 101.0)
    (median,) = [q for q in curve(least, ["fmn"]).quantiles if q.share == 0.5]
    assert median.distance == 50.0
    covered = binom.cdf(median.high - 1, 100, 0.5) - binom.cdf(median.low - 1, 100, 0.5)
    assert 0.95 <= covered <= 0.98


def test_an_image_that_a_column_breaks_at_a_radius_has_at_most_that_distance() -> None:
    found = {"fmn": np.array([0.3, 0.05, math.inf]), "fab-t": np.array([0.2, 0.07, math.inf])}
    survives = {
        "pgd-10@0.1": (0.1, np.array([False, True, True])),
        "pgd-10@0.4": (0.4, np.array([False, False, False])),
    }
    assert smallest(found, survives).tolist() == [0.1, 0.05, 0.4]


def test_a_model_with_known_distances_gives_them() -> None:
    """z = (sum of the pixels - 2, 0) on 2 x 2 pixels: the distance is |4 v - 2| / 4 under L-inf, / 2 under L2."""

    def model(images: torch.Tensor) -> torch.Tensor:
        total = images.sum((1, 2, 3))
        return torch.stack([total - 2, 0 * total], 1)

    values = torch.tensor([0.9, 0.6, 0.4, 0.8], dtype=torch.float64)
    x = values.view(4, 1, 1, 1).expand(4, 1, 2, 2)
    y = torch.tensor([0, 0, 1, 1])  # the last one is misclassified without a perturbation
    for threat, exact in ((Linf(), [0.4, 0.1, 0.1, 0.0]), (L2(), [0.8, 0.2, 0.2, 0.0])):
        found = distances(model, [Batch(x[:3], y[:3]), Batch(x[3:], y[3:])], threat, {"fmn": Fmn(steps=100)})["fmn"]
        assert found.tolist() == pytest.approx(exact, rel=0.02)
        assert (found[:3] >= np.array(exact[:3]) * (1 - 1e-9)).all()


def test_the_attack_is_not_trusted() -> None:
    class Liar(Fmn):
        def shortest(self, model, x, y, threat):
            return torch.full_like(x, 1e-3)

    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long)
    found = distances(
        lambda z: torch.stack([z.sum((1, 2, 3)) + 1, 0 * z.sum((1, 2, 3))], 1), [(x, y)], Linf(), [Liar()]
    )
    assert next(iter(found.values())).tolist() == [math.inf] * 3


class Coarse(nn.Module):
    """z = (sum of the pixels - 2, 0), of pixels that are rounded to two bits where they are dark."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.where(x.mean((1, 2, 3), keepdim=True) < 0.8, (3 * x).round() / 3, x).sum((1, 2, 3))
        return torch.stack([total - 2, 0 * total], 1)


@pytest.mark.parametrize("attack", ["fmn", "fab-t", "deepfool"])
def test_images_without_a_gradient_are_told(attack: str) -> None:
    x = torch.tensor([0.9, 0.7, 0.65]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    with pytest.warns(UserWarning, match=f"{attack} has no gradient to follow at 2 images"):
        found = distances(Coarse(), [(x, torch.zeros(3, dtype=torch.long))], Linf(), attack)[attack]
    assert np.isfinite(found).tolist() == [True, False, False]


def test_a_model_without_a_gradient_is_refused() -> None:
    def model(images: torch.Tensor) -> torch.Tensor:
        return Coarse()(images.detach())

    with pytest.raises(UserError, match=r"no gradient flows .* so fmn cannot attack"):
        distances(model, [(torch.rand(2, 1, 2, 2), torch.ones(2, dtype=torch.long))], Linf(), "fmn")


ROUNDED = """
from torch import nn
from regmix import load_model
class Rounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = load_model("tiny").model
    def forward(self, x):
        return self.inner((15 * x).round() / 15)
"""


def test_an_evaluation_says_where_attacks_had_no_gradient(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(run, "tiny", ignore=shutil.ignore_patterns("evaluations"))
    Path("rounded.py").write_text(ROUNDED)
    words = "evaluate rounded:Rounded --data digits --threat.eps 0.1 --examples 30 --no-verdict --out rounded"
    assert main([*words.split(), "--attacks", "clean", "--curve", "fmn,deepfool"]) == 0
    drawn, index = record(Path("rounded"))["curve"], np.array([int(row[0]) for row in table(Path("rounded"))[1:]])
    idle = int(np.isinf(Distances.read(folder(Path("rounded")), index).found["fmn"]).sum())
    assert idle == drawn["unbroken"] > 0
    assert drawn["without_gradient"] == {"fmn": idle, "deepfool": idle}
    told = f"found for {idle} images (without a gradient to follow, no sign of robustness: fmn at {idle} images"
    assert told in capsys.readouterr().out
    # What is asked again, on a journal or not, adds to the counts.
    assert main([*words.split(), "--attacks", "clean", "--curve", "fab-t"]) == 0
    assert {*record(Path("rounded"))["curve"]["without_gradient"]} == {"fmn", "deepfool", "fab-t"}
    assert main(["report", "rounded", "-o", "report.html"]) == 0
    assert told in Path("report.html").read_text()


@pytest.mark.parametrize("attack", [Pgd(), Fgsm()])
def test_an_attack_at_a_fixed_radius_has_no_curve(attack) -> None:
    with pytest.raises(UserError, match="fixed radius"):
        distances(lambda z: z.flatten(1), [(torch.rand(1, 1, 2, 2), torch.tensor([0]))], Linf(), [attack])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    words = "train digits-regmix --train-examples 300 --validation 50 --epochs 4 --model.width 8 --method standard"
    assert main([*words.split(), "--averaging", "none", "--out", str(path)]) == 0
    eps = ",".join(map(str, RADII))
    words = f"evaluate {path} --checkpoint last --examples 30 --batch-size 16 --no-verdict --eps {eps}"
    assert main([*words.split(), "--attacks", "fmn,pgd-20", "--curve", "fmn"]) == 0
    return path


def test_it_agrees_with_attacks_at_five_radii_image_by_image(run: Path) -> None:
    drawn, (header, *rows) = record(run)["curve"], table(run)
    survives = dict(zip(header, np.array(rows, dtype=np.int64).T, strict=True))
    found = Distances.read(folder(run), survives["index"]).found["fmn"]
    assert ((found == 0) == (survives["clean"] == 0)).all()
    missed = 0
    for eps in RADII:
        # The same attack at the radius keeps the same perturbations: the verdicts are equal, image by image.
        assert ((found > eps) == (survives[f"fmn@{eps}"] == 1)).all()
        worst = survives[f"fmn@{eps}"] * survives[f"pgd-20@{eps}"]
        at = drawn["accuracy"][drawn["eps"].index(eps)]
        assert at <= worst.mean() + 1e-12, "an image that a column breaks counts as broken in the curve"
        missed += int((worst != (found > eps)).sum())
    assert missed <= 5, "of 150 verdicts, fmn and PGD-20 differ on few"
    assert 0 < drawn["accuracy"][drawn["eps"].index(0.1)] < 1, "the radii must leave something to find out"
    assert drawn["rests_on"] == ["fmn", *(f"{name}@{eps}" for eps in RADII for name in ("fmn", "pgd-20"))]


def test_the_report_draws_it(run: Path, tmp_path: Path) -> None:
    assert main(["report", str(run), "-o", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "from the smallest perturbations" in text
    assert "rests on fmn" in text


def test_a_later_evaluation_adds_to_it(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(run, again)
    words = f"evaluate {again} --checkpoint last --examples 30 --batch-size 16 --no-verdict --attacks clean"
    assert main([*words.split(), "--curve", "deepfool"]) == 0
    drawn = record(again)["curve"]
    assert drawn["rests_on"][:2] == ["fmn", "deepfool"]
    assert "pgd-20@0.1" in drawn["rests_on"]
    before = record(run)["curve"]
    assert drawn["accuracy"][drawn["eps"].index(0.1)] <= before["accuracy"][before["eps"].index(0.1)]


def test_one_that_ends_meanwhile_is_part_of_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distances of two processes that evaluate the same weights at the same time are merged, not overwritten."""
    again, real = tmp_path / "again", checkpoint.add
    shutil.copytree(run, again, ignore=shutil.ignore_patterns("evaluations"))
    words = f"evaluate {again} --checkpoint last --examples 30 --batch-size 16 --no-verdict --eps 0.1"

    def meanwhile(*given):
        monkeypatch.setattr(checkpoint, "add", real)
        assert main([*words.split(), "--attacks", "pgd-5", "--curve", "deepfool"]) == 0
        return real(*given)

    monkeypatch.setattr(checkpoint, "add", meanwhile)
    assert main([*words.split(), "--attacks", "pgd-3", "--curve", "fmn"]) == 0
    drawn = record(again)["curve"]
    assert {"fmn", "deepfool", "pgd-3@0.1", "pgd-5@0.1"} <= {*drawn["rests_on"]}
    assert {*drawn["costs"]} == {"fmn", "deepfool"}
    assert {*Distances.read(folder(again), np.array([int(row[0]) for row in table(again)[1:]])).found} == {
        *drawn["costs"]
    }


@pytest.mark.parametrize(
    ("words", "error"), [("pgd-50", "fixed radius"), ("ddn", "L2 threat"), ("nonsense", "unknown")]
)
def test_what_has_no_curve_is_refused_before_anything_is_attacked(run: Path, words: str, error: str, capsys) -> None:
    assert main(["evaluate", str(run), "--curve", words]) != 0
    assert error in capsys.readouterr().err


def test_a_damaged_file_is_refused(run: Path, tmp_path: Path) -> None:
    index = np.arange(3)
    Distances(index, {"fmn": np.array([0.1, math.inf, 0.0])}).write(tmp_path)
    assert Distances.read(tmp_path, index).found["fmn"].tolist() == [0.1, math.inf, 0.0]
    with pytest.raises(UserError, match="other images"):
        Distances.read(tmp_path, np.arange(1, 4))
    (tmp_path / "distances.csv").write_text("index,fmn\n0,0.1\n1,nan\n2,0\n")
    with pytest.raises(UserError, match="damaged"):
        Distances.read(tmp_path, index)


def test_the_json_has_no_infinity(run: Path) -> None:
    json.loads((folder(run) / "evaluation.json").read_text(), parse_constant=pytest.fail)
