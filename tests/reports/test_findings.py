"""Every rule on records that are wrong in one way, and on their neighbours that are not."""

import re
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from regmix.cli.train import parse_training
from regmix.config import Experiment, to_json
from regmix.evaluation import CHANCE, RANDOM, wilson
from regmix.reports.classes import per_class
from regmix.reports.findings import FINDINGS, find, findings_of
from regmix.reports.findings.case import Case, difference
from regmix.reports.findings.images import unjudged
from regmix.reports.load import LoadedRun
from regmix.reports.statistics import share
from regmix.reports.subject import subjects_of
from regmix.runs import CONFIG
from regmix.runs.evaluations import Outcomes, Stored
from regmix.runs.records import Alarm, Column, Data, Environment, Epoch, Evaluation, Masking, Result, Subject
from regmix.runtime.files import parse_json
from regmix.types import Fingerprint, OneAnswer, Sample

N = 500
LABELS = np.arange(N) % 10
SOUND_CURVE = [(0.3, 0.2), (0.9, 0.5), (0.93, 0.7), (0.95, 0.78), (0.96, 0.8), (0.96, 0.8), (0.96, 0.81), (0.97, 0.8)]
"""(clean, PGD) per epoch."""


def epochs(curve: Sequence[tuple[float, float]] = SOUND_CURVE, **changes: Any) -> list[Epoch]:
    rows = []
    for number, (clean, pgd) in enumerate(curve, 1):
        validation = {"clean": clean, "pgd": pgd, "fgsm": min(1.0, pgd + 0.04), "alignment": 0.9}
        row = Epoch(
            epoch=number, epochs=len(curve), lr=0.1 * (1 - number / (len(curve) + 1)), loss=1.0, terms={},
            train_robust=pgd, validation=validation,
        )  # fmt: skip
        rows.append(replace(row, **changes))
    return rows


def settings(**changes: Any) -> dict[str, Any]:
    tree = parse_json(to_json(Experiment(epochs=len(SOUND_CURVE), validation=300)), "settings")
    assert isinstance(tree, dict)
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if field:
            tree[part][field] = value
        else:
            tree[part] = deepcopy(value)
    return tree


