"""Black boxes: only answers are used, every query is counted, and no budget is exceeded."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.evaluated import record, table
from regmix.cli.entry import main
from regmix.data import Digits, draw, load
from regmix.evaluation.preflight import preflight
from regmix.models import Answers
from regmix.runs.columns import query_curve
from regmix.types import UserError

CODE = """
import numpy as np
import torch

SIZES, NOT_COUNTED = [], []
CENTRES = None

def centres():
    global CENTRES
    if CENTRES is None:
        from regmix.data import Digits, load
        images = load(Digits(), "test")
        x = images.images.flatten(1).float() / 255
        CENTRES = torch.stack([x[images.labels == c].mean(0) for c in range(10)])
    return CENTRES

def look(images):
    assert images.dtype == torch.float32 and not images.requires_grad and images.device.type == "cpu"
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    SIZES.append(len(images))
    return -torch.cdist(images.flatten(1), centres())

def classes(images):
    return look(images).argmax(1).numpy()

def column(images):
    return look(images).argmax(1)[:, None].to(torch.int32)

def scores(images):
    return look(images).softmax(1).numpy()

def three(images):
    return np.zeros((len(images), 3))

BROKEN_AT = 10**9

def broken(images):
    if sum(SIZES) > BROKEN_AT:
        raise ConnectionError("HTTP 503\\nservice down")
    return classes(images)

def eleven(images):
    return np.full(len(images), 11)
