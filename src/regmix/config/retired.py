"""Settings of regmix 0.1 that are fixed now."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regmix.types import require

RETIRED = {
    "alpha_order": "final_initial", "beta_order": "initial_final", "gamma_order": "clean_final",
    "alpha_stop": "none", "beta_stop": "none", "gamma_stop": "none",
}  # fmt: skip
"""Settings that method.mutual had in regmix 0.1, and the values that it always has now."""


def without_retired(tree: Mapping[str, Any], source: str | Path) -> Mapping[str, Any]:
    """The tree without settings of regmix 0.1 that are fixed now; raises UserError where one has another value."""
    mutual = tree.get("method", {}).get("mutual")
    if mutual is None:
        return tree
    for name, value in RETIRED.items():
        require(
            mutual.get(name, value) == value,
            f"{source}: method.mutual.{name} is {mutual.get(name)!r}, which only regmix 0.1 can train; set it to "
            f"{value!r}, or train anew with a method that has {name} itself",
        )
    return {**tree, "method": {**tree["method"], "mutual": {k: v for k, v in mutual.items() if k not in RETIRED}}}
