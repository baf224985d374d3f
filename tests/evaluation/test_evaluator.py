"""Attacks on what is still alive: chunks, what is remembered, and processes that share the work."""

import pytest
import torch
from torch import Tensor, nn

from regmix.attacks import Apgd, Attempt, Fgsm, Screened
from regmix.data import ImageSet
from regmix.evaluation import Evaluator, chunks, evaluate, evaluator
from regmix.evaluation.screening import NoCopy, screened
from regmix.evaluation.screening.rough_copy import _folded
from regmix.models import PreActResNet, ResNet, SmallCnn, build
from regmix.runtime import devices
from regmix.threats import Linf

COUNT = 23


class OneOf:
    """Stands in for `regmix.runtime.processes`: process `rank` of `size`, whose colleagues have broken `others`."""

    def __init__(self, rank: int, size: int, others: Tensor) -> None:
        self.others, self.told = others, []
        self.rank, self.size = (lambda: rank), (lambda: size)

    @property
    def mine(self) -> Tensor:
        return self.told[0] > 0

    def total(self, values: Tensor) -> Tensor:
        """First which are broken, then other things."""
        self.told.append(values)
        return values + self.others.int() if len(self.told) == 1 else values


class Notes:
    def __init__(self) -> None:
        self.known: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        self.added: list[tuple[int, ...]] = []

    def find(self, stage, chunk):
        return self.known.get((stage, tuple(chunk)))

    def add(self, stage, chunk, broken):
        self.known[stage, tuple(chunk)] = list(broken)
        if ", " not in stage:  # a chunk's further lines
            self.added.append(tuple(chunk))

    def claim(self, *_) -> bool:
        return True

    def refresh(self) -> None: ...


def a_case() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.Tanh(), nn.Linear(12, 4))
    x = torch.rand(COUNT, 3, 4, 4).mul(255).round() / 255
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def an_evaluator(model, x, y, journal=None, work=None) -> Evaluator:
    images = ImageSet(x.mul(255).round().to(torch.uint8), y, tuple("abcd"))
    on_work = (work if work is not None else []).append
    return Evaluator(model, images, torch.device("cpu"), 5, journal or Notes(), on_work)


