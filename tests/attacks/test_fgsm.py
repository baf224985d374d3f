"""FGSM."""

import torch

from methods import reference
from regmix.attacks import Fgsm
from regmix.threats import L2, Linf

LABELS = torch.tensor([0, 2, 3, 1, 2])


def test_it_is_one_step_of_eps_along_the_steepest_direction_from_the_clean_image() -> None:
    net, x = reference.tiny_net().eval(), reference.images(5)
    at = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(net(at), LABELS).backward()
    expected = (x + 0.1 * at.grad.sign()).clamp(0, 1) - x
    torch.testing.assert_close(Fgsm()(net, x, LABELS, Linf(eps=0.1)), expected, rtol=0, atol=1e-15)
    unit = at.grad / at.grad.flatten(1).norm(dim=1)[:, None, None, None]
    expected = (x + 0.4 * unit).clamp(0, 1) - x
    torch.testing.assert_close(Fgsm()(net, x, LABELS, L2(eps=0.4)), expected, rtol=0, atol=1e-14)
