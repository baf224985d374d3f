"""The experiments that measure something else than accuracy, or use other images; and the catalogue of all."""

from collections.abc import Callable, Sequence

from regmix.config import Experiment
from regmix.studies.reproduce.claims import Accuracy, Arm, Claim, Flat, Measure, Study
from regmix.studies.reproduce.experiments import (
    GAMMA0,
    PGD2,
    PGD10,
    PGK,
    REGMIX,
    SETTING,
    TRADES,
    agr,
    amr,
    attacks,
    convergence,
    multistep,
    weights,
)
from regmix.studies.reproduce.scales import Scale


def flatness(scale: Scale, base: Experiment) -> Study:
    """The paper's figure 5 in numbers."""
    caution = "Flatness does not cause robustness by itself: a model with small logits is flat, too. {}"
    texts: dict[Measure, tuple[str, str]] = {
        "rise": ("the loss rises less along random signs of size eps", ""),
        "gradient_l1": ("the input gradient of the loss is smaller (l1 norm)", ""),
        "linearity": ("the loss is nearer to linear within eps", "The error is a lower bound, found by ascent."),
        "input_eigenvalue": ("the loss bends less around images (largest eigenvalue of the Hessian in the image)",
                             "A network of ReLUs is linear in pieces; the Hessian knows nothing of the kinks. Values "
                             "that have not converged, which the table counts, are lower bounds."),
        "weight_eigenvalue": ("the loss bends less around the weights (largest eigenvalue of the Hessian)",
                              "It depends on how the network is written, and can be scaled without changing it."),
        "weight_trace": ("the loss bends less around the weights on average (trace of the Hessian)",
                         "It depends on how the network is written, and is estimated with random probes."),
    }  # fmt: skip
    some: list[Measure] = ["rise", "linearity"]
    pairs = [("pgk", "FGSM-PGK", [*texts]), ("pgd2", "PGD-AT with 2 steps", some)]
    pairs.append(("gamma0", "RegMix without its clean term", some))
    claims = [
        Claim(f"With RegMix {texts[measure][0]} than with {title}.", Flat(arm, measure), Flat("regmix", measure),
              caution.format(texts[measure][1]).strip())
        for arm, title, measures in pairs for measure in measures
    ]  # fmt: skip
    return Study(
        "flatness", "Flatness of the loss", "Is the loss of RegMix flatter, around images and around weights?",
        (REGMIX, PGK, PGD2, GAMMA0), (), tuple(claims),
        f"{SETTING} Measured on the weights of the best epoch. The pictures are of seed 0 and prove nothing.",
        "flatness",
    )  # fmt: skip


def cost(scale: Scale, base: Experiment) -> Study:
    """Question 3 of the paper: times of steps, which are no claim about accuracy."""
    return Study(
        "cost", "Cost of a training step", "What do the KL terms cost per step?",
        (REGMIX, GAMMA0, PGK, PGD2, PGD10, TRADES), (), (),
        "Times hold for this machine and what else ran on it meanwhile; compare the ratios, which were measured step "
        "by step beside the bare passes.", "steps",
    )  # fmt: skip


PUBLISHED = {
    "cifar100": {
        "regmix": "--method.alpha 1200 --method.beta 700 --method.gamma 700",
        "pgk": "--method.lam 1 --method.mu 0.1 --method.reset 40 --averaging.threshold 0.9",
    },
}
"""Flags of methods whose published settings differ from CIFAR-10's, by the images. RegMix's gamma is our reading of
"comparable to beta"."""


def on(name: str, arm: Arm) -> Arm:
    """The arm on other images, with the settings published for them; without such settings, with CIFAR-10's."""
    flags = f"{arm.flags} {PUBLISHED.get(name, {}).get(arm.name, '')}".strip()
    return Arm(f"{name}-{arm.name}", flags, name)


def data(scale: Scale, base: Experiment, others: Sequence[str]) -> Study:
    """The headline comparison on other images."""
    arms = tuple(on(name, arm) for name in others for arm in (REGMIX, PGK, PGD2))
    claims = tuple(
        Claim(f"On {name}, RegMix is more robust than {title} (pgd-50).",
              Accuracy(f"{name}-regmix", "pgd-50"), Accuracy(f"{name}-{arm}", "pgd-50"),
              "Images without published settings get those of CIFAR-10; nothing was tuned.")
        for name in others for arm, title in (("pgk", "FGSM-PGK"), ("pgd2", "PGD-AT with 2 steps"))
    )  # fmt: skip
    return Study(
        "data", "Other images", "Does the order of the methods hold on other images?", arms, ("main",), claims,
        f"{SETTING} The recipe was made for other images.",
    )  # fmt: skip


def auto(scale: Scale, base: Experiment, others: Sequence[str]) -> Study:
    """Question 1 of the paper, on other images, because at 10 classes automatic and published weights are the same."""
    arms = tuple(on(name, arm) for name in others for arm in (REGMIX, Arm("auto", "--method.weights auto")))
    claims = tuple(
        Claim(f"On {name}, automatic weights are at most one point less robust than "
              f"{'published ones' if name in PUBLISHED else 'those published for CIFAR-10'} (pgd-50).",
              Accuracy(f"{name}-auto", "pgd-50"), Accuracy(f"{name}-regmix", "pgd-50"),
              "With 10 classes both are the same loss, and nothing is tested. Where neither run learns much, one point "
              "is a wide margin: compare the table with the accuracy of guessing.", threshold=-0.01)
        for name in others
    )  # fmt: skip
    return Study(
        "auto", "Automatic weights", "Can the weights be set without tuning for images that the paper does not have?",
        arms, ("main",), claims, SETTING,
    )  # fmt: skip


STUDIES: dict[str, Callable[[Scale, Experiment], Study]] = {
    study.__name__: study for study in (amr, agr, weights, convergence, flatness, attacks, multistep, cost)
}
ON_OTHER_DATA: dict[str, Callable[[Scale, Experiment, Sequence[str]], Study]] = {
    study.__name__: study for study in (auto, data)
}
"""Experiments that need images other than the scale's."""
NAMES = ("amr", "agr", "weights", "convergence", "flatness", "attacks", "multistep", "auto", "cost", "data")
