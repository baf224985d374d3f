"""The commands: flags in, one call of the library each, a few lines out."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from regmix.adopt import KNOWN, adopt, is_foreign
from regmix.assess import TRANSFER, Questions, assess, test_images
from regmix.attacks import parse_attack
from regmix.bench import bench_line, bench_step
from regmix.compare import Planned, method_words, write_comparison
from regmix.console import ConsoleDisplay
from regmix.data import DataConfig
from regmix.evaluation import CLEAN
from regmix.experiment import UNIONS, Experiment, from_json, resume, run
from regmix.flags import known, parse, parse_some, take
from regmix.models import Function, ModelConfig, ResNet
from regmix.recipes import RECIPES, recipe
from regmix.reports import write_report
from regmix.runs import CONFIG, Checkpoint, Run
from regmix.threats import ThreatConfig, parse_eps
from regmix.training import engine
from regmix.types import UserError


@dataclass(frozen=True)
class TrainFlags:
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    out: Path | None = None
    """The run directory to make; None means runs/RECIPE-METHOD-seedN."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class ResumeFlags:
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


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
    """Use the first so many test images; None means all of them."""
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
    device: engine.Device = "auto"
    """Where to run."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


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
    out: Path | None = None
    """The folder for the outcomes; None means evaluations/NAME."""


@dataclass(frozen=True)
class CompareFlags:
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe under which all methods are trained."""
    methods: str = "regmix,pgd_at:steps=2"
    """Methods, separated by commas, each with settings of its own if it needs them: pgd_at:steps=2 sets
    --method.steps 2; what is no field of the method sets a flag of the experiment: fgsm_pgk:averaging=gated_ema."""
    seeds: int = 3
    """How many seeds per method: 0, 1, ..."""
    out: Path | None = None
    """Folder of the runs, comparison.json and report.html; None means runs/compare-RECIPE."""
    attacks: str = "clean,pgd-50"
    """Attacks of the evaluation, separated by commas; see regmix evaluate --help."""
    eps: str | None = None
    """Radii in pixel units of [0, 1], separated by commas, such as 8/255,16/255; None means the training's eps."""
    examples: int | None = None
    """Use the first so many test images; None means all of them."""
    device: engine.Device = "auto"
    """Where to train and evaluate."""
    json: bool = False
    """Print the comparison as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class BenchFlags:
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe whose steps are timed."""
    methods: str = ""
    """Methods, separated by commas, as in regmix compare; none means the recipe's own."""
    rounds: int = 20
    """Steps to time per method, after three to warm up."""
    json: bool = False
    """Print the times as JSON."""


@dataclass(frozen=True)
class ReportFlags:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("report.html")
    """The HTML file to write."""


@dataclass(frozen=True)
class RecipesFlags:
    json: bool = False
    """Print the recipes as JSON."""


def recipes(words: Sequence[str]) -> None:
    """Lists the recipes."""
    flags = parse(RecipesFlags, words, "recipes", "Lists the recipes with a line each.")
    lines = {name: (make.__doc__ or "").splitlines()[0] for name, make in RECIPES.items()}
    if flags.json:
        print(json.dumps(lines, indent=2))
        return
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")


def train(words: list[str]) -> None:
    """Trains a recipe, repeats a run, or continues one."""
    command = shlex.join(["regmix", "train", *words])
    if (path := take(words, "--resume")) is not None:
        flags = parse(ResumeFlags, words, "train --resume RUN", "Continues a run with its own settings.")
        _resume(Path(path), flags.json)
        return
    name, chosen = _chosen(words)
    experiment = chosen.experiment
    out = chosen.out or Path("runs") / f"{name}-{experiment.method.name}-seed{experiment.seed}"
    with ConsoleDisplay(Console(stderr=chosen.json)) as display:
        finished = run(experiment, out, display, command)
    _tell(finished, chosen.json, f"regmix evaluate {finished.path}")


