"""The model card: what is known about exported weights, from the records of their run, and what is not."""

import inspect
from collections.abc import Iterator

from regmix import __version__
from regmix.exports.checkpoint import Checkpointed
from regmix.methods import METHODS
from regmix.methods.remedies import continued, trained_with
from regmix.runs.columns import without_autoattack
from regmix.runs.evaluations import Stored
from regmix.runs.records import Column, Corruptions, went_back
from regmix.threats import format_eps
from regmix.types import Fingerprint

CLEAN = "clean"
"""The column of an evaluation without an attack."""
FEW_CLASSES = 20
"""Up to so many classes are listed by name."""


def model_card(chosen: Checkpointed, name: str, file: str, digest: str) -> str:
    """The card as Markdown.

    Args:
        name: the name of the model.
        file: the exported file.
        digest: the first 16 digits of its SHA-256.
    """
    sections = {
        "What it takes and returns": _interface(chosen),
        "Threat model": _threat(chosen),
        "Accuracy": _accuracy(chosen),
        "Limits": _limits(chosen),
        "Where it comes from": _origin(chosen, file, digest),
        "Licence": ["Not stated here. Who owns the weights and the training images chooses it."],
    }
    blocks = [f"# {_plain(name)}", *(f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items())]
    return "\n\n".join(blocks) + "\n"


def attacked(stored: Stored) -> dict[str, Column]:
    """The columns of an evaluation under attack, by name."""
    return {name: column for name, column in stored.evaluation.columns.items() if name != CLEAN}


def searched(stored: Stored) -> list[str]:
    """The attacks that looked for the smallest perturbations."""
    curve = stored.evaluation.curve
    return [] if curve is None else [name for name in curve.rests_on if "@" not in name]


def is_masked(stored: Stored) -> bool:
    """Whether the model was found to hide its gradients, so that accuracies under attack are too high."""
    return stored.evaluation.masking is not None and stored.evaluation.masking.verdict == "masked"


def is_measured(chosen: Checkpointed) -> bool:
    """Whether an evaluation of exactly these weights under an attack is in the run."""
    return any(attacked(stored) or searched(stored) for stored in chosen.evaluations)


def _interface(chosen: Checkpointed) -> Iterator[str]:
    channels, height, width = chosen.shape
    colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    yield f"- Input: float32 [B, {channels}, {height}, {width}], {colours}, 8-bit values divided by 255, so in [0, 1]."
    made = "the images of the data set have this size"
    if getattr(chosen.experiment.data, "size", None) is not None:
        made = "resize images so that they just cover the size (bilinear, antialiased), and crop them at the centre"
    yield f"- Preprocessing: {made}. The model normalises its input itself; do not normalise before it."
    yield f"- Output: logits [B, {len(chosen.classes)}]; softmax gives probabilities, which are not calibrated."
    listed = ", ".join(map(_plain, chosen.classes[:FEW_CLASSES]))
    more = (
        f" and {len(chosen.classes) - FEW_CLASSES} more, listed in the JSON file beside"
        if (len(chosen.classes) > FEW_CLASSES)
        else ""
    )
    yield f"- Classes, in the order of the logits: {listed}{more}."


def _threat(chosen: Checkpointed) -> Iterator[str]:
    threat = chosen.experiment.threat
    rule = (inspect.getdoc(type(threat)) or "").splitlines()[0]
    yield f"{threat.name}, eps = {format_eps(threat.eps)} in pixel units of [0, 1]. {rule}"
    if chosen.is_foreign:
        yield "It is the threat model of the evaluation. How the model was trained is not known here."
    elif not chosen.experiment.method.adversarial:
        yield "The model was not trained against it, but without attacks; it was validated under it."


