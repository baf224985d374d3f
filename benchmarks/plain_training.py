"""RegMix and FGSM-PGK trained as public scripts train them, beside our loop: time and validation accuracy.

python benchmarks/plain_training.py --method regmix --data data/cifar10 --images 2000 --epochs 3 --seeds 0 1 2

The plain loop is a reference for speed and for results: float32, NCHW, a DataLoader, crops and flips image by image
in Python (of the memory, too), every backward pass of the attack through the parameters as well, per-sample memory in
float32, metrics read after every step. The network, the rules, the optimiser's settings and the images are the same.
Every training has a process of its own, for ours changes how its process manages memory.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from regmix.attacks import Pgd
from regmix.config import Experiment
from regmix.data import Cifar10, ImageSet, batches
from regmix.evaluation import evaluate
from regmix.methods import FgsmPgk, RegMix
from regmix.models import ResNet
from regmix.recipes import recipe
from regmix.training.prepare import initial_model, training_data
from regmix.training.start import run

PAD = 4


def smoothed(labels, classes, mass):
    soft = torch.full((len(labels), classes), (1 - mass) / (classes - 1))
    soft[torch.arange(len(labels)), labels] = mass
    return soft


def soft_cross_entropy(logits, soft):
    return -(soft * F.log_softmax(logits, 1)).sum(1).mean()


def element_mean_kl(log_p, log_q):
    """KL(p || q), averaged over examples and classes."""
    return (log_p.exp() * (log_p - log_q)).mean()


def cut(images, places):
    """Crops and flips one image after the other."""
    out = []
    for image, (top, left, flip) in zip(images, places, strict=True):
        padded = F.pad(image, (PAD,) * 4)
        part = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        out.append(part.flip(2) if flip else part)
    return torch.stack(out)


def put_back(memory, parts, index, places):
    """Writes crops into a padded memory, one after the other."""
    for part, i, (top, left, flip) in zip(parts, index.tolist(), places, strict=True):
        memory[i][:, top : top + part.shape[1], left : left + part.shape[2]] = part.flip(2) if flip else part


def read(memory, index, places, size):
    out = []
    for i, (top, left, flip) in zip(index.tolist(), places, strict=True):
        part = memory[i][:, top : top + size, left : left + size]
        out.append(part.flip(2) if flip else part)
    return torch.stack(out)


def fgsm_pgk_step(model, optimizer, x, y, index, places, memory, experiment, epoch, eps):
    method, size = experiment.method, x.shape[2]
    fresh = epoch % method.reset == 0
    if fresh:
        delta = eps * torch.empty_like(x).uniform_(-1, 1).sign()
        momentum = torch.zeros_like(x)
    else:
        delta, momentum = (read(memory[name], index, places, size) for name in ("delta", "momentum"))
    delta.requires_grad_()
    before = model(x + delta)
    soft_cross_entropy(before, y).backward(retain_graph=True)
    gradient = delta.grad.detach()
    optimizer.zero_grad()
    start = delta.detach()
    moved = (start + eps * gradient.sign()).clamp(-eps, eps)
    moved = (x + moved).clamp(0, 1) - x
    after = model(x + moved)
    loss = soft_cross_entropy(after, y) + method.lam * F.mse_loss(after, before)
    right = (after.argmax(1) == y.argmax(1)).float().mean().item()
    ratio = right / max((before.argmax(1) == y.argmax(1)).float().mean().item(), 1 / len(x))
    momentum = method.mu * momentum + (2 - ratio) * gradient / gradient.abs().mean().clamp_min(1e-30)
    next_delta = (start + eps * momentum.sign()).clamp(-eps, eps)
    put_back(memory["delta"], (x + next_delta).clamp(0, 1) - x, index, places)
    put_back(memory["momentum"], momentum, index, places)
    return loss


def regmix_step(model, optimizer, x, y, index, places, memory, experiment, epoch, eps):
    method = experiment.method
    start = eps * torch.empty_like(x).uniform_(-1, 1).sign()
    delta, initial = start.clone(), None
    for _ in range(method.steps):
        delta.requires_grad_()
        logits = model(x + delta)
        initial = logits if initial is None else initial
        F.cross_entropy(logits, y.argmax(1)).backward(retain_graph=True)
        gradient = delta.grad.detach()
        optimizer.zero_grad()
        delta = (delta.detach() + method.step_size * eps * gradient.sign()).clamp(-eps, eps)
        delta = (x + delta).clamp(0, 1) - x
    final, clean = model(x + delta), model(x)
    log_i, log_f, log_c = (F.log_softmax(logits, 1) for logits in (initial, final, clean))
    return (
        soft_cross_entropy(final, y)
        + method.alpha * element_mean_kl(log_f, log_i)
        + method.beta * element_mean_kl(log_i, log_f)
        + method.gamma * element_mean_kl(log_c, log_f)
    )


def plain(experiment: Experiment, images: ImageSet) -> tuple[torch.nn.Module, float]:
    """The trained model, and the seconds that its epochs took."""
    model = initial_model(experiment, images).train()
    x = images.images.float() / 255
    data = DataLoader(
        TensorDataset(x, images.labels, torch.arange(len(x))), batch_size=experiment.batch_size, shuffle=True
    )
    optimizer = torch.optim.SGD(
        model.parameters(), experiment.lr, experiment.momentum, weight_decay=experiment.weight_decay, foreach=False
    )
    average = {name: value.clone() for name, value in model.state_dict().items()}
    side = x.shape[2] + 2 * PAD
    memory = {name: torch.zeros(len(x), 3, side, side) for name in ("delta", "momentum")}
    step = {"regmix": regmix_step, "fgsm_pgk": fgsm_pgk_step}[experiment.method.name]
    began, classes = time.perf_counter(), len(images.classes)
    for epoch in range(experiment.epochs):
        for number, (batch, labels, index) in enumerate(data):
            factor = experiment.schedule.factor(epoch * len(data) + number, len(data), experiment.epochs)
            for group in optimizer.param_groups:
                group["lr"] = experiment.lr * factor
            places = [
                (int(torch.randint(2 * PAD + 1, ())), int(torch.randint(2 * PAD + 1, ())), bool(torch.rand(()) < 0.5))
                for _ in batch
            ]
            view, y = cut(batch, places), smoothed(labels, classes, experiment.label_mass)
            loss = step(model, optimizer, view, y, index, places, memory, experiment, epoch, experiment.threat.eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            for name, value in model.state_dict().items():
                average[name] = 0.999 * average[name] + 0.001 * value if value.is_floating_point() else value.clone()
    return model, time.perf_counter() - began


class Silent:
    """Adds up the time of the epochs, without what validation and saving take."""

    seconds = 0.0

    def start(self, *_: object) -> None: ...
    def batch(self, _: int) -> None: ...
    def alarm(self, _: str) -> None: ...
    def warn(self, _: str) -> None: ...
    def note(self, _: str) -> None: ...

    def epoch(self, row: dict[str, object]) -> None:
        self.row = row
        self.seconds += self.images / float(str(row["images_per_second"]))

    def __init__(self, images: int) -> None:
        self.images = images


def trained(kind: str, method: str, seed: int, flags: argparse.Namespace) -> tuple[float, float, float]:
    """The seconds that the epochs of a training took, and its clean and PGD-10 accuracy on the validation set."""
    torch.set_num_threads(flags.threads)
    base = recipe({"regmix": "cifar10-regmix", "fgsm_pgk": "cifar10-fgsm-pgk"}[method])
    assert isinstance(base.method, RegMix | FgsmPgk)
    experiment = replace(
        base, data=Cifar10(root=flags.data), model=ResNet(width=flags.width), epochs=flags.epochs, seed=seed,
        train_examples=flags.images, validation=1000, validate_every=flags.epochs, device="cpu",
    )  # fmt: skip
    train_set, held_out = training_data(experiment)
    if kind == "ours":
        display = Silent(len(train_set))
        with tempfile.TemporaryDirectory() as folder:
            run(experiment, Path(folder) / "run", display)
        validation = display.row["validation"]
        return display.seconds, validation["clean"], validation["pgd"]
    torch.manual_seed(seed)
    model, seconds = plain(experiment, train_set)
    table = evaluate(model.eval(), batches(held_out, 250, "cpu"), experiment.threat, {"pgd": Pgd(10)})
    return seconds, table.accuracy("clean"), table.accuracy("pgd")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", choices=("regmix", "fgsm_pgk"), default="regmix")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {"plain": [], "ours": []}
    for seed in flags.seeds:
        for kind, rows in found.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows.append(process.submit(trained, kind, flags.method, seed, flags).result())
            seconds, clean, pgd = rows[-1]
            print(f"seed {seed} {kind:<6} {seconds:8.1f} s  clean {clean:.3f}  PGD-10 {pgd:.3f}", flush=True)
    for kind, rows in found.items():
        columns = [
            f"{statistics.mean(c):.3f} ± {statistics.stdev(c) if len(c) > 1 else 0:.3f}"
            for c in zip(*rows, strict=True)
        ]
        print(f"{flags.method} {kind:<6} seconds {columns[0]}  clean {columns[1]}  PGD-10 {columns[2]}")
    ratios = [ours[0] / plain[0] for ours, plain in zip(found["ours"], found["plain"], strict=True)]
    share = f"{100 * statistics.mean(ratios):.0f}% of the time ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{flags.method}: ours takes {share}")


if __name__ == "__main__":
    main()
