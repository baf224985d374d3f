"""`regmix evaluate`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from regmix.attacks import parse_attacks
from regmix.cli.common import ModelSource, console_for, names_in, radii_in, severities_in, tell, trust_in
from regmix.cli.console import ConsoleDisplay
from regmix.cli.flags import parse, take
from regmix.config import UNIONS, Experiment
from regmix.data import DataConfig, How
from regmix.evaluation.assessment import Assessment
from regmix.evaluation.foreign import KNOWN, Foreign, is_file_of_weights, is_foreign
from regmix.evaluation.questions import Questions
from regmix.evaluation.subject import Chosen, Loaded, choose_images
from regmix.models import Function, ModelConfig, ResNet
from regmix.runs import Checkpoint, Run
from regmix.runtime import devices, processes
from regmix.threats import ThreatConfig
from regmix.types import Trust, UserError, known


@dataclass(frozen=True)
class EvaluateFlags:
    run: Annotated[Path, tyro.conf.Positional]
    """A run directory."""
    attacks: str = "clean,fgsm,pgd-10,pgd-50"
    """Attacks, separated by commas: clean, fgsm, pgd-N (N steps of a quarter of eps), pgd-NxR (R restarts), cw-N,
    cw-l2, mi-fgsm-N, apgd-ce, apgd-dlr, apgd-t, fab-t, square, autoattack, hop-skip-jump, adaptive, transfer:RUN
    (examples of another run). Adaptive attacks RegMix's own objective."""
    eps: str | None = None
    """Radii in pixel units of [0, 1], separated by commas, such as 8/255,16/255; None means the training's eps."""
    examples: int | None = None
    """How many test images to use, the same ones for all that is compared; None means all of them."""
    sample: How = "stratified"
    """How these are drawn: evenly from the classes, or the first ones of the test split (of files that are ordered by
    class: images of the first classes only)."""
    sample_seed: int = 0
    """Which images are drawn; a smaller sample is a part of a larger one with the same seed."""
    checkpoint: Literal["best", "last", "averaged", "all"] = "all"
    """Which weights to evaluate."""
    batch_size: int = 250
    """Images per batch."""
    exact: bool = False
    """AutoAttack's attacks ask the model in float32 only. Otherwise a bfloat16 copy screens, and the model itself
    decides in float32 what counts as broken."""
    verdict: bool = True
    """Probe 64 images for gradient masking, and say whether the numbers can be believed."""
    save: bool = False
    """Keep the adversarial images: rounded to whole grey levels inside the threat set, as PNG and npz, and checked
    again as they lie on the disk."""
    draws: int = 1
    """For a model that is random: the number of passes whose logits are averaged (expectation over transformation)."""
    corruptions: str | None = None
    """Ask about corrupted images, too: all, or names separated by commas, such as gaussian_noise,fog (CIFAR-10-C)."""
    severities: str = "1,2,3,4,5"
    """Severities of the corruptions."""
    corruption_files: Path | None = None
    """A folder with the official .npy files of CIFAR-10-C or CIFAR-100-C; None means that corruptions are computed (the
    twelve of fifteen that need no outside program; motion_blur, snow and frost come only with the files)."""
    device: devices.Device = "auto"
    """Where to run."""
    trust_code: bool = False
    """The code may run that a run, or one that an attack transfers from, asks for as its model."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class RunFlags:
    questions: Annotated[EvaluateFlags, tyro.conf.arg(name="")]
    source: ModelSource = None
    """The module:function that makes the run's model, if it is one of yours. Its code is run."""


@dataclass(frozen=True)
class ForeignFlags:
    questions: Annotated[EvaluateFlags, tyro.conf.arg(name="")]
    data: DataConfig
    """Whose test split is attacked."""
    model: ModelConfig
    """The architecture of the weights."""
    threat: ThreatConfig
    """The perturbations that the attacks may use."""
    mean: tuple[float, ...] = ()
    """What the model subtracts from every channel, unless the file says so; none: 0."""
    std: tuple[float, ...] = ()
    """What it divides every channel by, unless the file says so; none: 1."""
    weights: str | None = None
    """Which weights of a file that holds several sets: raw (those that the optimiser changes), averaged (an EMA or
    SWA of them), or the name of an entry; None where there is one."""
    out: Path | None = None
    """The folder for the outcomes; None means evaluations/NAME."""


