"""What a column of the table of an evaluation is: an attack at a radius, what survives it, and what it took."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field

AUTOATTACK = {"apgd-ce", "apgd-t", "fab-t", "square"}
"""The attacks of AutoAttack."""


@dataclass(frozen=True)
class Cost:
    """What an attack, or the corruptions, took: on all images and in all processes together."""

    images: int
    """Of an attack: how many images were attacked, those that are classified correctly without an attack. Of the
    corruptions: the corrupted images."""
    forward: int
    """Images that passed forward through the network, a fast copy's passes among them."""
    backward: int
    """Images whose gradients passed back through it."""
    seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        """Both together."""
        return Cost(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def text(self) -> str:
        """The passes per attacked image and the time, such as "52 forward and 50 backward passes per image, 3.1 s"."""
        each = max(1, self.images)
        passes = f"{_short(self.forward / each)} forward and {_short(self.backward / each)} backward passes per image"
        return f"{passes}, {_short(self.seconds)} s"


@dataclass(frozen=True)
class QueryCurve:
    """Success of a black-box attack against the queries that it may ask about an image."""

    budget: int
    """Queries per image at most; the evaluation asks two more, about the clean image and about the result."""
    queries: list[int]
    broken: list[float]
    """The share of the attacked images that is broken within each number of queries."""
    median: int | None
    """Queries within which half of the attacked images are broken; None if fewer are broken."""


def query_curve(broken: Sequence[int], attacked: int, budget: int) -> QueryCurve:
    """The curve at 1, 2, 5, 10, ... queries and at the budget.

    Args:
        broken: the query that broke an image, counted from 1, for every broken image.
        attacked: how many images were attacked.
    """
    steps = [lead * 10**power for power in range(len(str(budget))) for lead in (1, 2, 5)]
    numbers = sorted({*(step for step in steps if step < budget), budget})
    shares = [sum(query <= number for query in broken) / max(1, attacked) for number in numbers]
    half = -(-attacked // 2)
    return QueryCurve(budget, numbers, shares, sorted(broken)[half - 1] if 0 < half <= len(broken) else None)


def _short(number: float) -> str:
    """Three digits, without an exponent."""
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.3g}"


@dataclass(frozen=True)
class Rounded:
    """How many adversarial images were saved in whole grey levels, and how many of them still fool the model."""

    images: int
    still_adversarial: int


@dataclass(frozen=True)
class Stage:
    """One attack of an ensemble, and the accuracy that it and those before it leave."""

    attack: str
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Source:
    """The model from which the examples of a transfer attack come, or a file of such examples."""

    path: str
    """Of the weights, or of the examples."""
    weights: str
    """Digest of the file."""
    settings: str = ""
    """Of a model: digest of its settings, as in `Subject`; empty in a column of an older version."""
    code: dict[str, str] = field(default_factory=dict)
    """Of a model: digests of the user's files that define it, by path."""

    def comes_from(self, other: "Source") -> bool:
        """Whether the weights and the settings are the same, as far as this record says."""
        return self.weights == other.weights and self.settings in ("", other.settings)


@dataclass(frozen=True)
class Column:
    """One attack at one eps on one checkpoint: how many examples survive, with the 95 % Wilson interval."""

    attack: str
    eps: float
    eps_text: str
    accuracy: float
    low: float
    high: float
    correct: int
    stages: list[Stage] = field(default_factory=list)
    rounded: Rounded | None = None
    note: str = ""
    """To be printed beside the number."""
    not_attacked: int = 0
    """How many of the survivors the attack could not start from."""
    source: Source | None = None
    """Of a transfer attack."""
    exact: bool = False
    """No fast copy of the model screened."""
    batch_size: int | None = None
    """Images per batch; None for a column of an older version."""
    made: str = ""
    """Date and time, UTC."""
    regmix: str = ""
    """The version of regmix."""
    package: str = ""
    """Digest of the code of regmix that computes outcomes; empty for a column of an older version."""
    within: float | None = None
    """The number of images was chosen by a rule: it ended when every interval was at most this share wide to each side.
    `low` and `high` are then about the whole test split. None: the number was given."""
    rule: str = ""
    """How a rule chose the images, in words; empty if they were given."""
    looks: int = 0
    """How often a rule may have looked that compared two runs: the interval holds at every look at once. 0: no such
    rule."""
    queries: "QueryCurve | None" = None
    """Of a black-box attack: success against queries."""
    cost: Cost | None = None
    """What the attack took; None for a column of an older version."""


def without_autoattack(columns: Iterable[Column]) -> list[str]:
    """The radii, as text, at which neither AutoAttack nor all four of its attacks are among these columns.

    Examples that were made for another model, or elsewhere, do not count.
    """
    names: dict[str, set[str]] = {}
    for column in columns:
        if column.eps > 0:
            names.setdefault(column.eps_text, set()).update({column.attack.lower()} if column.source is None else ())
    return [eps for eps, there in names.items() if not (there >= AUTOATTACK or "autoattack" in there)]
