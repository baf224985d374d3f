"""`regmix evaluate`."""

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from regmix.attacks import CLEAN, parse_attacks
from regmix.cli.common import (
    check_queries,
    console_for,
    print_result,
    radii_in,
    summary,
    with_queries,
)
from regmix.cli.evaluate_flags import EvaluateFlags, ForeignFlags, RunFlags
from regmix.cli.flags import parse
from regmix.cli.mistyped import check
from regmix.cli.table import command_flags, part_flags, take_kinds
from regmix.cli.train import with_kinds
from regmix.config import UNIONS, Experiment
from regmix.evaluation.against import evaluate_both
from regmix.evaluation.assessment import Assessment
from regmix.evaluation.foreign import KNOWN, Foreign, is_file_of_weights, is_foreign
from regmix.evaluation.given import named_given
from regmix.evaluation.questions import Questions, check_attacks
from regmix.evaluation.subject import EvaluationImages, PlacedModel, choose_images
from regmix.jobs.console import ConsoleDisplay
from regmix.jobs.evaluation import other_images
from regmix.models import ONNX, Answers, BlackBox, ResNet
from regmix.models.files import SUFFIXES
from regmix.runs import Checkpoint, Run
from regmix.runtime import devices, processes
from regmix.shorthand import named, names_in
from regmix.types import Interrupted, Trust, UserError

COMMON = {"model", "best", "last", "averaged", "weights", "checkpoint", "pytorch_model"}
"""Names of files that say nothing about the model."""


@dataclass(frozen=True, eq=False)
class _Start:
    """What an evaluation begins with."""

    flags: EvaluateFlags
    run: Run
    trust: Trust
    root: Path | None = None
    """Where other test images than the run's own are."""
    origin: str = ""
    """Of a model from elsewhere: where its weights are from."""
    test: EvaluationImages | None = None
    """The test images, if they are loaded already."""
    loaded: dict[Checkpoint, PlacedModel] = field(default_factory=dict)
    """The models by checkpoint, if they are loaded already."""


def evaluate(words: list[str]) -> None:
    """Attacks the checkpoints of a run, or a model from elsewhere, on the test images."""
    command = shlex.join(["regmix", "evaluate", *words])
    if words and is_foreign(words[0]):
        start = _adopted(words)
    else:
        if words and not words[0].startswith("-"):  # what it is matters more than flags that do not fit it
            _check_name(words[0])
            Run.open(words[0], writes=False)
        parsed = parse(RunFlags, words, "evaluate")
        start = _Start(parsed.shared, Run.open(parsed.shared.run), _trust(parsed), root=parsed.root)
    flags = start.flags
    questions = _questions(flags)
    checkpoints: list[Checkpoint] = [] if flags.checkpoint == "all" else [flags.checkpoint]
    with ConsoleDisplay(console_for(flags.json)) as display, _telling_what_is_kept(start.run, command):
        if start.origin:
            display.note(start.origin)
        test = start.test if start.test is not None else _others(start, start.run, questions)
        assessment = Assessment(start.run, questions, test, start.trust)
        if flags.against is None:
            assessment.run(checkpoints, flags.device, display, start.loaded)
            more = {}
        else:
            more = _compared(assessment, flags, checkpoints, start, display)
    runs = [str(path) for path in (start.run.path, flags.against) if path is not None]
    print_result(start.run, flags.json, shlex.join(["regmix", "report", *runs, "-o", "report.html"]), more)


def _check_name(source: str) -> None:
    """Raises UserError for a name of code or of a file that is not written as one of a model."""
    path = Path(source)
    if (code := path.with_suffix(".py")).is_file() and path.suffix in ("", ".py") and not path.is_dir():
        module = code.stem if code.is_absolute() else ".".join(code.with_suffix("").parts)
        raise UserError(f"{source} is not a run directory; for a function in {code} write {module}:FUNCTION")
    if path.is_file():
        endings = ", ".join([*SUFFIXES, ONNX])
        raise UserError(f"{source} is not a run directory, nor a file of weights by its ending ({endings})")


@contextmanager
def _telling_what_is_kept(run: Run, command: str) -> Iterator[None]:
    """Adds to an interruption what is kept of the evaluation, and how to continue it."""
    try:
        yield
    except KeyboardInterrupt as interrupted:
        number = interrupted.signal if isinstance(interrupted, Interrupted) else signal.SIGINT
        kept = f"the finished batches are kept in {run.path}; continue with the same command: {command}"
        raise Interrupted(number, kept) from None


def _compared(
    first: Assessment, flags: EvaluateFlags, checkpoints: list[Checkpoint], start: _Start, display: ConsoleDisplay
) -> dict[str, object]:
    """Evaluates the run and a second one, and tells the differences; returns them with the second run's summary."""
    assert flags.against is not None
    other = Run.open(flags.against)
    second = Assessment(other, first.questions, _others(start, other, first.questions), start.trust)
    differences = evaluate_both(first, second, checkpoints, flags.device, display)
    for difference in differences:
        display.note(difference.text())
    return {"against": summary(other), "differences": [asdict(difference) for difference in differences]}


def _others(start: _Start, run: Run, questions: Questions) -> EvaluationImages | None:
    """The test images that --data.root names, for a run; None: its own."""
    return None if start.root is None else other_images(run, start.root, questions, start.trust)


