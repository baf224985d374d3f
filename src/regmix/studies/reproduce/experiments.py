"""The experiments that train and attack the scale's own images, as data."""

from dataclasses import replace

from regmix.config import Experiment, Piecewise
from regmix.studies.reproduce.claims import Accuracy, Arm, Claim, Gap, Mean, Reach, Study
from regmix.studies.reproduce.scales import Scale

REGMIX = Arm("regmix")
GAMMA0 = Arm("gamma0", "--method.gamma 0")
PGK = Arm("pgk", "--method fgsm_pgk --averaging gated_ema")
PGK_KL = Arm("pgk-kl", f"{PGK.flags} --method.lam 0 --method.mutual.alpha 50 --method.mutual.beta 20")
PGD2 = Arm("pgd2", "--method pgd_at --method.steps 2")
PGD10 = Arm("pgd10", "--method pgd_at")
TRADES = Arm("trades", "--method trades")

PASSES = {"regmix": 9, "pgk": 5, "pgd2": 6}
"""Forward and backward passes of a training step, each counted once; a test counts them."""

SETTING = "It holds for this recipe, its network, its training images and the weights that it was given."


def selection(base: Experiment) -> str:
    """How the best weights are chosen."""
    among = "among the weights, not their averages" if base.best_of == "weights" else "among the weights and averages"
    return f"The best epoch is chosen on the validation images, {among}."


def amr(scale: Scale, base: Experiment) -> Study:
    """The paper's first experiment."""
    strong = scale.strongest
    claims = [
        Claim(
            "FGSM-PGK with its l2 term replaced by the asymmetric KL pair is more robust than with the l2 term "
            f"({attack}).",
            Accuracy("pgk-kl", attack, battery), Accuracy("pgk", attack, battery),
            "Only the regulariser differs, so the effect is that of the KL pair at these weights, which were not tuned "
            "for one-step attacks.",
        )
        for attack, battery in (("pgd-10", "main"), ("pgd-50", "main"), (strong, "strongest"))
    ]  # fmt: skip
    claims += [
        Claim(
            f"RegMix without its clean term (gamma 0) is more robust than FGSM-PGK ({attack}).",
            Accuracy("gamma0", attack, battery), Accuracy("pgk", attack, battery),
            "The two also differ in the attack: two steps from a fresh corner against one step from a remembered "
            "perturbation. The recipe averages their weights differently.",
        )
        for attack, battery in (("pgd-10", "main"), ("pgd-50", "main"), (strong, "strongest"))
    ]  # fmt: skip
    claims += [
        Claim(
            f"RegMix is more robust than {title} ({attack}).",
            Accuracy("regmix", attack, battery), Accuracy(arm, attack, battery),
            f"{SETTING} The methods do not cost the same.",
        )
        for arm, title in (("pgk", "FGSM-PGK"), ("pgd2", "PGD-AT with 2 steps"), ("pgd10", "PGD-AT with 10 steps"))
        for attack, battery in (("pgd-50", "main"), (strong, "strongest"))
    ]  # fmt: skip
    claims.append(
        Claim(
            "RegMix's averaged weights are more robust than FGSM-PGK's averaged weights (pgd-50).",
            Accuracy("regmix", "pgd-50", "after", checkpoint="averaged"),
            Accuracy("pgk", "pgd-50", "after", checkpoint="averaged"),
            "FGSM-PGK's average is the one that its paper evaluates; RegMix's is an assumption.",
        )
    )  # fmt: skip
    return Study(
        "amr", "Adversarial mutual regularisation",
        "Does the asymmetric pair of KL divergences do better than the l2 term of FGSM-PGK?",
        (REGMIX, PGK, PGK_KL, GAMMA0, PGD2, PGD10), ("main", "after", "strongest"), tuple(claims),
        f"{SETTING} {selection(base)} A white-box attack gives an upper bound of the robust accuracy.",
    )  # fmt: skip


