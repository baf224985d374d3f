"""`evaluate`: attacks the batches of a stream, and returns the table of what survives."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from regmix.attacks import CLEAN, Attack, explained, named_attacks
from regmix.evaluation.answers import explaining_gradients
from regmix.evaluation.one_batch import attacked, predict
from regmix.evaluation.outcomes import Outcomes
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat, check_threat
from regmix.types import Batch, Images, Labels, Model, UserError, as_batch, check_values


def evaluate(
    model: Model,
    batches: Iterable[Batch | tuple[Tensor, Tensor] | list[Tensor]],
    threat: Threat,
    attacks: str | Iterable[str | Attack] | Mapping[str, str | Attack],
    on_batch: Callable[[int], None] | None = None,
) -> Outcomes:
    """Attacks every correctly classified example with every attack, in evaluation mode.

    Returns the table whose first column is `clean` and whose others are the attacks in their order. The attacks are
    not trusted: perturbations must lie in the threat set, and adversarial images are clipped to [0, 1] before the model
    is asked about them. The model's mode, gradients and BatchNorm statistics stay as they were. Examples that an attack
    cannot start from survive it; `Outcomes.not_attacked` counts them, and a warning says how many they are.

    Args:
        batches: Batch or (images, labels), images in [0, 1] with class indices; they are streamed, and not moved to
            another device.
        attacks: names ("pgd-50,autoattack", or a list), attacks, or a dict that names them.
        on_batch: called after every batch with the number of its examples.

    Raises:
        UserError: no example, images outside [0, 1], labels outside the model's classes or of another shape or type
            than Batch has, an unknown attack or one that is not made for the threat, a model that fails, does not
            return finite logits [B, classes], changes its images in place, or gives no gradient to an attack that needs
            one, or perturbations that are not finite.
    """
    check_threat(threat)
    suite = named_attacks(attacks)
    for attack in suite.values():
        check_made_for(attack, threat)
    robust, untried, labels, predicted = [], [], [], []
    with borrowed(model):
        for given in _iterated(batches):
            batch = as_batch(given)
            check_values(batch)
            x, y = batch.x.clamp(0, 1), batch.y
            with explained(model, batch):
                seen = predict(model, x, y)
            survives, missed = _attack_all(model, suite, x, y, seen == y, threat)
            robust.append(survives.cpu())
            untried.append(missed.cpu())
            labels.append(y.cpu())
            predicted.append(seen.cpu())
            if on_batch is not None:
                on_batch(len(x))
    if not robust:
        raise UserError("there is no example to evaluate")
    outcomes = Outcomes(
        (CLEAN, *suite), torch.cat(labels), torch.cat(robust), torch.cat(untried), torch.cat(predicted)
    )  # fmt: skip
    for name in suite:
        if note := not_attacked_note(outcomes.not_attacked(name), len(outcomes)):
            warnings.warn(f"{name}: {note}", stacklevel=2)
    return outcomes


def _attack_all(
    model: Model, suite: Mapping[str, Attack], x: Images, y: Labels, correct: Tensor, threat: Threat
) -> tuple[Tensor, Tensor]:
    """Which rows survive, and which were not attacked: a column for clean and one per attack, bool [B, 1 + attacks]."""
    survives, missed = [correct], [torch.zeros_like(correct)]
    for attack in suite.values():
        broken, idle = torch.ones_like(correct), torch.zeros_like(correct)
        if correct.any():
            with explaining_gradients(model, x, suite):
                _, broken[correct], idle[correct], *_ = attacked(model, attack, x[correct], y[correct], threat)
        survives.append(~broken)
        missed.append(idle)
    return torch.stack(survives, 1), torch.stack(missed, 1)


def check_made_for(attack: Attack, threat: Threat) -> None:
    """Raises UserError if an attack is made for other threats only."""
    # Only attacks that are made for some threats have a check.
    getattr(attack, "check", lambda _: None)(threat)


def not_attacked_note(rows: int, examples: int, why: str = "no start or no gradient there") -> str:
    """What to print beside the accuracy under an attack that skipped surviving examples; empty if it skipped none."""
    if not rows:
        return ""
    return f"{rows} of {examples} images were not attacked ({why}) and count as robust"


def _iterated(batches: object) -> Iterator[object]:
    if isinstance(batches, Batch | Tensor) or not isinstance(batches, Iterable):
        raise UserError(f"batches are {type(batches).__name__}; give a loader or a list of batches: [Batch(x, y)]")
    yield from batches
