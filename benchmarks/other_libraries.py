"""Does an attack of another library break an image that `strongest` leaves?

python benchmarks/other_libraries.py RUN [RUN ...] [--masked] --examples 500 --out FOLDER [--checkpoint best]

For every run: `autoattack`, `autoattack-screened` and `strongest` on all test images that are classified correctly,
then the attacks of pyautoattack, torchattacks and Foolbox at the same eps on those that `strongest` leaves. A
perturbation of theirs counts if it lies in the ball and in [0, 1] up to rounding. --masked attacks the runs' networks
behind rounded inputs, whose gradients lead nowhere. What is finished is kept in FOLDER and not repeated.
"""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foolbox
import pyautoattack
import torch
import torchattacks
from autoattack import NoJournal
from from_runs import parser_for_runs
from strongest import Masked, from_run
from torch import Tensor, nn

from regmix.attacks import Ensemble, parse_attack
from regmix.data import pick
from regmix.evaluation import Evaluator, predict
from regmix.evaluation.screening import SCREENED
from regmix.threats import Linf, format_eps

OURS = ("autoattack", "autoattack-screened", "strongest")
Attack = Callable[[Tensor, Tensor], Tensor]
BATCH = 250
"""Images at once."""


def others(model: nn.Module, eps: float) -> dict[str, Attack]:
    """The attacks of other libraries by name: (images, labels) to adversarial images.

    Without AutoAttack of torchattacks, whose four attacks are those of pyautoattack.
    """
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # as pyautoattack needs it
    fool = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

    def of_foolbox(attack: Any) -> Attack:
        return lambda x, y: attack(fool, x, foolbox.criteria.Misclassification(y), epsilons=eps)[1]

    def auto(x: Tensor, y: Tensor) -> Tensor:
        attack = pyautoattack.AutoAttack(model, norm="Linf", eps=eps, version="standard", device="cpu")
        adversarial: Tensor = attack.run_standard_evaluation(x, y, batch_size=BATCH)[0]
        return adversarial

    return {
        "pyautoattack standard": auto,
        "torchattacks PGD-100": torchattacks.PGD(model, eps=eps, alpha=eps / 10, steps=100),
        "torchattacks Jitter-50": torchattacks.Jitter(model, eps=eps, alpha=eps / 10, steps=50),
        "torchattacks VMI-FGSM-20": torchattacks.VMIFGSM(model, eps=eps, alpha=eps / 5, steps=20),
        "Foolbox LinfPGD-100": of_foolbox(foolbox.attacks.LinfPGD(rel_stepsize=0.1, steps=100)),
        "Foolbox LinfAdamPGD-100": of_foolbox(foolbox.attacks.LinfAdamPGD(rel_stepsize=0.1, steps=100)),
        "Foolbox LInfFMN-200": of_foolbox(foolbox.attacks.LInfFMNAttack(steps=200)),
        "Foolbox LinfDeepFool-100": of_foolbox(foolbox.attacks.LinfDeepFoolAttack(steps=100)),
    }


class Kept:
    """Answers by name in a JSON file; each is computed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.known:
            self.known[name] = make()
            self.path.write_text(json.dumps(self.known))
        return self.known[name]


def left_by_ours(name: str, model: nn.Module, test: Any, threat: Linf) -> dict[str, Any]:
    """Which images our attack leaves, as `regmix evaluate` runs it, and the seconds."""
    began, device = time.perf_counter(), torch.device("cpu")
    evaluator = Evaluator(model, test, device, BATCH, NoJournal(), on_work=lambda _: None)
    alive = evaluator.predictions() == test.labels
    attack = parse_attack(name)
    assert isinstance(attack, Ensemble)
    for stage, part in attack.stages:
        screen = isinstance(part, SCREENED)
        alive = evaluator.survivors(part, threat, alive, f"{name}/{stage}", screen=screen)[0]
    return {"left": alive.nonzero()[:, 0].tolist(), "seconds": time.perf_counter() - began}


def broken_by(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict[str, Any]:
    """Which of the images an attack breaks inside the threat set, and the seconds."""
    began, found = time.perf_counter(), []
    for first in range(0, len(x), BATCH):
        images, labels = x[first : first + BATCH], y[first : first + BATCH]
        adversarial = attack(images, labels).detach()
        inside = ((adversarial - images).abs() <= eps + 1e-6) & (adversarial >= 0) & (adversarial <= 1)
        broken = (predict(model, adversarial, labels) != labels) & inside.flatten(1).all(1)
        found += (broken.nonzero()[:, 0] + first).tolist()
    return {"broken": found, "seconds": time.perf_counter() - began}


def compare(title: str, model: nn.Module, test: Any, threat: Any, kept: Kept) -> None:
    assert isinstance(threat, Linf), "the attacks of the other libraries are those of L-inf"
    print(f"{title}, eps {format_eps(threat.eps)}", flush=True)
    left = {}
    for name in OURS:
        row = kept(name, lambda name=name: left_by_ours(name, model, test, threat))
        left[name] = {*row["left"]}
        print(f"  {name:26s} leaves {len(left[name]):4d}  {row['seconds']:8.1f} s", flush=True)
    print(f"  verdicts in which autoattack-screened differs: {len(left['autoattack'] ^ left['autoattack-screened'])}")
    print(f"  of AutoAttack's breaks strongest misses {len(left['strongest'] - left['autoattack'])}")
    rows = torch.tensor(sorted(left["strongest"]), dtype=torch.int64)
    x, y = pick(test, rows, torch.device("cpu"))[:2]
    x = x.contiguous()
    for name, attack in others(model, threat.eps).items():
        row = kept(name, lambda attack=attack: broken_by(attack, model, x, y, threat.eps))
        print(f"  {name:26s} breaks {len(row['broken'])} of the {len(rows)}  {row['seconds']:8.1f} s", flush=True)


if __name__ == "__main__":
    parser = parser_for_runs(__doc__, examples=500)
    parser.add_argument("--masked", action="store_true")
    parser.add_argument("--sample", choices=("stratified", "first"), default="stratified")
    parser.add_argument("--batch-size", type=int, default=BATCH)
    given = parser.parse_args()
    BATCH = given.batch_size
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    given.eps = None
    for path in given.runs:
        given.run = path
        title, network, images, threat_model = from_run(given)
        if given.masked:
            title, network = f"{title}, masked", Masked(network).eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        kept_in = given.out / f"{given.run.name}{'-masked' if given.masked else ''}-{given.examples}.json"
        compare(title, network, images, threat_model, Kept(kept_in))
