"""What a training remembers of its own past."""

from pathlib import Path

from regmix.runs.records import Epoch, Result
from regmix.training.progress import Best, Progress

SOURCE = Path("run")


def row(epoch: int, validation: dict[str, float] | None = None) -> Epoch:
    return Epoch(epoch=epoch, epochs=9, lr=0.1, loss=1.0, terms={}, validation=validation)


def test_it_is_restored_from_a_state_that_holds_other_things_too() -> None:
    before = Progress(epoch=1, step=3, left_out=[(0, 2), (1, 4), (1, 5)], rollbacks=1)
    before.rows.append(row(1))
    after = Progress()
    after.load_state_dict({**before.state_dict(), "model": {}}, SOURCE)
    assert after == before
    assert after.skipped == [4, 5]


def test_an_epoch_ends_with_its_row() -> None:
    progress = Progress(epoch=1, step=3, trained=2.0, waited=1.0, seconds=5.0)
    progress.end_epoch(row(2, {"pgd": 0.5}))
    progress.end_epoch(row(3))
    assert (progress.epoch, progress.step, progress.trained, progress.waited, progress.seconds) == (3, 0, 0.0, 0.0, 5.0)
    assert [each.epoch for each in progress.rows] == [2, 3]
    assert progress.validated == [row(2, {"pgd": 0.5})]


def test_a_state_of_regmix_0_1_without_warnings_is_read() -> None:
    state = Progress().state_dict()
    del state["one_answer"], state["best"]["one_answer"]
    progress = Progress(one_answer="one class for all")
    progress.load_state_dict(state, SOURCE)
    assert progress.one_answer is None
    assert progress.warnings() == []


def test_warnings_name_the_weights() -> None:
    progress = Progress(best=Best(1, 0.1, "class 3 for 99%"), one_answer="class 5 for 98%")
    assert progress.warnings() == ["the best weights: class 3 for 99%", "the last weights: class 5 for 98%"]
    assert progress.summary("stopped", Result()).warnings == progress.warnings()
