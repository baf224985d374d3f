"""One step of ours against one step of the Adversarial Robustness Toolbox, on the same network and the same images.

ART evaluates in float32 and draws with NumPy, so the random starts are put into both from outside. Its trainers leave
the network in evaluation mode after the attack; the network here has no BatchNorm, on which the two would differ.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regmix import Batch, FgsmRs, Linf, PgdAt, Trades
from regmix.training.awp import at_perturbed_weights
from regmix.types import Losses

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
EPS, LR, COUNT = 0.1, 0.1, 32


@pytest.fixture
def art():
    return pytest.importorskip("art", reason="the extra [verify] is not installed")


@pytest.fixture
def data():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.Softplus(), nn.Linear(20, 5))
    x, y = torch.rand(COUNT, 3, 4, 4), torch.randint(5, (COUNT,))
    return net, Batch(x, y)


def classifier(net: nn.Module):
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        net, nn.CrossEntropyLoss(), (3, 4, 4), 5, torch.optim.SGD(net.parameters(), LR), clip_values=(0, 1),
        device_type="cpu",
    )  # fmt: skip


def ours(net: nn.Module, loss: Tensor, clip_norm: float | None = None) -> list[Tensor]:
    """The parameters after one SGD step."""
    optimizer = torch.optim.SGD(net.parameters(), LR)
    optimizer.zero_grad()
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
    optimizer.step()
    return [p.detach() for p in net.parameters()]


def same(mine: list[Tensor], net: nn.Module, before: nn.Module) -> None:
    for a, b, start in zip(mine, net.parameters(), before.parameters(), strict=True):
        moved = (b - start).abs().max()
        assert moved > 1e-4
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=1e-4 * moved.item())


class Given:
    """An attack that returns what it was given, in the form of ART's attacks."""

    def __init__(self, estimator: object, adversarial: Tensor) -> None:
        self.estimator, self.adversarial = estimator, adversarial

    def generate(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.adversarial.numpy()


def test_pgd_at(art, data):
    from art.defences.trainer import AdversarialTrainerMadryPGD

    net, batch = data
    theirs = copy.deepcopy(net)
    trainer = AdversarialTrainerMadryPGD(
        classifier(theirs), nb_epochs=1, batch_size=COUNT, eps=EPS, eps_step=EPS / 4, max_iter=7, num_random_init=0
    )
    trainer.fit(batch.x.numpy(), np.eye(5, dtype=np.float32)[batch.y.numpy()])
    before = copy.deepcopy(net)
    method = PgdAt(steps=7, step_size=0.25, start="zero")
    same(ours(net, method(net, batch, Linf(EPS)).total), theirs, before)


def test_fgsm_rs(art, data, monkeypatch):
    """ART clips the gradient to the norm 0.5, as the paper's code does in half precision; here that is --clip-norm.

    It also leaves the start unclipped where x + start leaves [0, 1]; these images keep away from the border.
    """
    from art.defences.trainer import AdversarialTrainerFBFPyTorch, adversarial_trainer_fbf_pytorch

    net, batch = data
    batch = batch._replace(x=0.2 + 0.6 * batch.x)
    start = EPS * (2 * torch.rand_like(batch.x) - 1)
    monkeypatch.setattr(adversarial_trainer_fbf_pytorch, "random_sphere", lambda *_: start.flatten(1).numpy())
    monkeypatch.setattr(Linf, "uniform", lambda self, x: start)
    theirs, before = copy.deepcopy(net), copy.deepcopy(net)
    trainer = AdversarialTrainerFBFPyTorch(classifier(theirs), eps=EPS)
    trainer._batch_process(batch.x.numpy(), np.eye(5, dtype=np.float32)[batch.y.numpy()], LR)
    same(ours(net, FgsmRs()(net, batch, Linf(EPS)).total, clip_norm=0.5), theirs, before)


def test_trades_from_the_same_adversarial_examples(art, data):
    """ART is given our attack: it leaves the choice to the user and its examples climb the cross-entropy, not KL."""
    from art.defences.trainer import AdversarialTrainerTRADESPyTorch

    net, batch = data
    theirs, before = copy.deepcopy(net), copy.deepcopy(net)
    seen = {}
    net.register_forward_pre_hook(lambda _, arguments: seen.update(x=arguments[0].detach().clone()))
    losses = Trades(lam=6.0)(net, batch, Linf(EPS))
    assert 0.99 * EPS < (seen["x"] - batch.x).abs().max() <= EPS * (1 + 1e-6)
    wrapped = classifier(theirs)
    trainer = AdversarialTrainerTRADESPyTorch(wrapped, Given(wrapped, seen["x"]), beta=6.0)
    trainer._batch_process(batch.x.numpy(), np.eye(5, dtype=np.float32)[batch.y.numpy()])
    same(ours(net, losses.total), theirs, before)


@pytest.mark.parametrize("mode", ["PGD", "TRADES"])
def test_awp_from_the_same_adversarial_examples(art, data, mode):
    """Ours repeats the attack at the perturbed weights (see training/awp.py); here both keep the same examples."""
    from art.defences.trainer import AdversarialTrainerAWPPyTorch

    net, batch = data
    adversarial = (batch.x + EPS * torch.randn_like(batch.x).sign()).clamp(0, 1)
    theirs, before = copy.deepcopy(net), copy.deepcopy(net)
    wrapped, proxy = classifier(theirs), classifier(copy.deepcopy(net))
    trainer = AdversarialTrainerAWPPyTorch(
        wrapped, proxy, Given(wrapped, adversarial), mode=mode, gamma=0.01, beta=6.0, warmup=0
    )
    trainer._apply_wp = True
    trainer._batch_process(batch.x.numpy(), np.eye(5, dtype=np.float32)[batch.y.numpy()])

    def step(_) -> Losses:
        logits = net(adversarial)
        loss = cross_entropy(logits, batch.y)
        if mode == "TRADES":
            clean = net(batch.x)
            p = clean.softmax(1)
            loss = cross_entropy(clean, batch.y) + 6 * (p * (p.log() - logits.log_softmax(1))).sum(1).mean()
        loss.backward()
        return Losses({"all": loss}, logits, {})

    at_perturbed_weights(step, net, None, 0.01)
    for a, b in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.optim.SGD(net.parameters(), LR).step()
    same([p.detach() for p in net.parameters()], theirs, before)
    # the perturbation matters: without it the step is another one
    plain = copy.deepcopy(before)
    loss = cross_entropy(plain(adversarial), batch.y)
    if mode == "PGD":
        moved = ours(plain, loss)
        assert max((a - b).abs().max() for a, b in zip(moved, theirs.parameters(), strict=True)) > 1e-5
