"""An own network and own photographs: fine-tuned with `regmix train photos --init`, beside a loop by hand.

python benchmarks/photographs.py FOLDER --out DIR [--seeds 0 1 2] [--size 32] [--images 2000]

FOLDER holds train/CLASS/* and test/CLASS/*. For every seed: plain training of the network below, then from its weights
RegMix, TRADES and PGD-AT with 10 steps, each with one command of the recipe `photos`, and RegMix in a loop by hand:
AdamW, a cosine, a ramp on eps and on the weights of RegMix, the same training images, the weights of the last epoch.
Of the commands the best weights on the validation images are taken, of the plain training the last ones. Prints clean
accuracy and that under PGD-20 on all test images. Finished work is kept in DIR and not repeated.
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regmix.cli.entry import main as regmix
from regmix.config import Experiment
from regmix.data import Folder, ImageSet, batches, load
from regmix.data.size import parse_size
from regmix.evaluation import evaluate
from regmix.models import load_weights
from regmix.recipes import recipe
from regmix.runs import Run
from regmix.threats import Linf
from regmix.training.prepare import training_data

ARMS = {
    "plain": "--method standard --ramp 0",
    "regmix": "--init {plain}",
    "trades": "--init {plain} --method trades",
    "pgd_at": "--init {plain} --method pgd_at",
}
BY_HAND = "regmix, by hand"
RADII = {"4/255": 4 / 255, "8/255": 8 / 255}


def network(num_classes: int) -> nn.Module:
    """Four convolutions, as somebody may have them."""

    def block(inside: int, outside: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]

    return nn.Sequential(
        *block(3, 32), nn.MaxPool2d(2),
        *block(32, 64), nn.MaxPool2d(2),
        *block(64, 128),
        *block(128, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(128, num_classes),
    )  # fmt: skip


def cropped(images: Tensor, pad: int) -> Tensor:
    padded = F.pad(images, (pad,) * 4)
    places = torch.randint(2 * pad + 1, (len(images), 2)).tolist()
    height, width = images.shape[2:]
    parts = [
        image[:, top : top + height, left : left + width] for image, (top, left) in zip(padded, places, strict=True)
    ]
    return torch.stack(parts)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def by_hand(model: nn.Module, images: ImageSet, experiment: Experiment, seed: int) -> None:
    """RegMix with 5, 2 and 2 per example, which is 50, 20 and 20 over the elements of ten classes."""
    torch.manual_seed(seed)
    model.train()
    x, y, size = images.images.float() / 255, images.labels, experiment.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), experiment.lr, weight_decay=experiment.weight_decay)
    total, step = experiment.epochs * math.ceil(len(x) / size), 0
    for _ in range(experiment.epochs):
        for rows in torch.randperm(len(x)).split(size):
            share, done = min(1.0, (step + 1) / (0.3 * total)), step / total
            warm = min(1.0, (step + 1) / (0.1 * total))
            cosine = 0.5 * (1 + math.cos(math.pi * max(0.0, (done - 0.1) / 0.9)))
            for group in optimizer.param_groups:
                group["lr"] = experiment.lr * warm * cosine
            batch, labels, eps = cropped(x[rows], experiment.pad), y[rows], share * experiment.threat.eps
            with torch.autocast("cpu", torch.bfloat16):
                delta = eps * torch.empty_like(batch).uniform_(-1, 1).sign()
                initial = None
                for _ in range(2):
                    delta.requires_grad_()
                    logits = model((batch + delta).clamp(0, 1))
                    initial = logits if initial is None else initial
                    (gradient,) = torch.autograd.grad(F.cross_entropy(logits.float(), labels), delta, retain_graph=True)
                    delta = (delta.detach() + eps * gradient.sign()).clamp(-eps, eps)
                final, clean = model((batch + delta).clamp(0, 1)), model(batch)
            log_i, log_f, log_c = (F.log_softmax(logits.float(), 1) for logits in (initial, final, clean))
            mutual = 5 * kl(log_f, log_i) + 2 * kl(log_i, log_f) + 2 * kl(log_c, log_f)
            optimizer.zero_grad()
            (F.nll_loss(log_f, labels) + share * mutual).backward()
            optimizer.step()
            step += 1


def trained(given: argparse.Namespace, arm: str, seed: int) -> tuple[Run, float]:
    """The finished run of a command, and the seconds of its training."""
    out = given.out / f"{arm}-{seed}"
    flags = ARMS[arm].format(plain=given.out / f"plain-{seed}").split()
    settings = ["--data.root", given.folder, "--data.size", given.size, "--model", "photographs:network"]
    settings += ["--train-examples", str(given.images)] if given.images else []
    settings += ["--epochs", str(given.epochs)] if given.epochs else []
    if not (out.is_dir() and Run.open(out).result().status == "finished"):
        words = ["photos", *settings, *flags, "--seed", str(seed), "--out", str(out)]
        again = ["--resume", str(out), "--model.source", "photographs:network"]
        if code := regmix(["train", *(again if out.is_dir() else words)]):
            raise SystemExit(code)
    run = Run.open(out)
    return run, run.result().train_seconds or 0.0


def of_loop(given: argparse.Namespace, seed: int, weights: Path, classes: int) -> tuple[nn.Module, float]:
    """The model of the loop by hand, and the seconds of its training."""
    out = given.out / f"by-hand-{seed}.pt"
    model = network(classes)
    if not out.is_file():
        base = recipe("photos")
        experiment = replace(
            base, data=Folder(root=given.folder, size=parse_size(given.size)), seed=seed,
            train_examples=given.images, epochs=given.epochs or base.epochs,
        )  # fmt: skip
        load_weights(model, weights)
        began = time.perf_counter()
        by_hand(model, training_data(experiment)[0], experiment, seed)
        torch.save({"model": model.state_dict(), "seconds": time.perf_counter() - began}, out)
    kept = torch.load(out, weights_only=True)
    model.load_state_dict(kept["model"])
    return model, kept["seconds"]


def measured(model: nn.Module, test: ImageSet) -> dict[str, float]:
    found = {}
    for text, eps in RADII.items():
        table = evaluate(model.eval(), batches(test, 250, "cpu"), Linf(eps), "pgd-20")
        found["clean"], found[text] = table.accuracy("clean"), table.accuracy("pgd-20")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", default="32")
    parser.add_argument("--images", type=int, help="training images; default: all")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    test = load(Folder(root=given.folder, size=parse_size(given.size)), "test")
    kept = given.out / "accuracies.json"
    rows: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for seed in given.seeds:
        for arm in (*ARMS, BY_HAND):
            if f"{arm} {seed}" in rows:
                continue
            if arm == BY_HAND:
                plain = given.out / f"plain-{seed}" / "last.safetensors"
                model, seconds = of_loop(given, seed, plain, len(test.classes))
            else:
                run, seconds = trained(given, arm, seed)
                model = network(len(test.classes))
                load_weights(model, run.weights("last" if arm == "plain" else "best"))
            rows[f"{arm} {seed}"] = {**measured(model, test), "seconds": seconds}
            kept.write_text(json.dumps(rows))
            print(arm, seed, rows[f"{arm} {seed}"], flush=True)
    columns = ["clean", *RADII, "seconds"]
    print(f"{len(test)} test images, seeds {given.seeds}")
    print("| arm | " + " | ".join(columns) + " |\n" + "|---" * (1 + len(columns)) + "|")
    for arm in (*ARMS, BY_HAND):
        cells = []
        for column in columns:
            values = [rows[f"{arm} {seed}"][column] * (1 if column == "seconds" else 100) for seed in given.seeds]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
