"""The wheel alone, without the sources beside it: nothing that the program reads is left out."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    program = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    (built,) = source.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked into a folder of its own: that is all that installing it does to its files."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def run(installed: Path, cwd: Path, *words: str) -> str:
    """What a program prints that imports regmix from the wheel."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_trains_evaluates_and_reports(installed: Path, tmp_path: Path) -> None:
    assert Path(run(installed, tmp_path, "-c", "import regmix; print(regmix.__file__)").strip()).is_relative_to(
        installed
    )
    small = "--train-examples 60 --validation 50 --epochs 1 --model.width 4"
    for line in (
        "train digits-regmix --help-all",
        f"train digits-regmix {small} --out run",
        "evaluate run --attacks fgsm --examples 20 --checkpoint last --no-verdict",
        "report run -o report.html",
        "export run --format safetensors --checkpoint last --out model",
        "recipes",
    ):
        run(installed, tmp_path, "-m", "regmix", *line.split())
    assert (tmp_path / "report.html").read_text().count("<style>") >= 1
    assert "10" in run(installed, tmp_path, "-c", "import regmix; print(len(regmix.load_model('model').classes))")


@pytest.mark.slow
def test_every_file_of_the_package_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if name.startswith("regmix/")}
    files = [path for path in (ROOT / "src/regmix").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    ours = {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert ours - inside <= {"regmix/data/digits.LICENSE.txt"}, "the licence is among the metadata"


@pytest.mark.slow
def test_its_description_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        facts = Parser().parsestr(packed.read(name).decode())
        licences = {Path(name).name for name in packed.namelist() if "/licenses/" in name}
    assert facts["Name"] == "regmix"
    assert facts["Description-Content-Type"] == "text/markdown"
    assert any(url.startswith("Paper, ") for url in facts.get_all("Project-URL", []))
    assert licences == {"LICENSE", "digits.LICENSE.txt"}
