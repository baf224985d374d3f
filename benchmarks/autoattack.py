"""Our `autoattack` beside pyautoattack's standard version: verdicts per example, and time per attack, in one process.

python benchmarks/autoattack.py RUN --examples 200 [--checkpoint last] [--threads 2]

Both get the same images, model, batch size and threads, attack by attack, in turn. For ours the time inside the
network (its forward passes, and backward passes by autograd) is taken as well; the rest is overhead.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from pyautoattack import AutoAttack

from regmix.attacks import AUTOATTACK
from regmix.data import batches, load, pick
from regmix.evaluation import precision, predict, survivors
from regmix.experiment import build_model, from_json
from regmix.models import load_weights
from regmix.runs import Run
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


class Nothing:
    rank, size = 0, 1

    def find(self, *_: object) -> None:
        return None

    def add(self, *_: object) -> None: ...

    def any(self, values: torch.Tensor) -> torch.Tensor:
        return values


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--stages", default="apgd-ce,apgd-t,fab-t,square")
    parser.add_argument("--ours-only", action="store_true")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    run = Run.open(flags.run)
    experiment = from_json(run.config(), str(flags.run))
    test = load(experiment.data, "test").subset(torch.arange(flags.examples))
    model = build_model(replace(experiment, normalise=False), test)
    load_weights(model, run.weights(flags.checkpoint))
    model.eval()
    ours = copy.deepcopy(model).to(memory_format=torch.channels_last)  # as regmix evaluate does
    threat = experiment.threat
    assert isinstance(threat, Linf)
    clean = torch.cat([predict(model, b.x, b.y) == b.y for b in batches(test, flags.batch_size, "cpu")])
    x, y = pick(test, torch.arange(len(test)), "cpu")[:2]
    x = x.contiguous()
    print(f"{flags.run.name} {flags.checkpoint}, {len(test)} images, eps {threat.eps * 255:.0f}/255, "
          f"{int(clean.sum())} correct without an attack, {flags.threads} thread(s)")  # fmt: skip

    real_grad, alive, theirs = torch.autograd.grad, {"ours": clean, "theirs": clean}, None
    total = {"ours": 0.0, "theirs": 0.0}
    if not flags.ours_only:
        theirs = AutoAttack(model, norm="Linf", eps=threat.eps, version="standard", device="cpu", seed=0)
        theirs.square.n_queries = flags.queries
    for stage, attack in AUTOATTACK.stages:
        if stage not in flags.stages.split(","):
            continue
        if stage == "square":
            attack = replace(attack, queries=flags.queries)
        inside = Timed()
        torch.autograd.grad = inside(real_grad)
        ours.forward = inside(ours.forward)
        began = time.perf_counter()
        real_screened = precision.Screened

        def timed_screen(rough, exact, slack, inside=inside, real=real_screened):
            return real(inside(rough), exact, slack)

        precision.Screened = timed_screen
        left = survivors(
            ours, lambda index: pick(test, index, "cpu"), alive["ours"], attack, threat, name=stage,
            batch_size=flags.batch_size, screen=True, journal=Nothing(), world=Nothing(), on_work=lambda _: None,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        precision.Screened, torch.autograd.grad = real_screened, real_grad
        del ours.forward
        total["ours"] += seconds
        overhead = 100 * (1 - inside.seconds / seconds)
        line = f"{stage:8s} ours {int(left.sum()):4d} {seconds:8.1f} s (overhead {overhead:.0f}%)"
        alive["ours"] = left
        if theirs is not None:
            theirs.attacks_to_run = [stage]
            began = time.perf_counter()
            subset = alive["theirs"].nonzero()[:, 0]
            left_theirs = alive["theirs"].clone()
            if len(subset):
                size = flags.batch_size
                adversarial, _ = theirs.run_standard_evaluation(x[subset], y[subset], batch_size=size)
                seconds_theirs = time.perf_counter() - began
                with torch.no_grad():
                    left_theirs[subset] = model(adversarial).argmax(1) == y[subset]
            alive["theirs"] = left_theirs
            total["theirs"] += seconds_theirs
            line += f"   pyautoattack {int(left_theirs.sum()):4d} {seconds_theirs:8.1f} s"
            line += f"   {seconds_theirs / seconds:.2f} x"
        print(line, flush=True)
    if theirs is not None:
        only_ours = int((alive["theirs"] & ~alive["ours"]).sum())
        only_theirs = int((alive["ours"] & ~alive["theirs"]).sum())
        robust = {who: int(rows.sum()) for who, rows in alive.items()}
        print(f"all      ours {robust['ours']} robust, pyautoattack {robust['theirs']}; broken only by ours "
              f"{only_ours}, only by theirs {only_theirs}; {total['theirs'] / total['ours']:.2f} x faster")  # fmt: skip


if __name__ == "__main__":
    main()