def _accuracy(chosen: Checkpointed) -> Iterator[str]:
    if not is_measured(chosen):
        yield "Robustness was not measured: the run has no evaluation of exactly these weights under an attack."
    for stored in chosen.evaluations:
        evaluation = stored.evaluation
        if not evaluation.columns:
            continue
        if stored is not chosen.evaluations[0] or not is_measured(chosen):
            yield ""
        if evaluation.elsewhere:
            yield "Other images than the run's own test split:\n"
        yield f"On {evaluation.sample_text()} (fingerprint {evaluation.subject.data.digest}):\n"
        yield "| attack | eps | accuracy | 95 % interval | remark |"
        yield "|---|---|---|---|---|"
        for name, column in evaluation.columns.items():
            eps = "" if name == CLEAN else column.eps_text
            attack = "none (clean)" if name == CLEAN else _plain(column.attack)
            interval = f"{_percent(column.low)} to {_percent(column.high)}"
            remarks = [column.note, f"could not start on {column.not_attacked} images" if column.not_attacked else ""]
            remark = _plain("; ".join(filter(None, remarks)))
            yield f"| {attack} | {eps} | {_percent(column.accuracy)} | {interval} | {remark} |"
        yield from _smallest(chosen, stored)
        yield from (f"\nAbout the images: {_plain(note)}." for note in evaluation.about_images)
        if is_masked(stored):
            yield "\n**The model hides its gradients: the accuracies under attack are too high, see the limits.**"
        if evaluation.subject.draws > 1:
            yield f"\nThe model is random: the logits of {evaluation.subject.draws} passes were averaged."
        yield from (f"\n{line}" for each in evaluation.corruptions for line in _corrupted(each))


def _smallest(chosen: Checkpointed, stored: Stored) -> Iterator[str]:
    """What the smallest perturbations say of the accuracy within the radius of the threat model."""
    curve, threat = stored.evaluation.curve, chosen.experiment.threat
    if curve is None or not searched(stored):
        return
    # The accuracy at a smaller radius is at least that at this one.
    place = max(place for place, eps in enumerate(curve.eps) if eps <= threat.eps * (1 + 1e-9))
    yield (
        f"\nSmallest perturbations ({_plain(', '.join(searched(stored)))}): at most "
        f"{_percent(curve.accuracy[place])} of the images are classified correctly within eps = "
        f"{format_eps(threat.eps)}, together with the attacks above{curve.not_found()}."
    )


