"""What a user reads while a training runs."""

import re

from rich.console import Console

from regmix.jobs.console import ConsoleDisplay
from regmix.runs.records import Epoch


def seconds_left(console: Console, display: ConsoleDisplay, epoch: int, seconds: float) -> float:
    with console.capture() as capture:
        display.epoch(
            Epoch(epoch=epoch, epochs=100, lr=0.1, loss=1.0, terms={}, seconds=seconds, images_per_second=1.0)
        )
    (left,) = re.findall(r"(\d+) s left", capture.get())
    return float(left)


def test_the_time_left_follows_the_present_speed() -> None:
    console = Console(width=200)
    display = ConsoleDisplay(console)
    for epoch in range(1, 21):  # 1 s an epoch
        assert seconds_left(console, display, epoch, epoch) == 100 - epoch
    for epoch in range(21, 31):  # another process takes the CPU: 10 s an epoch
        left = seconds_left(console, display, epoch, 20 + 10 * (epoch - 20))
    assert left == 10 * 70  # the mean since the start would say 280


def test_the_time_left_of_a_resumed_training_starts_from_its_mean() -> None:
    console = Console(width=200)
    assert seconds_left(console, ConsoleDisplay(console), 50, 100) == 100


def test_a_rollback_does_not_spoil_the_time_left() -> None:
    console = Console(width=200)
    display = ConsoleDisplay(console)
    for epoch in range(1, 11):
        seconds_left(console, display, epoch, epoch)
    assert seconds_left(console, display, 9, 12) == round(12 / 9 * 91)
    assert seconds_left(console, display, 10, 13) == 90