@pytest.fixture(params=["bfloat16", "float32"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the fast copy of a model computes in."""
    monkeypatch.setattr(devices, "computes_in_bfloat16", lambda device: request.param == "bfloat16")
    return request.param


def attack(alive, attack=None, *, eps=0.05, screen=False, journal=None, world=None, work=None):
    ours = an_evaluator(*a_case(), journal, work)
    with pytest.MonkeyPatch.context() as patch:
        if world is not None:
            patch.setattr(evaluator, "processes", world)
        return ours.survivors(attack or Fgsm(), Linf(eps), alive, "fgsm", screen=screen).alive


def expected(eps: float = 0.05) -> Tensor:
    model, x, y = a_case()
    delta = Fgsm()(model, x, y, Linf(eps))
    with torch.no_grad():
        return model((x + delta).clamp(0, 1)).argmax(1) == y


def test_survivors_are_those_the_attack_does_not_break_and_the_dead_stay_dead() -> None:
    everyone = torch.ones(COUNT, dtype=torch.bool)
    assert 0 < expected().sum() < COUNT
    assert torch.equal(attack(everyone), expected())
    some = torch.arange(COUNT) % 3 > 0
    assert torch.equal(attack(some), expected() & some)
    assert everyone.all(), "what was given is not changed"
    assert not attack(torch.zeros(COUNT, dtype=torch.bool)).any()


def test_only_the_living_are_attacked_in_full_chunks() -> None:
    alive, notes, work = torch.arange(COUNT) % 2 == 0, Notes(), []
    attack(alive, journal=notes, work=work)
    assert [len(chunk) for chunk in notes.added] == [5, 5, 2]
    assert sorted(row for chunk in notes.added for row in chunk) == list(range(0, COUNT, 2))
    assert work == [15, 15, 6]


def test_what_is_remembered_is_not_attacked_again() -> None:
    alive, notes = torch.ones(COUNT, dtype=torch.bool), Notes()
    whole = attack(alive, journal=notes)
    for chunk in notes.added[1::2]:
        del notes.known["fgsm", chunk]
    missing, notes.added = notes.added[1::2], []
    assert torch.equal(attack(alive, journal=notes), whole)
    assert notes.added == missing


def test_processes_share_the_chunks_and_agree_with_one() -> None:
    alive = torch.ones(COUNT, dtype=torch.bool)
    whole = Notes()
    one = attack(alive, journal=whole)
    chunks, found = [], []
    for rank in range(3):
        notes, world = Notes(), OneOf(rank, 3, torch.zeros(COUNT, dtype=torch.bool))
        attack(alive, journal=notes, world=world)
        chunks.append(notes.added)
        found.append(world.mine)
    assert sorted(chunk for added in chunks for chunk in added) == sorted(whole.added)
    assert torch.equal(alive & ~torch.stack(found).any(0), one)
    assert torch.equal(attack(alive, world=OneOf(0, 3, found[1] | found[2])), one)


def test_a_screen_never_decides_what_is_broken(arithmetic: str) -> None:
    """An attack that finds nothing but what fools the rough copy breaks nothing."""
    alive = torch.ones(COUNT, dtype=torch.bool)

    class Boasts:
        def __call__(self, model, x, y, threat):
            assert isinstance(model, Screened)
            object.__setattr__(model, "rough", lambda images: torch.zeros(len(images), 4))
            return torch.zeros_like(x)

    assert attack(alive, Boasts(), screen=True).all()


def test_every_process_and_every_resumption_screens_alike(monkeypatch) -> None:
    """The slack is measured on the first chunk, whoever attacks it and whether it is known already."""
    alive, notes, seen = torch.ones(COUNT, dtype=torch.bool), Notes(), []
    real = chunks.screened
    monkeypatch.setattr(chunks, "screened", lambda model, x, y: seen.append(x) or real(model, x, y))
    attack(alive, screen=True, journal=notes)
    attack(alive, screen=True, world=OneOf(1, 2, torch.zeros(COUNT, dtype=torch.bool)))
    del notes.known["fgsm", notes.added[-1]]
    attack(alive, screen=True, journal=notes)
    assert len(seen) == 3
    assert all(torch.equal(x, a_case()[1][:5]) for x in seen)


def test_a_random_model_gives_the_same_table_again_and_leaves_the_random_state_alone() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] + torch.randn(len(x), 4)

    def ours(journal: Notes) -> Evaluator:
        x = torch.rand(COUNT, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        return an_evaluator(Noisy(), x, y, journal)

    def table(journal: Notes) -> Tensor:
        return ours(journal).survivors(Fgsm(), Linf(0.05), y == 0, "fgsm", screen=False).alive

    y, notes = torch.zeros(COUNT, dtype=torch.long), Notes()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = table(notes)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < whole.sum() < COUNT
    del notes.known["fgsm", notes.added[1]]
    torch.manual_seed(2)
    assert torch.equal(table(notes), whole)

    same = torch.full((COUNT, 3, 4, 4), 99, dtype=torch.uint8)
    corrupted = [ours(Notes()).withstood([("fog", 1), ("fog", 2)], lambda name, severity: same)[0] for _ in range(2)]
    assert torch.equal(*corrupted)
    assert not torch.equal(*corrupted[0]), "every kind has numbers of its own"


def test_screened_and_exact_attacks_agree(arithmetic: str) -> None:
    alive = torch.ones(COUNT, dtype=torch.bool)
    rough = attack(alive, Apgd(steps=40), eps=0.05, screen=True)
    exact = attack(alive, Apgd(steps=40), eps=0.05)
    assert 0 < exact.sum() < COUNT
    assert (rough != exact).sum() <= 1


def test_batchnorm_is_folded_exactly_and_the_model_is_left_alone(arithmetic: str) -> None:
    for config, shape in ((ResNet(width=8), (4, 3, 32, 32)), (PreActResNet(width=8), (4, 3, 32, 32)),
                          (SmallCnn(width=8), (4, 1, 8, 8))):  # fmt: skip
        torch.manual_seed(0)
        model = build(config, 10, channels=shape[1]).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        x, y = torch.rand(shape), torch.zeros(4, dtype=torch.long)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with torch.no_grad():
            logits = model(x)
            screen = screened(model, x, y)
            assert (screen(x) - logits).abs().max() < 0.05 * logits.abs().max()
            assert torch.equal(screen.exact(x), logits)
        assert screen.repeats is (arithmetic == "bfloat16")
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert 0 < screen.slack < 0.1 * logits.abs().max()
        import copy

        folded = _folded(copy.deepcopy(model))
        with torch.no_grad():
            torch.testing.assert_close(folded(x), logits, rtol=1e-4, atol=1e-5)


def test_batchnorm_without_running_statistics_is_kept(arithmetic: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()).eval()
    x = torch.rand(3, 3, 5, 5)
    with torch.no_grad():
        assert (screened(model, x, torch.zeros(3, dtype=torch.long))(x) - model(x)).abs().max() < 0.1


def test_a_model_that_cannot_be_traced_is_used_as_it_is(arithmetic: str) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(self.convolution(x))
            return h.mean((2, 3)) if h.sum() > 0 else h.amax((2, 3))

    model, x = Branches().eval(), torch.rand(2, 3, 8, 8)
    assert _folded(model) is None
    if arithmetic == "float32":  # it would be no faster
        with pytest.raises(NoCopy, match=r"^$"):
            screened(model, x, torch.zeros(2, dtype=torch.long))
        return
    with torch.no_grad():
        assert (screened(model, x, torch.zeros(2, dtype=torch.long))(x) - model(x)).abs().max() < 0.05


def test_the_table_of_a_stream_and_the_survivors_of_a_test_set_are_the_same() -> None:
    model, x, y = a_case()
    y[::7] = (y[::7] + 1) % 4
    ours = an_evaluator(model, x, y)
    clean = ours.predictions()[0] == y
    attacks = {"fgsm": Fgsm(), "apgd": Apgd(steps=5)}
    table = evaluate(model, [(x, y)], Linf(0.1), attacks)
    assert torch.equal(table.column("clean"), clean)
    for name, attack in attacks.items():
        alive = ours.survivors(attack, Linf(0.1), clean, name, screen=False).alive
        assert torch.equal(table.column(name), alive)
        assert 0 < alive.sum() < clean.sum()


def test_predictions_are_those_of_the_model_in_evaluation_mode() -> None:
    model, x, y = a_case()
    model.append(nn.Dropout(0.9))
    assert torch.equal(an_evaluator(model.train(), x, y).predictions()[0], y)
    assert model.training, "the mode stays"


def test_what_the_predictions_took_is_remembered() -> None:
    model, x, y = a_case()
    journal, work = Notes(), []
    first, part = an_evaluator(model, x, y, journal).predictions(torch.arange(5))
    assert (part.forward, part.backward, part.microseconds > 0) == (5, 0, True)
    assert torch.equal(first, y[:5])
    again, whole = an_evaluator(model, x, y, journal, work).predictions()
    assert whole.forward == len(y), "after an interruption too"
    assert whole.microseconds > part.microseconds
    assert sum(work) == len(y)
    assert an_evaluator(model, x, y, journal).predictions()[1] == whole
    assert torch.equal(again, y)


def test_what_was_not_attacked_is_told_and_remembered() -> None:
    class Some:
        """Attacks images whose first pixel is dark."""

        def attempt(self, model, x, y, threat):
            attacked = x[:, 0, 0, 0] < 0.5
            return Attempt(Fgsm()(model, x, y, threat) * attacked.view(-1, 1, 1, 1), attacked)

        def __call__(self, model, x, y, threat):
            return self.attempt(model, x, y, threat).delta

    (model, x, y), notes, alive = a_case(), Notes(), torch.arange(COUNT) % 4 > 0

    def again():
        ours = an_evaluator(model, x, y, notes)
        return ours.survivors(Some(), Linf(0.05), alive, "some", screen=False)

    first, bright = again(), x[:, 0, 0, 0] >= 0.5
    assert torch.equal(first.not_attacked, alive & bright)
    assert torch.equal(first.alive, alive & (expected() | bright))
    assert 0 < first.not_attacked.sum() < alive.sum()
    lines = len(notes.added)
    for one, other in zip(again(), first, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert len(notes.added) == lines, "nothing was attacked anew"


def test_every_broken_example_comes_with_the_class_that_it_is_taken_for() -> None:
    model, x, y = a_case()
    y = torch.where(torch.arange(COUNT) % 5 == 0, (y + 1) % 4, y)  # some are wrong without an attack, none is asked
    images = ImageSet((x * 255).round().byte(), y, tuple("abcd"))
    alive = model(x).argmax(1) == y
    notes = Notes()
    ours = Evaluator(model, images, torch.device("cpu"), 4, notes, lambda _: None)
    found = ours.survivors(Fgsm(), Linf(0.2), alive, "fgsm", screen=False)
    delta = Fgsm()(model, x, y, Linf(0.2))
    expected = model((x + delta).clamp(0, 1)).argmax(1)
    broken = alive & ~found.alive
    assert broken.sum() > 3
    assert torch.equal(found.taken_for[broken], expected[broken])
    assert (found.taken_for[~broken] == -1).all()
    again = ours.survivors(Fgsm(), Linf(0.2), alive, "fgsm", screen=False)  # from the journal alone
    assert torch.equal(again.taken_for, found.taken_for)
    for key in [key for key in notes.known if key[0].endswith("taken for")]:
        del notes.known[key]  # a journal of an older version
    older = ours.survivors(Fgsm(), Linf(0.2), alive, "fgsm", screen=False)
    assert torch.equal(older.alive, found.alive)
    assert (older.taken_for == -1).all()
