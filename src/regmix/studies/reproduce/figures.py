"""What the page of a reproduction draws: curves over eps and over training cost, and heat maps of weights."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from regmix.evaluation import CLEAN
from regmix.reports.charts import COLOURS, Chart, Series, line_chart
from regmix.reports.reproduction import Figures, HeatMap
from regmix.reports.surfaces import Surfaces, surfaces
from regmix.reports.words import percent, size
from regmix.studies.reproduce.claims import Accuracy, Gap, Study
from regmix.studies.reproduce.experiments import GAMMA0, PASSES, PGK, REGMIX, weighted
from regmix.studies.reproduce.outcome import Outcome

WEIGHTS = re.compile(r"a(\d+)b(\d+)g(\d+)")


def figures(outcome: Outcome, study: Study) -> Figures:
    """The figures of an experiment; most have none."""
    if not study.arms:
        return Figures()
    if "curve" in study.batteries:
        return Figures([_curve(outcome, study)])
    if study.name == "convergence":
        return Figures(_progress(outcome, study))
    if study.name == "weights":
        return Figures(maps=_maps(outcome, study))
    if study.measures == "flatness":
        return Figures(planes=_planes(outcome))
    return Figures()


def _planes(outcome: Outcome) -> list[Surfaces]:
    """The loss of RegMix and of FGSM-PGK, seed 0, around images and around weights, with one scale each."""
    found = {arm: outcome.flat[arm][0] for arm in (REGMIX.name, PGK.name) if arm in outcome.flat}
    if not found:
        return []
    steps = next(iter(found.values())).steps
    return [
        surfaces(
            "Loss around images", [(arm, one.around_images) for arm, one in found.items()], steps,
            x_label="adversarial direction / eps", y_label="random direction / eps",
            note="mean over the images; seed 0",
        ),
        surfaces(
            "Loss around weights", [(arm, one.around_weights) for arm, one in found.items()], steps,
            x_label="random direction", y_label="another", note="filter-normalised; seed 0",
        ),
    ]  # fmt: skip


def _curve(outcome: Outcome, study: Study) -> Chart:
    """Accuracy over eps under the battery `curve`: means over the seeds."""
    battery = outcome.runner.scale.batteries["curve"]
    lines = []
    for number, arm in enumerate(study.arms):
        sides = [Accuracy(arm.name, CLEAN, "curve")]
        sides += [Accuracy(arm.name, battery.attacks, "curve", (eps,)) for eps in battery.eps]
        values = [float(outcome.values(side).mean()) for side in sides]
        lines.append(Series(arm.name, [0.0, *battery.eps], values, 1 + number % (COLOURS - 1)))
    return line_chart(
        f"Accuracy against eps, {battery.attacks}", lines, x_label="eps / eps of the training", percent=True,
        note="mean over the seeds; best checkpoint", x_ticks=[(float(x), f"{x:g}") for x in (0, 0.5, 1, 1.5, 2, 3)],
    )  # fmt: skip


def _progress(outcome: Outcome, study: Study) -> list[Chart]:
    """Robust validation accuracy over epochs, and over passes per training image: means over the seeds."""
    charts = []
    for unit in ("epochs", "passes"):
        lines = []
        for number, arm in enumerate(study.arms):
            runs = outcome.validation(arm.name)
            epochs = [epoch for epoch, _ in runs[0]]
            cost = PASSES[arm.name.removesuffix("-equal")] if unit == "passes" else 1
            means = np.mean([[value for _, value in run] for run in runs if len(run) == len(epochs)], axis=0)
            xs = [float(cost * epoch) for epoch in epochs]
            lines.append(Series(arm.name, xs, means.tolist(), 1 + number, value=percent(means[-1])))
        label = "epoch" if unit == "epochs" else "forward and backward passes per training image"
        charts.append(
            line_chart(
                f"Robust validation accuracy over {unit}", lines, x_label=label, percent=True,
                note="PGD-10, mean over the seeds; -equal: as many passes as regmix",
            )
        )  # fmt: skip
    return charts


def _maps(outcome: Outcome, study: Study) -> list[HeatMap]:
    """Per gamma, PGD-50 accuracy at the best epoch and the drop to the last, over alpha and beta."""
    points = {arm.name: tuple(map(int, found.groups())) for arm in study.arms if (found := WEIGHTS.fullmatch(arm.name))}
    known = {REGMIX.name: (50, 20, 20), GAMMA0.name: (50, 20, 0)}
    points |= {arm.name: known[arm.name] for arm in study.arms if arm.name in known}
    maps = []
    for gamma in sorted({point[2] for point in points.values()}):
        here = [point for point in points.values() if point[2] == gamma]
        alphas, betas = sorted({a for a, _, _ in here}), sorted({b for _, b, _ in here})

        def values(alpha: int, make: type[Accuracy] | type[Gap], gamma: int = gamma) -> list[float | None]:
            """One number per beta; None where nothing was trained."""
            row: list[float | None] = []
            for beta in betas:  # noqa: B023  used within this turn of the loop
                name = weighted((alpha, beta, gamma)).name
                trained = name in points
                row.append(float(outcome.values(make(name, "pgd-50", "grid")).mean()) if trained else None)
            return row

        for title, make in (("best epoch", Accuracy), ("best minus last", Gap)):
            kind: Any = make
            rows = [(f"alpha {alpha}", values(alpha, kind)) for alpha in alphas]
            maps.append(HeatMap(f"gamma {gamma}: pgd-50, {title}, per cent", [f"beta {beta}" for beta in betas], rows))
    return maps


def cost_table(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The times of a training step, a row per arm."""
    table = [["arm", "passes", "ms per step", "step / bare passes", "against regmix", "images/s", "peak memory"]]
    reference = rows[REGMIX.name]["step"]
    for arm, row in rows.items():
        passes, memory = row["passes"], row["peak_memory"]
        table.append(
            [
                arm, f"{passes['forward']} F {passes['to_input']} I {passes['to_parameters']} P",
                f"{1000 * row['step']:.1f}", f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]",
                f"{row['step'] / reference:.2f}", f"{row['images_per_second']:.0f}",
                "unknown" if memory is None else size(memory),
            ]
        )  # fmt: skip
    return table
