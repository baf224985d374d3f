"""Prints a Markdown table of evaluated runs: mean and standard deviation over the seeds of each method.

python benchmarks/table.py runs/a-seed0 runs/a-seed1 runs/b-seed0 ...
"""

import json
import statistics
import sys
from pathlib import Path


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation in per cent, and each value."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    return f"{100 * statistics.mean(values):.1f}{deviation} ({each})"


def main(paths: list[Path]) -> None:
    groups: dict[str, list[dict]] = {}
    for path in paths:
        config = json.loads((path / "config.json").read_text())
        result = json.loads((path / "result.json").read_text())
        result["seed"] = config["seed"]
        groups.setdefault(config["method"]["name"], []).append(result)
    print("| method | checkpoint | seeds | test images | attack | accuracy |")
    print("|---|---|---|---|---|---|")
    for method, results in groups.items():
        results.sort(key=lambda result: result["seed"])
        seeds = ", ".join(str(result["seed"]) for result in results)
        for checkpoint, evaluation in results[0]["evaluations"].items():
            for column in evaluation["columns"]:
                values = [r["evaluations"][checkpoint]["columns"][column]["accuracy"] for r in results]
                row = (method, checkpoint, seeds, evaluation["examples"], column, spread(values))
                print("| " + " | ".join(map(str, row)) + " |")
        seconds = [result["train_seconds"] for result in results]
        print(f"| {method} | | {seeds} | | training | {statistics.mean(seconds):.0f} s, best epochs "
              f"{', '.join(str(result['best_epoch']) for result in results)} |")  # fmt: skip


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
