"""The folder for the Hugging Face hub, its upload, and its download. Nothing is sent."""

import json
from pathlib import Path

import pytest
import torch

import regmix
from exports.runs import evaluate, random_run
from regmix.cli.entry import main
from regmix.exports import export
from regmix.models import WideResNet
from regmix.runs import Run
from regmix.types import UserError

hub = pytest.importorskip("huggingface_hub", reason='pip install "regmix[data]"')


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = random_run(tmp_path / "run", WideResNet(depth=10, widen=1))
    evaluate(run, clean=8, pgd_50=4)
    return run


def test_the_hub_reads_the_card(run: Run, tmp_path: Path) -> None:
    folder = export(run.path, "hub", tmp_path / "out").folder
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    head = hub.ModelCard.load(folder / "README.md").data
    assert (head.library_name, head.pipeline_tag, head.license) == ("regmix", "image-classification", None)
    assert [result.metric_value for result in head.eval_results] == [0.8, 0.4]
    assert "pgd-50, linf eps 8/255" in head.eval_results[1].metric_name
    model = {"name": "wide_resnet", "depth": 10, "widen": 1, "activation": "relu"}
    assert json.loads((folder / "config.json").read_text())["model"] == model


def test_the_head_is_about_the_runs_own_test_split_alone(run: Run, tmp_path: Path) -> None:
    evaluate(run, elsewhere="photos", clean=9, pgd_50=9, made="2027")
    folder = export(run.path, "hub", tmp_path / "out").folder
    head = hub.ModelCard.load(folder / "README.md").data
    assert [result.metric_value for result in head.eval_results] == [0.8, 0.4]
    assert "images of photos" in (folder / "README.md").read_text()


def test_a_repository_of_the_hub_is_loaded_by_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(run.path, "hub", tmp_path / "out").folder
    asked = []

    def download(name: str, **filters: object) -> str:
        asked.append((name, filters))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    loaded = regmix.load_model("hf:me/robust")
    assert asked == [("me/robust", {"allow_patterns": ["model.safetensors", "config.json"]})]
    ours = regmix.load_model(run.path, "best")
    assert loaded[1:] == ours[1:]
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.model(x), ours.model(x))
    with pytest.raises(UserError, match="holds the best weights only"):
        regmix.load_model("hf:me/robust", "last")
    with pytest.raises(UserError, match="has a model of its own kind, wide_resnet"):
        regmix.load_model("hf:me/robust", source="a:b")


def test_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **filters: object) -> str:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(UserError, match=r"^me/robust cannot be fetched from the Hugging Face hub: no network$"):
        regmix.load_model("hf:me/robust")


def test_a_folder_of_the_hub_that_regmix_did_not_write_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        regmix.load_model(tmp_path)


class FakeApi:
    calls: list[tuple[str, object]] = []  # noqa: RUF012
    fails = False

    def create_repo(self, name: str, **more: object) -> None:
        self.calls.append(("create", (name, more)))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.fails:
            raise OSError("401 not\nallowed")
        self.calls.append(("upload", (repo_id, sorted(path.name for path in folder_path.iterdir()))))


def test_only_push_uploads(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "calls", [])
    words = f"export {run.path} --format hub --out {tmp_path}"
    assert main(f"{words}/dry".split()) == 0
    assert FakeApi.calls == []
    assert main(f"{words}/sent --push me/robust".split()) == 0
    assert FakeApi.calls == [
        ("create", ("me/robust", {"private": True, "exist_ok": True})),
        ("upload", ("me/robust", ["README.md", "config.json", "model.safetensors"])),
    ]
    assert "https://huggingface.co/me/robust" in capsys.readouterr().out
    assert main(f"{words}/bad --push robust".split()) == 2
    assert "write the name of the repository as OWNER/NAME" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()
    monkeypatch.setattr(FakeApi, "fails", True)
    assert main(f"{words}/kept --push me/robust".split()) == 2
    assert "is written, but not uploaded to me/robust: 401 not allowed" in capsys.readouterr().err
    assert (tmp_path / "kept").is_dir()
