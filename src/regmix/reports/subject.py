"""The runs of a report, each with the radius and the attack by which it is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from regmix.reports import words
from regmix.reports.charts import COLOURS, DASHES, Dash
from regmix.reports.load import Column, LoadedRun, checkpoints, judged_checkpoint
from regmix.reports.statistics import column_of, radii, strongest

FEW = 3
"""Up to this many runs fit into one sentence and, with all their checkpoints, into one chart."""


@dataclass(frozen=True)
class Subject:
    """A run, and how all sections of the report show it.

    Attributes:
        colour: number of its colour in the style sheet, from 1.
        dash: line style that distinguishes runs of the same colour, where a line stands for a whole run.
        checkpoint: the checkpoint by which the run is judged: best if it was attacked, else another one; None without
            an evaluation.
        eps: the radius at which the run is judged: that of its threat model, or the nearest evaluated one; None without
            an attack.
        eps_text: that radius as the evaluation wrote it.
        attack: the strongest attack at that radius.
        norm: the norm in words if the report is about several norms; else empty.
    """

    run: LoadedRun
    label: str
    colour: int
    dash: Dash
    checkpoint: str | None
    eps: float | None
    eps_text: str
    attack: str | None
    norm: str = ""

    @property
    def at(self) -> str:
        """The radius in words, with the norm where the report is about several."""
        return f"at {words.eps_equals(self.eps_text)}" + (f" in {self.norm}" if self.norm else "")

    @property
    def where(self) -> str:
        """The attack, the radius and, among several, the norm in words: runs compare where these are the same."""
        if self.attack is None or self.eps is None:
            return "without an attack"
        return f"under {words.attack_text(self.attack)} {self.at}"

    @property
    def passes(self) -> str:
        """Words to add to a number of the checkpoint by which the run is judged if it is a mean of several passes."""
        evaluation = self.run.evaluations.get(self.checkpoint or "")
        return evaluation.subject.passes if evaluation else ""

    def column_name(self, checkpoint: str) -> str | None:
        """The name of the column of the attack by which the run is judged."""
        column = self.column(checkpoint, self.attack)
        return column[0] if column else None

    def column(self, checkpoint: str | None, attack: str | None) -> tuple[str, Column] | None:
        """The name and the column of an attack at the radius at which the run is judged."""
        evaluation = self.run.evaluations.get(checkpoint or "")
        return column_of(evaluation, attack, self.eps or 0.0) if attack else None


def subjects_of(runs: Sequence[LoadedRun]) -> list[Subject]:
    """Decides at which radius and under which attack each run is judged. Runs with the same threat share the attack."""
    chosen = []
    several = len({run.norm for run in runs}) > 1
    for number, (run, label) in enumerate(zip(runs, words.labels(runs), strict=True)):
        wanted = words.threat_eps(run) or 0.0
        nearest, text = min(radii([run]), key=lambda radius: abs(radius[0] - wanted), default=(None, ""))
        attack = None
        if nearest is not None:
            peers = [other for other in runs if checkpoints(other) and other.part("threat") == run.part("threat")]
            attack = strongest(peers, nearest) or strongest([run], nearest)
        cycle, colour = divmod(number, COLOURS - 1)
        dash = DASHES[cycle % len(DASHES)]
        norm = words.norm_text(run) if several else ""
        chosen.append(Subject(run, label, 1 + colour, dash, judged_checkpoint(run), nearest, text, attack, norm))
    return chosen