def _chosen(words: list[str]) -> tuple[str, TrainFlags]:
    """The name of the recipe or run that the words of `train` begin with, and the experiment that they mean."""
    source = take(words, "--from")
    kinds = {part: take(words, f"--{part}") for part in UNIONS}
    name = words.pop(0) if words and not words[0].startswith("-") else None
    if source is not None and name is None:
        base, name = from_json(Run.open(Path(source)).config(), f"{source}/{CONFIG}"), Path(source).name
    elif name is not None and source is None:
        base = recipe(name)
    elif {"-h", "--help"} & set(words):
        base, name = recipe("digits-regmix"), "RECIPE"
    else:
        raise UserError("train needs a recipe (see: regmix recipes), --from RUN, or --resume RUN")
    for part, kind in kinds.items():
        if kind is not None and kind != getattr(base, part).name:
            base = replace(base, **{part: UNIONS[part][known(kind, UNIONS[part], part)]()})
    choices = "\n".join(f"  --{part} {' | '.join(variants)}" for part, variants in UNIONS.items())
    about = (
        "Trains a model into a run directory. Instead of RECIPE, --from RUN takes the settings of a run, and "
        "--resume RUN continues one that was interrupted.\n\n"
        f"A part of another kind is chosen by its name; its own flags can follow:\n{choices}"
    )
    return name, parse(TrainFlags, words, f"train {name}", about, TrainFlags(base))


def _resume(path: Path, as_json: bool) -> None:
    with ConsoleDisplay(Console(stderr=as_json)) as display:
        finished = resume(path, display)
    _tell(finished, as_json, f"regmix evaluate {finished.path}")


def evaluate(words: list[str]) -> None:
    """Attacks a run's checkpoints, or a model from elsewhere, on the test split."""
    about = "Attacks the test split: a run's checkpoints, the weights in a file (.safetensors, .pt, .pth; see "
    about += "`regmix evaluate weights.pth --help`), or the model that module:function returns."
    if words and is_foreign(words[0]):
        flags, directory = _adopted(words, about)
    else:
        flags = parse(EvaluateFlags, words, "evaluate", about)
        directory = Run.open(flags.run)
    attacks, eps = _attacks(flags.attacks), _radii(flags.eps)
    checkpoints: list[Checkpoint] = [] if flags.checkpoint == "all" else [flags.checkpoint]
    with ConsoleDisplay(Console(stderr=flags.json)) as display:
        questions = Questions(
            attacks,
            eps,
            flags.examples,
            flags.batch_size,
            flags.exact,
            flags.verdict,
            flags.save,
            flags.draws,
            _names(flags.corruptions),
            _severities(flags.severities),
            flags.corruption_files,
        )
        assess(directory, questions, checkpoints, flags.device, display)
    _tell(directory, flags.json, f"regmix report {directory.path} -o report.html")


def _adopted(words: list[str], about: str) -> tuple[EvaluateFlags, Run]:
    """The flags of an evaluation of somebody else's model, and the run directory made for it."""
    source = words[0]
    base = Experiment(model=Function(source) if ":" in source else ResNet())
    for part in KNOWN:
        kind = take(words, f"--{part}")
        if kind is not None and kind != getattr(base, part).name:
            base = replace(base, **{part: UNIONS[part][known(kind, UNIONS[part], part)]()})
    start = ForeignFlags(EvaluateFlags(Path(source)), base.data, base.model, base.threat)
    flags = parse(ForeignFlags, words, f"evaluate {source}", about, start)
    experiment = replace(base, data=flags.data, model=flags.model, threat=flags.threat)
    _attacks(flags.questions.attacks), _radii(flags.questions.eps)  # before a model is built
    out = flags.out or Path("evaluations") / Path(source.replace(":", "-")).stem
    images = test_images(experiment.data, flags.questions.examples)
    return flags.questions, adopt(source, experiment, flags.mean, flags.std, images, out)