def evaluate(words: list[str]) -> None:
    """Attacks a run's checkpoints, or a model from elsewhere, on the test split."""
    about = "Attacks the test split: a run's checkpoints, the weights in a file (.safetensors, .pt, .pth; see "
    about += "`regmix evaluate weights.pth --help`), or the model that module:function returns."
    if words and is_foreign(words[0]):
        start = _adopted(words, about)
    else:
        run = parse(RunFlags, words, "evaluate", about)
        start = _Start(run.questions, Run.open(run.questions.run), Trust(run.source, run.questions.trust_code))
    flags = start.flags
    questions = Questions(
        parse_attacks(flags.attacks),
        radii_in(flags.eps),
        flags.examples,
        flags.batch_size,
        flags.exact,
        flags.verdict,
        flags.save,
        flags.draws,
        names_in(flags.corruptions),
        severities_in(flags.severities),
        flags.corruption_files,
        flags.sample,
        flags.sample_seed,
    )
    checkpoints: list[Checkpoint] = [] if flags.checkpoint == "all" else [flags.checkpoint]
    with ConsoleDisplay(console_for(flags.json)) as display:
        if start.origin:
            display.note(start.origin)
        assessment = Assessment(start.run, questions, start.test, start.trust)
        assessment.run(checkpoints, flags.device, display, start.loaded)
    tell(start.run, flags.json, f"regmix report {start.run.path} -o report.html")


@dataclass(frozen=True, eq=False)
class _Start:
    """What an evaluation begins with."""

    flags: EvaluateFlags
    run: Run
    trust: Trust
    origin: str = ""
    """Of a model from elsewhere: where its weights are from."""
    test: Chosen | None = None
    """The test images, and the models by checkpoint, if they are loaded already."""
    loaded: dict[Checkpoint, Loaded] = field(default_factory=dict)


def _adopted(words: list[str], about: str) -> _Start:
    """Makes a run directory of a model from elsewhere."""
    source = words[0]
    base = Experiment(model=ResNet() if is_file_of_weights(source) else Function(source))
    for part in KNOWN:
        kind = take(words, f"--{part}")
        if kind is not None and kind != getattr(base, part).name:
            base = replace(base, **{part: UNIONS[part][known(kind, UNIONS[part], part)]()})
    start = ForeignFlags(EvaluateFlags(Path(source)), base.data, base.model, base.threat)
    flags = parse(ForeignFlags, words, f"evaluate {source}", about, start)
    if ":" in source and flags.model != base.model:
        raise UserError(f"{source} names the model; leave out --model and its flags")
    experiment = replace(base, data=flags.data, model=flags.model, threat=flags.threat)
    asked = flags.questions
    attacks = {named.name: named.attack for named in parse_attacks(asked.attacks) if named.attack is not None}
    radii_in(asked.eps)  # before a model is built
    out = flags.out or Path("evaluations") / Path(source.replace(":", "-")).stem
    test = choose_images(experiment.data, asked.examples, asked.sample, asked.sample_seed)
    settled = [word.split("=")[0].removeprefix("--model.") for word in words if word.startswith("--model.")]
    trust = trust_in(experiment.model, everything=asked.trust_code)
    device = devices.start(asked.device, "32", patient=True).device
    origin, loaded = "", dict[Checkpoint, Loaded]()
    if processes.rank() == 0:
        foreign = Foreign(source, experiment, flags.mean, flags.std, flags.weights, settled)
        adopted = foreign.adopt(test.images, out, device, attacks)
        origin, loaded = adopted.origin, {"last": adopted.loaded}
    origin = processes.from_first(origin)  # the other processes wait until the directory is there
    return _Start(asked, Run.open(out), trust, origin, test, loaded)
