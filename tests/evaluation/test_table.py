"""Evaluation on models whose robustness is known in closed form."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from regmix.attacks import Attempt, Fgsm, Pgd
from regmix.evaluation import collect_examples, evaluate
from regmix.threats import L2, Linf
from regmix.types import Batch, UserError

COUNT = 120


def a_linear_model() -> nn.Sequential:
    """Two classes with equal logits at mid-grey, so that the data lie on both sides."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(27, 2))
    with torch.no_grad():
        model[1].bias.copy_(-0.5 * model[1].weight.sum(1))
    return model


def the_data() -> tuple[Tensor, Tensor]:
    """Images far from the borders of the range, and labels a tenth of which are wrong."""
    generator = torch.Generator().manual_seed(1)
    x = 0.3 + 0.4 * torch.rand(COUNT, 3, 3, 3, generator=generator)
    y = a_linear_model()(x).argmax(1)
    y[::10] = 1 - y[::10]
    return x, y


def batches(x: Tensor, y: Tensor, size: int = 50) -> Iterator[Batch]:
    for first in range(0, len(x), size):
        part = slice(first, first + size)
        yield Batch(x[part], y[part], torch.arange(first, first + len(x[part])))


def lead(x: Tensor, y: Tensor) -> Tensor:
    """How far the true class leads."""
    logits = a_linear_model()(x).detach()
    return (logits[:, 1] - logits[:, 0]) * (2 * y - 1)


@pytest.mark.parametrize("threat", [Linf(eps=0.02), L2(eps=0.08)], ids=lambda threat: threat.name)
def test_a_linear_model_survives_exactly_where_its_lead_exceeds_the_dual_norm(threat: Linf | L2) -> None:
    model, (x, y) = a_linear_model(), the_data()
    w = (model[1].weight[1] - model[1].weight[0]).detach()
    reach = threat.eps * float(w.norm(p=1 if isinstance(threat, Linf) else 2))
    outcomes = evaluate(model, batches(x, y), threat, {"one step": Fgsm(), "many steps": Pgd(50)})
    assert outcomes.names == ("clean", "one step", "many steps")
    assert torch.equal(outcomes.labels, y)
    assert torch.equal(outcomes.column("clean"), lead(x, y) > 0)
    assert torch.equal(outcomes.column("one step"), lead(x, y) > reach)
    assert 0.1 < outcomes.accuracy("one step") < outcomes.accuracy("clean") - 0.1
    differs = outcomes.column("many steps") != (lead(x, y) > reach)
    assert not differs[(lead(x, y) - reach).abs() > 1e-3 * reach].any()


def test_the_table_does_not_depend_on_the_size_of_the_batches() -> None:
    model, (x, y) = a_linear_model(), the_data()
    tables = [evaluate(model, batches(x, y, size), Linf(eps=0.02), {"fgsm": Fgsm()}).robust for size in (1, 7, COUNT)]
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])


