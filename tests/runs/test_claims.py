"""Who works on what, among processes that share only a folder."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from regmix.runs import claims
from regmix.runs.claims import Claims
from regmix.runs.journal import Journal


@pytest.fixture
def elsewhere(monkeypatch):
    """Makes claims of another machine."""

    def make(folder: Path, name: str = "elsewhere") -> Claims:
        with monkeypatch.context() as patched:
            patched.setattr(claims, "_place", lambda: name)
            return Claims(folder)

    return make


def _race(folder: Path, number: int, start, results) -> None:
    mine = Claims(folder)
    start.wait()
    results.put([work for work in range(40) if mine.take(f"work {work}")])
    start.wait()


def test_every_piece_of_work_is_taken_by_exactly_one_of_several_processes(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_race, args=(tmp_path / "claims", n, start, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    taken = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert sorted(work for each in taken for work in each) == list(range(40))


def test_the_claims_of_a_dead_process_of_this_machine_do_not_count(tmp_path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom regmix.runs.claims import Claims\n"
        "assert Claims(Path(sys.argv[1])).take('work')\nos._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "claims")], check=False).returncode == 9
    mine = Claims(tmp_path / "claims")
    assert mine.take("work")
    assert mine.take("work"), "and it stays mine"
    assert mine.leave()
    assert not (tmp_path / "claims").exists()


def test_those_of_another_machine_count_as_long_as_it_gives_signs_of_life(tmp_path, elsewhere, monkeypatch) -> None:
    theirs, mine, now = elsewhere(tmp_path), Claims(tmp_path), [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    assert theirs.take("work")
    assert not mine.take("work")
    now[0] = claims.LEASE - 1
    assert not mine.take("work")
    sign = tmp_path / f"owner-{theirs.name}"
    os.utime(sign, ns=(1, 1))  # a clock that is decades behind
    now[0] = claims.LEASE + 1
    assert not mine.take("work")
    now[0] = 2 * claims.LEASE + 2
    assert mine.take("work")
    with monkeypatch.context() as patched:
        patched.setattr(claims, "_place", lambda: "elsewhere")
        assert not theirs.take("work"), "whoever was only slow finds that it has lost the work"
    assert mine.take("other work")


def test_whoever_is_last_deletes_the_claims(tmp_path, elsewhere) -> None:
    folder = tmp_path / "claims"
    theirs, mine = elsewhere(folder), Claims(folder)
    assert theirs.take("a")
    assert mine.take("b")
    assert not mine.leave()
    assert theirs.leave()
    assert not folder.exists()
    assert Claims(folder).leave(), "nothing was claimed"


def test_a_file_system_without_hard_links_will_do(tmp_path, elsewhere, monkeypatch) -> None:
    def none(self, target):
        raise PermissionError(1, "no hard links")

    monkeypatch.setattr(Path, "hardlink_to", none)
    theirs, mine = elsewhere(tmp_path), Claims(tmp_path)
    assert theirs.take("work")
    assert not mine.take("work")
    # A claim that was cut off by a kill counts for as long as a lease.
    (claim,) = tmp_path.glob("claim-*-0")
    claim.write_text("")
    assert not mine.take("work")
    now = [1e6]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    assert not Claims(tmp_path).take("work")
    now[0] += claims.LEASE + 1
    assert mine.take("work")


def test_a_journal_reads_what_others_have_found_and_stays_until_the_last_one_is_done(tmp_path, elsewhere) -> None:
    mine, theirs = Journal(tmp_path, "key"), Journal(tmp_path, "key")
    theirs._claims = elsewhere(tmp_path / "journal-key-claims")
    assert theirs.claim("pgd", [1, 2])
    assert not mine.claim("pgd", [1, 2])
    theirs.add("pgd", [1, 2], [2])
    assert mine.claim("pgd", [1, 2])
    assert mine.find("pgd", [1, 2]) == [2]
    mine.remove()
    assert list(tmp_path.glob("journal-key-*.jsonl"))
    theirs.remove()
    assert not list(tmp_path.iterdir())
    assert threading.active_count() < 50
