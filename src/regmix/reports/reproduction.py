"""The page and the records of `regmix reproduce`: every claim with its evidence and its verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from regmix import __version__
from regmix.reports import words
from regmix.reports.charts import Chart
from regmix.reports.report import templates
from regmix.reports.surfaces import Surfaces
from regmix.runtime.files import write_text

Unit = Literal["accuracy", "epochs", "passes", "loss"]
"""loss: cross-entropy, or its derivatives."""


@dataclass(frozen=True)
class Judged:
    """A claim, what was measured, and the verdict. Accuracies lie in [0, 1]."""

    statement: str
    first: str
    second: str
    unit: Unit
    first_mean: float
    second_mean: float
    difference: float
    low: float
    """Of the interval that is corrected for the number of claims of the experiment."""
    high: float
    threshold: float
    """The claim says that the difference is larger than this."""
    smallest_effect: float | None
    """The smallest difference from the threshold that the design would have seen with 80 % probability."""
    freedom: float | None
    """Degrees of freedom of the error over the seeds; None if there is one seed, or nothing varies over them."""
    images: int | None
    """None for a number per run."""
    seeds: tuple[int, int]
    verdict: Literal["supported", "contradicted", "undecided"]
    why: str
    cannot_show: str
    by_seed: list[float] = field(default_factory=list)
    """The difference of each seed; empty if the sides have different numbers of seeds."""

    def amount(self, value: float, *, signed: bool = True) -> str:
        """A difference in the claim's unit: percentage points, epochs or passes."""
        if self.unit == "accuracy":
            return words.points(value) if signed else f"{100 * value:.1f}"
        digits = ".3g" if self.unit == "loss" else ".1f"
        return format(value, f"+{digits}" if signed else digits).replace("-", words.MINUS)

    def numbers(self) -> str:
        """The difference and its interval as a phrase."""
        unit = {"accuracy": " points", "epochs": " epochs", "passes": " passes per image", "loss": ""}[self.unit]
        text = f"{self.amount(self.difference)}{unit} [{self.amount(self.low)}, {self.amount(self.high)}]"
        if self.threshold:
            text += f"; the claim asks for more than {self.amount(self.threshold)}"
        return text

    def means(self) -> str:
        """The means of both sides as a phrase."""
        percent = self.unit == "accuracy"
        means = (self.first_mean, self.second_mean)
        first, second = (words.percent(mean) if percent else self.amount(mean, signed=False) for mean in means)
        over = f"{self.seeds[0]} and {self.seeds[1]} seeds" if self.seeds[0] != self.seeds[1] else (
            f"{self.seeds[0]} seed{'s' if self.seeds[0] > 1 else ''} each"
        )  # fmt: skip
        on = f", {self.images:,} test images" if self.images is not None else ""
        each = f"; by seed {', '.join(map(self.amount, self.by_seed))}" if len(self.by_seed) > 1 else ""
        return f"{self.first}: {first}; {self.second}: {second} ({over}{on}){each}"


@dataclass(frozen=True)
class Section:
    """One experiment: what was run, what came out, and what it cannot show."""

    name: str
    title: str
    question: str
    ran: str
    cannot_show: str
    command: str
    claims: list[Judged]
    table: list[list[str]]
    """Rows of text, the header first."""
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Alarms of single trainings, and signs of masked gradients."""


@dataclass(frozen=True)
class Reproduction:
    """claims.json."""

    regmix: str
    scale: str
    recipe: str
    seeds: int
    correction: str
    """How the intervals are corrected for the number of claims."""
    sections: list[Section]
    left: list[str]
    """Experiments of the command that are not evaluated yet."""


@dataclass(frozen=True)
class HeatMap:
    """Numbers over two settings: a title, the names of columns, and rows of (name, values in [0, 1] or None)."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[float | None]]]

    def shade(self, value: float) -> int:
        """Per cent of colour behind a value: 0 for the smallest of the map, 60 for the largest."""
        values = [v for _, row in self.rows for v in row if v is not None]
        low, high = min(values), max(values)
        return round(60 * (value - low) / (high - low)) if high > low else 30


@dataclass(frozen=True)
class Figures:
    """What is drawn in the section of an experiment."""

    charts: Sequence[Chart] = ()
    maps: Sequence[HeatMap] = ()
    planes: Sequence[Surfaces] = ()


def write_reproduction(result: Reproduction, figures: Mapping[str, Figures], output: Path) -> None:
    """Writes the page as one self-contained HTML file. `figures` has those of a section by its name."""
    text = (
        templates()
        .get_template("reproduction.html")
        .render(
            version=__version__, result=result, figures=figures, nothing=Figures(), words=words, counts=counts(result)
        )
    )
    write_text(output, text)


def counts(result: Reproduction) -> dict[str, int]:
    """How many claims have which verdict."""
    verdicts = [claim.verdict for section in result.sections for claim in section.claims]
    return {verdict: verdicts.count(verdict) for verdict in ("supported", "contradicted", "undecided")}
