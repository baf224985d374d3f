"""regmix train as one of several processes, with starts that depend on the images alone instead of random numbers.

STOP=EPOCH      the process interrupts itself at the beginning of an epoch
DIE=EPOCH       the second process dies there
TERM=EPOCH      the first process gets SIGTERM in the middle of it
UNIT=NUMBER     modules of as many parameters are sharded on their own
"""

import os
import signal
import sys

import torch

from regmix.cli import main
from regmix.threats import Linf
from regmix.training import sharded
from regmix.training.trainee import Trainee

RANK = os.environ.get("RANK", "0")


def normal(x: torch.Tensor) -> torch.Tensor:
    return (7919 * x.sum(1, keepdim=True)).sin().expand_as(x).clone()


def uniform(self: Linf, x: torch.Tensor, generator: object = None) -> torch.Tensor:
    return self.eps * normal(x)


def corner(self: Linf, x: torch.Tensor, generator: object = None) -> torch.Tensor:
    return self.eps * uniform(self, x).sign()


def learn(self: Trainee, batch: object) -> None:
    moment = str(self.epoch)
    if os.environ.get("STOP") == moment:
        raise KeyboardInterrupt
    if os.environ.get("DIE") == moment and RANK == "1" and self.step == 1:
        os._exit(9)
    if os.environ.get("TERM") == moment and RANK == "0" and self.step == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    real_learn(self, batch)


if __name__ == "__main__":
    if os.environ.get("SAME_STARTS"):
        Linf.uniform, Linf.corner, torch.randn_like = uniform, corner, normal
    sharded.UNIT = int(os.environ.get("UNIT", sharded.UNIT))
    real_learn, Trainee.learn = Trainee.learn, learn
    sys.exit(main(sys.argv[1:]))