def survivors(accuracies: Mapping[str, float | NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    """Columns in which the first images survive, spread over the classes, or the given ones."""
    return {
        name: value if isinstance(value, np.ndarray) else np.arange(N) < round(value * N)
        for name, value in accuracies.items()
    }


def evaluation(
    accuracies: Mapping[str, float | NDArray[np.bool_]], checkpoint: str = "best", of: int = N, **changes: Any
) -> tuple[Evaluation, Outcomes]:
    table, columns = survivors(accuracies), {}
    for name, survives in table.items():
        attack, _, radius = name.partition("@")
        count = int(survives.sum())
        columns[name] = Column(attack, float(radius or 0), radius or "0", count / N, *wilson(count, N), count)
    split = Fingerprint(tuple("0123456789"), (of // 10,) * 10, "pixels", "0")
    subject = Subject(checkpoint, "w", "s", split, Sample(N, of, "all" if of == N else "stratified"))
    return replace(Evaluation(subject, columns), **changes), Outcomes(np.arange(N), LABELS, table)


def run(path: Path | str = "runs/a", **parts: Any) -> LoadedRun:
    evaluations = parts.pop("evaluations", {name: evaluation(GOOD, name) for name in ("best", "last")})
    rows = parts.pop("epochs", epochs())
    result = Result(status="finished", epochs=len(rows), best_epoch=7, classes=[*"0123456789"])
    train, held_out = (Fingerprint(("0", "1"), (half, half), "pixels", "0") for half in (500, 150))
    data = Data(train, held_out)
    made = LoadedRun(Path(path), settings(), Environment(), rows, result, [], [], [], data=data)
    return replace(
        made, **parts, evaluations={name: pair[0] for name, pair in evaluations.items()},
        outcomes={name: pair[1] for name, pair in evaluations.items()},
    )  # fmt: skip


GOOD = {"clean": 0.96, "pgd-20@0.15": 0.8, "pgd-20@0.3": 0.3}
EXPERIMENT = {"threat": {"name": "linf", "eps": 0.15}}


def names(*runs: LoadedRun) -> list[str]:
    """The findings about the first run."""
    return [finding.name for finding in find(subjects_of(runs))[0]]


def sound(**parts: Any) -> LoadedRun:
    return run(config=settings(**EXPERIMENT, **parts.pop("changes", {})), **parts)


def test_a_sound_run_has_no_finding() -> None:
    assert names(sound()) == []


def test_standard_training_is_not_blamed_for_having_no_robustness() -> None:
    method = {"name": "standard"}
    bad = {"clean": 0.98, "pgd-20@0.15": 0.02, "pgd-20@0.3": 0.0}
    those = {name: evaluation(bad, name) for name in ("best", "last")}
    rows = epochs([(clean, 0.02) for clean, _ in SOUND_CURVE], train_robust=0.99)
    rows = [replace(row, validation=(row.validation or {}) | {"fgsm": 0.4}) for row in rows]
    assert names(sound(changes={"method": method}, evaluations=those, epochs=rows)) == []


LOW = {"clean": 0.6, "pgd-20@0.15": 0.3}
GUESS = [(0.1, 0.1)] * 8
HALF_WAY = [(0.1, 0.05), (0.2, 0.1), (0.3, 0.12), (0.5, 0.2), (0.6, 0.25), (0.65, 0.3), (0.68, 0.35), (0.7, 0.4)]
ONE_CLASS = np.where(LABELS == 3, False, np.arange(N) < 400)

SPOILED: dict[str, tuple[str, dict[str, Any]]] = {
    "unfinished": ("unfinished", {"result": Result(epochs=None), "epochs": epochs()[:5], "evaluations": {}}),
    "a lost step": ("not finite", {"epochs": [*epochs()[:-1], replace(epochs()[-1], lost_steps=[3])]}),
    "lr 10": ("learning rate too high", {"changes": {"lr": 10.0}, "epochs": epochs(GUESS)}),
    "lr 0.001": ("learning rate too low", {"changes": {"lr": 0.001}, "epochs": epochs(HALF_WAY)}),
    "two epochs": ("too few epochs", {"epochs": epochs([(0.3, 0.1), (0.6, 0.3)])}),
    "width 2": ("too narrow", {"changes": {"model__width": 2}, "epochs": epochs(GUESS)}),
    "beta": (
        "regularisation too strong", {"changes": {"method__beta": 5000.0}, "epochs": epochs([(0.5, 0.3)] * 8)},
    ),
    "cut short": (
        "cut short",
        {"epochs": epochs(HALF_WAY, lr=0.1), "result": Result(status="finished", epochs=8, best_epoch=8)},
    ),
    "fgsm": (
        "catastrophic overfitting",
        {
            "epochs": [
                *epochs()[:-1],
                replace(epochs()[-1], validation={"clean": 0.95, "pgd": 0.05, "fgsm": 0.9, "alignment": 0.2}),
            ]
        },
    ),
    "overfitted": (
        "robust overfitting",
        {"evaluations": {"best": evaluation(GOOD), "last": evaluation(GOOD | {"pgd-20@0.15": 0.7}, "last")}},
    ),
    "softmax outputs": ("failed checks", {"evaluations": {"best": evaluation(GOOD, preflight=["softmax"])}}),
    "masked": ("masked gradients", {"evaluations": {"best": evaluation(GOOD, masking=Masking("masked", ["a sign"]))}}),
    "nothing": ("ε tests nothing", {"evaluations": {"best": evaluation({"clean": 0.96, "pgd-20@0.15": 0.96})}}),
    "everything": (
        "ε too large",
        {
            "epochs": epochs([(0.6, 0.02)] * 8),
            "evaluations": {"best": evaluation({"clean": 0.6, "pgd-20@0.15": 0.02})},
        },
    ),
    "fgsm alone": ("weak attacks only", {"evaluations": {"best": evaluation({"clean": 0.96, "fgsm@0.15": 0.8})}}),
    "frames": ("validation easier than the test", {"evaluations": {"best": evaluation(GOOD | {"clean": 0.85})}}),
    "a class": ("a weak class", {"evaluations": {"best": evaluation(GOOD | {"pgd-20@0.15": ONE_CLASS})}}),
    "not evaluated": ("not evaluated", {"evaluations": {}}),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_wrong_is_found_and_nothing_else(name: str) -> None:
    finding, parts = SPOILED[name]
    found = names(sound(**parts))
    assert [each for each in found if each != "not evaluated" or finding == each] == [finding]


def test_one_epoch_needs_no_earlier_one() -> None:
    one = epochs([(0.7, 0.26)])
    assert names(sound(epochs=one)) == ["too few epochs"]
    assert names(sound(epochs=[replace(one[0], validation={"clean": 0.97, "pgd": 0.9})])) == []  # it was enough
    assert names(sound(epochs=epochs([(0.7, 0.3), (0.7, 0.31)]))) == []  # within chance


def test_noise_is_no_finding() -> None:
    """The same differences, where the images are so few that chance explains them."""
    best, last = evaluation(GOOD), evaluation(GOOD | {"pgd-20@0.15": 0.797}, "last")
    assert names(sound(evaluations={"best": best, "last": last})) == []
    noisy = [*HALF_WAY[:-1], (0.7, 0.36)]
    slow = sound(changes={"lr": 0.001}, epochs=epochs([(0.6, 0.3), (0.6, 0.31)] * 4))
    assert names(slow) == []
    assert "cut short" not in names(sound(epochs=epochs(noisy)))  # its learning rate came down


def test_few_test_images_only_where_there_are_more() -> None:
    wide = evaluation(GOOD | {"pgd-20@0.15": 0.5}, of=10_000)
    assert names(sound(evaluations={"best": wide})) == []  # +-4.4 points
    other = sound(changes={"seed": 1}, evaluations={"best": evaluation(GOOD | {"pgd-20@0.15": 0.51}, of=10_000)})
    pair = sound(evaluations={"best": wide}), replace(other, path=Path("runs/b"))
    assert names(*pair) == []  # 5 of 500 images differ: +-1.1 points
    mixed = np.roll(np.arange(N) < 250, 60)
    unsure = replace(
        sound(evaluations={"best": evaluation(GOOD | {"pgd-20@0.15": mixed}, of=10_000)}), path=Path("runs/b")
    )
    (finding,) = find(subjects_of([pair[0], unsure]))[0]
    assert finding.name == "too few test images"
    half = finding.evidence[1].value
    assert f"--examples {100 * np.ceil(5 * (half / 0.0138) ** 2):.0f}" in finding.change  # the interval's root law
    whole = [sound(evaluations={"best": evaluation(GOOD | {"pgd-20@0.15": v})}) for v in (0.5, mixed)]
    assert names(whole[0], replace(whole[1], path=Path("runs/b"))) == []


def test_a_plain_model_beside_it_shows_that_gamma_is_too_high() -> None:
    plain = sound(
        path="runs/plain", changes={"method": {"name": "standard"}},
        evaluations={"best": evaluation({"clean": 0.98, "pgd-20@0.15": 0.0})},
    )  # fmt: skip
    rows = epochs([(0.77, 0.6)] * 8)
    far = sound(evaluations={"best": evaluation({"clean": 0.75, "pgd-20@0.15": 0.6})}, epochs=rows)
    (finding,) = find(subjects_of([far, plain]))[0]
    assert finding.name == "clean accuracy far below a plain model's"
    assert finding.evidence[0].value == pytest.approx(0.23)
    assert names(sound(), plain) == []
    assert names(far) == []
    (subject,) = subjects_of([sound(epochs=epochs([(0.7, 0.6)] * 8))])
    probed = findings_of(Case(subject, plain=share(294, 300)))
    assert [each.name for each in probed] == ["clean accuracy far below a plain model's"]


def test_weak_at_a_larger_eps_than_another_method_with_the_same_threat() -> None:
    strong = {"clean": 0.96, "pgd-20@0.15": 0.8, "pgd-20@0.3": 0.5}
    other = {"name": "pgd_at", "steps": 10}
    beside = sound(path="runs/b", changes={"method": other}, evaluations={"best": evaluation(strong)})
    (finding,) = find(subjects_of([sound(), beside]))[0]
    assert finding.name == "weak at larger ε"
    assert "--method.alpha 100" in finding.change
    elsewhere = replace(beside, config=beside.config | {"threat": {"name": "linf", "eps": 0.3}})
    assert names(sound(), elsewhere) == []


def test_a_model_that_answers_one_class_does_not_overfit() -> None:
    answer = OneAnswer("3", 1.0)
    three = LABELS == 3
    best = evaluation({"clean": three, "pgd-20@0.15": three}, one_answer=answer)
    last = evaluation({"clean": LABELS == 4, "pgd-20@0.15": np.zeros(N, dtype=bool)}, "last", one_answer=answer)
    assert "robust overfitting" not in names(sound(evaluations={"best": best, "last": last}))


def test_a_model_that_has_come_undone_on_its_training_images_has_not_overfitted() -> None:
    parts = SPOILED["overfitted"][1]
    assert names(sound(**parts)) == ["robust overfitting"]
    undone = [*epochs()[:-1], replace(epochs()[-1], train_robust=0.6)]
    assert names(sound(**parts, epochs=undone)) == []


def test_consequences_of_a_finding_are_not_found_beside_it() -> None:
    overfitted = SPOILED["overfitted"][1]
    strong = {"changes": {"method__beta": 5000.0}, "epochs": epochs([(0.5, 0.3)] * 8)}
    assert names(sound(**overfitted, **strong)) == ["regularisation too strong"]


def test_every_command_is_one_that_the_program_takes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    for name, (finding, parts) in SPOILED.items():
        spoiled = replace(sound(**parts), path=path)
        (path / CONFIG).write_text(to_json(Experiment()))
        (found,) = [each for each in find(subjects_of([spoiled]))[0] if each.name == finding]
        words = shlex.split(found.change)
        assert words[:2] in (["regmix", "train"], ["regmix", "evaluate"]), name
        if "--from" in words:
            assert parse_training(words[2:])[1].out == tmp_path / "a-2", name
        assert found.evidence
        assert found.causes


def test_commands_allow_code_of_the_users_own_and_are_quoted(tmp_path: Path) -> None:
    path = tmp_path / "my runs"
    path.mkdir()
    own = settings(model={"name": "function", "source": "nets:net"}, data={"name": "function", "source": "photos:all"})
    spoiled = replace(sound(), path=path, config=own, result=Result(), epochs=epochs()[:2])
    change = next(each.change for each in find(subjects_of([spoiled]))[0] if each.name == "unfinished")
    code = ["--model.source", "nets:net", "--data.source", "photos:all"]
    assert shlex.split(change) == ["regmix", "train", "--resume", str(path), *code]


def test_every_proposed_training_has_a_folder_of_its_own(tmp_path: Path) -> None:
    two = {"epochs": [*epochs([(0.3, 0.1)]), replace(epochs([(0.3, 0.1), (0.6, 0.3)])[1], lost_steps=[3])]}
    (tmp_path / "a-2").mkdir()
    found = find(subjects_of([replace(sound(**two), path=tmp_path / "a")]))[0]
    assert [each.name for each in found] == ["not finite", "too few epochs"]
    assert [shlex.split(each.change)[-1] for each in found] == [str(tmp_path / name) for name in ("a-3", "a-4")]


def test_radii_are_written_in_grey_levels() -> None:
    bad = {"best": evaluation({"clean": 0.6, "pgd-20@0.03137254901960784": 0.02})}
    spoiled = sound(changes={"threat__eps": 8 / 255}, epochs=epochs([(0.6, 0.02)] * 8), evaluations=bad)
    (found,) = find(subjects_of([spoiled]))[0]
    assert found.name == "ε too large"
    assert found.evidence[0].text == "8/255"
    assert "ε = 8/255" in found.what
    assert "--threat.eps 2/255" in found.change


def test_too_few_epochs_come_before_a_radius_that_is_too_large() -> None:
    bad = {"best": evaluation({"clean": 0.6, "pgd-20@0.15": 0.02})}
    assert names(sound(epochs=epochs([(0.6, 0.02)]), evaluations=bad)) == ["too few epochs", "ε too large"]


@pytest.mark.parametrize("averaged", [False, True])
def test_the_validation_that_chose_the_weights_is_compared_with_the_test(averaged: bool) -> None:
    """Of averaged weights it is that of the average. Below five points beyond chance, nothing is found."""
    other = {"clean": 0.5, "pgd": 0.1, "fgsm": 0.12} if averaged else {"averaged_clean": 0.5}
    rows = [
        replace(row, validation=(row.validation or {}) | {"averaged_clean": 0.96, "averaged_pgd": 0.82} | other)
        for row in epochs()
    ]
    result = Result(
        status="finished", epochs=8, best_epoch=7, best_pgd=0.82 if averaged else 0.81, classes=[*"0123456789"]
    )
    for clean, expected in ((0.85, ["validation easier than the test"]), (0.89, [])):
        tested = {"best": evaluation({"clean": clean, "pgd-20@0.15": 0.7})}
        assert names(sound(epochs=rows, result=result, evaluations=tested)) == expected
    elsewhere = {"best": evaluation(GOOD | {"clean": 0.85}, elsewhere="photos")}
    assert names(sound(evaluations=elsewhere)) == []


def test_one_answer_is_a_finding_where_no_other_rule_says_why() -> None:
    one = evaluation({"clean": LABELS == 3, "pgd-20@0.15": LABELS == 3}, one_answer=OneAnswer("3", 1.0))
    rows = epochs([(0.1, 0.1)] * 8)
    assert names(sound(evaluations={"best": one}, epochs=rows)) == ["one answer for all images"]
    high = sound(evaluations={"best": one}, epochs=rows, changes={"lr": 10.0})
    assert names(high) == ["learning rate too high"]


def test_it_is_told_where_images_per_class_are_too_few_for_any_finding() -> None:
    """10 images of each of 50 classes: none without a survivor stands out; 50 of each of 10 classes: one does."""
    few, enough = (per_class(subject) for subject in subjects_of([many_classes(0), sound()]))
    assert unjudged(few) == "10 test images per class are too few to judge single classes at this robust accuracy"
    assert unjudged(enough) is None
    assert unjudged(None) is None


def test_an_attack_of_ten_steps_beside_weak_ones_is_enough() -> None:
    weak = {"clean": 0.96, "fgsm@0.15": 0.85, "pgd-5@0.15": 0.82, "transfer:b@0.15": 0.9}
    assert names(sound(evaluations={"best": evaluation(weak)})) == ["weak attacks only"]
    for name in ("pgd-10", "square", "hop-skip-jump", "apgd-ce", "cw-30", "given:x"):
        assert names(sound(evaluations={"best": evaluation(weak | {f"{name}@0.15": 0.8})})) == []


def test_the_folder_itself_may_be_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    spoiled = replace(sound(**SPOILED["overfitted"][1]), path=Path())
    words = shlex.split(find(subjects_of([spoiled]))[0][0].change)
    assert words[words.index("--out") + 1] == str(tmp_path / "a-2")


def test_a_model_that_has_learned_nothing_is_no_small_radius() -> None:
    """It has nothing to lose under an attack."""
    guessing = {name: evaluation({"clean": 0.1, "pgd-20@0.15": 0.1}, name) for name in ("best", "last")}
    assert "ε tests nothing" not in names(sound(evaluations=guessing))


def test_a_small_radius_of_the_evaluation_alone_needs_no_training() -> None:
    tested = {name: evaluation({"clean": 0.96, "pgd-20@0.001": 0.96}, name) for name in ("best", "last")}
    (found,) = [each for each in find(subjects_of([sound(evaluations=tested)]))[0] if each.name == "ε tests nothing"]
    assert found.change.startswith("regmix evaluate ")
    assert "--eps 8/255" in found.change


@pytest.mark.parametrize("source", [None, "net.onnx"])
def test_one_answer_for_all_images_is_a_failed_check_of_a_model_from_elsewhere(source: str | None) -> None:
    """Of a training it is the end, whose causes other rules name; other failed checks stay."""
    answer = OneAnswer("3", 1.0)
    said = [answer.text("the test images"), f"accuracy is 10%, {CHANCE}", "softmax"]
    one = evaluation({"clean": LABELS == 3, "pgd-20@0.15": LABELS == 3}, one_answer=answer, preflight=said)
    spoiled = sound(evaluations={"best": one}, environment=Environment(source=source))
    (found,) = [each for each in find(subjects_of([spoiled]))[0] if each.name == "failed checks"]
    assert found.evidence[0].value == (1 if source is None else 3)
    assert "softmax" in found.brief


def test_passes_that_differ_are_no_finding_where_their_mean_was_evaluated() -> None:
    held, table = evaluation(GOOD, preflight=[f"{RANDOM}: two passes differ"])
    assert names(sound(evaluations={"best": (held, table)})) == ["failed checks"]
    mean = replace(held, subject=replace(held.subject, draws=20))
    assert names(sound(evaluations={"best": (mean, table)})) == []


def test_a_run_that_was_attacked_on_other_images_is_not_called_unevaluated() -> None:
    clean, table = evaluation({"clean": 0.96})
    shown = sound(evaluations={"best": (clean, table)})
    assert names(shown) == ["not evaluated"]
    attacked, _ = evaluation(GOOD, of=2 * N)
    assert "not evaluated" not in names(replace(shown, stored=[Stored(Path(), attacked)]))


def test_every_rule_states_its_test() -> None:
    for rule in FINDINGS:
        assert re.search(r"Exact|Test|test", rule.__doc__ or ""), rule.__name__


def test_newcombe() -> None:
    """56/70 against 48/80: the example of Newcombe's paper, interval [0.0524, 0.3339] from Wilson's."""
    d, low, high = difference(share(56, 70), share(48, 80))
    assert (d, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)


def test_alarms_do_not_matter_where_the_run_has_recovered() -> None:
    alarm = Alarm(3, "catastrophic overfitting: PGD accuracy fell", "rollback")
    recovered = replace(sound().result, alarms=[alarm])
    assert names(sound(result=recovered)) == []


def test_bonferroni_corrects_for_the_number_of_classes() -> None:
    """A class of 50 images at 18 of 50 against 80 % of the others: 0.36 is below 0.4, but not beyond the interval."""
    z = float(norm.ppf(1 - 0.025 / 10))
    assert wilson(18, 50, z)[1] > 0.4
    weak = np.where(LABELS == 3, np.arange(N) // 10 < 18, np.arange(N) // 10 < 40)
    assert names(sound(evaluations={"best": evaluation(GOOD | {"pgd-20@0.15": weak})})) == []


def many_classes(lost: int) -> LoadedRun:
    """50 classes of 10 images, of which some have no image that survives; 60 % of the others do."""
    label, order = np.arange(N) % 50, np.arange(N) // 50
    survive = (order < 6) & (label >= lost)
    whole, outcomes = evaluation({"clean": label >= 2, "pgd-20@0.15": survive})
    data = replace(whole.subject.data, classes=tuple(map(str, range(50))), counts=(10,) * 50)
    whole = replace(whole, subject=replace(whole.subject, data=data))
    return sound(evaluations={"best": (whole, replace(outcomes, label=label))})


def test_many_classes_that_are_lost_are_found_although_none_has_images_enough() -> None:
    """At half of the mean accuracy, as many as 6 of 50 classes of 10 images are lost by chance."""
    for lost, expected in ((6, []), (7, ["weak classes"])):
        half = 0.6 * (50 - lost) / 50 / 2
        assert binom.ppf(0.975, 50, (1 - half) ** 10) == 6
        assert names(many_classes(lost)) == expected
    (found,) = find(subjects_of([many_classes(15)]))[0]
    assert found.name == "weak classes"
    assert found.what.startswith("15 of 50 classes have no test image that survives the attack, 2 of them none that is")
    assert '"0", "1", ' in found.what
    assert "--epochs 16" in found.change


def test_accuracy_on_mixed_images_says_nothing_about_fitting() -> None:
    """An image of two classes is never fully predicted, so that low numbers are no finding."""
    plain, mixed = sound(), sound(changes={"mix__name": "mixup"})
    assert Case(subjects_of([plain])[0]).training(plain.epochs[-1]) is not None
    assert Case(subjects_of([mixed])[0]).training(mixed.epochs[-1]) is None
