"""The environment that a run records."""

import subprocess
from pathlib import Path

import torch

from regmix.runs.environment import environment, git_commit
from regmix.version import __version__


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def a_checkout(root: Path) -> Path:
    """A repository with one committed package, src/some."""
    package = root / "src" / "some"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "Begin")
    return package


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path: Path) -> None:
    package = a_checkout(tmp_path)
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(package) == commit
    (package / "__init__.py").write_text("changed = True\n")
    assert git_commit(package) == f"{commit}-dirty"


def test_a_package_elsewhere_in_a_repository_has_no_commit(tmp_path: Path) -> None:
    a_checkout(tmp_path)
    installed = tmp_path / "lib" / "some"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_commit(installed) is None


def test_it_is_about_this_package_and_process() -> None:
    facts = environment(torch.device("cpu"), "32", "regmix train")
    assert facts.regmix == __version__
    assert (facts.device, facts.precision, facts.processes, facts.command) == ("cpu", "32", 1, "regmix train")
    root = Path(__file__).parents[2]
    head = git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    assert facts.git_commit in ({head, f"{head}-dirty"} if head else {None})
