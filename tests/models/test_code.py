"""The files of code that a model is made of, and whether they have changed."""

import importlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

import regmix
from contracts.evaluated import record
from regmix.cli.entry import main
from regmix.errors import Doubt
from regmix.models import SmallCnn, build, changed_code, users_code
from regmix.runtime.files import digest


def test_only_the_users_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own_model.py"
    own.write_text("from torch import nn\n\n\nclass Own(nn.Linear):\n    pass\n")
    spec = importlib.util.spec_from_file_location("own_model", own)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "own_model", module)
    model = nn.Sequential(build(SmallCnn(width=2), 3, channels=1), module.Own(3, 3))
    assert users_code(model, SmallCnn()) == {str(own.resolve()): digest(own)}, "neither the package's nor a library's"


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


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({}, {"/a/net.py": "1"}, None),  # not recorded
        ({"/a/net.py": "1"}, {"/b/net.py": "1"}, None),  # it moved
        ({"/a/net.py": "1"}, {"/a/net.py": "2"}, "net.py"),
        ({"/a/net.py": "1"}, {"/a/net.py": "1", "/a/more.py": "2"}, "more.py"),
        ({"/a/net.py": "1", "/a/more.py": "2"}, {"/a/net.py": "1"}, "more.py"),
        ({"/a/net.py": "1"}, {}, "net.py"),
    ],
)
def test_what_has_changed_is_named(before: dict[str, str], now: dict[str, str], named: str | None) -> None:
    found = changed_code(before, now)
    assert found is None if named is None else f"has changed since its training began: {named}; if" in (found or "")


EVALUATE = ["evaluate", "run", "--attacks", "clean", "--examples", "10", "--checkpoint", "last", "--trust-code"]
NET = """import torch
import pooling_{number}


class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(36, classes)

    def forward(self, x):
        return self.linear(pooling_{number}.pool(self.conv(x), 2).flatten(1))


def make(classes):
    return Net(classes)
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In a folder with a model of the user's, a run of it, whose helper file was edited afterwards; their number."""
    number = str(abs(hash(tmp_path)))
    (tmp_path / f"net_{number}.py").write_text(NET.format(number=number))
    helper = tmp_path / f"pooling_{number}.py"
    helper.write_text("from torch.nn.functional import max_pool2d as pool\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = "train digits-regmix --method standard --epochs 2 --train-examples 60 --validation 50 --averaging none"
    assert main([*words.split(), "--model", f"net_{number}:make", "--out", "run"]) == 0
    code = json.loads(Path("run/environment.json").read_text())["code"]
    assert code == {str(file): digest(file) for file in (tmp_path / f"net_{number}.py", helper)}
    helper.write_text("from torch.nn.functional import avg_pool2d as pool\n")
    yield number
    for name in (f"net_{number}", f"pooling_{number}"):
        sys.modules.pop(name, None)


def test_an_evaluation_says_that_the_code_is_not_that_of_the_training(trained: str, capsys) -> None:
    assert main(EVALUATE) == 0
    said = f"the code of the model has changed since its training began: pooling_{trained}.py"
    assert said in " ".join(capsys.readouterr().out.split())
    assert any(finding.startswith(said) for finding in record(Path("run"))["preflight"])
    assert main(["report", "run", "-o", "r.html"]) == 0
    assert said in Path("r.html").read_text()


def test_whoever_loads_the_model_or_trains_on_is_told(trained: str, capsys) -> None:
    said = f"the code of the model has changed since its training began: pooling_{trained}.py"
    with pytest.warns(Doubt, match=said):
        regmix.load_model("run", trust_code=True)
    assert main(["export", "run", "--format", "safetensors", "--out", "exported", "--trust-code"]) == 0
    assert f"regmix: warning: {said}" in capsys.readouterr().err
    with pytest.warns(Doubt, match=said):
        regmix.load_model("exported", trust_code=True)
    described = json.loads(Path("exported/model.json").read_text())["code"]
    assert {*described} == {f"net_{trained}.py", f"pooling_{trained}.py"}, "no folders of this machine"
    assert main(["train", "--resume", "run", "--epochs", "3", "--trust-code"]) == 0
    shown = capsys.readouterr()
    assert said in " ".join((shown.out + shown.err).split())


def test_code_that_stayed_is_no_reason_for_a_remark(trained: str, capsys) -> None:
    Path(f"pooling_{trained}.py").write_text("from torch.nn.functional import max_pool2d as pool\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Doubt)
        assert len(regmix.load_model("run", trust_code=True).classes) == 10
        assert main(["export", "run", "--format", "hub", "--out", "exported", "--trust-code"]) == 0
        assert len(regmix.load_model("exported", source=f"net_{trained}:make").classes) == 10
    assert main(EVALUATE) == 0
    assert "has changed" not in capsys.readouterr().out
