"""Prints a Markdown table of evaluated runs: mean and standard deviation over the seeds of each setting, and each seed.

python benchmarks/table.py runs/a-seed0 runs/a-seed1 runs/b-seed0 ...
"""

import statistics
import sys
from pathlib import Path

from regmix.reports.comparison import arms, cell, shared_columns
from regmix.reports.load import load


def main(paths: list[Path]) -> None:
    found = arms([load(path) for path in paths])
    names = shared_columns(found)
    columns = list(dict.fromkeys(name for some in names.values() for name in some))
    print("| " + " | ".join(["runs", "checkpoint", *columns]) + " |")
    print("|---" * (2 + len(columns)) + "|")
    for arm in found:
        for checkpoint in names:
            values = [arm.values(checkpoint, column) for column in columns]
            each = [
                f"{cell(some)} ({', '.join(f'{100 * one:.1f}' for one in some)})" if some else "" for some in values
            ]
            print("| " + " | ".join([arm.label, checkpoint, *each]) + " |")
        seconds = statistics.mean(run.result.train_seconds or 0 for run in arm.runs)
        best = ", ".join(str(run.best_epoch) for run in arm.runs)
        print(f"| {arm.label} | | training {seconds:.0f} s, best epochs {best} |" + " |" * (len(columns) - 1))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
