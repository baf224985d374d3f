"""With what a run was made."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal


@dataclass(frozen=True)
class Environment:
    """environment.json: where and with what a run was made."""

    regmix: str | None = None
    python: str | None = None
    torch: str | None = None
    platform: str | None = None
    device: str | None = None
    precision: Literal["32", "bf16", "64"] | None = None
    """Of the training: 32, bf16 or 64. A resumed run keeps it."""
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

    def known(self) -> dict[str, str | int]:
        """The values that are not missing, by name; of the code, the names of the files."""
        code = ", ".join(sorted(PurePath(path).name for path in self.code)) or None
        return {name: value for name, value in {**vars(self), "code": code}.items() if value is not None}
