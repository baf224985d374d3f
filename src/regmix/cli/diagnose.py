"""`regmix diagnose`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from regmix.cli.common import in_one_process
from regmix.cli.flags import parse
from regmix.reports.findings import FINDINGS, Finding
from regmix.runtime import devices
from regmix.studies.diagnose import diagnose as diagnosed
from regmix.types import UserError


@dataclass(frozen=True)
class DiagnoseFlags:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    probe: bool = True
    """For runs with RegMix's terms: train a plain model for up to a minute, and compare its accuracy without an
    attack. Not needed if a run of standard training on the same images is given."""
    root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    """The folder of the runs' images, if they were moved. None: the folders that the runs name."""
    device: devices.Device = "auto"
    """Device to train the plain model on. auto: a CUDA GPU if there is one, else the CPU."""
    json: bool = False
    """Print the findings, the accuracies per class, the confusions under attack, and the images that break first and
    last as JSON."""


def diagnose(words: Sequence[str]) -> None:
    """Says what is wrong with runs, how that is known, and what to change."""
    flags = parse(DiagnoseFlags, words, "diagnose")
    if not flags.runs:
        raise UserError("diagnose needs at least one run directory; write: regmix diagnose RUN")
    in_one_process("diagnose")
    diagnoses = diagnosed(flags.runs, probe=flags.probe, root=flags.root, device=flags.device)
    if flags.json:
        print(json.dumps([diagnosis.as_json() for diagnosis in diagnoses], indent=2))
        return
    for diagnosis in diagnoses:
        print(f"{diagnosis.subject.run.path}: {_count(diagnosis.findings)}")
        if diagnosis.unprobed is not None:
            print(f"    without its probe: {diagnosis.unprobed}")
        if diagnosis.unjudged is not None:
            print(f"    {diagnosis.unjudged}")
        for position, finding in enumerate(diagnosis.findings, 1):
            print("\n".join(_lines(position, finding)))


def _count(findings: Sequence[Finding]) -> str:
    if not findings:
        return f"nothing found ({len(FINDINGS)} rules)"
    return f"{len(findings)} finding{'s' * (len(findings) > 1)}"


def _lines(position: int, finding: Finding) -> list[str]:
    return [
        f"{position:>2}. {finding.name}: {finding.what}",
        *(f"    - {number.what}: {number.text}" for number in finding.evidence),
        f"    fits: {'; or '.join(finding.causes)}",
        f"    try: {finding.change}",
        f"    should improve: {finding.promise}",
    ]