def agr(scale: Scale, base: Experiment) -> Study:
    """The paper's second experiment."""

    def pair(attack: str, battery: str, eps: tuple[float, ...] = (1.0,)) -> tuple[Accuracy, Accuracy]:
        return Accuracy("regmix", attack, battery, eps), Accuracy("gamma0", attack, battery, eps)

    claims = (
        Claim("The clean term (gamma 20) raises robust accuracy at the training's eps (pgd-50).",
              *pair("pgd-50", "main"), SETTING),
        Claim("The clean term raises robust accuracy at twice the training's eps (pgd-50).",
              *pair("pgd-50", "double", (2.0,)), SETTING),
        Claim("The clean term raises robust accuracy on average over the curve of eps (pgd-50).",
              *pair("pgd-50", "curve", scale.batteries["curve"].eps),
              "The mean weighs small and large radii alike; the curve shows where the difference lies."),
        Claim("The clean term raises robust accuracy under the scale's strongest attack "
              f"({scale.strongest}).", *pair(scale.strongest, "strongest"), SETTING),
        Claim("The clean term raises clean accuracy.", *pair("clean", "main"),
              "The paper speaks of better generalisation under attack; clean accuracy is our reading of it."),
    )  # fmt: skip
    return Study(
        "agr", "Adversarial generalisation regularisation",
        "What does the clean output as a target add, at the training's eps and beyond?",
        (REGMIX, GAMMA0), ("main", "strongest", "double", "curve"), claims,
        f"{SETTING} Where all methods are near 0 %, or near their clean accuracy, no difference can show.",
    )  # fmt: skip


def weights(scale: Scale, base: Experiment) -> Study:
    """The paper's third experiment, and what the asymmetry buys."""
    stops = "--method.alpha-stop initial --method.beta-stop final"
    arms = [REGMIX, GAMMA0, *map(weighted, scale.grid), weighted((35, 35, 20)), weighted((20, 50, 20))]
    arms += [Arm("a50b20g20-stop", stops), Arm("a35b35g20-stop", f"--method.alpha 35 --method.beta 35 {stops}")]
    attack = "pgd-50"

    def arms_at(place: int, value: int) -> list[str]:
        """The grid's arms with gamma 20 and this alpha (place 0) or beta (place 1)."""
        return [weighted(point).name for point in scale.grid if point[place] == value and point[2] == 20]

    def drop(beta: int) -> Mean:
        return Mean(tuple(Gap(arm, attack, "grid") for arm in arms_at(1, beta)))

    def at_twice(alpha: int) -> Mean:
        return Mean(tuple(Accuracy(arm, attack, "grid", (2.0,)) for arm in arms_at(0, alpha)))

    claims = [
        Claim("Raising gamma shrinks the drop from the best to the last epoch (gamma 0 against 40).",
              Gap("gamma0", attack, "grid"), Gap("a50b20g40", attack, "grid"),
              "The drop is small where the training does not overfit, and then says nothing."),
        Claim("Lowering beta shrinks the drop from the best to the last epoch (beta 40 against 10, mean over alpha).",
              drop(40), drop(10),
              "The drop is small where the training does not overfit, and then says nothing."),
        Claim("Raising alpha raises robust accuracy at twice the training's eps (alpha 100 against 25, mean "
              "over beta).",
              at_twice(100), at_twice(25), SETTING),
        Claim("A large gamma costs clean accuracy (gamma 0 against 40).",
              Accuracy("gamma0", "clean", "grid"), Accuracy("a50b20g40", "clean", "grid"), SETTING),
    ]  # fmt: skip
    for stop, text in (("", "without stop-gradients"), ("-stop", "with stop-gradients")):
        claims.append(
            Claim(
                f"Unequal weights are more robust than equal ones of the same sum, {text} (50 / 20 against 35 / 35).",
                Accuracy(f"a50b20g20{stop}" if stop else "regmix", attack, "grid"),
                Accuracy(f"a35b35g20{stop}", attack, "grid"),
                "For outputs close to each other the two divergences agree to first order, so that without "
                "stop-gradients little can show.",
            )
        )
    claims.append(
        Claim("The larger weight belongs on KL(z_F || z_I) (50 / 20 against 20 / 50).",
              Accuracy("regmix", attack, "grid"), Accuracy("a20b50g20", attack, "grid"), SETTING)
    )  # fmt: skip
    return Study(
        "weights", "Weights alpha, beta and gamma",
        "Which weights are best, which of them guard against robust overfitting, and does alpha != beta matter?",
        tuple(dict.fromkeys(arms)), ("grid",), tuple(claims),
        f"{SETTING} Accuracies are under PGD-50 alone. The heat map is of test images: choosing the best cell from it "
        "and then comparing that cell would flatter it, so the claims name their cells beforehand.",
    )  # fmt: skip


