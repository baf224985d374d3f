"""Logits of images that differ from known ones in one square, at the cost of the part that the square reaches."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, fx, nn

from regmix.evaluation.screening.windows import Map, Window, hull
from regmix.types import Images, Logits

REACH = 0.6
"""A window is computed alone if it covers at most this share of its map; otherwise the whole map is."""

WORTH = 2_000_000_000
"""Multiplications that windows must save per call; with fewer, finding and moving them costs more than it saves."""

POINTWISE: dict[str, set[object]] = {
    "call_module": {nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Identity, nn.Dropout, nn.BatchNorm2d},
    "call_function": {F.relu, torch.relu, F.leaky_relu, F.silu, F.gelu, F.elu, operator.add, operator.sub,
                      operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div},
}  # fmt: skip
"""Operations that compute every pixel of a map from the same pixel of other maps."""

IN_PLACE: set[object] = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


class Incremental:
    """A traced network that remembers its maps for known images and computes windows of them for others.

    `ask(images, trial, side)` gives the logits of `trial`, [B, C, H, W], whose rows differ from those of the known
    `images` in one square of `side` pixels at most. A convolution of kernel k, stride s and dilation d makes a window
    of (n - 1 + (k - 1) d) // s + 1 pixels a side from one of n; pointwise operations keep it. After any other
    operation, and where a window covers more than REACH of its map, whole maps are computed; if windows save less than
    WORTH, only whole maps are. `keep` makes rows of `trial` the known ones; `leave` removes rows. The logits equal
    those of the whole network up to rounding. The network must be in evaluation mode; no gradient is computed.

    Source: incremental inference as in Krypton (Nakandala, Kumar, Papakonstantinou, SIGMOD 2019), with a window of
    its own per image.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self._graph, self._nodes = graph, list(graph.graph.nodes)
        modules = dict(graph.named_modules())
        self._targets = {node: modules[str(node.target)] for node in self._nodes if node.op == "call_module"}
        self._constants = {
            node: operator.attrgetter(str(node.target))(graph) for node in self._nodes if node.op == "get_attr"
        }
        self._fixed = set(self._constants)
        """Nodes that do not depend on the images."""
        last: dict[fx.Node, fx.Node] = {}
        for node in self._nodes:
            last.update(dict.fromkeys(node.all_input_nodes, node))
            if node.all_input_nodes and self._fixed.issuperset(node.all_input_nodes):
                self._fixed.add(node)
        self._done: dict[fx.Node, list[fx.Node]] = {node: [] for node in self._nodes}
        for node, user in last.items():
            self._done[user].append(node)
        # A map that an operation overwrites is not the one that was remembered.
        self._possible = [node.op for node in self._nodes].count("placeholder") == 1 and not any(
            self._overwrites(node) for node in self._nodes
        )
        self._side = 0
        self._maps: dict[fx.Node, Map] = {}
        """Those that windows are read from."""
        self._shapes: dict[fx.Node, torch.Size] = {}
        """Of the maps of which windows are computed."""
        self._made: list[Window] = []

    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        self._made = []
        if side != self._side and self._possible:
            self._begin(images, side)
        if not self._maps:
            logits: Logits = self._graph(trial)
            return logits
        return self._walk(lambda node, known: self._window(node, known, images, trial), trial)

    def keep(self, rows: Bool[Tensor, "batch"]) -> None:
        """These rows of the last trial are known images from now on."""
        for window in self._made:
            window.keep(rows)

    def leave(self, out: Bool[Tensor, "batch"]) -> None:
        """Takes rows away."""
        if out.any():
            for known in self._maps.values():
                known.cells = known.cells[~out]

    def _walk(self, own: Callable[[fx.Node, dict[fx.Node, Any]], Any], images: Images) -> Logits:
        """The network node by node, in which `own` may answer for a node by something else than None."""
        known: dict[fx.Node, Any] = dict(self._constants)
        for node in self._nodes:
            answer = own(node, known)
            if answer is None:
                answer = self._run(node, known, images)
            known[node] = answer
            for past in self._done[node]:
                del known[past]
        logits: Logits = known[self._nodes[-1]]
        return logits

    def _run(self, node: fx.Node, known: dict[fx.Node, Any], images: Images) -> Any:
        def value(argument: fx.Node) -> Any:
            map_or_window = known[argument]
            return map_or_window.whole() if isinstance(map_or_window, Window) else map_or_window

        if node.op == "placeholder":
            return images
        if node.op == "get_attr":
            return known[node]
        args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
        if node.op == "output":
            return args[0]
        return self._call(node, args, kwargs)

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_module":
            return self._targets[node](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _begin(self, images: Images, side: int) -> None:
        """Decides of which maps windows are computed, and remembers the maps that they are read from."""
        self._side, self._maps, self._shapes = side, {}, {}
        sizes: dict[fx.Node, tuple[int, int]] = {}
        saved = 0.0

        def remember(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
            nonlocal saved
            answer = self._run(node, known, images)
            size = self._size(node, known, answer, sizes, side)
            near = [one for one in node.all_input_nodes if one in sizes]
            if size is not None and size[0] * size[1] <= REACH * answer.shape[2] * answer.shape[3]:
                sizes[node], self._shapes[node] = size, answer.shape
                if self._pointwise(node) and len(near) == 1:
                    near = []
            border = 0
            if node in sizes and self._convolves(node):
                module = self._targets[node]
                assert isinstance(module, nn.Conv2d)
                border = max(_padding(module))
                away = 1 - sizes[node][0] * sizes[node][1] / answer.shape[2:].numel()
                saved += away * answer.numel() * module.weight[0].numel()
            for one in near:
                if one not in self._maps or self._maps[one].border < border:
                    self._maps[one] = Map(known[one], border)
            return answer

        self._walk(remember, images)
        if saved < WORTH:
            self._maps, self._shapes = {}, {}

    def _size(
        self, node: fx.Node, known: dict[fx.Node, Any], answer: Any, sizes: dict[fx.Node, tuple[int, int]], side: int
    ) -> tuple[int, int] | None:
        """Height and width of the window that a node makes; None where it cannot be told."""
        if node.op == "placeholder":
            return min(side, answer.shape[2]), min(side, answer.shape[3])
        near = [one for one in node.all_input_nodes if one in sizes]
        if not near:
            return None
        if self._convolves(node):
            return self._reached(self._targets[node], sizes[near[0]], answer.shape)
        if not self._pointwise(node) or any(self._shapes[one][2:] != answer.shape[2:] for one in near):
            return None
        if any(one not in self._fixed or not _uniform(known[one]) for one in node.all_input_nodes if one not in sizes):
            return None
        return max(sizes[one][0] for one in near), max(sizes[one][1] for one in near)

    def _convolves(self, node: fx.Node) -> bool:
        """Whether it is a convolution of one map with zeros around it."""
        module = self._targets.get(node)
        return (
            type(module) is nn.Conv2d
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
            and not module._forward_hooks
            and not module._forward_pre_hooks
            and len(node.args) == 1
        )

    def _pointwise(self, node: fx.Node) -> bool:
        kind = type(self._targets[node]) if node.op == "call_module" else node.target
        of_batch = kind is nn.BatchNorm2d and self._targets[node].running_mean is None
        return kind in POINTWISE.get(node.op, set()) and not of_batch

    def _overwrites(self, node: fx.Node) -> bool:
        """Whether it may write into a map that another node reads."""
        if node.op == "call_module" or "inplace" in node.kwargs:
            in_place = node.kwargs.get("inplace") or getattr(self._targets.get(node), "inplace", False)
            # The input of an operation that is not pointwise is remembered after it was overwritten.
            shared = any(len(one.users) > 1 for one in node.all_input_nodes)
            return bool(in_place) and (shared or not self._pointwise(node))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        return node.op.startswith("call") and (name.endswith("_") or node.target in IN_PLACE)

    @staticmethod
    def _reached(module: nn.Module, size: tuple[int, int], shape: torch.Size) -> tuple[int, int]:
        assert isinstance(module, nn.Conv2d)
        height, width = (
            min(whole, (n - 1 + (kernel - 1) * apart) // stride + 1)
            for n, whole, kernel, apart, stride in zip(
                size, shape[2:], module.kernel_size, module.dilation, module.stride, strict=True
            )
        )
        return height, width

    def _window(self, node: fx.Node, known: dict[fx.Node, Any], images: Images, trial: Images) -> Window | None:
        if node not in self._shapes:
            return None
        near = [known[one] for one in node.all_input_nodes if isinstance(known[one], Window)]
        if node.op == "placeholder":
            values, top, left = self._changed(images, trial)
        elif self._convolves(node):
            values, top, left = self._convolved(node, near[0])
        else:
            values, top, left = self._pointed(node, known, near)
        made = Window(values, top, left, self._maps.get(node))
        self._made.append(made)
        return made

    def _changed(self, images: Images, trial: Images) -> tuple[Tensor, Tensor, Tensor]:
        """The square in which a row of the trial differs from the known image."""
        changed = (trial != images).any(1)
        corner, size = [], []
        for pixels, whole in ((changed.any(2), trial.shape[2]), (changed.any(1), trial.shape[3])):
            first = pixels.int().argmax(1)
            last = whole - 1 - pixels.flip(1).int().argmax(1)
            side = min(self._side, whole)
            assert int(torch.where(pixels.any(1), last - first, 0).max()) < side, "more than a square has changed"
            corner.append(first.clamp(max=whole - side))
            size.append(side)
        top, left = corner
        asked = Map(trial, 0)
        values = asked.cells.flatten(0, 2)[asked.places(top, left, *size)]
        return values.view(len(trial), *size, -1).movedim(3, 1), top, left

    def _convolved(self, node: fx.Node, source: Window) -> tuple[Tensor, Tensor, Tensor]:
        module, shape = self._targets[node], self._shapes[node]
        assert isinstance(module, nn.Conv2d)
        size = self._reached(module, source.size, shape)
        corner, start, length = [], [], []
        for i, (place, n) in enumerate(zip((source.top, source.left), size, strict=True)):
            padding, step = _padding(module)[i], module.stride[i]
            back = (module.kernel_size[i] - 1) * module.dilation[i]
            # The first place that reads the window: the quotient, rounded up.
            first = -(-(place + padding - back) // step)
            corner.append(first.clamp(0, shape[2 + i] - n))
            start.append(corner[i] * step - padding)
            length.append((n - 1) * step + back + 1)
        patch = source.read(start[0], start[1], length[0], length[1])
        values = F.conv2d(patch, module.weight, module.bias, module.stride, 0, module.dilation, module.groups)
        return values, corner[0], corner[1]

    def _pointed(self, node: fx.Node, known: dict[fx.Node, Any], near: list[Window]) -> tuple[Tensor, Tensor, Tensor]:
        whole = self._shapes[node]
        top, height = hull([(window.top, window.size[0]) for window in near], whole[2])
        left, width = hull([(window.left, window.size[1]) for window in near], whole[3])

        def value(argument: fx.Node) -> Any:
            map_or_window = known[argument]
            return map_or_window.read(top, left, height, width) if isinstance(map_or_window, Window) else map_or_window

        return self._call(node, fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)), top, left


def _padding(module: nn.Module) -> tuple[int, int]:
    assert isinstance(module, nn.Conv2d)
    assert not isinstance(module.padding, str)
    return module.padding[0], module.padding[1]


def _uniform(value: Any) -> bool:
    """Whether a constant is the same at every pixel."""
    return not isinstance(value, Tensor) or value.ndim == 0 or (value.ndim == 4 and value.shape[2:].numel() == 1)
