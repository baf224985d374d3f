"""What environment.json records: versions, device, commit and command."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Literal

import torch

from regmix.runs.records import Environment
from regmix.runtime import processes
from regmix.runtime.files import digest, printable
from regmix.version import __version__

PACKAGE = Path(__file__).parents[1]


def environment(
    device: torch.device, precision: Literal["32", "bf16", "64"], command: str, init: Path | None = None,
    code: dict[str, str] | None = None,
) -> Environment:  # fmt: skip
    """The content of environment.json.

    Args:
        command: empty: that of this process.
        init: the file of weights that the training starts from.
        code: what `users_code` returns for the model.
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
