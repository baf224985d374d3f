"""Evaluates the checkpoints of a run: on the run's own test images, or on other ones."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from regmix.arguments import checked
from regmix.attacks import parse_attacks
from regmix.config import from_json
from regmix.data import DataConfig, placed
from regmix.evaluation.assessment import Assessment
from regmix.evaluation.questions import Questions
from regmix.evaluation.subject import EvaluationImages, choose_images, with_leaks
from regmix.jobs.console import ProgressTo, shown
from regmix.jobs.training import path_of
from regmix.runs import CONFIG, Checkpoint, Run
from regmix.runtime import devices
from regmix.shorthand import names_in
from regmix.threats import parse_eps
from regmix.types import Trust, known

ATTACKS = "clean,fgsm,pgd-10,pgd-50"


@checked
def evaluate_run(
    run: str | Path | Run, attacks: str | Sequence[str] = ATTACKS, *,
    eps: str | float | Sequence[str | float] | None = None, examples: int | None = None,
    checkpoint: Checkpoint | Literal["all"] = "all", device: devices.Device = "auto",
    data: str | Path | DataConfig | None = None, source: str | None = None, data_source: str | None = None,
    trust_code: bool = False, progress: ProgressTo = True, **more: Any,
) -> Run:  # fmt: skip
    """Attacks the checkpoints of a run on test images and stores the outcomes in it, as `regmix evaluate RUN` does.

    To attack a model of your own on images of your own, call `regmix.evaluate`.

    Args:
        attacks: names, or one text with commas between them.
        eps: radii in pixel units of [0, 1], such as 0.1 or "8/255,16/255"; None: the radius of the training.
        examples: number of test images, drawn evenly from the classes; None: all.
        checkpoint: best, last, averaged, or all that the run has.
        data: other test images than the run's own: a folder (see `other_images`) or another data source.
        source: the module:function of the run's model, if it is a function of yours. Its code is run.
        data_source: the module:function of the run's data, if they are yours. Its code is run.
        trust_code: allows to run whatever code the run asks for.
        progress: as for `train`.
        more: further fields of `Questions`, such as batch_size, exact, verdict, save, draws, corruptions or curve;
            `within` in points, as for the command.

    Raises:
        UserError: an unknown attack, other classes or another shape than the run's, missing weights, or a model that
            cannot be evaluated.
    """
    directory, trust = Run.open(path_of(run)), Trust(source, trust_code, data_source)
    questions = _questions(attacks, eps, examples, more)
    test = None if data is None else other_images(directory, data, questions, trust)
    with shown(progress) as display:
        assessment = Assessment(directory, questions, test, trust)
        assessment.run([] if checkpoint == "all" else [checkpoint], device, display)
    return directory


def other_images(run: Run, data: str | Path | DataConfig, questions: Questions, trust: Trust) -> EvaluationImages:
    """Test images for a run that are not those which its settings name.

    Args:
        data: a folder, read as the run's own data are, or another data source. A folder of images may hold test images
            alone: CLASS/*, test/CLASS/* or val/CLASS/*.

    Raises:
        UserError: the run's data are in no folder, or what `choose_images` raises.
    """
    own = from_json(run.config(), run.path / CONFIG, trust, reads_data=False).data
    if isinstance(data, str | Path):
        data = placed(own, run.path, data)
    test = choose_images(data, questions.examples, questions.sample, questions.sample_seed)
    if data != own:
        where = str(getattr(data, "root", data.name))
        note = f"the test images are those of {where}, not those that the run's settings name"
        test = replace(test, images=replace(test.images, notes=(*test.images.notes, note)), elsewhere=where)
    return with_leaks(test, run, own, data)


def _questions(
    attacks: str | Sequence[str], eps: str | float | Sequence[str | float] | None, examples: int | None,
    more: dict[str, Any],
) -> Questions:  # fmt: skip
    for name in more:
        known(name, [field.name for field in fields(Questions)], "argument")
    if isinstance(more.get("within"), int | float):
        more["within"] /= 100
    if isinstance(more.get("curve"), str):
        more["curve"] = parse_attacks(more["curve"])
    if isinstance(more.get("corruptions"), str):
        more["corruptions"] = names_in(more["corruptions"])
    radii = eps.split(",") if isinstance(eps, str) else [eps] if isinstance(eps, int | float) else eps or ()
    listed = attacks if isinstance(attacks, str) else ",".join(attacks)
    return Questions(parse_attacks(listed), [parse_eps(str(radius)) for radius in radii], examples, **more)