def _trust(flags: RunFlags) -> Trust:
    return Trust(flags.source, flags.shared.trust_code, flags.data_source)


def _questions(flags: EvaluateFlags) -> Questions:
    if not flags.corruptions and (flags.corruption_files is not None or flags.severities != EvaluateFlags.severities):
        raise UserError("--severities and --corruption-files are for corruptions; name them with --corruptions")
    check_queries(f"{flags.attacks},{flags.curve}" if flags.curve else flags.attacks, flags.queries)
    return Questions(
        (
            *parse_attacks(with_queries(flags.attacks, flags.queries)),
            *named_given([Path(name) for name in names_in(flags.adversarial) if name]),
        ),
        radii_in(flags.eps),
        flags.examples,
        flags.batch_size,
        flags.exact,
        flags.verdict,
        flags.save,
        flags.draws,
        names_in(flags.corruptions),
        _severities_in(flags.severities),
        flags.corruption_files,
        flags.sample,
        flags.sample_seed,
        parse_attacks(with_queries(flags.curve, flags.queries)) if flags.curve else (),
        None if flags.within is None else flags.within / 100,
    )


def _severities_in(text: str) -> list[int]:
    try:
        return [int(severity) for severity in text.split(",")]
    except ValueError as error:
        raise UserError(f"--severities {text}: write whole numbers from 1 to 5, such as 1,3,5") from error


def _adopted(words: list[str]) -> _Start:
    """Makes a run directory for a model from elsewhere."""
    source = words[0]
    assumed = is_file_of_weights(source) and not _are_given(words, "--model")
    base, parsed = _foreign_flags(words)
    shared = parsed.shared
    experiment = replace(base, data=parsed.data, model=parsed.model, threat=parsed.threat)
    chosen_by_answers = isinstance(parsed.model, BlackBox) and not _are_given(words, "--attacks")
    if chosen_by_answers:
        shared = replace(shared, attacks=CLEAN)  # until its answers are seen
    asked = f"{shared.attacks},{shared.curve}" if shared.curve else shared.attacks
    named_attacks = parse_attacks(with_queries(asked, shared.queries))
    attacks = {named.name: named.attack for named in named_attacks if named.attack is not None}
    radii_in(shared.eps)  # before a model is built
    if shared.checkpoint not in ("all", "last"):
        raise UserError(f"--checkpoint {shared.checkpoint} chooses from a run directory; leave it out for {source}")
    out = parsed.out or Path("evaluations") / result_name(source)
    test = choose_images(experiment.data, shared.examples, shared.sample, shared.sample_seed)
    settled = [word.split("=")[0].removeprefix("--model.") for word in words if word.startswith("--model.")]
    trust = experiment.trust(everything=shared.trust_code)
    if not chosen_by_answers:
        check_attacks(_questions(shared), experiment.threat, trust)

    device = devices.start(shared.device, "32", patient=True).device
    origin, loaded = "", dict[Checkpoint, PlacedModel]()
    if processes.rank() == 0:
        foreign = Foreign(source, experiment, parsed.mean, parsed.std, parsed.weights, assumed, settled)
        adopted = foreign.adopt(test.images, out, device, attacks)
        origin, loaded = adopted.origin, {"last": adopted.loaded}
        if chosen_by_answers and isinstance(adopted.loaded.model, Answers):
            by_classes = adopted.loaded.model.only_classes
            shared = replace(shared, attacks="hop-skip-jump" if by_classes else "square")
    shared = processes.from_first(shared)
    origin = processes.from_first(origin)  # the other processes wait until the directory is there
    return _Start(shared, Run.open(out), trust, None, origin, test, loaded)


def result_name(source: str) -> str:
    """The folder's name for a model from elsewhere; files such as model.onnx are told apart by their folders."""
    file = Path(source.replace(":", "-"))
    return f"{file.parent.name}-{file.stem}" if file.stem in COMMON and file.parent.name else file.stem


def _are_given(words: list[str], flag: str) -> bool:
    return any(word.split("=")[0] == flag for word in words)


def _foreign_flags(words: list[str]) -> tuple[Experiment, ForeignFlags]:
    """The default experiment for a model from elsewhere, and the flags for it."""
    source = words[0]
    if is_file_of_weights(source) and _are_given(words, "--black-box"):
        raise UserError(f"{source} is a file of weights; --black-box is for module:function, so leave it out")
    if source.endswith(ONNX) or _are_given(words, "--black-box"):
        base = Experiment(model=BlackBox(source=source))
    elif is_file_of_weights(source):
        base = Experiment(model=ResNet())
    else:
        kind, settings = named("model", source)
        base = Experiment(model=UNIONS["model"][kind](**settings))
    kinds = take_kinds(words, KNOWN)
    base = with_kinds(base, kinds)
    own = {part: getattr(base, part).name for part in KNOWN}
    check(words, [*command_flags("evaluate", "foreign"), *part_flags(own)], "evaluate")
    start = ForeignFlags(EvaluateFlags(run=Path(source)), base.data, base.model, base.threat)
    parsed = parse(ForeignFlags, words, "evaluate", start)
    if (":" in source or source.endswith(ONNX)) and parsed.model != base.model:
        raise UserError(f"{source} is the model already; leave out --model and its flags")
    return base, parsed
