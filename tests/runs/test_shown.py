"""A run as lines of text."""

from dataclasses import replace
from pathlib import Path

from exports.runs import evaluate, random_run
from regmix.models import SmallCnn
from regmix.runs.records import Alarm, Epoch


def test_the_reaction_of_the_guard_and_other_images_are_told(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", SmallCnn(width=4))
    for epoch in range(1, 9):
        validation = {"pgd": 0.3} if epoch % 2 == 0 else None
        run.append_metrics(Epoch(epoch=epoch, epochs=30, lr=0.1, loss=1.0, terms={}, validation=validation))
    alarms = [Alarm(4, "it fell", "rollback"), Alarm(6, "again", "continue"), Alarm(8, "at last", "stop")]
    run.save_result(replace(run.result(), status="stopped", alarms=alarms))
    evaluate(run, elsewhere="photos", clean=9)
    text = repr(run)
    assert "alarm after epoch 4: it fell; back to epoch 2, with another method\n" in text
    assert "alarm after epoch 6: again\n" in text
    assert "alarm after epoch 8: at last; the guard stopped the training\n" in text
    assert "accuracy on all 10 images of photos" in text
