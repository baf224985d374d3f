"""One step of a method here beside one step of public code: same model, batch and random numbers, in float64.

python benchmarks/public_methods.py FOLDER [--only WORD] [--markdown]

FOLDER holds checkouts of public repositories as OWNER+NAME (or NAME alone); those that are missing are passed over. For
every case the training loop of the public code runs unchanged for a few steps on the CPU; this package computes the
same steps from the same weights, and the largest relative differences of loss and parameter gradients are printed.
`agrees` means 1e-8 or less; a case that is known to differ says why, and what its difference is. docs/concepts/
public-code.md holds the table.
"""

import argparse
import dataclasses
import subprocess
import sys
import traceback
from pathlib import Path

import torch
from public_code.case import Case
from public_code.cases import CASES
from public_code.draws import Tape, given_numbers
from public_code.net import BATCH, CLASSES, IMAGES, SIZE, Net
from public_code.world import World, a_world

from regmix.methods.memory import Memory, Setup
from regmix.methods.per_image import PerImage
from regmix.threats import Linf
from regmix.training.step import TrainStep
from regmix.types import Batch, Clock

LIMIT = 1e-8
EPS = 8 / 255


def exact(memory: Memory | None) -> Memory | None:
    """A memory like this one that rounds nothing: float64 in place of int8 and float8."""
    parts = {} if memory is None else memory.parts
    for name, part in parts.items():
        if isinstance(part, PerImage):
            parts[name] = PerImage(part.count, (3, SIZE, SIZE), 0, "cpu", dtype=torch.float64)
    return memory


def differences(case: Case, world: World, verbose: bool = False) -> tuple[float, float, bool]:
    """The largest relative difference of loss and gradients over the recorded steps; whether all buffers agree.

    Every term of the loss must be other than 0 in some step, or the comparison would say nothing about it.
    """
    method, threat = case.method, Linf(EPS)
    model = Net()
    model.body[1].momentum = world.model.body[1].momentum
    step = TrainStep(model, method, threat, CLASSES, case.mass)
    loss, gradient, buffers = 0.0, 0.0, True
    silent: set[str] | None = None
    tape = Tape()
    for _ in range(case.unused):
        tape.draw("uniform", IMAGES)
    with given_numbers(tape):
        memory = exact(method.memory(Setup(BATCH * world.per_epoch, CLASSES, (3, SIZE, SIZE), threat)))
        for number, (x, y, public) in enumerate(zip(world.images, world.labels, world.record, strict=True)):
            epoch, place = divmod(number, world.per_epoch)
            for _ in range(case.unused_each):
                tape.draw("uniform", IMAGES)
            model.load_state_dict(public.before)
            model.train()
            model.zero_grad()
            batch = Batch(x, y, torch.arange(BATCH) + BATCH * place)
            clock = Clock(epoch, case.clock_epochs or world.epochs, place, world.per_epoch)
            losses = step(batch, memory, clock)
            total = losses.total
            total.backward()
            zeros = {name for name, term in losses.terms.items() if term == 0}
            silent = zeros if silent is None else silent & zeros
            pairs = [*zip((p.grad for p in model.parameters()), public.gradients, strict=True)]
            size = max(float(theirs.abs().max()) for _, theirs in pairs)
            gradient = max(gradient, *(float((ours - theirs).abs().max()) / size for ours, theirs in pairs))
            loss = max(loss, abs(float(total.detach()) - public.loss) / max(1e-12, abs(public.loss)))
            same = (torch.allclose(a, b) for a, b in zip(model.buffers(), public.buffers, strict=True))
            buffers &= all(same)
            if verbose:
                print(f"  step {number}: {float(total.detach())} {public.loss} {gradient:.1e}")
    assert not silent, f"the terms {silent} are 0 in every step"
    return loss, gradient, buffers


def folder_of(root: Path, repository: str) -> Path | None:
    found = [root / repository.replace("/", "+"), root / repository.split("/")[1]]
    return next((folder for folder in found if folder.is_dir()), None)


def commit_of(folder: Path) -> str:
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "?"


def compared(case: Case, folder: Path, verbose: bool = False) -> tuple[float, float, bool]:
    """Runs the public code and ours; see `differences`."""
    world = a_world(
        case.epochs,
        case.per_epoch,
        inside=case.inside,
        pairs=case.pairs,
        repeat=case.repeat,
        replays=case.replays,
        sharp=case.sharp,
    )
    world.model.body[1].momentum = 0.0 if case.frozen else 0.1
    with world.running(folder, Tape(case.mirrored), [*case.arguments]):
        case.run(world, folder)
    return differences(case, world, verbose)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder with the checkouts")
    parser.add_argument("--only", default="", help="cases whose method or repository contains this word")
    parser.add_argument("--steps", action="store_true", help="print the loss of every step: ours, theirs")
    parser.add_argument("--markdown", action="store_true", help="print the table of the documentation")
    given = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    wrong = 0
    if given.markdown:
        print("| method | public code | commit | loss | gradients | running statistics | remark |")
        print("|---|---|---|---|---|---|---|")
    for case in CASES:
        if given.only not in f"{case.method.name} {case.repository}":
            continue
        folder = folder_of(given.folder.resolve(), case.repository)
        if folder is None:
            print(f"{case.method.name}: no checkout of {case.repository}", file=sys.stderr)
            continue
        try:
            loss, gradient, buffers = compared(case, folder, given.steps)
        except Exception:
            wrong += 1
            print(f"{case.method.name} {case.repository}: FAILED\n{traceback.format_exc(limit=-2)}", file=sys.stderr)
            continue
        fine = max(loss, gradient) <= LIMIT
        wrong += fine == case.differs
        if given.markdown:
            part = f" ({case.part})" if case.part else ""
            print(
                f"| `{case.method.name}` | {case.repository}{part} | {commit_of(folder)} | {loss:.0e} | {gradient:.0e} "
                f"| {'same' if buffers else 'differ'} | {case.remark} |"
            )
        else:
            verdict = "agrees" if fine else "differs, as known" if case.differs else "DIFFERS"
            changed = {
                field.name: getattr(case.method, field.name)
                for field in dataclasses.fields(case.method)
                if field.name != "name" and getattr(case.method, field.name) != field.default
            }
            statistics = "" if buffers else "; running statistics differ"
            print(
                f"{case.method.name:12} {case.repository:36} {case.part:12} loss {loss:.1e}  gradients {gradient:.1e}  "
                f"{verdict}{statistics} {changed or ''}"
            )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
