"""What a user reads while a training runs."""

import re

import pytest
from rich.console import Console

from regmix.jobs import console as consoles
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


def test_an_evaluation_without_a_terminal_tells_its_progress_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    console, now = Console(width=200, force_terminal=False), 0.0
    monkeypatch.setattr(consoles.time, "perf_counter", lambda: now)
    display = ConsoleDisplay(console)
    with console.capture() as capture:
        display.stage("last, pgd-50@8/255", 10_000)
        for _ in range(100):  # 10 passes a second
            now += 1
            display.work(10)
        display.stage("last, square@8/255", 4_000)
        for _ in range(40):  # 50 passes a second
            now += 1
            display.work(50)
    assert capture.get().splitlines() == [
        "last, pgd-50@8/255: 10 passes/s  about 984 s left for the attacks on these weights",
        "last, pgd-50@8/255: 10 passes/s  about 923 s left for the attacks on these weights",
        "last, square@8/255: 50 passes/s  about 42 s left for the attacks on these weights",
    ]


def test_a_short_evaluation_tells_only_its_results() -> None:
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture, ConsoleDisplay(console) as display:
        display.stage("last, fgsm@8/255", 100)
        display.work(100)
    assert capture.get() == ""