def _corrupted(those: Corruptions) -> Iterator[str]:
    """The accuracies under corruptions; a line for all kinds of the same severities."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for kind, found in those.accuracy.items():
        mean = _percent(sum(found.values()) / len(found))
        alike.setdefault(tuple(sorted(found)), []).append(f"{_plain(kind)} {mean}")
    for severities, texts in alike.items():
        numbers = ", ".join(map(str, severities))
        over = f"at severity {numbers}" if len(severities) == 1 else f"mean over the severities {numbers}"
        yield f"Accuracy on corrupted images, {over} ({_plain(those.source)}): {', '.join(texts)}."


def _limits(chosen: Checkpointed) -> Iterator[str]:
    if is_measured(chosen):
        yield "- An accuracy under attack is an upper bound: a stronger attack can break more images."
        columns = [column for stored in chosen.evaluations for column in attacked(stored).values()]
        finders = {name for stored in chosen.evaluations for name in searched(stored)}
        names = sorted({column.attack for column in columns} | finders)
        yield f"- Attacked with {', '.join(map(_plain, names))}. Other attacks and other threat models were not tried."
        if missing := without_autoattack(columns):
            where = _plain(", ".join(missing))
            yield f"- AutoAttack was not run at eps = {where}; other papers' numbers are often those of AutoAttack."
    else:
        yield "- No attack was run on these weights. Do not assume that they are robust."
    for stored in chosen.evaluations:
        masking, one = stored.evaluation.masking, stored.evaluation.one_answer
        where = f"on {stored.evaluation.sample_text()}"
        if attacked(stored) and masking is None:
            yield f"- Gradient masking was not probed ({where}): a model that hides its gradients looks robust."
        elif masking is not None and not masking.images:  # the evaluation that found it says it
            signs = f" ({_plain('; '.join(masking.signs))})" if masking.signs else ""
            yield f"- Gradient masking: {masking.verdict}{signs}, {where}."
        if one is not None:
            yield f"- Attention: {_plain(one.text('the test images'))}."
        yield from (f"- {_plain(text)}" for text in [*stored.evaluation.preflight, *stored.left_out])
    result = chosen.run.result()
    yield from (f"- {_plain(text)}" for text in result.warnings)
    actions = [alarm.action for alarm in result.alarms]
    after = continued(actions, went_back(chosen.run.metrics(), result.alarms))
    for alarm, then in zip(result.alarms, after, strict=True):
        did = ". The guard stopped the training" if alarm.action == "stop" else ""
        if then is not None:
            did = f". The guard went back to epoch {then[0]} and continued with {then[1]}"
        yield f"- Alarm of the training in epoch {alarm.epoch}: {_plain(alarm.reason)}{did}."
    if result.status is None and not chosen.is_foreign:
        yield "- The training was not finished."
    yield "- Every image gets one of the classes above, whatever it shows."
    if not any(stored.evaluation.corruptions for stored in chosen.evaluations):
        yield "- Nothing is known here about blur, noise, other cameras or other sources of images."


def _origin(chosen: Checkpointed, file: str, digest: str) -> Iterator[str]:
    environment, experiment, data = chosen.run.environment(), chosen.experiment, chosen.run.data()
    if chosen.is_foreign:
        yield f"- From elsewhere: {_plain(str(environment.source))}. {_plain(chosen.run.result().weights)}"
    else:
        yield f"- Trained with {_training(chosen)}, seed {experiment.seed}; checkpoint: {_checkpoint(chosen)}."
        if experiment.init is not None:
            yield f"- It started from other weights ({_plain(experiment.init)}, digest {environment.init})."
    yield f"- Data: {experiment.data.name}."
    if data is not None:
        yield f"- Training images: {_images(data.train)}. Validation images: {_images(data.validation)}."
    yield f"- Weights in the run: {chosen.checkpoint}.safetensors, digest {chosen.weights}."
    yield f"- This file: `{file}`, digest {digest} (the first 16 digits of its SHA-256)."
    versions = f"regmix {environment.regmix or '?'}, torch {environment.torch or '?'}"
    yield f"- {'First evaluated' if chosen.is_foreign else 'Made'} with {versions}; exported with regmix {__version__}."
    if environment.command:
        yield f"- Command: `{_plain(environment.command).replace('`', '')}`"


def _training(chosen: Checkpointed) -> str:
    """The methods of the training with their epochs, and how far it came."""
    result, rows, planned = chosen.run.result(), chosen.run.metrics(), chosen.experiment.epochs
    done = result.epochs or (rows[-1].epoch if rows else planned)
    title = METHODS[chosen.experiment.method.name].title
    parts = trained_with(title, went_back(rows, result.alarms), done)
    several = ", then ".join(f"{name} (epochs {first} to {last})" for name, first, last in parts)
    length = f"{done} epochs" if done == planned else f"{done} of {planned} epochs"
    end = ", when the guard against catastrophic overfitting stopped it" if result.status == "stopped" else ""
    return f"{several if len(parts) > 1 else parts[0][0]} for {length}{end}"


def _checkpoint(chosen: Checkpointed) -> str:
    """The checkpoint, with its epoch if that is known, and whether it is a moving average."""
    result = chosen.run.result()
    if chosen.checkpoint != "best" or not result.best_epoch:
        return chosen.checkpoint
    return f"best, of epoch {result.best_epoch}{' (moving average of the weights)' if result.best_averaged else ''}"


def _images(images: Fingerprint) -> str:
    return f"{images.images:,} in {len(images.classes)} classes (fingerprint of {images.kind}: {images.digest})"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def _plain(text: str) -> str:
    """A text from files as one line that Markdown shows as it is."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
