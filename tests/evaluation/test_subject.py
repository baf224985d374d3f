"""What identifies the model of an evaluation, and the work of an unfinished one."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
from torch import nn

from regmix.attacks import parse_attacks
from regmix.evaluation import subject
from regmix.evaluation.questions import Questions
from regmix.evaluation.subject import journal_key, users_code
from regmix.models import SmallCnn, build
from regmix.runs.records import Subject
from regmix.runtime.files import digest
from regmix.types import Fingerprint, Sample


def test_only_the_users_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own_model.py"
    own.write_text("from torch import nn\n\n\nclass Own(nn.Linear):\n    pass\n")
    spec = importlib.util.spec_from_file_location("own_model", own)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "own_model", module)
    model = nn.Sequential(build(SmallCnn(width=2), 3, channels=1), module.Own(3, 3))
    assert users_code(model, SmallCnn()) == {str(own.resolve()): digest(own)}, "neither the package's nor a library's"


def test_another_state_of_the_package_or_of_the_files_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Fingerprint(("0", "1"), (2, 2), "pixels", "d")
    about = Subject("last", "w", "s", split, Sample(4, 4, "all"))
    files = tmp_path / "fog.npy"
    files.write_bytes(b"one")
    (tmp_path / "snow.npy").symlink_to(tmp_path / "nowhere")
    questions = Questions(parse_attacks("fgsm"), corruption_files=tmp_path)
    keys = [journal_key(about, [], questions), journal_key(about, [], questions)]
    assert keys[0] == keys[1]
    files.write_bytes(b"two")
    keys.append(journal_key(about, [], questions))
    monkeypatch.setattr(subject, "package_digest", lambda: "of another state")
    keys.append(journal_key(about, [], questions))
    assert len({*keys}) == 3


def test_the_digest_of_the_package_is_about_what_computes_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    named = []
    monkeypatch.setattr(subject, "digest", lambda path: named.append(path.name) or "same")
    subject.package_digest.__wrapped__()
    assert {"draws.py", "apgd.py", "chunks.py", "resnet.py", "regmix.py"} <= {*named}
    assert not {"report.py", "entry.py"} & {*named}


def test_the_modules_that_the_code_imports_belong_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also relative ones, those of a package, those inside of functions, and what those import in turn."""
    (tmp_path / "layers").mkdir()
    (tmp_path / "late" / "part").mkdir(parents=True)
    texts = {
        "own_net.py": "import json\nfrom torch import nn\nimport layers.deep\nfrom helper import prepare\n\n\n"
        "class Net(nn.Linear):\n    def forward(self, x):\n        import lazy\n        from late.part import tool\n"
        "        return super().forward(x)\n",
        "helper.py": "from layers import *\n\n\ndef prepare(x):\n    return x\n",
        "layers/__init__.py": "from . import shallow\n",
        "layers/shallow.py": "",
        "layers/deep.py": "from .shallow import __doc__ as text\n",
        "late/__init__.py": "",
        "late/part/__init__.py": "",
        "late/part/tool.py": "raise RuntimeError('nothing is imported')\n",
        "lazy.py": "",
        "unrelated.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("own_net").Net(3, 3)
    found = {Path(name).relative_to(tmp_path.resolve()).as_posix() for name in users_code(model, SmallCnn())}
    for name in ("own_net", "helper", "layers", "layers.shallow", "layers.deep"):
        monkeypatch.delitem(sys.modules, name)
    assert found == {*texts} - {"unrelated.py"}
