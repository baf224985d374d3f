"""How short the perturbations of FMN, DDN and DeepFool are at equal passes, beside Foolbox's and adversarial-library's.

pip install foolbox; pip install --no-deps adv-lib
python benchmarks/minimal_distance.py [--images 100] [--steps 200] [--run RUN --data-root FOLDER]

All get the same correctly classified images in one batch, and as many steps; passes are counted in the model, one for a
forward pass of an image and two more if it is differentiated. An image for which nothing is found has an infinite
distance. adversarial-library imports torchvision and visdom, of which these attacks need nothing: empty modules stand
in for them. Models: small networks on digits after standard training and after PGD-2-AT, or a run.
"""

import argparse
import sys
import types
import warnings
from collections.abc import Callable, Iterator

import torch
from hop_skip_jump import trained
from strongest import Counted, from_run
from torch import Tensor, nn

from regmix.attacks import Ddn, DeepFool, Fab, Fmn
from regmix.data import Digits, load, pick
from regmix.methods import PgdAt, Standard
from regmix.models import SmallCnn
from regmix.threats import L1, L2, Linf, Threat, parse_eps

# The real torchvision may be there and not fit to torch.
for unneeded in ("torchvision", "torchvision.models", "visdom"):
    sys.modules[unneeded] = types.ModuleType(unneeded)
sys.modules["torchvision"].models = sys.modules["torchvision.models"]
import adv_lib.attacks as library  # noqa: E402  after the modules that it asks for
import foolbox  # noqa: E402

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
NORMS: dict[str, tuple[Threat, float]] = {"linf": (Linf(), float("inf")), "l2": (L2(), 2.0), "l1": (L1(), 1.0)}


def of_foolbox(attack: foolbox.attacks.base.MinimizationAttack) -> Attack:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        found: Tensor = attack(wrapped, x, y, epsilons=None)[0]
        return found

    return run


def rows(norm: str, steps: int) -> Iterator[tuple[str, Attack]]:
    """The attacks of a norm by name, each from the model, x and y to adversarial images."""
    threat, p = NORMS[norm]
    few = {"linf": foolbox.attacks.LInfFMNAttack, "l2": foolbox.attacks.L2FMNAttack, "l1": foolbox.attacks.L1FMNAttack}
    yield "fmn, ours", lambda model, x, y: x + Fmn(steps).shortest(model, x, y, threat)
    yield "fmn, foolbox", of_foolbox(few[norm](steps=steps))
    yield "fmn, adv-lib", lambda model, x, y: library.fmn(model, x, y, norm=p, steps=steps)
    short = Fab(9, max(1, steps * 3 // 36))  # 4 passes a step for each of 9 targets
    yield "fab-t, ours, as many passes", lambda model, x, y: x + short.shortest(model, x, y, threat)
    if norm == "l2":
        yield "ddn, ours", lambda model, x, y: x + Ddn(steps).shortest(model, x, y, threat)
        yield "ddn, foolbox", of_foolbox(foolbox.attacks.DDNAttack(steps=steps))
        yield "ddn, adv-lib", lambda model, x, y: library.ddn(model, x, y, steps=steps, levels=None)
    if norm != "l1":
        fool = {"linf": foolbox.attacks.LinfDeepFoolAttack, "l2": foolbox.attacks.L2DeepFoolAttack}[norm]
        yield "deepfool, ours", lambda model, x, y: x + DeepFool().shortest(model, x, y, threat)
        yield "deepfool, foolbox", of_foolbox(fool(steps=50))
        yield "deepfool, adv-lib", lambda model, x, y: library.df(model, x, y, norm=p, steps=50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100, dest="examples")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--run")
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--data-root")
    parser.add_argument("--norms", nargs="+", default=[*NORMS], choices=[*NORMS])
    flags = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    flags.sample, flags.threads, flags.eps = "stratified", 1, parse_eps("8/255")
    for title, model, x, y in [of_run(flags)] if flags.run else of_digits(flags.examples):
        counted = Counted(model.eval().requires_grad_(False))
        with torch.no_grad():
            right = model(x).argmax(1) == y
        x, y = x[right].contiguous(), y[right]
        print(f"{title}, {len(x)} images")
        for norm in flags.norms:
            for name, attack in rows(norm, flags.steps):
                counted.passes = 0
                torch.manual_seed(0)
                found = attack(counted, x, y).detach().clamp(0, 1)
                with torch.no_grad():
                    wrong = model(found).argmax(1) != y
                length = torch.where(wrong, NORMS[norm][0].norm(found - x), float("inf"))
                numbers = f"median {float(length.median()):.4f}   not found {int((~wrong).sum()):3d}"
                print(f"  {norm:4s} {name:28s} {numbers}   {counted.passes / len(x):6.0f} passes per image", flush=True)


def of_run(flags: argparse.Namespace) -> tuple[str, nn.Module, Tensor, Tensor]:
    title, model, test, _ = from_run(flags)
    return title, model, *pick(test, torch.arange(len(test)), torch.device("cpu"))[:2]


def of_digits(count: int) -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    test = load(Digits(), "test").subset(torch.arange(count))
    x, y = pick(test, torch.arange(len(test)), torch.device("cpu"))[:2]
    for name, method in (("standard", Standard()), ("PGD-2-AT", PgdAt(steps=2))):
        yield f"digits, {name}", trained(method, load(Digits(), "train"), SmallCnn(width=8), 0.15, 8), x, y


if __name__ == "__main__":
    main()
