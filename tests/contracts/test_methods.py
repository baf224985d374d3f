"""What every training method promises. A new method joins by one row in METHODS."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.devices import DEVICE, NoMoves, assert_alike
from regmix import methods
from regmix.methods import (
    Atas,
    FgsmAt,
    FgsmBp,
    FgsmEp,
    FgsmMep,
    FgsmPgk,
    FgsmRs,
    FreeAt,
    Gat,
    GradAlign,
    Mart,
    Method,
    Mutual,
    NFgsm,
    NuAt,
    PgdAt,
    RegMix,
    Setup,
    Standard,
    Trades,
    ZeroGrad,
)
from regmix.methods.memory import Memory
from regmix.methods.per_image import NumberPerImage, PerImage
from regmix.methods.storage import OneForAll, PerClass, PerRow
from regmix.threats import L2, Linf
from regmix.types import Batch, Clock, Losses, UserError, View

METHODS: dict[str, Any] = {
    "standard": Standard(),
    "pgd_at": PgdAt(),
    "pgd_2_at": PgdAt(steps=2),
    "pgd_2_at, eval, mutual": PgdAt(steps=2, attack_batchnorm="eval", mutual=Mutual(alpha=50, beta=20, gamma=20)),
    "fgsm_at": FgsmAt(),
    "zero_grad": ZeroGrad(),
    "grad_align": GradAlign(),
    "free_at": FreeAt(replays=2),
    "trades": Trades(steps=3),
    "trades, train, mutual": Trades(steps=2, attack_batchnorm="train", mutual=Mutual(alpha=50, beta=20, gamma=20)),
    "mart": Mart(steps=3),
    "gat": Gat(),
    "nu_at": NuAt(),
    "atas": Atas(),
    "atas, from the start": Atas(warm_up=0, reset=3),
    "fgsm_bp": FgsmBp(),
    "fgsm_ep": FgsmEp(),
    "fgsm_mep": FgsmMep(),
    "fgsm_mep_cs": methods.FgsmMepCs(reset=2),
    "fgsm_rs_cs": methods.FgsmRsCs(begin=1),
    "fgsm_mep, mutual": FgsmMep(reset=2, mutual=Mutual(alpha=50, beta=20, gamma=20)),
    "fgsm_rs": FgsmRs(),
    "fgsm_rs, mutual": FgsmRs(mutual=Mutual(alpha=50, beta=20, gamma=20)),
    "n_fgsm": NFgsm(),
    "n_fgsm, mutual": NFgsm(mutual=Mutual(alpha=50, beta=20, gamma=20)),
    "fgsm_pgk": FgsmPgk(),
    "fgsm_pgk, often reset": FgsmPgk(reset=2),
    "fgsm_pgk, mutual": FgsmPgk(lam=0, mutual=Mutual(alpha=50, beta=20, gamma=20)),
    "n_aaer": methods.NAaer(),
    "rs_aaer": methods.RsAaer(),
    "ssat": methods.Ssat(),
    "elle": methods.Elle(),
    "elle, adaptive": methods.Elle(schedule="adaptive"),
    "fgsm_pco": methods.FgsmPco(),
    "tdat": methods.Tdat(),
    "fgsm_uap": methods.FgsmUap(),
    "fgsm_cuap": methods.FgsmCuap(),
    "fgsm_fuap": methods.FgsmFuap(count=3),
    "fgsm_law": methods.FgsmLaw(),
    "fgsm_sdi": methods.FgsmSdi(refresh=2),
    "liet": methods.Liet(),
    "regmix": RegMix(),
    "regmix, carried": RegMix(start="carried"),
    "regmix, example mean": RegMix(alpha=5, beta=2, gamma=2, reduction="example"),
    "regmix, attack in eval": RegMix(attack_batchnorm="eval", inner="margin"),
    "regmix, stops": RegMix(alpha_stop="final", beta_stop="initial", gamma_stop="clean", inner="smoothed"),
}
CLASSIFY_CLEAN_IMAGES = {"trades", "gat", "nu_at"}
THREATS = {"linf": Linf(eps=0.1), "l2": L2(eps=0.5)}
COUNT, CLASSES, SHAPE, PAD = 8, 5, (3, 6, 6), 1
STEPS = 2

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
pytestmark = pytest.mark.device
every_threat = pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)


def a_model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """BatchNorm, dropout, and modes that are not all alike."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4),
        nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(4 * 36, 5),
    ).to(DEVICE, dtype)  # fmt: skip
    model[6].eval()
    return model


