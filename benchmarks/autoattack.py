"""Our `autoattack` and `autoattack-screened` beside pyautoattack's standard version, in one process.

python benchmarks/autoattack.py RUN --examples 200 [--checkpoint last] [--threads 2] [--device cuda]

All get the same images, model, batch size and threads, attack by attack, in turn. For ours the time inside the
network (its forward passes, and backward passes by autograd) is taken as well; the rest is overhead. On a GPU, which
works while Python goes on, it is not told.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from from_runs import experiment_of, model_of
from pyautoattack import AutoAttack

from regmix.attacks import AUTOATTACK, AUTOATTACK_SCREENED, Attack
from regmix.attacks.base import Nearby
from regmix.data import batches, draw, load, pick
from regmix.evaluation import Evaluator, predict
from regmix.evaluation.screening import rough_copy
from regmix.runs import Run
from regmix.runtime import devices
from regmix.threats import Linf


class Timed:
    """Adds up the time of what runs inside it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, function: Callable) -> Callable:
        def timed(*words, **more):
            began = time.perf_counter()
            try:
                return function(*words, **more)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


class TimedNearby:
    """What is asked about images near to known ones, timed."""

    def __init__(self, near: Nearby, inside: Timed) -> None:
        self.ask, self.keep, self.leave = inside(near), near.keep, near.leave

    def __call__(self, *words: Any) -> torch.Tensor:
        return self.ask(*words)


class NoJournal:
    def find(self, *_: object) -> None:
        return None

    def add(self, *_: object) -> None: ...

    def claim(self, *_: object) -> bool:
        return True

    def refresh(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--sample", choices=("stratified", "first"), default="stratified")
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--without-exact", action="store_true", help="leave our autoattack out: the screened one only")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    # As regmix evaluate does: freed memory is kept on a CPU, for pyautoattack, too.
    device = devices.start(flags.device, "32").device
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{flags.threads} thread(s)"
    run = Run.open(flags.run)
    experiment = experiment_of(run)
    every = load(experiment.data, "test")
    sample, positions = draw(every.labels, flags.examples, flags.sample)
    test = every.subset(positions)
    model = model_of(run, experiment, flags.checkpoint, test).to(device)
    ours = copy.deepcopy(model).to(memory_format=torch.channels_last)  # as regmix evaluate does
    threat = experiment.threat
    assert isinstance(threat, Linf)
    clean = torch.cat([predict(model, b.x, b.y) == b.y for b in batches(test, flags.batch_size, device)]).cpu()
    x, y = pick(test, torch.arange(len(test)), device)[:2]
    x = x.contiguous()
    print(f"{flags.run.name} {flags.checkpoint}, {sample.text()}, eps {threat.eps * 255:.0f}/255, "
          f"{int(clean.sum())} correct without an attack, {where}")  # fmt: skip

    def ours_alone(stage: str, attack: Attack, alive: torch.Tensor) -> tuple[torch.Tensor, float, str]:
        inside, real_grad, real_screened = Timed(), torch.autograd.grad, rough_copy.Screened
        torch.autograd.grad = inside(real_grad)
        ours.forward = inside(ours.forward)
        rough_copy.Screened = lambda rough, exact, slack, incremental, **more: real_screened(
            inside(rough), exact, slack, incremental and (lambda: TimedNearby(incremental(), inside)), **more
        )
        began = time.perf_counter()
        evaluator = Evaluator(ours, test, device, flags.batch_size, NoJournal(), on_work=lambda _: None)
        left, *_ = evaluator.survivors(attack, threat, alive, stage, screen=True)
        seconds = time.perf_counter() - began
        rough_copy.Screened, torch.autograd.grad = real_screened, real_grad
        del ours.forward
        return left, seconds, f"{100 * (1 - inside.seconds / seconds):.0f}%" if device.type == "cpu" else "not told"

    def theirs_alone(stage: str, alive: torch.Tensor) -> tuple[torch.Tensor, float]:
        adversary = AutoAttack(model, norm="Linf", eps=threat.eps, version="standard", device=str(device), seed=0)
        adversary.attacks_to_run = [stage]
        began = time.perf_counter()
        some, left = alive.nonzero()[:, 0], alive.clone()
        if len(some):
            here = some.to(device)
            adversarial, _ = adversary.run_standard_evaluation(x[here], y[here], batch_size=flags.batch_size)
            with torch.no_grad():
                seen = torch.cat([model(part) for part in adversarial.split(flags.batch_size)]).argmax(1)
                left[some] = (seen == y[here]).cpu()
        return left, time.perf_counter() - began

    exact, brief, theirs = clean, clean, clean
    total = {"exact": 0.0, "brief": 0.0, "theirs": 0.0}
    for stage, attack in AUTOATTACK.stages:
        theirs, seconds = theirs_alone(stage, theirs)
        total["theirs"] += seconds
        line = f"{stage:8s} pyautoattack {int(theirs.sum()):4d} {seconds:8.1f} s"
        if not flags.without_exact:
            exact, mine, overhead = ours_alone(stage, attack, exact)
            total["exact"] += mine
            line += f"   ours {int(exact.sum()):4d} {mine:8.1f} s (overhead {overhead})   {seconds / mine:.2f} x"
            line += f"   {int((exact != theirs).sum())} differ"
        print(line, flush=True)
    for stage, attack in AUTOATTACK_SCREENED.stages:
        brief, mine, overhead = ours_alone(stage, attack, brief)
        total["brief"] += mine
        print(f"screened {stage}: {int(brief.sum()):4d} {mine:8.1f} s (overhead {overhead})", flush=True)

    def conclude(name: str, alive: torch.Tensor, seconds: float) -> None:
        print(f"{name}: {int(alive.sum())} robust, pyautoattack {int(theirs.sum())}; broken only by ours "
              f"{int((theirs & ~alive).sum())}, only by theirs {int((alive & ~theirs).sum())}; "
              f"{total['theirs'] / seconds:.2f} x faster")  # fmt: skip

    if not flags.without_exact:
        conclude("autoattack", exact, total["exact"])
    conclude("autoattack-screened", brief, total["brief"])


if __name__ == "__main__":
    main()
