"""Whether a folder is a run directory."""

from pathlib import Path

from regmix.runs.exported import WEIGHTS
from regmix.runtime.files import read_object
from regmix.types import UserError

CONFIG = "config.json"


def check_folder(path: Path) -> None:
    """Raises UserError, which says what the path is instead, unless it is a run directory."""
    if (path / WEIGHTS).is_file():
        hint = f"give the folder of the training, or evaluate {path / WEIGHTS} with --model and --data"
        raise UserError(f"{path} is an exported model, not a run directory; {hint}")
    if not path.exists():
        why = "it does not exist"
    elif not path.is_dir():
        why = "it is a file"
    elif not (path / CONFIG).is_file():
        why = f"it has no {CONFIG}"
    elif _is_of_another_program(path / CONFIG):
        why = f"its {CONFIG} is not one of regmix"
    else:
        return
    raise UserError(f"{path} is not a run directory, because {why}; give the folder of a training")


def _is_of_another_program(config: Path) -> bool:
    """Whether a config.json is sound and has nothing that the settings of every run have."""
    try:
        return not {"data", "model", "threat"} & read_object(config).keys()
    except UserError:  # damaged; who reads the settings will say how
        return False