def a_batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(4, *SHAPE, generator=generator, dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    top, left = torch.randint(2 * PAD + 1, (2, 4), generator=generator)
    flip = torch.rand(4, generator=generator) < 0.5
    index = torch.randperm(COUNT, generator=generator)[:4]
    y = torch.randint(CLASSES, (4,), generator=generator)
    return to_device(Batch(x, y, index, View(top, left, flip)), DEVICE)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    view = View(*(part.to(device) for part in batch.view[:3]))
    return Batch(batch.x.to(device), batch.y.to(device), batch.index.to(device), view)


def a_memory(method: Method, threat: Linf | L2, device: torch.device | str = DEVICE) -> Memory | None:
    return method.memory(Setup(COUNT, CLASSES, SHAPE, threat, PAD, device))


def a_clock(epoch: int = 0, step: int = 0) -> Clock:
    return Clock(epoch, 9, step, STEPS)


def traces(model: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


def train(
    model: nn.Module, method: Method, threat: Linf | L2, memory: Memory | None, epochs: range, first: int = 0
) -> list[dict[str, Tensor]]:
    """A few plain steps per epoch, from step `first` on; everything random in them is drawn from the epoch."""
    history = []
    for epoch in epochs:
        torch.manual_seed(epoch)
        for number in range(first, STEPS):
            losses = method(model, a_batch(STEPS * epoch + number), threat, memory, a_clock(epoch, number))
            for parameter, gradient in zip(
                model.parameters(), torch.autograd.grad(losses.total, [*model.parameters()]), strict=True
            ):
                parameter.data -= 0.05 * gradient
            history.append({name: term.detach() for name, term in losses.terms.items()} | losses.stats)
    return history


def assert_same_history(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> None:
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert_alike(value, right[name])


def assert_well_formed(losses: Losses) -> None:
    assert losses.logits.shape == (4, CLASSES)
    for term in losses.terms.values():
        assert term.shape == ()
        assert term.isfinite()
        assert term.requires_grad
    for stat in losses.stats.values():
        assert stat.shape == ()
        assert stat.isfinite()
        assert not stat.requires_grad
    torch.testing.assert_close(losses.total, sum(losses.terms.values()))


def test_every_method_has_its_row() -> None:
    assert {type(method) for method in METHODS.values()} == {*methods.METHODS.values()}


def test_names_and_titles_are_distinct() -> None:
    kinds = methods.METHODS.values()
    assert len({kind().name for kind in kinds}) == len({kind.title for kind in kinds}) == len(kinds)
    assert {kind().name: kind for kind in kinds} == methods.METHODS


@every_method
def test_what_a_method_says_about_itself_is_so(method: Method) -> None:
    losses = method(a_model(), a_batch(), Linf(), a_memory(method, Linf()), a_clock(1, 1))
    assert method.reports_ratio == ("ratio" in losses.stats)
    assert method.second_order == differentiates_twice(method)
    if method.needs_clock:
        with pytest.raises(UserError, match=r"clock=Clock\(epoch, epochs, step, steps_per_epoch\)"):
            method(a_model(), a_batch(), Linf(), a_memory(method, Linf()))


def differentiates_twice(method: Method) -> bool:
    """Whether the loss depends on the weights through an input gradient: the graph of `backward` is kept for that."""
    graphs = []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            graphs.append(gradient.requires_grad)
            return gradient

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = a_model()

        def forward(self, x: Tensor) -> Tensor:
            return self.model(Seen.apply(x))

    method(Watched(), a_batch(), Linf(), a_memory(method, Linf()), a_clock(1, 1))
    return any(graphs)


@every_method
def test_in_steps_of_equal_phase_it_does_the_same(method: Method) -> None:
    """The number of the step must leave no other mark, or a recorded step would be wrong."""
    clocks = [Clock(epoch, 9, step, 4) for epoch in range(9) for step in range(3)]
    phases = {method.phase(clock) for clock in clocks}
    assert None not in phases
    assert len(phases) == 1 or method.needs_clock
    for phase in phases:
        same = [clock for clock in clocks if method.phase(clock) == phase]
        histories = []
        for clock in {same[0], same[len(same) // 2], same[-1]}:
            model, memory = a_model(), a_memory(method, Linf())
            if memory is not None:
                method(model, a_batch(), Linf(), memory, a_clock())
            torch.manual_seed(0)
            losses = method(model, a_batch(), Linf(), memory, clock)
            kept = memory.state_dict() if memory is not None else {}
            history = {**losses.terms, **losses.stats, **{f"memory/{name}": v.float() for name, v in kept.items()}}
            histories.append([{name: value.detach() for name, value in history.items()}])
        for history in histories[1:]:
            assert_same_history(histories[0], history)


@every_method
@every_threat
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_parameter_gets_a_finite_gradient(method: Method, threat: Linf | L2, dtype: torch.dtype) -> None:
    model, memory = a_model(dtype), a_memory(method, threat)
    for epoch in range(3):
        losses = method(model, a_batch(epoch, dtype), threat, memory, a_clock(epoch))
        assert_well_formed(losses)
        assert losses.logits.dtype == losses.total.dtype == dtype
        assert all(parameter.grad is None for parameter in model.parameters()), "left by the attack"
        losses.total.backward()
        for parameter in model.parameters():
            assert parameter.grad.isfinite().all()
        assert model[-1].weight.grad.abs().sum() > 0
        assert model[0].weight.grad.abs().sum() > 0
        model.zero_grad()


@every_method
@every_threat
def test_it_waits_for_no_device(method: Method, threat: Linf | L2) -> None:
    """Tensors on the device `meta` have no values: asking for one fails. Moving one from elsewhere waits, too."""
    device = "meta"
    model, batch = a_model().to(device), to_device(a_batch(), device)
    memory = a_memory(method, threat, device)
    with NoMoves():
        for epoch, step in ((0, 0), (5, 1)):
            losses = method(model, batch, threat, memory, Clock(epoch, 6, step, 2))
            losses.total.backward()
            made = losses.logits, *losses.terms.values(), *losses.stats.values()
            assert {value.device.type for value in made} == {device}


@every_method
@every_threat
def test_it_works_under_bf16_autocast_with_terms_in_float32(method: Method, threat: Linf | L2) -> None:
    memory = a_memory(method, threat)
    for step in range(2):
        model = a_model()
        with torch.autocast(DEVICE.type, torch.bfloat16):
            losses = method(model, a_batch(), threat, memory, a_clock(0, step))
        assert_well_formed(losses)
        assert losses.logits.dtype == torch.bfloat16
        assert all(term.dtype == torch.float32 for term in losses.terms.values())
        losses.total.backward()
        # Every one, and not None: autocast may keep copies of the weights that have no gradient.
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_method
@every_threat
def test_it_stays_finite_on_a_model_that_is_sure_of_itself(method: Method, threat: Linf | L2) -> None:
    """Logits in the thousands: probabilities underflow, and some input gradients are exactly zero."""
    model, memory = a_model(), a_memory(method, threat)
    with torch.no_grad():
        model[-1].weight.mul_(1e5)
    for epoch in range(2):
        if memory is not None:
            assert all(values.to(torch.float32).isfinite().all() for values in memory.state_dict().values())
        losses = method(model, a_batch(), threat, memory, a_clock(epoch))
        assert losses.logits.abs().max() > 1e3
        assert_well_formed(losses)
        losses.total.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_method
@every_threat
def test_its_memory_has_a_slot_for_every_example_row_or_class(method: Method, threat: Linf | L2) -> None:
    memory = a_memory(method, threat)
    if memory is None:
        return
    batch = a_batch()
    method(a_model(), batch, threat, memory, a_clock())
    seen = set(batch.index.tolist())
    for part in memory.parts.values():
        values = part.gather()
        assert not values.requires_grad
        if isinstance(part, PerImage):
            assert values.shape == (COUNT, *SHAPE)
            assert part.read(batch).shape == batch.x.shape
            assert {i for i in range(COUNT) if (values[i] != 0).any()} == seen
        elif isinstance(part, NumberPerImage):
            assert values.shape == (COUNT,)
        elif isinstance(part, PerRow):
            assert values.shape == batch.x.shape
        elif isinstance(part, PerClass):
            assert len(values) == CLASSES
            assert len(part.read(batch)) == len(batch.x)


@every_method
@every_threat
def test_asking_what_it_remembers_draws_no_random_numbers(method: Method, threat: Linf | L2) -> None:
    before = torch.get_rng_state()
    kinds = {type(part) for part in method.remembered(threat)}
    assert torch.equal(torch.get_rng_state(), before)
    memory = a_memory(method, threat)
    assert kinds == ({type(part) for part in memory.parts.values()} if memory is not None else set())


@every_method
@every_threat
def test_a_restored_memory_continues_exactly(method: Method, threat: Linf | L2) -> None:
    model, memory = a_model(), a_memory(method, threat)
    train(model, method, threat, memory, range(2))
    later_model, later_memory = deepcopy(model), a_memory(method, threat)
    if memory is not None:
        saved = {name: values.clone() for name, values in memory.state_dict().items()}
        later_memory.load_state_dict(saved)
    expected = train(model, method, threat, memory, range(2, 5))
    assert_same_history(train(later_model, method, threat, later_memory, range(2, 5)), expected)
    for one, other in zip(model.parameters(), later_model.parameters(), strict=True):
        assert_alike(one, other)
    if memory is not None:
        for name, values in memory.state_dict().items():
            # Rounding moves a value to the next of an int8 memory's steps.
            assert_alike(values.to(torch.float32) / 127, later_memory.state_dict()[name].to(torch.float32) / 127)


REMEMBERING = [method for method in METHODS.values() if a_memory(method, Linf()) is not None]


@pytest.mark.parametrize("method", REMEMBERING, ids=lambda method: method.name)
def test_the_memory_matters(method: Method) -> None:
    """The test above would mean nothing if a memory left no mark."""
    histories = []
    for fill in (0.0, 0.08):
        memory = a_memory(method, Linf(eps=0.1))
        kept, batch = memory["delta" if "delta" in memory.parts else next(iter(memory.parts))], a_batch(2)
        values = torch.full_like(kept.gather() if isinstance(kept, OneForAll) else batch.x, fill)
        if kept is memory.parts.get("history"):  # sums and counts, whose ratio must change too
            values = 100 * values * torch.arange(len(values), 0, -1, device=values.device) ** 3
        kept.write(batch, values)
        # In the middle of an epoch, because LIET begins each with an empty memory.
        histories.append(train(a_model(), method, Linf(eps=0.1), memory, range(1, 2), first=1))
    with pytest.raises(AssertionError):
        assert_same_history(*histories)


@pytest.mark.parametrize("method", REMEMBERING, ids=lambda method: method.name)
@every_threat
def test_a_step_that_is_not_finite_does_not_spoil_the_memory(method: Method, threat: Linf | L2) -> None:
    """The training leaves such a step out, so what was learned before it must still be there after it."""
    model, memory = a_model(), a_memory(method, threat)
    train(model, method, threat, memory, range(2))
    before = {name: part.gather().clone() for name, part in memory.parts.items()}
    model[0].register_forward_pre_hook(lambda _, given: (given[0] * torch.nan,))
    method(model, a_batch(5), threat, memory, a_clock(2, 2))
    for name, part in memory.parts.items():
        after = part.gather()
        assert after.float().isfinite().all()
        if isinstance(part, OneForAll):
            assert after.any()
            assert_alike(after, before[name])


@every_method
@every_threat
def test_the_same_seed_gives_the_same_losses(method: Method, threat: Linf | L2) -> None:
    histories = [train(a_model(), method, threat, a_memory(method, threat), range(2)) for _ in range(2)]
    assert_same_history(*histories)


@every_method
@every_threat
@pytest.mark.parametrize("fail_at", [None, 0, 1, 2, 3])
def test_it_leaves_the_models_modes_and_flags_as_they_were(
    method: Method, threat: Linf | L2, fail_at: int | None
) -> None:
    model, forwards = a_model(), 0

    def count(*_: object) -> None:
        nonlocal forwards
        forwards += 1
        if forwards - 1 == fail_at:
            raise RuntimeError("the model fails")

    model.register_forward_pre_hook(count)
    before = traces(model)
    assert {*before[0]} == {True, False}
    try:
        method(model, a_batch(), threat, a_memory(method, threat), a_clock())
    except RuntimeError:
        assert fail_at is not None
    assert forwards > 0
    assert traces(model) == before


@every_method
@every_threat
def test_it_does_not_touch_its_batch(method: Method, threat: Linf | L2) -> None:
    batch, same = a_batch(), a_batch()
    method(a_model(), batch, threat, a_memory(method, threat), a_clock()).total.backward()
    assert torch.equal(batch.x, same.x)
    assert torch.equal(batch.y, same.y)
    assert not batch.x.requires_grad
    assert batch.x.grad is None


@every_method
@every_threat
def test_it_takes_smoothed_labels(method: Method, threat: Linf | L2) -> None:
    batch = a_batch()
    target = torch.full((4, CLASSES), 0.1, device=DEVICE).scatter_(1, batch.y[:, None], 0.6)
    losses = method(a_model(), batch._replace(soft=target), threat, a_memory(method, threat), a_clock())
    assert_well_formed(losses)
    if method.name not in CLASSIFY_CLEAN_IMAGES:
        expected = -(target * losses.logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(losses.terms["classify"], expected)
    hard = method(a_model(), batch, threat, a_memory(method, threat), a_clock())
    assert hard.terms["classify"] != losses.terms["classify"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (PgdAt, {"steps": 0}),
        (PgdAt, {"step_size": 0.0}),
        (PgdAt, {"step_size": float("nan")}),
        (FgsmPgk, {"mu": 1.0}),
        (FgsmRs, {"step_size": -1.0}),
        (NFgsm, {"noise": -1.0}),
        (ZeroGrad, {"q": 1.0}),
        (GradAlign, {"lam": -1.0}),
        (FreeAt, {"replays": 0}),
        (Trades, {"lam": float("nan")}),
        (Trades, {"steps": 0}),
        (Mart, {"step_size": 0.0}),
        (Gat, {"late_from": 2.0}),
        (NuAt, {"lam": -2.0}),
        (NuAt, {"hold": -1}),
        (Atas, {"c": 0.0}),
        (Atas, {"beta": 1.0}),
        (Atas, {"shortest": 2.0}),
        (FgsmBp, {"lam": -1.0}),
        (FgsmEp, {"reset": 0}),
        (FgsmMep, {"mu": 1.0}),
        (FgsmPgk, {"lam": -1.0}),
        (FgsmPgk, {"mu": float("inf")}),
        (FgsmPgk, {"reset": 0}),
        (RegMix, {"steps": 0}),
        (RegMix, {"step_size": float("inf")}),
        (RegMix, {"alpha": -1.0}),
        (RegMix, {"beta": float("nan")}),
        (RegMix, {"gamma": float("inf")}),
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused_by_name(kind: type[Method], settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(UserError, match=name) as refused:
        kind(**settings)
    assert "\n" not in str(refused.value)
