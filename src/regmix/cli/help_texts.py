"""The words of the help: the overview, what each command does, and which flags belong together."""

from dataclasses import dataclass

OVERVIEW = """usage: regmix COMMAND ...

Fast adversarial training with RegMix and related methods, and honest evaluation of robustness.

commands:
  recipes                       list the recipes (complete settings for a data set)
  train RECIPE [flags]          train a model; write it to a run directory
  evaluate RUN [flags]          attack a trained run, or a model from elsewhere, on the test images
  compare RECIPE --methods ...  train several methods with several seeds and compare them
  sweep RECIPE --space ...      search settings on the validation images, then test and compare the best
  reproduce [NAME ...]          repeat the paper's experiments, with a verdict on every claim
  bench step RECIPE [flags]     measure the time and memory of a training step
  report RUN [RUN ...] -o FILE  write one HTML page about one or several runs
  predict RUN IMAGES ...        print the class of image files
  diagnose RUN [RUN ...]        say what is wrong with runs, and what to change
  export RUN --format FORMAT    write the model for other programs, check it, and add a model card

first steps:
  regmix train digits-regmix --out runs/digits     (a minute or two, no download)
  regmix evaluate runs/digits
  regmix report runs/digits -o report.html

`regmix COMMAND --help` shows the usual flags of a command, --help-all shows all of them.
`regmix --version` prints the version."""


@dataclass(frozen=True)
class Section:
    """A group of flags under a heading."""

    title: str
    usual: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    """Shown by --help-all only."""
    parts: tuple[str, ...] = ()
    """Parts of the experiment that belong here; the flags of the chosen kinds follow the flag that chooses."""


SECTIONS: dict[str, tuple[Section, ...]] = {
    "train": (
        Section("data", ("train-examples", "validation"), ("balance", "normalise", "split-seed"), ("data",)),
        Section("augmentation", rest=("pad", "flip"), parts=("crop", "colour", "erase", "mix")),
        Section("model", ("init",), ("init-weights", "freeze"), ("model",)),
        Section("threat model", parts=("threat",)),
        Section("method", rest=("label-mass", "label-rest", "awp", "awp-warm-up"), parts=("method",)),
        Section(
            "schedule",
            ("epochs", "batch-size", "optimizer", "lr", "ramp"),
            ("accumulate", "ramp-of", "momentum", "weight-decay", "decayed", "layer-decay", "clip-norm"),
        ),
        Section("learning rate over time", parts=("schedule",)),
        Section("weight averaging", parts=("averaging",)),
        Section(
            "run",
            ("out", "seed", "device", "log", "json"),
            (
                *("precision", "validate-every", "best-of", "guard.action", "guard.drop", "nonfinite"),
                *("cuda-graph", "sync-batchnorm", "shard-weights", "trust-code"),
            ),
        ),
    ),
    "resume": (Section("flags", ("epochs", "log", "data.root", "model.source", "data.source", "trust-code", "json")),),
    "evaluate": (
        Section(
            "attacks",
            ("attacks", "queries", "adversarial", "eps", "curve", "checkpoint", "against"),
            ("exact", "draws", "verdict"),
        ),
        Section("test images", ("examples", "within", "data.root"), ("sample", "sample-seed")),
        Section("corruptions", ("corruptions",), ("severities", "corruption-files")),
        Section("run", ("save", "device", "json"), ("batch-size", "model.source", "data.source", "trust-code")),
        Section(
            "a model from elsewhere: weights, ONNX, timm:NAME, hf:NAME, module:function",
            ("black-box", "out", "mean", "std"),
            ("weights",),
            ("data", "model", "threat"),
        ),
    ),
    "compare": (
        Section("what to compare", ("methods", "seeds")),
        Section("evaluation", ("attacks", "eps", "examples"), ("sample", "sample-seed", "verdict")),
        Section("run", ("out", "workers", "device", "json"), ("trust-code",)),
    ),
    "sweep": (
        Section("what to search", ("space", "engine", "trials", "seeds", "top"), ("prune", "workers")),
        Section("evaluation", ("attacks", "eps", "examples"), ("sample", "sample-seed", "verdict")),
        Section("run", ("out", "device", "json"), ("trust-code",)),
    ),
    "reproduce": (
        Section("what to reproduce", ("scale", "seeds", "other-data", "list")),
        Section("run", ("out", "workers", "device")),
    ),
    "bench": (Section("flags", ("methods", "rounds", "json")),),
    "report": (Section("flags", ("output",)),),
    "predict": (
        Section("flags", ("checkpoint", "eps", "csv"), ("batch-size", "device", "model.source", "trust-code")),
    ),
    "diagnose": (Section("flags", ("probe", "data.root", "device", "json")),),
    "export": (
        Section("flags", ("format", "out", "checkpoint"), ("normalisation", "push", "model.source", "trust-code")),
    ),
    "recipes": (Section("flags", ("json",)),),
}

FOREIGN_KINDS = {"data": "digits", "model": "resnet", "threat": "linf"}
"""What `regmix evaluate` uses for a file of weights unless the command line says otherwise."""

ABOUT = {
    "compare": (
        "regmix compare RECIPE [flags]",
        "Train every method with every seed and evaluate all runs on the same test images. Print and report means, "
        "spreads and paired differences. Finished runs are not repeated; interrupted runs are continued. The flags of "
        "`regmix train RECIPE` can be given as well and apply to every method that does not set them.",
    ),
    "sweep": (
        "regmix sweep RECIPE --space AXES [flags]",
        "Train a recipe with many settings and rank them by PGD-10 accuracy of the best weights on the validation "
        "images (standard training: by accuracy without an attack). Evaluate the best few on the test images and "
        "compare them. Give the same command again to continue an interrupted search. The flags of `regmix train "
        "RECIPE` can be given as well and apply to every run.",
    ),
    "reproduce": (
        "regmix reproduce [all|NAME ...] [flags]",
        "Train and attack the models that the paper's experiments need, and compute a verdict on every claim: "
        "supported, contradicted or undecided. NAME is one of amr, agr, weights, convergence, flatness, attacks, "
        "multistep, auto, cost, data. Experiments share their runs. Give the same command again to continue. The flags "
        "of `regmix train` can be given as well and apply to every run.",
    ),
    "bench": (
        "regmix bench step RECIPE [flags]",
        "Measure the time of a training step, the time of its forward and backward passes alone, and the peak memory. "
        "Each method runs in its own process. The flags of `regmix train RECIPE` can be given as well.",
    ),
    "report": (
        "regmix report RUN [RUN ...] [-o FILE]",
        "Write one self-contained HTML page about one or several run directories.",
    ),
    "predict": (
        "regmix predict RUN FILE|FOLDER ... [flags]",
        "Print the class that a trained model predicts for each image, and its probability; with --eps also the "
        "smallest radius at which an attack changes the class.",
    ),
    "diagnose": (
        "regmix diagnose RUN [RUN ...] [flags]",
        "Look for signs that a training or an evaluation went wrong. Print every finding with its evidence, the causes "
        "that fit it, and a command to try. Give several runs to compare them with each other, such as a run of "
        "standard training on the same images.",
    ),
    "export": (
        "regmix export RUN --format safetensors|onnx|pt2|robustbench|hub [flags]",
        "Write the model of a run for other programs: a folder with the model, a JSON file that describes its classes "
        "and its input, and a model card. The file is read back and must give the same logits as the model.",
    ),
    "recipes": ("regmix recipes [--json]", "List the recipes, one line each."),
}
