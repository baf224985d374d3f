"""How the training scripts of the authors' own repositories are run with given batches and networks."""

import contextlib
import copy
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from public_code.net import BATCH, CLASSES
from public_code.scripts import run_part, run_script
from public_code.standins import Anything
from public_code.world import World

EPS = 8 / 255
Run = Callable[[World, Path], None]


@contextlib.contextmanager
def unscaled(loss: Any, _: Any) -> Iterator[Any]:
    yield loss


AMP = {"apex.amp.initialize": lambda model, optimizer, **_: (model, optimizer), "apex.amp.scale_loss": unscaled}
ZERO, ONE = (torch.full((3, 1, 1), value, dtype=torch.float64) for value in (0.0, 1.0))
UNIT = {  # images in [0, 1], which the scripts would standardise
    "utils.mu": ZERO, "utils.std": ONE, "utils.lower_limit": ZERO, "utils.upper_limit": ONE,
}  # fmt: skip


def loaders(world: World, **how: Any) -> Callable[..., Any]:
    return lambda *_, **__: (world.loader(**how), [])


def network(world: World) -> Callable[..., Any]:
    """Builds the world's model, and copies of it once it has an optimizer: networks that are tested."""
    return lambda *_, **__: copy.deepcopy(world.model) if world.begun else world.model


def networks(world: World, name: str = "models") -> None:
    """Puts a module of networks in the place of the repository's, every one of which is the world's."""
    module: Any = types.ModuleType(name)
    for kind in ("VGG", "ResNet18", "PreActResNet18", "PreActResNest18", "WideResNet", "ResNet34"):
        setattr(module, kind, network(world))
    module.torch, module.nn, module.F = torch, torch.nn, torch.nn.functional
    sys.modules[name] = module


def fast_adversarial(script: str) -> Run:
    def run(world: World, folder: Path) -> None:
        changes = AMP | UNIT | {"utils.get_loaders": loaders(world), "preact_resnet.PreActResNet18": network(world)}
        run_script(folder / "CIFAR10" / script, changes)

    return run


def understanding(world: World, folder: Path) -> None:
    class Batches:  # one loader for all calls: the first epoch is a rehearsal of one batch
        def __call__(self, *_: Any, **__: Any) -> Any:
            return world.loader()

    changes = AMP | {
        "data.get_loaders": Batches(), "models.get_model": network(world),
        "utils.initialize_weights": lambda _: None, "utils.rob_acc": lambda *_, **__: (0, 0, 0),
        "utils.clamp": torch.clamp, "utils.avg_cos_np": lambda *_: 0.0, "utils.get_grad_np": lambda *_, **__: 0.0,
    }  # fmt: skip
    run_script(folder / "train.py", changes)


def n_fgsm(world: World, folder: Path) -> None:
    class Data:
        lower_limit, upper_limit, std, img_size, max_label = ZERO, ONE, ONE, (32, 32), 9

        def get_indexed_loaders(self, *_: Any, **__: Any) -> Any:
            return world.loader(index_last=True), [], [], [], [], []

    changes = {
        "utils.data_utils.CIFAR10Utils": Data, "architectures.preact_resnet.PreActResNet18": network(world),
    }  # fmt: skip
    run_script(folder / "train.py", changes)


def zero_grad(world: World, folder: Path) -> None:
    class Batches:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.loader = world.loader()

        def __iter__(self) -> Iterator[Any]:
            return ({"input": x, "target": y} for x, y in self.loader)

        def __len__(self) -> int:
            return len(self.loader)

    nothing = {"train": {"data": torch.zeros(1), "labels": [0]}, "test": {"data": torch.zeros(1), "labels": [0]}}
    changes = {
        "preactresnet.PreActResNet18": network(world), "wideresnet.WideResNet": network(world),
        "utils.cifar10": lambda *_: nothing, "utils.pad": lambda x, _: x, "utils.transpose": lambda x: x,
        "utils.Transform": Anything, "Batches": Batches, "normalize": lambda x: x,
    }  # fmt: skip
    run_script(folder / "train_cifar.py", changes, main="main")


