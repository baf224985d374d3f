"""Speed of training and evaluation on a quiet CPU and beside busy processes, by how OpenMP's workers wait.

python benchmarks/shared_cpu.py --data data/cifar10 --rounds 3

OpenMP's workers spin while they wait for one another. A worker that spins takes the CPU from one that could work as
soon as another process is busy on the machine. Each setting runs `regmix train` and `regmix evaluate` in processes of
their own, quiet and beside the busy process, settings in turn, so that a machine that changes its speed changes all of
them. The script makes its own load: nothing else may run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

SETTINGS = {
    "libgomp's default": {"GOMP_SPINCOUNT": "300000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "no spin": {"GOMP_SPINCOUNT": "0"},
    "one thread less": {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(max(1, os.cpu_count() - 1))},
    "regmix's own": {},
}


@contextmanager
def busy(processes):
    """Processes that do nothing but compute."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def regmix(words, setting):
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    subprocess.run(
        [sys.executable, "-m", "regmix", *map(str, words)], env=cleared | setting, check=True, stdout=subprocess.DEVNULL
    )


def images_per_second(setting, data, folder):
    """Of training, and of an evaluation under PGD-20."""
    run = Path(folder) / "run"
    regmix(
        ["train", "cifar10-regmix-cpu", "--data.root", data, "--train-examples", 1024, "--validation", 64,
         "--epochs", 2, "--validate-every", 2, "--out", run],
        setting,
    )  # fmt: skip
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    regmix(["evaluate", run, "--attacks", "pgd-20", "--examples", 512, "--checkpoint", "last"], setting)
    (result,) = run.glob("evaluations/*/evaluation.json")
    seconds = json.loads(result.read_text())["seconds"]
    return rows[-1]["images_per_second"], 512 / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/cifar10", help="CIFAR-10's folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=1, help="number of busy processes")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    args = parser.parse_args()
    speeds = {(name, load): [] for load in (0, args.busy) for name in args.settings}
    for _ in range(args.rounds):
        for (name, load), found in speeds.items():
            with busy(load), tempfile.TemporaryDirectory() as folder:
                found.append(images_per_second(SETTINGS[name], args.data, folder))
                train, evaluate = found[-1]
                print(f"{name}, {load} busy: train {train:.0f}, evaluate {evaluate:.0f} images/s", flush=True)
    print(f"\n{os.cpu_count()} CPUs; ratios to {args.settings[0]}, quiet; medians of {args.rounds} rounds\n")
    print(f"| setting | train, quiet | train, {args.busy} busy | evaluate, quiet | evaluate, {args.busy} busy |")
    print("|---|---|---|---|---|")
    base = speeds[args.settings[0], 0]
    for name in args.settings:
        cells = []
        for part in (0, 1):
            for load in (0, args.busy):
                ratios = [s[part] / b[part] for s, b in zip(speeds[name, load], base, strict=True)]
                cells.append(f"{statistics.median(ratios):.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
