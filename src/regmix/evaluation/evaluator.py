"""The evaluator: a model and a test set; it predicts, attacks and corrupts, in chunks that processes share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from regmix.attacks import CLEAN, Attack, Minimal, packed, passes
from regmix.attacks.rows import waits_for_nothing
from regmix.data import ImageSet, pick
from regmix.evaluation.chunks import ChunkResult, Chunks, Journal, Meter, Spent, claimed, repeatable
from regmix.evaluation.one_batch import nearest, predict
from regmix.evaluation.padded import padded
from regmix.runtime import processes
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Images, Labels, Model


class Survivors(NamedTuple):
    """Which examples survive an attack, which of them it could not start from, and what the others are taken for."""

    alive: Bool[Tensor, "examples"]
    not_attacked: Bool[Tensor, "examples"]
    taken_for: Int[Tensor, "examples"]
    """The predicted class of every example that the attack has broken; -1 for the others, and where it is unknown."""
    queries: Int[Tensor, "examples"]
    """The query that broke the example, for attacks that count them; -1 for all others."""
    spent: Spent
    """What the attack took, in all processes together."""


@dataclass(frozen=True, eq=False)
class Evaluator:
    """A model, the test images, and what remembers, shares and shows the work."""

    model: Model
    images: ImageSet
    device: torch.device
    batch_size: int
    journal: Journal
    on_work: Callable[[int], None]
    """Called after every chunk with the passes through the network that it may have taken."""

    def predictions(self, index: Int[Tensor, "chosen"] | None = None) -> tuple[Labels, Spent]:
        """The class that the model predicts for every test image, [N], or for those at these positions.

        Also what that took, as the journal remembers it.
        """
        chosen = torch.arange(len(self.images)) if index is None else index
        chunks = torch.split(chosen, self.batch_size)
        stage, found = f"{CLEAN}, predicted", [torch.zeros(0, dtype=torch.long)] * len(chunks)
        spent = torch.zeros(len(Spent()), dtype=torch.long)
        work = [(stage, chunk.tolist()) for chunk in chunks]
        with borrowed(self.model):
            # Under torchrun every process predicts all chunks, and rank 0's answers count; processes that were started
            # by hand divide the chunks by claims.
            for number in range(len(chunks)) if processes.size() > 1 else claimed(work, self.journal):
                rows = work[number][1]
                known, cost = self.journal.find(stage, rows), Spent.find(self.journal, stage, rows)
                if known is None:
                    batch, meter = self.take(chunks[number]), Meter(self.model)
                    with repeatable(f"{CLEAN}/{rows[0]}", self.device):
                        known = predict(meter.counted(self.model), batch.x, batch.y).tolist()
                    cost = meter.spent()
                    if processes.rank() == 0:
                        cost.add(self.journal, stage, rows)
                        self.journal.add(stage, rows, known)
                found[number] = torch.tensor(known)
                spent += torch.tensor(cost)
                self.on_work(len(rows))
        return torch.cat(found), Spent(*spent.tolist())

    def survivors(
        self,
        attack: Attack,
        threat: Threat,
        alive: Bool[Tensor, "examples"],
        name: str,
        *,
        screen: bool,
        keep: Callable[[Sequence[int], Images, Images], None] | None = None,
        note: Callable[[str], object] = lambda _: None,
    ) -> Survivors:
        """Which of the examples that are still alive survive an attack.

        They are divided into full chunks, which do not depend on the number of processes; every process attacks every
        size-th chunk.

        Args:
            alive: which examples to attack, bool [N] on the host.
            name: of the attack, in the journal.
            screen: the attack may ask a fast copy of the model, if that is an nn.Module; the model itself decides.
            keep: called with the positions of broken examples, their images, and their adversarial images.
            note: called with a line if there is no fast copy, so that the attack asks the model alone.
        """
        broken, idle = torch.zeros_like(alive), torch.zeros_like(alive)
        taken_for, spent = torch.full((len(alive),), -1), torch.zeros(len(Spent()), len(alive), dtype=torch.long)
        queries = torch.full((len(alive),), -1)
        size = self.batch_size
        first = alive.nonzero()[:size, 0]
        reference = self.take(first) if screen and len(first) else None
        chunks = Chunks(self.model, packed(attack, size), threat, name, reference, note)
        with borrowed(self.model):
            for chunk in self._share(alive, name):
                rows = chunk.tolist()
                known = ChunkResult.find(self.journal, name, rows)
                if known is None:
                    batch = self.take(chunk)
                    result, cost = chunks.attack(batch, rows)
                    fallen = chunk[result.broken.cpu()].tolist()
                    answers = result.predicted[result.broken].tolist()
                    if keep is not None and fallen:
                        keep(fallen, batch.x[result.broken], result.adversarial[result.broken])
                    idle_rows = chunk[result.not_attacked.cpu()].tolist()
                    counts = [] if result.queries is None else result.queries[result.broken].tolist()
                    known = ChunkResult(fallen, idle_rows, answers, counts, cost)
                    known.add(self.journal, name, rows)
                broken[known.broken] = True
                taken_for[known.broken] = torch.tensor(known.taken_for, dtype=torch.long)
                idle[known.not_attacked] = True
                if known.queries:
                    queries[known.broken] = torch.tensor(known.queries)
                spent[:, rows[0]] = torch.tensor(known.spent)
                self.on_work(len(rows) * passes(chunks.suited))
        # Every place is filled by one process and 0 in the others, so the sums are what that process has put there.
        return Survivors(
            alive & ~_in_any(broken), _in_any(idle), processes.total(taken_for + 1) - 1,
            processes.total(queries + 1) - 1, _spent(spent),
        )  # fmt: skip

    def distances(
        self, attack: Minimal, threat: Threat, alive: Bool[Tensor, "examples"], name: str
    ) -> tuple[Float[Tensor, "examples"], int, Spent]:
        """The length of the smallest perturbation that the attack finds for each of these examples; 0 for the others.

        Also at how many examples without one the attack has no gradient to follow, and what it took, in all processes
        together.

        The examples are divided into chunks as in `survivors`. inf: none was found.

        Args:
            name: of the attack, in the journal.
        """
        # The bits of a float64 are an integer, which the journal and the other processes keep exactly.
        bits, stage = torch.zeros(len(alive), dtype=torch.int64), f"{name}, distances"
        spent, idle = torch.zeros(len(Spent()), len(alive), dtype=torch.long), torch.zeros(len(alive), dtype=torch.long)
        suited = packed(attack, self.batch_size)
        assert isinstance(suited, Minimal), "a copy of an attack is of its kind"
        with borrowed(self.model):
            for chunk in self._share(alive, stage):
                rows = chunk.tolist()
                known = self.journal.find(stage, rows)
                if known is None:
                    batch, meter = self.take(chunk), Meter(self.model)
                    asked = meter.counted(self.model if waits_for_nothing(batch.x) else padded(self.model))
                    with repeatable(f"{stage}/{rows[0]}", self.device):
                        found = nearest(meter.counted(self.model), suited, batch.x, batch.y, threat, asked=asked)
                    known = found.length.cpu().view(torch.int64).tolist()
                    meter.spent().add(self.journal, stage, rows)
                    if found.not_attacked.any():
                        self.journal.add(f"{stage}, not attacked", rows, chunk[found.not_attacked.cpu()].tolist())
                    self.journal.add(stage, rows, known)
                idle[self.journal.find(f"{stage}, not attacked", rows) or []] = 1
                bits[chunk] = torch.tensor(known, dtype=torch.int64)
                spent[:, rows[0]] = torch.tensor(Spent.find(self.journal, stage, rows))
                self.on_work(len(rows) * passes(attack))
        return processes.total(bits).view(torch.float64), int(processes.total(idle).sum()), _spent(spent)

    def _share(self, alive: Bool[Tensor, "examples"], stage: str) -> Iterator[Int[Tensor, "chunk"]]:
        """The chunks of the examples that this process attacks, or whose outcome it takes from the journal.

        The processes of torchrun divide them beforehand. A process by itself looks at all of them, and claims those
        that it attacks, because others may have been started on the same folder.
        """
        chunks = [chunk for chunk in torch.split(alive.nonzero()[:, 0], self.batch_size) if len(chunk)]
        if processes.size() > 1:
            yield from chunks[processes.rank() :: processes.size()]
        else:
            for number in claimed([(stage, chunk.tolist()) for chunk in chunks], self.journal):
                yield chunks[number]

    def withstood(
        self,
        kinds: Sequence[tuple[str, int]],
        make: Callable[[str, int], UInt8[Tensor, "examples channels height width"]],
    ) -> tuple[Bool[Tensor, "kinds examples"], Spent]:
        """Which examples are classified correctly under which corruption, and what that took in all processes together.

        Every process takes every size-th kind; kinds that the journal remembers are not made again.

        Args:
            kinds: names and severities.
            make: returns the corrupted images of a kind, on the host.
        """
        labels = self.images.labels
        wrong = torch.zeros(len(kinds), len(labels), dtype=torch.bool)
        spent = torch.zeros(len(Spent()), len(kinds), dtype=torch.long)
        everyone = list(range(len(labels)))
        stages = [f"{name}-{severity}" for name, severity in kinds]
        mine: Iterable[int] = range(processes.rank(), len(kinds), processes.size())
        if processes.size() == 1:
            mine = claimed([(stage, everyone) for stage in stages], self.journal)
        for number in mine:
            (name, severity), stage = kinds[number], stages[number]
            fallen = self.journal.find(stage, everyone)
            if fallen is None:
                meter = Meter(self.model)
                with repeatable(stage, self.device):
                    seen = self._seen(meter.counted(self.model), make(name, severity))
                fallen = (seen != labels).nonzero()[:, 0].tolist()
                meter.spent().add(self.journal, stage, everyone)
                self.journal.add(stage, everyone, fallen)
            wrong[number, fallen] = True
            spent[:, number] = torch.tensor(Spent.find(self.journal, stage, everyone))
            self.on_work(len(labels))
        return ~_in_any(wrong), _spent(spent)

    def take(self, index: Int[Tensor, "chosen"]) -> Batch:
        """The batch of the examples at these positions, on the device."""
        return pick(self.images, index, self.device)

    def _seen(self, model: Model, images: UInt8[Tensor, "examples channels height width"]) -> Labels:
        """The predictions for other images of the same examples."""
        parts = zip(torch.split(images, self.batch_size), torch.split(self.images.labels, self.batch_size), strict=True)
        with borrowed(self.model):
            seen = [predict(model, x.to(self.device).float() / 255, y.to(self.device)).cpu() for x, y in parts]
        return torch.cat(seen)


def _in_any(values: Bool[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Element by element, whether it is true in any process."""
    return processes.total(values.int()) > 0


def _spent(costs: Int[Tensor, "costs places"]) -> Spent:
    """The sum of what all processes spent; every place was filled by one process, and is 0 in the others."""
    return Spent(*processes.total(costs).sum(1).tolist())
