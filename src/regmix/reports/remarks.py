"""What must be told beside the numbers of evaluations: their attacks, remarks about these, and the images."""

from collections.abc import Sequence

from regmix.reports import words
from regmix.reports.load import LoadedRun, checkpoints, is_attacked
from regmix.reports.statistics import column_of, columns_at
from regmix.reports.subject import Subject
from regmix.runs.columns import without_autoattack

UPPER_BOUND = (
    "Accuracy under PGD or any other attack is an upper bound on robust accuracy, not a guarantee: "
    "a stronger attack may lower it."
)
"""What accuracy under attacks means and what it does not."""


def limits(those: Sequence[Subject]) -> str:
    """What limits the numbers by which runs are judged: whether AutoAttack was run for just these, and all remarks."""
    lacking: dict[tuple[str, str], list[str]] = {}
    texts = [UPPER_BOUND]
    for subject in those:
        evaluation = subject.run.evaluations.get(subject.checkpoint or "")
        if evaluation is not None and subject.eps and without_autoattack(columns_at(evaluation, subject.eps).values()):
            if text := _autoattack_elsewhere(subject, subject.eps):
                whose = f"{words.heading(subject.label)}: " if len(those) > 1 else ""
                texts.append(f"{whose}AutoAttack was run on other images only: {text}.")
            else:
                weights = words.checkpoint_phrase(subject.run, evaluation.subject.checkpoint)
                lacking.setdefault((weights, subject.at), []).append(subject.label)
    texts += attacked_elsewhere(those)
    if lacking:
        where = [
            f"the {weights}{f' of {words.listed(labels)}' if len(those) > 1 else ''} {at}"
            for (weights, at), labels in lacking.items()
        ]
        texts.append(
            f"AutoAttack was not run on {words.listed(where)}, so the true robust accuracy may be noticeably lower."
        )
    return " ".join([*texts, *notes([subject.run for subject in those])])


def attacked_elsewhere(those: Sequence[Subject]) -> list[str]:
    """A sentence about runs that were attacked, but not on the images that are shown; none without such runs."""
    labels = [
        subject.label
        for subject in those
        if subject.checkpoint is not None and subject.attack is None and any(map(is_attacked, subject.run.others))
    ]
    if not labels:
        return []
    whose = f" ({words.listed(labels)})" if len(those) > 1 else ""
    return [f"Attacked on other images only{whose}; to compare runs under attack, evaluate all on the same images."]


def _autoattack_elsewhere(subject: Subject, eps: float) -> str:
    """The accuracy of the judged checkpoint under AutoAttack on images that are not shown; empty if it was not run."""
    texts = []
    for other in subject.run.others:
        columns = columns_at(other, eps)
        if other.subject.checkpoint != subject.checkpoint or not columns or without_autoattack(columns.values()):
            continue
        images, column = words.sample_text(subject.run, other), column_of(other, "autoattack", eps)
        if column is None:
            texts.append(f"its four attacks one by one on {images} {subject.at}")
        else:
            share = f"{words.percent(column[1].accuracy)} ({words.interval_text(column[1])})"
            texts.append(f"{share} of {images} are correct {subject.at}")
    return "; ".join(texts)


def attacks(runs: Sequence[LoadedRun]) -> list[str]:
    """The names of all attacks in these evaluations, in order, without clean."""
    names = [
        column.attack
        for run in runs
        for name in checkpoints(run)
        for column in run.evaluations[name].columns.values()
        if column.eps > 0
    ]
    return list(dict.fromkeys(names))


def notes(runs: Sequence[LoadedRun]) -> list[str]:
    """The remarks that must stand beside the numbers of some attacks, each once.

    A remark that is not about all columns of its attack names the runs, the checkpoints and the radii that it is about.
    """
    everywhere: dict[str, dict[str, list[str]]] = {}  # by attack and place, the radii
    noted: dict[tuple[str, str], dict[str, list[str]]] = {}  # by attack and remark, the same
    for run, label in zip(runs, words.labels(runs), strict=True):
        for name in checkpoints(run):
            weights = words.checkpoint_name(run, name)
            place = weights if len(runs) == 1 else f"{label}, {weights}"
            for column in run.evaluations[name].columns.values():
                everywhere.setdefault(column.attack, {}).setdefault(place, []).append(column.eps_text)
                if column.note:
                    here = noted.setdefault((column.attack, column.note), {})
                    here.setdefault(place, []).append(column.eps_text)
    return [
        f"{words.attack_text(attack)}{_places(here, everywhere[attack])}: {note}"
        for (attack, note), here in noted.items()
    ]


def _places(here: dict[str, list[str]], everywhere: dict[str, list[str]]) -> str:
    if here == everywhere:
        return ""
    places = [
        place if radii == everywhere[place] else f"{place} at {words.eps_equals(words.listed(radii))}"
        for place, radii in here.items()
    ]
    return f" ({'; '.join(places)})"


def intervals(runs: Sequence[LoadedRun]) -> str:
    """What the intervals of the tables are."""
    columns = [column for run in runs for name in checkpoints(run) for column in run.evaluations[name].columns.values()]
    if not any(column.rule for column in columns):
        return "Intervals are 95% Wilson intervals."
    others = "" if all(column.rule for column in columns) else ", and Wilson intervals for what was measured without it"
    rule = "those of the rule that chose the images, about the accuracy on the whole test split"
    return f"Intervals are 95%: {rule}{others}."


def samples(runs: Sequence[LoadedRun]) -> list[str]:
    """Descriptions of the test images that these evaluations used, without repetitions."""
    texts = [words.sample_text(run, run.evaluations[name]) for run in runs for name in checkpoints(run)]
    return list(dict.fromkeys(texts))
