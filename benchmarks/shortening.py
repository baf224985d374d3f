"""How far from the decision boundary are the images that the later attacks of AutoAttack break?

python benchmarks/shortening.py RUN [RUN ...] --examples 600 --out FOLDER [--checkpoint best] [--threads 1]

Meets correctly classified validation images of each run, never test images. APGD-CE goes first. Of the images that it
leaves, PMA and each of APGD-T's nine targets try all, FAB-T and Square those that are near the boundary. The limits of
`autoattack-screened` are read off what is told: which attack breaks what, and the share of the clean lead
z_y - max z_j that PMA left. The leads after every attack are kept in FOLDER/NAME.pt.
"""

from dataclasses import dataclass

import torch
from from_runs import experiment_of, model_of, parser_for_runs
from torch import Tensor

from regmix.attacks import Apgd, Attack, Fab, Square
from regmix.attacks.base import likeliest_wrong
from regmix.attacks.malt import linear_distances
from regmix.config import Experiment
from regmix.data import ImageSet, draw, load_training, pick
from regmix.evaluation.one_batch import predict
from regmix.evaluation.screening import screened
from regmix.objectives import margin
from regmix.runs import Run
from regmix.runtime import devices
from regmix.threats import Threat
from regmix.types import Images, Labels, Logits, Model

NEAR = 0.4
"""FAB-T and Square run on the images that are left with less than this share of their clean lead."""


@dataclass(frozen=True)
class OneTarget(Apgd):
    """APGD-T with the target of this rank alone."""

    rank: int = 0

    def wrong(self, model: Model, x: Images, y: Labels, logits: Logits, threat: Threat) -> Tensor:
        return likeliest_wrong(logits, y, self.targets)[:, self.rank : self.rank + 1]


def validation(experiment: Experiment) -> ImageSet:
    sizes = experiment.train_examples, experiment.validation, experiment.split_seed
    return load_training(experiment.data, *sizes)[1]


def main() -> None:
    flags = parser_for_runs(__doc__, examples=600).parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(flags.threads)
    devices.start("cpu", "32")
    for path in flags.runs:
        run = Run.open(path)
        experiment = experiment_of(run, flags.data_root)
        every = validation(experiment)
        _, positions = draw(every.labels, min(flags.examples, len(every)), "stratified")
        images = every.subset(positions)
        kept = flags.out / f"{path.name}-{flags.checkpoint}.pt"
        print(f"{path.name} {flags.checkpoint}, {len(images)} validation images", flush=True)
        if not kept.exists():
            model = model_of(run, experiment, flags.checkpoint, images).to(memory_format=torch.channels_last)
            torch.save(measure(model, images, experiment.threat), kept)
        tell(torch.load(kept))


@torch.no_grad()
def measure(model: torch.nn.Module, images: ImageSet, threat: Threat) -> dict[str, Tensor]:
    """The leads without an attack and after each one, of the images that APGD-CE leaves; nan: not tried."""
    x, y = pick(images, torch.arange(len(images)), torch.device("cpu"))[:2]
    clean = predict(model, x, y) == y
    x, y = x[clean], y[clean]
    asked = screened(model, x[:250], y[:250])

    def left_by(attack: Attack, rows: Tensor) -> Tensor:
        delta = attack(asked, x[rows], y[rows], threat)
        lead = torch.full((len(x),), torch.nan)
        lead[rows] = -margin(model(x[rows] + delta), y[rows])
        return lead

    everyone = torch.arange(len(x))
    found = {"lead": -margin(model(x), y), "ce": left_by(Apgd("ce"), everyone)}
    rows = everyone[found["ce"] > 0]
    found["pm"] = left_by(Apgd("pm"), rows)
    wrong = likeliest_wrong(model(x), y, 9)
    found["malt"] = linear_distances(model, x, y, wrong, threat).argsort(dim=1, stable=True)
    reached = []
    for rank in range(wrong.shape[1]):
        reached.append(left_by(OneTarget(targets=9, rank=rank), rows))
        print(f"  target {rank + 1} of {wrong.shape[1]}", flush=True)
    found["targets"] = torch.stack(reached, 1)
    least = torch.column_stack([found["targets"], found["ce"], found["pm"]]).amin(1)
    near = everyone[(least > 0) & (least < NEAR * found["lead"])]
    found["fab"], found["square"] = left_by(Fab(targets=9), near), left_by(Square(queries=5000), near)
    return {name: values[rows] for name, values in found.items()}


def tell(found: dict[str, Tensor]) -> None:
    share, targets = found["pm"] / found["lead"], found["targets"] <= 0
    apgd_t, pma = targets.any(1), found["pm"] <= 0
    first = targets.gather(1, found["malt"][:, :1])[:, 0]
    missed = apgd_t & ~pma
    left = ~apgd_t & ~pma
    least = torch.column_stack([found["pm"], found["targets"]]).amin(1) / found["lead"]
    tried = found["fab"].isfinite()
    shares = ", ".join(f"{value:.3f}" for value in share[missed].tolist()) or "none"
    print(f"  {len(pma)} left by APGD-CE; APGD-T breaks {int(apgd_t.sum())}, PMA {int(pma.sum())}")
    print(f"  of APGD-T's PMA misses {int(missed.sum())} (shares that it left: {shares}), and with MALT's first target "
          f"{int((missed & ~first).sum())}")  # fmt: skip
    for name in ("fab", "square"):
        print(f"  {name} breaks {int((found[name] <= 0).sum())} of the {int(tried.sum())} near ones that are left")
    for limit in (0.3, 0.6):
        below = float((share[left] < limit).float().mean())
        print(f"  share below {limit} after PMA: {below:.2f} of the {int(left.sum())} that are left")
    print(f"  share below 0.05 after APGD-T: {float((least[left] < 0.05).float().mean()):.2f}", flush=True)


if __name__ == "__main__":
    main()