def compare(words: list[str]) -> None:
    """Trains methods under one recipe with several seeds, evaluates them on the same images, and compares them."""
    flags, rest = parse_some(
        CompareFlags,
        words,
        "compare RECIPE",
        "Trains every method with every seed, evaluates all on the same test images, and prints and reports means, "
        "spreads and paired differences. Finished runs are not repeated, interrupted ones are continued. The flags of "
        "`regmix train RECIPE` can be given as well; they hold for every method.",
    )
    recipe(flags.recipe)
    if flags.seeds < 1:
        raise UserError(f"--seeds {flags.seeds}: at least 1")
    if any(word.split("=")[0] == "--seed" for word in rest):
        raise UserError("compare gives every method the same seeds; say how many with --seeds")
    texts = [text.strip() for text in flags.methods.split(",")]
    if len(set(texts)) < len(texts):
        raise UserError(f"--methods {flags.methods}: the same method twice")
    out = flags.out or Path("runs") / f"compare-{flags.recipe}"
    planned = []
    for text in texts:
        method = method_words(text)
        for seed in range(flags.seeds):
            line = [flags.recipe, *method, *rest, "--device", flags.device, "--seed", str(seed)]
            path = out / f"{text.replace(':', '-').replace('/', '_')}-seed{seed}"
            _, chosen = _chosen(list(line))
            planned.append(Planned(path, line, chosen.experiment))
    attacks, eps = _attacks(flags.attacks), _radii(flags.eps)
    for one in planned:
        one.check()
        for radius in eps:
            replace(one.experiment.threat, eps=radius)
    test_images(planned[0].experiment.data, flags.examples)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=flags.json)
    for number, one in enumerate(planned, 1):
        console.print(f"{one.path} ({number} of {len(planned)})", highlight=False, markup=False, soft_wrap=True)
        one.train(quiet=flags.json)
        directory = Run.open(one.path)
        if not one.evaluated(directory, attacks, eps, flags.examples):
            with ConsoleDisplay(console) as display:
                questions = Questions(attacks, eps, flags.examples, verdict=False)
                assess(directory, questions, [], flags.device, display)
    result = write_comparison([one.path for one in planned], out, console)
    if flags.json:
        print(json.dumps(result, indent=2))


def bench(words: list[str]) -> None:
    """Times training steps."""
    kind = words.pop(0) if words and not words[0].startswith("-") else None
    about = (
        "`regmix bench step RECIPE` times training steps beside the bare passes through the network that they consist "
        "of, in turn, in one process per method. The flags of `regmix train RECIPE` can be given as well."
    )
    if (kind is None and not {"-h", "--help"} & set(words)) or kind not in (None, "step"):
        raise UserError("write: regmix bench step RECIPE")
    flags, rest = parse_some(BenchFlags, words, "bench step RECIPE", about)
    recipe(flags.recipe)
    rows = {}
    names = [text.strip() for text in flags.methods.split(",")] if flags.methods else [""]
    for text in names:
        line = [flags.recipe, *(method_words(text) if text else []), *rest]
        _, chosen = _chosen(list(line))
        label = text or chosen.experiment.method.name
        if len(names) == 1:
            rows[label] = asdict(bench_step(chosen.experiment, flags.rounds))
        else:
            # A process of its own, so that its peak memory is its own.
            command = [sys.executable, "-m", "regmix", "bench", "step", *line, "--rounds", str(flags.rounds), "--json"]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
            if done.returncode:
                raise UserError(f"{label}: the benchmark ended with exit code {done.returncode}; see the line above")
            (rows[label],) = json.loads(done.stdout)["methods"].values()
        if not flags.json:
            print(bench_line(label, rows[label], first=len(rows) == 1), flush=True)
    if flags.json:
        print(json.dumps({"recipe": flags.recipe, "threads": torch.get_num_threads(), "methods": rows}, indent=2))


def report(words: Sequence[str]) -> None:
    """Writes the report of one or several runs."""
    flags = parse(ReportFlags, words, "report", "Writes one self-contained HTML page about one or several runs.")
    if not flags.runs:
        raise UserError("report needs at least one run directory")
    write_report(flags.runs, flags.output)
    print(flags.output)


def _attacks(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name != CLEAN and not name.startswith(TRANSFER):
            parse_attack(name)
    return names


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _severities(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise UserError(f"--severities {text}: write whole numbers from 1 to 5, such as 1,3,5") from error


def _radii(text: str | None) -> list[float]:
    return [parse_eps(one) for one in text.split(",")] if text else []


def _tell(directory: Run, as_json: bool, next_command: str) -> None:
    if as_json:
        print(json.dumps({"run": str(directory.path), **directory.result()}, indent=2))
    else:
        print(f"{directory.path}  (next: {next_command})")
