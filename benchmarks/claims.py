"""Prints Markdown tables of what `regmix reproduce` has found: the arms of each experiment, and its claims.

python benchmarks/claims.py FOLDER/claims.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

MINUS = "\N{MINUS SIGN}"


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:], ""])


def number(value: float, unit: str, sign: str = "+") -> str:
    points = unit == "accuracy"
    text = f"{100 * value:{sign}.1f}" if points else f"{value:{sign}.3g}"
    return text.replace("-", MINUS)


def row(claim: dict) -> list[str]:
    unit, smallest = claim["unit"], claim["smallest_effect"]
    return [
        claim["statement"],
        f" {MINUS} ".join(number(claim[side], unit, "") for side in ("first_mean", "second_mean")),
        f"{number(claim['difference'], unit)} [{number(claim['low'], unit)}, {number(claim['high'], unit)}]",
        ", ".join(number(one, unit) for one in claim["by_seed"]),
        "" if smallest is None else number(smallest, unit, ""),
        claim["verdict"],
    ]


def main(path: Path) -> None:
    for section in json.loads(path.read_text(encoding="utf-8"))["sections"]:
        print(f"`{section['name']}`: {section['ran']}\n")
        if section["table"]:
            print(table(section["table"]))
        head = ["claim", f"first {MINUS} second", "difference [interval]", "by seed", "smallest effect", "verdict"]
        print(table([head, *(row(claim) for claim in section["claims"])]))
        print("\n".join([*section["notes"], *section["doubts"]]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
