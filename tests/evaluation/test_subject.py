"""What identifies the model of an evaluation."""

import inspect
import json
from pathlib import Path

from regmix import models
from regmix.evaluation.subject import is_users


def test_code_of_the_package_and_of_libraries_is_not_the_users(tmp_path: Path) -> None:
    assert not is_users(Path(inspect.getfile(models.SmallCnn)).resolve())
    assert not is_users(Path(json.__file__).resolve())
    assert is_users(tmp_path / "own_model.py")
