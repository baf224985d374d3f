"""What identifies the model of an evaluation, and the work of an unfinished one."""

from pathlib import Path

import pytest

from regmix.attacks import parse_attacks
from regmix.evaluation import subject
from regmix.evaluation.questions import Questions
from regmix.evaluation.subject import journal_key
from regmix.runs.records import Subject
from regmix.types import Fingerprint, Sample


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
