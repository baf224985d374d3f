"""torchvision without its compiled part: the package index has it for CUDA only, which a CPU torch cannot load."""

import torch

_kept: list[torch.library.Library] = []
"""Declarations of operators end with their library object."""


def declare_operators_of_torchvision() -> None:
    """Declares the operators that torchvision looks up when it is imported; none of them can be called."""
    if _kept:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
