"""The report's words: usual names of methods and attacks, numbers as text, and sentences about the numbers."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from regmix.evaluation import Paired
from regmix.methods import METHODS
from regmix.methods.remedies import continued, trained_with
from regmix.reports.load import Column, Evaluation, LoadedRun
from regmix.runs.distances import Curve
from regmix.runs.records import Alarm, went_back
from regmix.threats import format_eps

IMAGES = {"digits": "digits"}
NORMS = {
    "linf": ("L∞", "change every pixel value by at most {}"),
    "l1": ("L1", "change the pixel values so that the absolute changes add up to at most {}"),
    "l2": ("L2", "change the image by at most {} in Euclidean length over all pixel values"),
}
UPPER = ("fgsm", "pgd", "cw", "apgd", "fab", "pma", "malt", "cr", "fmn", "ddn")

MINUS = "\N{MINUS SIGN}"

MASKED = "The gradients are masked: the accuracies under attack are too high."
VERDICTS = {
    "masked": MASKED,
    "no sign of masking": "No sign of masked gradients.",
    "undecided": "Whether gradients are masked is undecided: the model is random, or classifies fewer than 10 images "
    "correctly.",
}
CHECKPOINT_TEXTS = {
    "best": "the weights of the epoch with the highest accuracy on the validation split, under PGD or, after standard "
    "training, without an attack",
    "last": "the weights after the last epoch",
    "averaged": "a running average of the weights",
}


def percent(share: float) -> str:
    """A share in [0, 1] with one decimal."""
    return f"{100 * share:.1f}%"


def interval_text(column: Column) -> str:
    """The 95 % interval of an accuracy."""
    return f"{percent(column.low)} to {percent(column.high)}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign and one decimal."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def duration(seconds: float) -> str:
    """A number of seconds in readable units."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """A number of bytes in readable units."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun, such as "1 image is" or "2 images are"."""
    return f"{count:,} {one if count == 1 else many}"


def listed(words: Sequence[str]) -> str:
    """The words as a list in a sentence: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def method_text(run: LoadedRun) -> str:
    """The training method, of several in their order; for a model from elsewhere where it is from."""
    if run.source is not None:
        return PurePath(run.source).name
    return ", then ".join(name for name, _, _ in _methods(run))


def checkpoint_name(run: LoadedRun, checkpoint: str) -> str:
    """What a checkpoint is called; a model from elsewhere has none, its weights are filed under the last."""
    return "model" if run.source is not None else checkpoint


def checkpoint_phrase(run: LoadedRun, checkpoint: str) -> str:
    """The same within a sentence, without an article."""
    return "model" if run.source is not None else f"{checkpoint} checkpoint"


def methods_text(run: LoadedRun) -> str:
    """The methods of a run that the guard rolled back, with their epochs; empty for another run."""
    if not went_back(run.epochs, run.result.alarms):
        return ""
    return ", then ".join(f"{name} (epochs {first} to {last})" for name, first, last in _methods(run))


def _methods(run: LoadedRun) -> list[tuple[str, int, int]]:
    name = str(run.part("method").get("name", "unknown method"))
    title = METHODS[name].title if name in METHODS else name
    done = run.epochs[-1].epoch if run.epochs else 0
    return trained_with(title, went_back(run.epochs, run.result.alarms), done)


def checkpoint_text(run: LoadedRun, checkpoint: str) -> str:
    """What weights a checkpoint of a run is."""
    text = CHECKPOINT_TEXTS[checkpoint]
    averaged = checkpoint == "best" and run.best_is_average
    return f"the averaged weights{text.removeprefix('the weights')}" if averaged else text


def heading(label: str) -> str:
    """A label at the start of a line: method names begin with a capital, names of folders stay as they are."""
    return label[:1].upper() + label[1:] if label in {method.title for method in METHODS.values()} else label


def attack_text(name: str) -> str:
    """The name of an attack as papers write it. autoattack-screened stays as it is, because it is not AutoAttack."""
    if name.startswith("autoattack"):
        return "AutoAttack" if name == "autoattack" else name
    return name.upper() if name.startswith(UPPER) else name[:1].upper() + name[1:]


def curve_text(curve: Curve) -> str:
    """The quantiles of the smallest perturbations, and what the curve rests on."""
    shown = [f"{100 * q.share:.0f}%: {q.distance:.3g}" for q in curve.quantiles if q.distance is not None]
    found = f"images broken within ε: {listed(shown)}" if shown else "no quantile is reached"
    return f"{found}{curve.not_found()}; rests on {listed(curve.rests_on)}"


def corruption_text(name: str) -> str:
    """The name of a corruption in words."""
    text = name.replace("_", " ").replace("jpeg", "JPEG")
    return text[:1].upper() + text[1:]


def eps_equals(text: str) -> str:
    """The text "ε = 8/255", with spaces that do not break at the end of a line."""
    return f"ε = {text}".replace(" ", "\N{NO-BREAK SPACE}")


def run_words(run: LoadedRun) -> str:
    """A run in a command, quoted for the shell, with the flags that allow code of the user's own."""
    return shlex.join([str(run.path), *run.code])


def reactions(run: LoadedRun) -> list[str]:
    """What the guard did about each of its alarms; empty where it only reported it."""
    actions = [alarm.action for alarm in run.result.alarms]
    after = continued(actions, went_back(run.epochs, run.result.alarms))
    return [
        f"The run went back to epoch {then[0]} and continued with {then[1]}."
        if then is not None
        else "The run was stopped."
        if action == "stop"
        else ""
        for action, then in zip(actions, after, strict=True)
    ]