def test_a_misclassified_example_counts_as_broken_everywhere_and_is_not_attacked() -> None:
    model, (x, y) = a_linear_model(), the_data()
    seen = []

    def towards_the_label(model: object, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        """An attack that helps: it would make misclassified examples right."""
        seen.append(len(x))
        w = a_linear_model()[1].weight.detach()
        return threat.project(threat.eps * (w[y] - w[1 - y]).sign().view_as(x), x)

    outcomes = evaluate(model, batches(x, y), Linf(eps=0.2), {"help": towards_the_label})
    wrong = ~outcomes.column("clean")
    assert wrong.sum() == COUNT / 10
    assert not outcomes.column("help")[wrong].any()
    assert outcomes.column("help")[~wrong].all()
    assert sum(seen) == COUNT - wrong.sum()


def test_a_batch_without_a_correct_example_reaches_no_attack() -> None:
    model, (x, y) = a_linear_model(), the_data()

    def never(*_: object) -> Tensor:
        raise AssertionError("attacked")

    wrong = 1 - a_linear_model()(x).argmax(1)
    assert not evaluate(model, batches(x, wrong), Linf(), {"never": never}).robust.any()
    with pytest.raises(AssertionError, match="attacked"):
        evaluate(model, batches(x, y), Linf(), {"never": never})


@pytest.mark.parametrize("threat", [Linf(eps=0.05), L2(eps=0.3)], ids=lambda threat: threat.name)
def test_an_attack_that_leaves_the_threat_set_is_caught(threat: Linf | L2) -> None:
    factor = 1.01

    def lie(model: object, x: Tensor, y: Tensor, threat: Linf | L2) -> Tensor:
        delta = threat.corner(x)
        delta[-1] *= factor  # a single example suffices
        return delta

    x, y = the_data()
    with pytest.raises(UserError, match="left the threat set"):
        evaluate(a_linear_model(), batches(x, y), threat, {"lie": lie})
    factor = 1.0
    evaluate(a_linear_model(), batches(x, y), threat, {"honest": lie})


def a_network_with_statistics() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(27, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("harm", ["images", "labels", "mode", "statistics"])
def test_what_an_attack_leaves_behind_changes_no_number(harm: str) -> None:
    """Neither its own column nor that of the next attack, nor the clean one of the next batch."""

    def careless(model: nn.Module, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        if harm == "images":
            x.fill_(0.5)
        elif harm == "labels":
            y.copy_(1 - y)
        elif harm == "mode":
            model.train()
        else:
            model.train()
            model(torch.rand_like(x))
            model.eval()
        return torch.zeros_like(x)

    def harmless(model: nn.Module, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        return torch.zeros_like(x)

    x, _ = the_data()
    y = a_network_with_statistics().eval()(x).argmax(1)
    y[::10] = 1 - y[::10]
    given = x.clone(), y.clone()
    networks = [a_network_with_statistics().eval() for _ in range(2)]
    tables = [
        evaluate(network, batches(x, y), Linf(0.02), {"first": first, "next": Fgsm()})
        for network, first in zip(networks, (careless, harmless), strict=True)
    ]
    for left, untouched in zip(networks[0].buffers(), networks[1].buffers(), strict=True):
        assert torch.equal(left, untouched), "BatchNorm's statistics"
    assert torch.equal(tables[0].robust, tables[1].robust)
    assert torch.equal(x, given[0])
    assert torch.equal(y, given[1])


class WithBuffer(nn.Module):
    """A model with a buffer that cannot be written, or that it replaces itself."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear, self.kind = a_linear_model(), kind
        with torch.inference_mode(kind == "inference mode"):
            self.register_buffer("held", torch.ones(1).expand(4) if kind == "expanded" else torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "cache" and len(self.held) != len(x):
            self.held = torch.ones(len(x))
        return self.linear(x)


@pytest.mark.parametrize("kind", ["expanded", "cache", "inference mode"])
def test_buffers_that_cannot_be_written_hinder_no_attack(kind: str) -> None:
    x, y = the_data()
    table = evaluate(WithBuffer(kind), batches(x, y), Linf(0.02), {"pgd": Pgd(3), "fgsm": Fgsm()})
    plain = evaluate(a_linear_model(), batches(x, y), Linf(0.02), {"pgd": Pgd(3), "fgsm": Fgsm()})
    assert torch.equal(table.robust, plain.robust)


@pytest.mark.parametrize("returned", [None, "double", "no batch", "half"])
def test_what_an_attack_returns_is_taken_or_refused_in_one_line(returned: str | None) -> None:
    def attack(model: object, x: Tensor, y: Tensor, threat: Linf) -> Tensor | None:
        delta = threat.corner(x)
        kinds = {"double": delta.double(), "no batch": delta[0], "half": 0.5 * delta.requires_grad_(), None: None}
        return kinds[returned]

    x, y = the_data()
    if returned in ("double", "half"):
        assert evaluate(a_linear_model(), batches(x, y), Linf(0.02), {"own": attack}).accuracy("own") < 1
    else:
        with pytest.raises(UserError, match="it must return perturbations"):
            evaluate(a_linear_model(), batches(x, y), Linf(0.02), {"own": attack})


def test_perturbations_that_are_not_finite_are_told_of_the_model() -> None:
    def lost(model: object, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        delta = torch.zeros_like(x)
        delta[:2, 0, 0, 0] = torch.nan
        return delta

    x, y = the_data()
    with pytest.raises(UserError, match=r"2 of 45 perturbations.*gradients"):
        evaluate(a_linear_model(), batches(x, y), Linf(), {"lost": lost})


def test_an_attack_that_leaves_the_range_of_images_gains_nothing() -> None:
    """The model is asked about images in [0, 1], whatever the attack returns."""

    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.min() >= 0
            assert x.max() <= 1
            return torch.stack([-x.sum((1, 2, 3)), x.sum((1, 2, 3))], 1)

    x, y = torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
    x[:, :, 0] = 1
    y[:] = 1

    def outwards(model: object, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
        return threat.eps * (2 * x - 1)

    assert evaluate(Strict(), batches(x, y), Linf(eps=0.3), {"outwards": outwards}).accuracy("outwards") == 1


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (0.0, 1.1), (0.0, 255.0), (-2.0, 2.0)])
def test_images_outside_of_the_range_are_refused(low: float, high: float) -> None:
    x, y = the_data()
    x[5, 0, 0, 0], x[6, 0, 0, 0] = low, high
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        evaluate(a_linear_model(), batches(x, y), Linf(), {})


@pytest.mark.parametrize("label", [-1, 2, 100])
def test_labels_outside_of_the_models_classes_are_refused(label: int) -> None:
    x, y = the_data()
    y[7] = label
    with pytest.raises(UserError, match=r"a label is -1" if label < 0 else r"label.*2 classes"):
        evaluate(a_linear_model(), batches(x, y), Linf(), {})


def test_nothing_to_evaluate_is_told() -> None:
    with pytest.raises(UserError, match="no example"):
        evaluate(a_linear_model(), [], Linf(), {})


def test_without_attacks_the_table_is_the_clean_column() -> None:
    x, y = the_data()
    outcomes = evaluate(a_linear_model(), batches(x, y), Linf(), {})
    assert outcomes.names == ("clean",)
    assert outcomes.accuracy("clean") == 0.9


def test_progress_counts_the_examples() -> None:
    x, y = the_data()
    done: list[int] = []
    evaluate(a_linear_model(), batches(x, y), Linf(), {}, on_batch=done.append)
    assert done == [50, 50, 20]


def a_disturbable_model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(36, 2)
    ).train()
    model[2].eval()
    model[4].bias.requires_grad_(False)
    model(torch.rand(8, 3, 3, 3)).sum().backward()
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model, (x, y) = a_disturbable_model(), the_data()
    before = a_disturbable_model()
    if fails:
        x[-1] = 2
        with pytest.raises(UserError):
            evaluate(model, batches(x, y), Linf(), {"pgd": Pgd(2)})
    else:
        evaluate(model, batches(x, y), Linf(), {"pgd": Pgd(2)})
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())
    for parameter, twin in zip(model.parameters(), before.parameters(), strict=True):
        assert parameter.requires_grad == twin.requires_grad
        assert (parameter.grad is None) == (twin.grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, twin.grad)


def test_it_evaluates_in_evaluation_mode() -> None:
    model, (x, y) = a_disturbable_model(), the_data()
    expected = a_disturbable_model().eval()(x).argmax(1) == y
    assert torch.equal(evaluate(model, batches(x, y), Linf(), {}).column("clean"), expected)


def test_examples_show_what_the_attack_did() -> None:
    model, (x, y) = a_disturbable_model(), the_data()
    batch = next(batches(x, y, 6))
    examples = collect_examples(model, batch, Linf(eps=0.1), Pgd(5))
    assert torch.equal(examples.x, batch.x)
    assert torch.equal(examples.label, batch.y)
    expected = Pgd(5)(model, batch.x, batch.y, Linf(eps=0.1))
    torch.testing.assert_close(examples.delta, expected, rtol=0, atol=1e-6)
    model.eval()
    assert torch.equal(examples.clean_prediction, model(batch.x).argmax(1))
    assert torch.equal(examples.adversarial_prediction, model((batch.x + expected).clamp(0, 1)).argmax(1))


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8, torch.bool], ids=str)
def test_labels_of_any_integer_type_give_the_same_table(kind: torch.dtype) -> None:
    model, (x, y) = a_linear_model(), the_data()
    expected = evaluate(model, batches(x, y), Linf(0.02), "pgd-3,fab-t")
    outcomes = evaluate(model, [(x[:50], y[:50].to(kind)), [x[50:], y[50:].to(kind)]], Linf(0.02), "pgd-3,fab-t")
    assert outcomes.labels.dtype == torch.int64
    assert torch.equal(outcomes.labels, expected.labels)
    assert torch.equal(outcomes.column("fab-t"), expected.column("fab-t"))
    assert torch.equal(outcomes.column("clean"), expected.column("clean"))


def test_a_loader_of_pairs_is_taken() -> None:
    x, y = the_data()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 50)
    outcomes = evaluate(a_linear_model(), loader, Linf(0.02), [Fgsm(), "pgd-3"])
    assert torch.equal(outcomes.robust, evaluate(a_linear_model(), batches(x, y), Linf(0.02), "fgsm,pgd-3").robust)


@pytest.mark.parametrize(
    ("attacks", "names"),
    [
        ("pgd-3, fgsm", ("pgd-3", "fgsm")),
        ("clean,fgsm", ("fgsm",)),
        (["fgsm", Pgd(3), Pgd(4, restarts=2)], ("fgsm", "pgd-3", "pgd-4x2")),
        ([Pgd(3, step_size=0.5)], ("Pgd(steps=3, step_size=0.5, restarts=1, seed=0)",)),
        ({"mine": "pgd-3", "other": Fgsm()}, ("mine", "other")),
        ("", ()),
    ],
    ids=str,
)
def test_attacks_may_be_given_by_name_as_a_list_or_as_a_dict(attacks, names: tuple[str, ...]) -> None:
    x, y = the_data()
    outcomes = evaluate(a_linear_model(), batches(x, y), Linf(0.02), attacks)
    assert outcomes.names == ("clean", *names)
    for name in names:
        expected = Fgsm() if name in ("fgsm", "other") else None
        if expected is not None:
            known = evaluate(a_linear_model(), batches(x, y), Linf(0.02), {"known": expected})
            assert torch.equal(outcomes.column(name), known.column("known"))


@pytest.mark.parametrize(
    ("attacks", "words"),
    [
        ("pgd", "unknown attack 'pgd'"),
        (["fgsm", "fgsm"], "two attacks would be called fgsm"),
        ({"clean": "fgsm"}, "called clean"),
        (Pgd(3), "give names"),
        ([Pgd], r"write Pgd\(\)"),
        ({"x": 3}, "no attack"),
        (7, "give names"),
        ("cw-l2", "give an L2 threat"),
    ],
    ids=str,
)
def test_what_is_no_attack_is_refused(attacks, words: str) -> None:
    x, y = the_data()
    with pytest.raises(UserError, match=words):
        evaluate(a_linear_model(), batches(x, y), Linf(0.02), attacks)


def test_other_misuse_is_refused_in_one_line() -> None:
    model, (x, y) = a_linear_model(), the_data()
    nan = x.clone()
    nan[3, 0, 0, 0] = torch.nan
    for wrong, words in (
        (lambda: evaluate(model, Batch(x, y), Linf(), "fgsm"), r"\[Batch\(x, y\)\]"),
        (lambda: evaluate(model, (x, y), Linf(), "fgsm"), r"a batch is Batch\(x, y\)"),
        (lambda: evaluate(model, [(x, y)], 8 / 255, "fgsm"), "write Linf"),
        (lambda: evaluate(model, [(nan, y)], Linf(), "fgsm"), "NaN"),
        (lambda: evaluate(model, [(x.permute(0, 2, 3, 1), y)], Linf(), {}), None),
        (lambda: evaluate(model, [(x.double(), y)], Linf(), "fgsm"), "float64"),
        (lambda: evaluate(model, [(x.half(), y)], Linf(), "fgsm"), "float32"),
        (lambda: evaluate(model, [(x[:0], y[:0])], Linf(), "fgsm"), "empty"),
        (lambda: evaluate(model, [(x, y[:3])], Linf(), "fgsm"), "one per image"),
        (lambda: evaluate(model, [(x, y.float())], Linf(), "fgsm"), "class indices"),
        (lambda: evaluate(lambda z: (model(z),), [(x, y)], Linf(), "fgsm"), "returns a tuple of 1"),
        (lambda: evaluate(lambda z: model(z)[:, :1], [(x, y * 0)], Linf(), "fgsm"), "one output"),
    ):
        if words is None:
            wrong()  # a model that flattens its input cannot tell the order of its axes
            continue
        with pytest.raises(UserError, match=words) as refused:
            wrong()
        assert "\n" not in str(refused.value)


def test_rows_that_an_attack_could_not_take_on_are_counted_and_told() -> None:
    class Half:
        """Attacks the first rows of a batch alone."""

        def __call__(self, model: object, x: Tensor, y: Tensor, threat: Linf) -> Tensor:
            return self.attempt(model, x, y, threat).delta

        def attempt(self, model: object, x: Tensor, y: Tensor, threat: Linf) -> Attempt:
            attacked = torch.arange(len(x)) < 30
            return Attempt(Fgsm()(model, x, y, threat) * attacked.view(-1, 1, 1, 1), attacked)

    x, y = the_data()
    clean = evaluate(a_linear_model(), batches(x, y), Linf(0.02), {}).column("clean")
    # The batches are of 50, 50 and 20; their rows that are right without an attack reach it.
    left = sum(max(0, int(clean[first : first + 50].sum()) - 30) for first in (0, 50, 100))
    with pytest.warns(UserWarning, match=f"half: {left} of 120 images were not attacked"):
        outcomes = evaluate(a_linear_model(), batches(x, y), Linf(0.02), {"half": Half(), "fgsm": Fgsm()})
    assert outcomes.not_attacked("half") == left == 30
    assert outcomes.not_attacked("fgsm") == 0
