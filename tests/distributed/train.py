"""Commands of regmix, one after another, as one of several processes: [NAME=VALUE ...] train ... [+ [NAME=...] ...]

SAME=yes        starts of attacks depend on the images alone instead of random numbers
UNIT=NUMBER     blocks of as many parameters are sharded on their own
STOP=EPOCH      the process interrupts itself at the beginning of an epoch
DIE=EPOCH       the second process dies there
NAN=EPOCH       the images of the last process's second batch are NaN there
TERM=EPOCH      the first process gets SIGTERM in the middle of it

Prints every exit code. Launching takes longer than such trainings do, so that one launch makes many.
"""

import itertools
import os
import signal
import sys

import torch

from regmix.cli.entry import main
from regmix.runtime import processes, sharded
from regmix.threats import Linf
from regmix.training.trainee import Trainee
from regmix.types import Batch

RANK = os.environ.get("RANK", "0")
settings: dict[str, str] = {}
real = {"uniform": Linf.uniform, "corner": Linf.corner, "randn_like": torch.randn_like, "learn": Trainee.learn}


def normal(x: torch.Tensor) -> torch.Tensor:
    return (7919 * x.sum(1, keepdim=True)).sin().expand_as(x).clone()


def uniform(self: Linf, x: torch.Tensor, generator: object = None) -> torch.Tensor:
    return self.eps * normal(x)


def corner(self: Linf, x: torch.Tensor, generator: object = None) -> torch.Tensor:
    return self.eps * uniform(self, x).sign()


def learn(self: Trainee, batch: Batch) -> None:
    moment = str(self.progress.epoch)
    if settings.get("STOP") == moment:
        raise KeyboardInterrupt
    if settings.get("DIE") == moment and RANK == "1" and self.progress.step == 1:
        os._exit(9)
    if settings.get("TERM") == moment and RANK == "0" and self.progress.step == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if settings.get("NAN") == moment and processes.rank() == processes.size() - 1 and self.progress.step == 1:
        batch = batch._replace(x=batch.x * float("nan"))
    real["learn"](self, batch)


def run(words: list[str]) -> None:
    settings.clear()
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    same = "SAME" in settings
    Linf.uniform, Linf.corner = (uniform, corner) if same else (real["uniform"], real["corner"])
    torch.randn_like = normal if same else real["randn_like"]
    sharded.UNIT = int(settings.get("UNIT", 1_000_000))
    code = main(words)
    if RANK == "0":
        print(f"code {code}", flush=True)


if __name__ == "__main__":
    Trainee.learn = learn
    close, processes.close = processes.close, lambda: None
    for between, group in itertools.groupby(sys.argv[1:], "+".__eq__):
        if not between:
            run([*group])
    close()