def weighted(point: tuple[int, int, int]) -> Arm:
    """The arm with weights alpha, beta, gamma; the two that other experiments train too have their names."""
    alpha, beta, gamma = point
    known = {(50, 20, 20): REGMIX, (50, 20, 0): GAMMA0}
    flags = f"--method.alpha {alpha} --method.beta {beta} --method.gamma {gamma}"
    return known.get(point, Arm(f"a{alpha}b{beta}g{gamma}", flags))


def multistep(scale: Scale, base: Experiment) -> Study:
    """Question 2 of the paper."""
    mutual = "--method.mutual.alpha 50 --method.mutual.beta 20"
    pgd, trades = (
        Arm("pgd10-mutual", f"{PGD10.flags} {mutual} --method.mutual.gamma 20"),
        Arm("trades-mutual", f"{TRADES.flags} {mutual}"),
    )
    ten = Arm("regmix10", "--method.steps 10 --method.step-size 0.25")
    other = "Robust overfitting and cost may differ although the best epochs do not."
    claims = []
    for attack, battery in (("pgd-50", "main"), (scale.strongest, "strongest")):
        claims += [
            Claim(f"RegMix's three terms make PGD-AT with 10 steps more robust ({attack}).",
                  Accuracy(pgd.name, attack, battery), Accuracy("pgd10", attack, battery), other),
            Claim(f"RegMix's mutual pair makes TRADES more robust ({attack}).",
                  Accuracy(trades.name, attack, battery), Accuracy("trades", attack, battery),
                  f"Gamma is 0, because TRADES has the clean divergence already. {other}"),
            Claim(f"RegMix with a 10-step attack is more robust than with 2 steps ({attack}).",
                  Accuracy("regmix10", attack, battery), Accuracy("regmix", attack, battery),
                  "Ten steps of eps / 4 cost three times as many passes."),
        ]  # fmt: skip
    claims += [
        Claim(f"RegMix's terms shrink the drop from the best to the last epoch of {title} (pgd-50).",
              Gap(plain, "pgd-50", "drop"), Gap(arm.name, "pgd-50", "drop"),
              "The drop is small where the training does not overfit, and then says nothing.")
        for title, plain, arm in (("PGD-AT with 10 steps", "pgd10", pgd), ("TRADES", "trades", trades))
    ]  # fmt: skip
    return Study(
        "multistep", "RegMix's terms on multi-step training", "Do the terms help standard multi-step training?",
        (REGMIX, PGD10, pgd, TRADES, trades, ten), ("main", "strongest", "drop"), tuple(claims),
        f"{SETTING} {selection(base)} TRADES starts its attack at the clean image, so its first output is almost the "
        "clean one, and the mutual pair is almost a larger weight of its own term.",
    )  # fmt: skip


