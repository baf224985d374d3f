"""With what a run was made."""

import platform
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

import torch

from regmix.runtime import processes
from regmix.runtime.files import digest, printable
from regmix.version import __version__

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Environment:
    """environment.json: where and with what a run was made."""

    regmix: str | None = None
    python: str | None = None
    torch: str | None = None
    platform: str | None = None
    device: str | None = None
    precision: Literal["32", "bf16", "64"] | None = None
    """Of the training: 32, bf16 or 64. A resumed run keeps it. None of a model from elsewhere."""
    threads: int | None = None
    processes: int | None = None
    git_commit: str | None = None
    """Of regmix's own checkout, ending in -dirty if its source was changed."""
    command: str | None = None
    source: str | None = None
    """Of a model from elsewhere: the file of weights or module:function."""
    init: str | None = None
    """Digest of the weights that the training started from; None: random weights."""
    code: dict[str, str] = field(default_factory=dict)
    """Digests of the user's files that define the model, by path; empty for a model of regmix or a library."""
    run_id: str | None = None
    """A random name by which other programs know the run, wherever its directory is."""

    def known(self) -> dict[str, str | int]:
        """The values that are not missing, by name, for readers; of the code, the names of the files."""
        code = ", ".join(sorted(PurePath(path).name for path in self.code)) or None
        shown = {**vars(self), "code": code, "run_id": None}
        return {name: value for name, value in shown.items() if value is not None}


def environment(
    device: torch.device, precision: Literal["32", "bf16", "64"] | None = None, command: str = "",
    init: Path | None = None, code: dict[str, str] | None = None, source: str | None = None,
) -> Environment:  # fmt: skip
    """The content of environment.json.

    Args:
        precision: of a training.
        command: empty: that of this process.
        init: the file of weights that the training starts from.
        code: what `users_code` returns for the model.
        source: of a model from elsewhere.
    """
    return Environment(
        regmix=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=platform.platform(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        processes=processes.size(),
        git_commit=git_commit(),
        command=printable(command or " ".join(sys.argv)),
        init=digest(init) if init is not None else None,
        code=code or {},
        source=source,
        run_id=secrets.token_hex(8),
    )


def git_commit(package: Path = PACKAGE) -> str | None:
    """The commit of the checkout that holds this package, with -dirty if the package has been changed since.

    None if the package is not run from its checkout, but for example from site-packages within another repository.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) / "src" / package.name != package.resolve():
            return None
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