def function(file: str, name: str, **settings: Any) -> Run:
    """A repository whose loss is a function of (model, x, y, optimizer)."""

    def run(world: World, folder: Path, replace: dict[str, str] | None = None) -> None:
        scope = run_script(folder / file, {}, replace, main="")
        optimizer = world.optimizer()
        for _ in range(world.epochs):
            for x, y in world.loader():
                loss = scope[name](world.model, x, y, optimizer, epsilon=EPS, step_size=EPS / 4, **settings)
                loss.backward()
                optimizer.step()

    return run


EXACT = {"1.0001 - adv_probs + 1e-12": "1.0 - adv_probs", "adv_probs + 1e-12": "adv_probs", "1.0000001": "1.0"}


def mart(exact: bool) -> Run:
    run: Any = function("mart.py", "mart_loss", perturb_steps=10, beta=5.0)
    return partial(run, replace=EXACT if exact else None)


def guided(file: str, begin: str, end: str, attack: str, **start: Any) -> Run:
    """The loop of GAT's and NuAT's scripts, which are not functions, and their attack."""

    def run(world: World, folder: Path) -> None:
        optimizer = world.optimizer()
        scope = {
            "model": world.model, "optimizer": optimizer, "scheduler": Anything(), "train_loader": world.loader(),
            "epochs": 100, "MAX_EPOCHS": 100, "train_size": BATCH, "TRAIN_BATCH_SIZE": BATCH, "B_val": 4.0, "Feps": 8.0,
            "l_ce": 1.0, "iteration": 1, "loss": torch.nn.CrossEntropyLoss(), "zero_gradients": lambda _: None,
            "Variable": lambda x, requires_grad=False: x.detach().clone().requires_grad_(requires_grad),
            "tau": 1.0, "exp_avg": [dict(world.model.state_dict())], "LOG_FILE_NAME": "log", "MODEL_PREFIX": "",
            "EXP_NAME": "", "writer": Anything(), **start,
        }  # fmt: skip
        run_part(folder / "CIFAR10" / file, f"def {attack}", "\ndef ", scope)
        scope["torch"].save = lambda *_: None
        run_part(folder / "CIFAR10" / file, begin, end, scope)

    return run


def atas(world: World, folder: Path) -> None:
    changes = {
        "data.load_data": lambda *_: (world.loader(index_last=True), [], BATCH * world.per_epoch),
        "models.preact_resnet.PreActResNet18": network(world),
        "models.normalize.Normalize": lambda *_: torch.nn.Identity(),
        "data_aug.aug": lambda delta: (delta, None), "data_aug.aug_trans": lambda x, _: x,
        "data_aug.inverse_aug": lambda _, new, __: new,
        "data.shapes_dict": {"cifar10": [3, 32, 32]}, "data.cls_dict": {"cifar10": CLASSES},
    }  # fmt: skip
    run_script(folder / "ATAS.py", changes, {"cuda:0": "cpu", "float32": "float64"})


def liet(world: World, folder: Path) -> None:
    changes = {
        "utils.get_loader": loaders(world), "models.ResNet18": network(world), "utils.set_seed": lambda _: None,
        "torch.optim.lr_scheduler.OneCycleLR": Anything, "utils.Logger": Anything,
    }  # fmt: skip
    run_script(folder / "main.py", changes, {"'configs/configs.yaml'": repr(str(folder / "configs/configs.yaml"))})


def universal(kind: str, replace: dict[str, str] | None = None) -> Run:
    def run(world: World, folder: Path) -> None:
        module = importlib.import_module("fat")
        trainer = getattr(module, kind)
        if replace:
            file = importlib.import_module(trainer.__module__)
            trainer = run_script(Path(str(file.__file__)), {}, replace, package="fat")[kind]
        trainer(world.model).train(world.optimizer(), Anything(), world.loader(), [])

    return run