def attacks(scale: Scale, base: Experiment) -> Study:
    """The attacks that the paper names as next checks."""
    hard, decisions = scale.batteries["hard"], scale.batteries["decisions"]
    claims = [
        Claim(f"RegMix is more robust than {title} under {name}.",
              Accuracy("regmix", attack, "hard"), Accuracy(arm, attack, "hard"),
              f"Of {hard.examples} images. An attack with few queries overstates every method's accuracy.")
        for arm, title in (("pgk", "FGSM-PGK"), ("pgd2", "PGD-AT with 2 steps"))
        for attack, name in (
            ("square", "Square, which sees no gradients"), ("transfer", "the examples of every other run"),
            ("adaptive", "the attack on RegMix's own objective"),
        )
    ]  # fmt: skip
    claims += [
        Claim(f"{name} breaks RegMix no more often than PGD-50 does, up to one point.",
              Accuracy("regmix", attack, "hard"), Accuracy("regmix", "pgd-50", "hard"),
              "That an attack is no stronger than PGD-50 does not prove that no attack is.", threshold=-0.01)
        for attack, name in (
            ("square", "Square"), ("transfer", "Transfer"), ("adaptive", "The attack on RegMix's own objective"),
        )
    ]  # fmt: skip
    return Study(
        "attacks", "Other attacks",
        "Does the robustness hold under black-box, decision-based, transferred and adaptive attacks?",
        (REGMIX, PGK, PGD2), ("hard", "decisions"), tuple(claims),
        f"A failed attack is no proof of robustness. HopSkipJump, which sees only decisions, is so slow that it meets "
        f"{decisions.examples} images: too few for a verdict, so the table has its numbers alone.",
    )  # fmt: skip


def convergence(scale: Scale, base: Experiment) -> Study:
    """Epochs and passes to a level of robust accuracy, and robust accuracy at equal cost."""
    equal = tuple(equally_costly(arm, base) for arm in (PGK, PGD2))
    arms = ("regmix", "pgk", "pgd2")
    own = PGK.name in scale.recipes
    schedules = (
        "FGSM-PGK has a schedule of its own, longer and with later drops of the learning rate, which decide when "
        "accuracy rises: a difference may be the schedules'."
        if own else "All methods have the recipe's schedule of learning rates, which decides when accuracy rises."
    )  # fmt: skip
    claims = [
        Claim(f"RegMix needs fewer {unit} than {title} to reach the same robust validation accuracy.",
              Reach(arm, unit, arms), Reach("regmix", unit, arms),
              f"Validation is under PGD-10 on few images. {schedules}")
        for arm, title in (("pgk", "FGSM-PGK"), ("pgd2", "PGD-AT with 2 steps"))
        for unit in ("epochs", "passes") if base.validate_every == 1
    ]  # fmt: skip
    coarse = "" if claims else (
        f"Validation is every {base.validate_every} epochs on few images, too rarely for a verdict on how fast an "
        "accuracy is reached: the curves show it. "
    )  # fmt: skip
    claims += [
        Claim(f"At equal cost in passes RegMix is more robust than {title} ({attack}).",
              Accuracy("regmix", attack, battery), Accuracy(f"{arm}-equal", attack, battery),
              "The other method trains for more epochs of the same schedule, stretched, and so has more validated "
              "epochs to choose the best one from; its own periods, such as FGSM-PGK's reset, are not stretched. A "
              "pass is counted once, forward or backward.")
        for arm, title in (("pgk", "FGSM-PGK"), ("pgd2", "PGD-AT with 2 steps"))
        for attack, battery in (("pgd-50", "main"), (scale.strongest, "strongest"))
    ]  # fmt: skip
    return Study(
        "convergence", "Convergence and cost",
        "How fast do the methods reach a robust accuracy, and which is most robust at equal cost?",
        (REGMIX, PGK, PGD2, *equal), ("main", "strongest"), tuple(claims),
        f"{SETTING} {coarse}The paper's 98 against 110 epochs are lengths of schedules, "
        + ("which are those of the two recipes here." if own else "which this does not test."),
    )  # fmt: skip


def equally_costly(arm: Arm, base: Experiment) -> Arm:
    """The arm with as many epochs as cost what RegMix's do, and the milestones of its schedule moved along."""
    factor = PASSES["regmix"] / PASSES[arm.name]
    flags = f"{arm.flags} --epochs {round(base.epochs * factor)}"
    if isinstance(base.schedule, Piecewise):
        moved = (str(round(milestone * factor)) for milestone in base.schedule.milestones)
        flags += f" --schedule.milestones {' '.join(moved)}"
    return replace(arm, name=f"{arm.name}-equal", flags=flags)
