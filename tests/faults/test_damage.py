"""Damaged run directories and full disks: everything is recovered or named, and no number changes in silence."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.evaluated import evaluated, folder, record, table
from contracts.finished import assert_same_weights, rows
from regmix.cli.entry import main
from regmix.evaluation.per_image import IMAGES

WORDS = "train digits-regmix --method fgsm_pgk --averaging ema --train-examples 200 --validation 50 --epochs 3 "
WORDS += "--model.width 4 --pad 1 --seed 1"
EVALUATE = "--attacks fgsm,pgd-2 --examples 40 --device cpu"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*WORDS.split(), "--out", str(path)]) == 0
    assert main(["evaluate", str(path), *EVALUATE.split()]) == 0
    return path


def numbers(run: Path) -> dict:
    """What the evaluations have found."""
    return {
        name: (
            {column: found["correct"] for column, found in record(run, name)["columns"].items()},
            table(run, name),
            (folder(run, name) / IMAGES).read_text(),
        )
        for name in evaluated(run)
    }


def ends_well(code: int, capsys: pytest.CaptureFixture[str], damaged: Path) -> bool:
    """Whether a command did its work; if not, it has named the damaged file in one line."""
    error = capsys.readouterr().err
    if code == 0:
        return True
    assert code == 2, error
    assert error.count("\n") == 1, error
    assert damaged.name in error
    return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_a_truncated_file_is_recovered_or_named(seed: int, whole: Path, tmp_path: Path, capsys) -> None:
    broken = tmp_path / "run"
    shutil.copytree(whole, broken)
    draw = random.Random(seed)
    files = sorted(path for path in broken.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    damaged = files[seed % len(files)]
    content = damaged.read_bytes()
    damaged.write_bytes(content[: draw.randrange(len(content))])
    capsys.readouterr()

    report = tmp_path / "report.html"
    if ends_well(main(["report", str(broken), "-o", str(report)]), capsys, damaged):
        unread = damaged.suffix in (".pt", ".safetensors") or damaged.name in ("data.json", IMAGES)
        assert unread, f"the report says nothing of {damaged.name}"
    if ends_well(main(["train", "--resume", str(broken)]), capsys, damaged):
        assert rows(broken) == rows(whole)
        if damaged.name != "best.safetensors":
            assert_same_weights(whole, broken)
    if ends_well(main(["evaluate", str(broken), *EVALUATE.split()]), capsys, damaged):
        assert numbers(broken) == numbers(whole)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8])
def test_a_disk_that_is_full_leaves_the_last_good_state(share: float, whole: Path, tmp_path: Path, capsys) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    training = [path for path in whole.iterdir() if path.is_file()]
    size = int(share * sum(path.stat().st_size for path in training))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs rights that this process has not")
    try:
        path = disk / "run"
        capsys.readouterr()
        assert main([*WORDS.split(), "--out", str(path)]) == 1
        error = capsys.readouterr().err
        assert "No space left on device" in error
        assert error.startswith(f"regmix: error: {path}/")
        assert error.count("\n") == 1
        moved = tmp_path / "moved"
        shutil.copytree(path, moved)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert not [*moved.glob("*.part"), *moved.glob(".*.part")]
    assert main(["train", "--resume", str(moved)]) == 0
    assert rows(moved) == rows(whole)
    assert_same_weights(whole, moved)