"""
COUNT, BUDGET = 12, 150


@pytest.fixture
def service(tmp_path, monkeypatch):
    (tmp_path / "service.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("service", None)
    import importlib

    return importlib.import_module("service") if str(tmp_path) in sys.path else _from(tmp_path)


def _from(folder: Path):
    import importlib

    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("service")
    finally:
        sys.path.remove(str(folder))


def evaluate(source: str, *more: str, flags: str = f"--queries {BUDGET}") -> int:
    words = f"evaluate {source} --data digits --threat.eps 0.3 --examples {COUNT} --batch-size 5 --out out {flags}"
    return main([*words.split(), *more])


@pytest.mark.parametrize(
    ("kind", "attack"),
    [
        ("classes", "hop-skip-jump"),
        ("scores", "square"),
        pytest.param("column", "hop-skip-jump", marks=pytest.mark.slow),
    ],
)
def test_every_query_is_counted_and_the_budget_is_kept(service, kind, attack) -> None:
    assert evaluate(f"service:{kind}", "--black-box") == 0
    name = f"{attack}-{BUDGET}@0.3"
    held = record(Path("out"))["columns"]
    assert [*held] == ["clean", name]
    cost, correct = held[name]["cost"], held["clean"]["correct"]
    assert cost["images"] == correct
    assert cost["backward"] == 0
    assert cost["forward"] <= correct * (BUDGET + 1), "the one more confirms"
    checks = 8  # two images are asked about twice, before the run is made and before it is evaluated
    assert sum(service.SIZES) == checks + COUNT + cost["forward"]
    curve = held[name]["queries"]
    assert curve["budget"] == curve["queries"][-1] == BUDGET
    assert curve["broken"] == sorted(curve["broken"])
    assert round(curve["broken"][-1] * correct) == correct - held[name]["correct"] > 0
    # What it says of the clean images is what the function says.
    images, rows = load(Digits(), "test"), draw(load(Digits(), "test").labels, COUNT)[1]
    answers = np.asarray(getattr(service, kind)(images.images[rows].float() / 255))
    answers = answers.argmax(1) if kind == "scores" else answers.ravel()
    assert [row[2] for row in table(Path("out"))[1:]] == [
        str(int(a == y)) for a, y in zip(answers, images.labels[rows].tolist(), strict=True)
    ]
    assert main(["report", "out", "-o", "r.html"]) == 0
    page = Path("r.html").read_text()
    assert "Success of black-box attacks against queries" in page
    assert f"at most {BUDGET} queries" in page


@pytest.mark.slow
def test_a_killed_evaluation_asks_nothing_twice(service, monkeypatch) -> None:
    from regmix.runs import Journal

    assert evaluate("service:scores", "--black-box") == 0
    whole, first = table(Path("out")), record(Path("out"))["columns"][f"square-{BUDGET}@0.3"]
    Path("out").rename("whole")
    real = Journal.add

    def kills(self, stage, *more):
        real(self, stage, *more)
        if stage.endswith("/square-150"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", kills)
    assert evaluate("service:scores", "--black-box") == 130
    monkeypatch.setattr(Journal, "add", real)
    assert evaluate("service:scores", "--black-box") == 0
    assert table(Path("out")) == whole
    again = record(Path("out"))["columns"][f"square-{BUDGET}@0.3"]
    assert again["queries"] == first["queries"]
    assert again["cost"]["forward"] == first["cost"]["forward"]


def test_an_onnx_file_answers_like_the_model_it_was_made_from(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    weight = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)

    def save(values: np.ndarray, batch: int | str, side: int = 8) -> None:
        helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [helper.make_node("Flatten", ["x"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["z"])],
            "linear", [helper.make_tensor_value_info("x", float32, [batch, 1, side, side])],
            [helper.make_tensor_value_info("z", float32, [batch, 10])], [onnx.numpy_helper.from_array(values, "w")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, "model.onnx")

    images = load(Digits(), "test")
    rows = draw(images.labels, COUNT)[1]
    logits = images.images[rows].flatten(1).float() / 255 @ torch.from_numpy(weight)
    expected = logits.argmax(1) == images.labels[rows]
    for batch in ("N", 4):
        save(weight, batch)
        assert evaluate("model.onnx", "--out", f"out-{batch}", flags="--queries 20") == 0
        assert [row[2] for row in table(Path(f"out-{batch}"))[1:]] == [str(int(right)) for right in expected]
        assert [*record(Path(f"out-{batch}"))["columns"]] == ["clean", "square-20@0.3"]
    # A model for images of another size is refused with both sizes, and with no advice that cannot help.
    save(np.zeros((256, 10), dtype=np.float32), "N", side=16)
    capsys.readouterr()
    assert evaluate("model.onnx", "--out", "out-16", flags="--queries 20") == 2
    said = capsys.readouterr().err
    assert "takes images 1x16x16 (channels, height, width), and these are 1x8x8" in said
    assert "same command again" not in said
    # Another file of the same name is another model.
    save(weight[:, ::-1].copy(), 4)
    capsys.readouterr()
    assert main(["evaluate", "out-4", "--model.source", "model.onnx", "--attacks", "clean", "--examples", "12"]) == 2
    assert "has changed since" in capsys.readouterr().err


def test_a_service_that_fails_is_named_and_asked_again_later(service, capsys) -> None:
    service.BROKEN_AT = 2 * BUDGET
    assert evaluate("service:broken", "--black-box", "--out", "out", "--batch-size", "4") == 2
    said = capsys.readouterr().err
    assert "the black box failed at" in said
    assert "ConnectionError: HTTP 503; " in said
    assert said.count("\n") == 1
    asked, service.BROKEN_AT = sum(service.SIZES), 10**9
    assert evaluate("service:broken", "--black-box", "--out", "out", "--batch-size", "4") == 0
    again = sum(service.SIZES) - asked
    service.SIZES.clear()
    assert evaluate("service:classes", "--black-box", "--out", "whole", "--batch-size", "4") == 0
    assert again < sum(service.SIZES), "what was finished is kept"
    assert table(Path("out")) == table(Path("whole"))


def test_weights_beside_an_onnx_file_belong_to_it(tmp_path, monkeypatch, capsys) -> None:
    """torch.onnx.export writes them there: another network has the same file, byte for byte."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    name = f"{'w' * 150}.data"  # its length takes two bytes

    def save(seed: int) -> bytes:
        helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
        values = np.random.default_rng(seed).normal(size=(64, 10)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node("Flatten", ["x"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["z"])],
            "linear", [helper.make_tensor_value_info("x", float32, ["N", 1, 8, 8])],
            [helper.make_tensor_value_info("z", float32, ["N", 10])], [onnx.numpy_helper.from_array(values, "w")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        Path(name).unlink(missing_ok=True)
        onnx.save(model, "model.onnx", save_as_external_data=True, location=name, size_threshold=0)
        return Path("model.onnx").read_bytes()

    first = save(0)
    assert evaluate("model.onnx", "--out", "out", flags="--queries 5") == 0
    assert save(1) == first
    capsys.readouterr()
    assert main(["evaluate", "out", "--model.source", "model.onnx", "--attacks", "clean", "--examples", "12"]) == 2
    assert "has changed since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "more", "says"),
    [
        ("service:classes", ("--attacks", "hop-skip-jump,pgd-2"), "follows gradients"),
        ("service:classes", ("--attacks", "clean"), "--queries 150 is for square and hop-skip-jump"),
        ("service:classes", ("--mean", "0.5"), "leave out --mean and --std"),
        ("service:classes", ("--curve", "fmn"), "follows gradients"),
        ("service:classes", ("--attacks", "square"), "answers with classes only"),
        ("service:three", (), "must return whole class numbers [2], or floating-point scores [2, 10]"),
        ("service:eleven", (), "answers with class 11"),
        ("service:classes", ("--draws", "3"), "--draws averages"),
        ("service:classes", ("--queries", "0"), "give a number from 1"),
        ("service:nothing", (), "has no function nothing"),
        ("none.onnx", (), "does not exist"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(service, source, more, says, capsys) -> None:
    assert evaluate(source, *(() if source.endswith("onnx") else ("--black-box",)), *more) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_random_black_box_is_told() -> None:
    x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 1])
    numbers = iter(range(100))
    random = Answers(lambda images: torch.full((len(images),), next(numbers) % 3), 3, b"")
    (finding,) = preflight(random, x, y, 3)
    assert "the model is random" in finding
    assert preflight(Answers(lambda images: torch.ones(len(images)).long(), 3, b""), x, y, 3) == []


def test_answers_of_two_kinds_are_refused() -> None:
    kinds = iter([torch.tensor([1]), torch.rand(1, 3)])
    model = Answers(lambda images: next(kinds), 3, b"")
    assert torch.equal(model(torch.rand(1, 1, 2, 2)), torch.tensor([[0.0, 1.0, 0.0]]))
    with pytest.raises(UserError, match="classes once and with scores"):
        model(torch.rand(1, 1, 2, 2))
    assert model.queries == 2


def test_the_curve_of_queries_by_hand() -> None:
    curve = query_curve([1, 3, 3, 40], attacked=6, budget=50)
    assert curve.queries == [1, 2, 5, 10, 20, 50]
    assert curve.broken == [1 / 6, 1 / 6, 3 / 6, 3 / 6, 3 / 6, 4 / 6]
    assert curve.median == 3
    assert query_curve([], 0, 7).median is None
    assert query_curve([2], 3, 7).median is None


def test_json_holds_the_curve(service, capsys) -> None:
    assert evaluate("service:scores", "--black-box", "--json") == 0
    held = json.loads(capsys.readouterr().out)
    assert held["evaluations"][0]["columns"][f"square-{BUDGET}@0.3"]["queries"]["budget"] == BUDGET
