"""Where the images of a run are."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from regmix.types import UserError

D = TypeVar("D")


def placed(data: D, run: Path, root: str | Path | None = None) -> D:
    """The data of a run, in another folder if one is given.

    Raises:
        UserError: the folder that the run names is not there, or its data are in no folder.
    """
    recorded = getattr(data, "root", None)
    if root is not None:
        if recorded is None:
            name = getattr(data, "name", "")
            raise UserError(f"the data of {run} are {name}, which has no root; leave the other folder out")
        other: dict[str, Any] = {"root": str(root)}
        return replace(data, **other)  # type: ignore[type-var]
    if recorded is not None and not Path(recorded).exists() and not getattr(data, "download", False):
        here = "" if Path(recorded).is_absolute() else f" in {Path.cwd()}"
        raise UserError(
            f"the images of {run} were in {recorded}, which does not exist{here}; say where they are now with "
            "--data.root FOLDER"
        )
    return data