def stored(script: str, *counts: str, models: str = "models") -> Run:
    """Scripts that load all images at once, with a border, and crop them themselves."""

    def run(world: World, folder: Path) -> None:
        networks(world, models)
        tested = {"utils.evaluate_pgd": lambda *_: (0, 0), "utils.evaluate_standard": lambda *_: (0, 0)}
        changes = UNIT | tested | {"utils.get_all_loaders": loaders(world, border=4)}
        run_script(folder / script, changes, dict.fromkeys(counts, str(BATCH)))

    return run


def rs_cs(world: World, folder: Path) -> None:
    networks(world)
    tested = {"utils.evaluate_pgd": lambda *_: (0, 0), "utils.evaluate_standard": lambda *_: (0, 0)}
    changes = UNIT | tested | {"utils.get_all_loaders": loaders(world)}
    run_script(
        folder / "FGSM_RS_CS.py", changes, {"args.lr,": "args.lr_max,", "args.stride": "1", "args.epochs": "110"}
    )


def aaer(world: World, folder: Path) -> None:
    changes = UNIT | {"utils.get_loaders": loaders(world), "preact_resnet.PreActResNet18": network(world)}
    run_script(folder / "CIFAR10" / "AAER.py", changes)


def elle(**settings: Any) -> Run:
    def run(world: World, folder: Path) -> None:
        kind = importlib.import_module("core.utils.train").Trainer
        trainer = kind.__new__(kind)
        optimizer = world.optimizer()

        class EverySecond:  # the code takes two steps per batch
            zero_grad = optimizer.zero_grad
            calls = 0

            def step(self) -> None:
                self.calls += 1
                if self.calls % 2:
                    optimizer.step()

        trainer.args = trainer.params = types.SimpleNamespace(
            attack_eps=EPS, attack_step=EPS, attack_iter=1, input_noise_rate=0.0, clamp=False, reg="ELLE",
            clip_grad=None,
            scheduler="none", SLAT=False, BAT=False, GAT=False, track_logits_alignment=False,
            track_loss_alignment=False, track_lin_err=False, n_triplets=1, decay_rate=0.99, fname=".",
            **({"sensitivity": 2.0} | settings),
        )  # fmt: skip
        trainer.model, trainer.optimizer, trainer.scheduler = world.model, EverySecond(), Anything()
        trainer.criterion, trainer.mse, trainer.elle_values = torch.nn.CrossEntropyLoss(), torch.nn.MSELoss(), []
        trainer.train(world.loader(), verbose=False)

    return run


def law(world: World, folder: Path) -> None:
    networks(world, "CIFAR10_models")
    for name in ("Feature_model", "Feature_model.feature_resnet"):
        networks(world, name)
        sys.modules[name].Feature_ResNet18 = network(world)  # type: ignore[attr-defined]
    run_script(
        folder / "FGSM_LAW_CIFAR_10.py", UNIT, {"get_loaders_cutout(args": "loaders(args"}, {"loaders": loaders(world)}
    )


def sdi(world: World, folder: Path) -> None:
    networks(world)
    changes = UNIT | {"utils.get_loaders": loaders(world)}
    run_script(folder / "FGSM_SDI.py", changes, {"args.attacker": "'attacker'"})


def ssat(world: World, folder: Path) -> None:
    module = importlib.import_module("defenses.trainers.co_adv_trainer")
    attack = types.SimpleNamespace(
        model=world.model, eps=EPS, alpha=1.25 * EPS, device="cpu", _transform_label=lambda _, y: y, _targeted=-1
    )
    trainer = module.COAdvTrainer.__new__(module.COAdvTrainer)
    trainer.model, trainer.device, trainer.c, trainer.inf_batch = world.model, "cpu", 3, 1024
    trainer.atk, trainer.optimizer = partial(module.CustomFFGSM.forward, attack), world.optimizer()
    for batch in world.loader():
        trainer._do_iter(batch)


def tdat(world: World, folder: Path, replace: dict[str, str] | None = None) -> None:
    networks(world)
    run_script(folder / "TDAT.py", UNIT | {"utils.cifar10_get_loaders": loaders(world)}, replace)
