"""Writes flags.json from the dataclasses that the commands parse: `python -m regmix.cli.generate`."""

import inspect
import json
from dataclasses import asdict
from typing import Any

from regmix.cli.bench import BenchFlags
from regmix.cli.compare import CompareFlags
from regmix.cli.describe import docstrings, flags_of, settings_of
from regmix.cli.diagnose import DiagnoseFlags
from regmix.cli.evaluate_flags import ForeignFlags, RunFlags
from regmix.cli.export import ExportFlags
from regmix.cli.predict import PredictFlags
from regmix.cli.report import ReportFlags
from regmix.cli.reproduce import ReproduceFlags
from regmix.cli.sweep import SweepFlags
from regmix.cli.table import FILE, Flag, Kind, Part, Table
from regmix.cli.train import ResumeFlags, TrainFlags
from regmix.config import UNIONS, Experiment
from regmix.recipes import RECIPES

COMMANDS: dict[str, type[Any]] = {
    "train": TrainFlags,
    "resume": ResumeFlags,
    "evaluate": RunFlags,
    "foreign": ForeignFlags,
    "compare": CompareFlags,
    "sweep": SweepFlags,
    "bench": BenchFlags,
    "report": ReportFlags,
    "predict": PredictFlags,
    "diagnose": DiagnoseFlags,
    "export": ExportFlags,
    "reproduce": ReproduceFlags,
}


def generated() -> str:
    """The text of flags.json for the present code."""
    commands = {name: tuple(flags_of(kind)) for name, kind in COMMANDS.items()}
    commands["foreign"] = tuple(flag for flag in commands["foreign"] if flag not in commands["evaluate"])
    commands["recipes"] = (Flag("json", "", "Print the recipes as JSON.", "off"),)
    helps = docstrings(Experiment)
    parts = {
        part: Part(
            helps[part],
            {
                name: Kind(inspect.getdoc(kind) or "", tuple(flags_of(kind, f"{part}.")))
                for name, kind in variants.items()
            },
        )
        for part, variants in UNIONS.items()
    }
    recipes = {name: settings_of(make(), (make.__doc__ or "").splitlines()[0]) for name, make in RECIPES.items()}
    return json.dumps(asdict(Table(commands, tuple(flags_of(Experiment)), parts, recipes)), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(generated(), encoding="utf-8")
