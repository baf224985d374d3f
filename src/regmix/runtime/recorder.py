"""Work on tensors that is recorded once and then repeated: CUDA graphs, and a stand-in for them on a CPU.

Repeating runs no Python: the same operations run on the same memory with the same numbers from the host. What a work
reads must therefore lie where it lay, and what it writes lies in the tensors that it returned when it was recorded.
"""

import random
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from regmix.types import UserError

T = TypeVar("T")
Work = Callable[[], T]


class NotRecorded(Exception):  # noqa: N818
    """A recording failed before anything was computed; the text says why."""


class Recorder(Protocol):
    """Records work on a device."""

    def rehearse(self, work: Work[T]) -> tuple[T, str | None]:
        """Does the work, and says why it cannot be recorded, if it cannot."""
        ...

    def record(self, work: Work[T]) -> tuple[T, Callable[[], None]]:
        """Does the work once and records it; returns what it returned, and a function that repeats it.

        Raises:
            NotRecorded: the device refuses; nothing was computed.
        """
        ...


def recorder(device: torch.device) -> Recorder:
    """CUDA graphs on a GPU, the stand-in elsewhere."""
    return CudaGraphs(device) if device.type == "cuda" else Tape()


class CudaGraphs:
    """CUDA graphs that share their memory, which is safe because they run one after the other on one stream.

    torch registers its default generator with every graph. A repetition takes its random numbers from where the
    generator stands, and as many as the work itself would: seeding, saving and restoring it work as without graphs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def rehearse(self, work: Work[T]) -> tuple[T, str | None]:
        """Works on a stream beside the usual one, as CUDA asks for before a recording."""
        before, mode = _host_random(torch.get_rng_state()), torch.cuda.get_sync_debug_mode()
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with torch.cuda.stream(self._stream):
                    made = work()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        usual.wait_stream(self._stream)
        if any("called a synchronizing CUDA operation" in str(each.message) for each in told):
            return made, WAITS
        return made, None if before == _host_random(torch.get_rng_state()) else DRAWS

    def record(self, work: Work[T]) -> tuple[T, Callable[[], None]]:
        if not self._graphs:  # memory that no graph uses any more may be gone
            self._pool = torch.cuda.graph_pool_handle()
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # Other threads may go on: they move images to pinned memory.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                made = work()
        except RuntimeError as error:
            torch.cuda.set_stream(usual)  # the end of a recording that failed leaves another one in place
            self._check_device()
            # The first error; the end of the recording only repeats that there was one.
            raise NotRecorded(str(error.__context__ or error).splitlines()[0]) from None
        self._graphs.add(graph)
        graph.replay()
        return made, graph.replay

    def _check_device(self) -> None:
        """Raises UserError if a recording that failed has left the device or its generator unusable."""
        try:
            torch.empty(1, device=self._device).uniform_()
            torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise UserError(f"a CUDA graph could not be recorded ({why}); start again with --cuda-graph off") from None


class Tape:
    """Records the operations of torch, and repeats them one by one on the tensors that they had.

    Like a CUDA graph it refuses work that waits for a value. It is slow and keeps every tensor; it serves tests.
    """

    def rehearse(self, work: Work[T]) -> tuple[T, str | None]:
        before = _host_random()
        with _Operations(keep=False) as seen:
            made = work()
        if seen.waits:
            return made, WAITS
        return made, None if before == _host_random() else DRAWS

    def record(self, work: Work[T]) -> tuple[T, Callable[[], None]]:
        with _Operations(keep=True) as seen:
            made = work()
        assert not seen.waits, "a rehearsal comes before a recording, and work that waits is not recorded"
        return made, seen.repeat


WAITS = "it waits for a value from the device"
DRAWS = "it draws random numbers on the host"
_CHOOSING = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of a block, and whether one of them waits for a value of a tensor."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keep, self.waits = keep, False
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        self.waits = self.waits or _waits(operation, args)
        if self._keep:
            # Detached, because otherwise the tape would keep the graph of the backward pass.
            self._calls.append((operation, *tree_map_only(Tensor, Tensor.detach, (args, kwargs, result))))
        return result

    @torch.no_grad()
    def repeat(self) -> None:
        for operation, args, kwargs, result in self._calls:
            again = operation(*args, **kwargs)
            for there, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(there, Tensor) and there.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    there.copy_(new)


def _waits(operation: Any, args: Any) -> bool:
    name = operation._schema.name
    if name in _INDEXING:  # a mask is turned into positions, whose number has to be known
        return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in args[1])
    return name in _CHOOSING or torch.Tag.data_dependent_output in operation.tags


def _host_random(*more: Tensor) -> tuple[Any, ...]:
    """The states of the host's generators that a model's own code might use."""
    state: Any = np.random.get_state()
    return random.getstate(), state[1].tobytes(), state[2:], *(part.numpy().tobytes() for part in more)
