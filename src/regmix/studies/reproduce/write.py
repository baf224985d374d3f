"""Writes claims.json and reproduce.html."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regmix import __version__
from regmix.reports.reproduction import Figures, Reproduction, Section, write_reproduction
from regmix.runs.files import write_record
from regmix.studies.reproduce.claims import Study
from regmix.studies.reproduce.figures import cost_table, figures
from regmix.studies.reproduce.flat import Flatnesses
from regmix.studies.reproduce.outcome import Outcome
from regmix.studies.reproduce.runner import Runner
from regmix.studies.reproduce.verdict import LEVEL

CLAIMS, PAGE = "claims.json", "reproduce.html"
CORRECTION = (
    f"Of an experiment with m claims, each interval has the level 1 - {LEVEL:g} / m (Bonferroni), so that all of them "
    "together cover the truth with 95 %; with 93 % at worst, where one side's seeds vary much more than the other's."
)


def write(
    runner: Runner, studies: Sequence[Study], flat: Flatnesses, times: Mapping[str, Mapping[str, Any]], command: str
) -> Reproduction:
    """Judges the claims of evaluated experiments, and writes the records and the page into the folder of the runs.

    Args:
        flat: how flat the loss of the runs is.
        times: of training steps by arm; they stand on the page only, because they differ every time.
        command: the command that repeats all of it.
    """
    outcome, out = Outcome(runner, flat), Path(runner.out)
    sections = [outcome.section(study, command) for study in studies]
    seeds = len(next(iter(runner.runs.values())))
    left = [study.name for study in runner.studies if study not in studies]
    result = Reproduction(__version__, runner.scale.name, runner.scale.recipe, seeds, CORRECTION, sections, left)
    write_record(out / CLAIMS, result)
    drawn: dict[str, Figures] = {study.name: figures(outcome, study) for study in studies}
    shown = [_with_times(section, study, times) for section, study in zip(sections, studies, strict=True)]
    write_reproduction(replace(result, sections=shown), drawn, out / PAGE)
    return result


def _with_times(section: Section, study: Study, times: Mapping[str, Mapping[str, Any]]) -> Section:
    return section if study.measures != "steps" else replace(section, table=cost_table(times))
