"""The flags of `regmix evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from regmix.cli.common import DataSource, EvaluationFlags, ModelSource
from regmix.data import DataConfig
from regmix.jobs.evaluation import ATTACKS
from regmix.models import ModelConfig
from regmix.threats import ThreatConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(EvaluationFlags):
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run directory."""
    attacks: str = ATTACKS
    """Attacks, separated by commas: clean (no attack), fgsm, pgd-N (N steps of eps/4), pgd-NxR (R random restarts),
    mi-fgsm-N, cw-N, cw-l2, apgd-ce, apgd-dlr, apgd-t, pma, malt-apgd-t, cr (constraint relaxation), fab-t, square,
    autoattack, autoattack-screened (cheaper, and not AutoAttack), strongest (more expensive, and not AutoAttack),
    hop-skip-jump, fmn, ddn, deepfool, adaptive (maximises RegMix's own loss), transfer:RUN (adversarial images of
    another run)."""
    eps: str | None = None
    """Perturbation radii in units of the pixel range [0, 1], separated by commas, such as 8/255,16/255. None: the
    radius of the training; for a model from elsewhere --threat.eps, which is 8/255 unless it is given."""
    adversarial: str | None = None
    """Adversarial images from elsewhere, as attacks of their own: files or folders, separated by commas. A .npz or .npy
    array, a .pt or .pth tensor (as AutoAttack and RobustBench save it), or a folder of PNG files named by position.
    Every image must lie in the threat model at every --eps. None: no such images."""
    queries: int | None = None
    """Largest number of queries per image for square and hop-skip-jump. The evaluation needs two more, for the clean
    image and for the result. The columns are then called square-N and hop-skip-jump-N. None: 5000."""
    checkpoint: Literal["best", "last", "averaged", "all"] = "all"
    """Which weights of the run to evaluate. best: the best ones on the validation images. last: those after the last
    epoch. averaged: their moving average."""
    batch_size: int = 250
    """Images per batch."""
    exact: bool = False
    """Run the attacks of AutoAttack on the model alone. Without this flag, a fast copy of the model searches first:
    BatchNorm is folded into its convolutions, and it computes in bfloat16 where the hardware does. In both cases an
    image counts as broken only if the model itself, in float32, misclassifies it."""
    save: bool = False
    """Save the adversarial images as PNG and npz. They are rounded to whole grey levels inside the threat model, and
    checked again after they are read back from the disk."""
    draws: int = 1
    """For a model with random outputs: number of forward passes whose logits are averaged (expectation over
    transformation)."""
    curve: str | None = None
    """Find the smallest perturbation of every image, and from it the accuracy at every eps. Attacks, separated by
    commas: fmn, fab-t, deepfool, ddn and cw-l2 (L2 only), hop-skip-jump. None: no curve."""
    against: Path | None = None
    """A second run directory, evaluated on the same images. Every column's difference (first minus second) is printed
    with its 95% interval; with --within these are the intervals that must be narrow. None: no second run."""
    within: float | None = None
    """Evaluate only as many images as it takes until the 95% interval of every column, and of the worst case of all
    attacks at a radius, is at most this many points wide to each side of the measured accuracy, such as 1.0. The
    interval is about the accuracy on the whole test split. Images are taken evenly from the classes, in an order that
    depends on --sample-seed. None: --examples images."""
    corruptions: str | None = None
    """Evaluate on corrupted images too (CIFAR-10-C): all, or names separated by commas, such as gaussian_noise,fog.
    all,motion_blur,snow,frost: the fifteen of the benchmark. None: no corruptions."""
    severities: str = "1,2,3,4,5"
    """Severities of the corruptions, from 1 (weak) to 5 (strong), separated by commas."""
    corruption_files: Path | None = None
    """Folder with the official .npy files of CIFAR-10-C or CIFAR-100-C. None: compute the corruptions (all: 12 of the
    15; motion_blur, snow and frost must be named)."""


@dataclass(frozen=True)
class RunFlags:
    shared: Annotated[EvaluateFlags, tyro.conf.arg(name="")]
    source: ModelSource = None
    """The module:function that returns the run's model, if the model is a function of yours. Its code is run. None: no
    code of yours."""
    data_source: DataSource = None
    """The module:function that returns the run's images, if they come from a function of yours. Its code is run. None:
    no code of yours."""
    root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    """Folder with other test images than the run's own: in the layout of the run's data, or with test images alone
    (CLASS/* or test/CLASS/*). It must have the run's classes. None: the folder of the run's data."""


@dataclass(frozen=True)
class ForeignFlags:
    shared: Annotated[EvaluateFlags, tyro.conf.arg(name="")]
    data: DataConfig
    model: ModelConfig
    threat: ThreatConfig
    mean: tuple[float, ...] = ()
    """For a file of weights that holds no normalisation: the value that the model subtracts from each channel of images
    in [0, 1]; one number per channel, or one for all. Without it: the file's own, or 0."""
    std: tuple[float, ...] = ()
    """Value that the model then divides each channel by. Without it: the file's own, or 1."""
    weights: str | None = None
    """Which weights to use from a file that holds several sets. raw: the trained ones. averaged: their moving average
    (EMA or SWA). Otherwise the name of an entry. None: the only set in the file."""
    black_box: bool = False
    """The function module:function does not return a model. It maps images [B, C, H, W] in [0, 1] to class numbers [B]
    or scores [B, classes] itself. It is attacked by hop-skip-jump (classes) or square (scores) unless --attacks says
    otherwise. An ONNX file is always a black box."""
    out: Path | None = None
    """Folder for the result. None: evaluations/NAME, of files such as FOLDER/model.onnx evaluations/FOLDER-model."""