def alarm_lines(run: LoadedRun) -> list[tuple[str, str]]:
    """The guard's alarms: those of one kind and with one reaction in one line, as (epochs, what happened).

    The guard is against catastrophic overfitting of adversarial training, so alarms of other trainings say nothing.
    """
    kind = METHODS.get(str(run.part("method").get("name")))
    if kind is not None and not kind.adversarial:
        return []
    groups: dict[tuple[str, str], list[Alarm]] = {}
    for alarm, what in zip(run.result.alarms, reactions(run), strict=True):
        groups.setdefault((alarm.reason.partition(":")[0], what), []).append(alarm)
    lines = []
    for (_, what), alarms in groups.items():
        first, last = alarms[0], alarms[-1]
        if len(alarms) == 1:
            lines.append((f"Alarm in epoch {first.epoch}", f"{first.reason}. {what}".strip()))
        else:
            span = f"{len(alarms)} alarms in epochs {first.epoch} to {last.epoch}"
            lines.append((span, f"the first: {first.reason}. {what}".strip()))
    return lines


def images_text(run: LoadedRun) -> str:
    """The noun for the test images, such as "test digits"."""
    return "test " + IMAGES.get(str(run.part("data").get("name")), "images")


def sample_text(run: LoadedRun, evaluation: Evaluation) -> str:
    """The images that an evaluation used, and how many passes were averaged, in words."""
    return evaluation.sample_text(images_text(run)) + evaluation.subject.passes


def labels(runs: Sequence[LoadedRun]) -> list[str]:
    """A name for every run, of the first kind that distinguishes all runs: method, name of the folder, or path."""
    kinds = [
        [method_text(run) for run in runs],
        [run.path.resolve().name for run in runs],
        [str(run.path) for run in runs],
    ]
    return next((kind for kind in kinds if max(Counter(kind).values()) == 1), kinds[-1])


def norm_text(run: LoadedRun) -> str:
    """The norm of the run's attacks, as papers write it."""
    return NORMS[run.norm][0] if run.norm in NORMS else run.norm


def norms_texts(runs: Sequence[LoadedRun]) -> list[str]:
    """A sentence if the runs were attacked in several norms; else none."""
    norms = [*dict.fromkeys(norm_text(run) for run in runs)]
    if len(norms) == 1:
        return []
    return [
        f"The runs were attacked in different norms, {listed(norms)}; accuracies under attack are compared only within "
        "one norm."
    ]


def threat_eps(run: LoadedRun) -> float | None:
    """The radius of the threat model in the settings; None if the config has none."""
    eps = run.part("threat").get("eps")
    return float(eps) if isinstance(eps, int | float) else None


def training_eps(run: LoadedRun) -> float | None:
    """The radius that the training's attacks had; None for a model from elsewhere, and after a training without any."""
    kind = METHODS.get(str(run.part("method").get("name")))
    attacked = run.source is None and (kind is None or kind.adversarial)
    return threat_eps(run) if attacked else None


def threat_text(run: LoadedRun, judged: float | None) -> str:
    """The threat model in a sentence: at the radius of the training if that attacked, else at the judged one."""
    known = [eps for eps in (training_eps(run), judged, threat_eps(run)) if eps is not None]
    eps = known[0] if known else None
    if eps is None:
        return "The settings name no threat model."
    norm, may = NORMS.get(run.norm, (run.norm, "change the image within a radius of {}"))
    return (
        f"{norm} at {eps_equals(format_eps(eps))}: an attacker who knows the model may {may.format(format_eps(eps))}. "
        "Pixel values lie between 0 and 1."
    )


def selection_text(runs: Sequence[LoadedRun]) -> str:
    """How the best checkpoint was chosen."""
    if not (runs := [run for run in runs if run.source is None]):
        return ""
    (size, *others) = {run.validation_images or run.config.get("validation") for run in runs}
    held = f"{size} images" if isinstance(size, int) and not others else "images"
    folders = sorted({run.data.held_out if run.data else "" for run in runs})
    place = " or ".join(f"of the folder {name}/" if name else "held out from the training set" for name in folders)
    return (
        f"The best epoch is chosen on {held} {place} (the validation split). "
        "The test split of a run is used neither for training nor for this choice."
    )


def status_text(run: LoadedRun) -> str:
    """How far the training got."""
    if run.source is not None:
        return f"A model from elsewhere, {run.source}. Its training is not known."
    if not run.epochs:
        return "Finished." if run.finished else "Not finished: no epoch is complete yet."
    done, planned = run.epochs[-1].epoch, run.epochs[-1].epochs
    if run.result.status == "stopped":
        return f"Stopped by the guard against catastrophic overfitting after {done} of {planned} epochs."
    if not run.finished:
        return f"Not finished: {done} of {planned} epochs are complete."
    seconds = run.result.train_seconds
    text = f"Finished: {done} epochs{f' in {duration(seconds)}' if seconds else ''}."
    if methods := methods_text(run):
        text += f" Trained with {methods}."
    if before := run.result.lengthened:
        counts = listed([str(epochs) for epochs in before])
        text += f" Lengthened after {counts} epochs: a training of {done} epochs in one go has other learning rates."
    return text


def comparison_text(first: str, second: str, where: str, difference: Paired, examples: int) -> str:
    """A sentence about the paired difference between two runs."""
    verdict = "beyond" if difference.beyond_noise else "within"
    return (
        f"{heading(first)} minus {second} {where}, on the same {examples} examples: {points(difference.difference)} "
        f"points, with a 95% paired interval of [{points(difference.low)}, {points(difference.high)}], {verdict} the "
        "noise of this test sample."
    )
