"""The page of a reproduction shows every claim with its numbers, and keeps text from being read as HTML."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from regmix.reports.charts import Series, line_chart
from regmix.reports.reproduction import Figures, HeatMap, Judged, Reproduction, Section, counts, write_reproduction
from regmix.reports.words import MINUS
from regmix.runs.files import read_record, write_record

CLAIM = Judged(
    "RegMix is <b>more</b> robust.", "regmix, pgd-50, best", "pgk, pgd-50, best", "accuracy", 0.293, 0.267, 0.026,
    -0.01, 0.06, 0.0, 0.041, 7.3, 10_000, (5, 3), "undecided", "the interval contains the threshold", "It holds here.",
)  # fmt: skip
PER_RUN = replace(
    CLAIM, statement="RegMix needs fewer epochs.", unit="epochs", first_mean=20.0, second_mean=12.5, difference=7.5,
    low=2.25, high=12.75, smallest_effect=None, images=None, seeds=(1, 1), verdict="contradicted",
)  # fmt: skip
SECTION = Section(
    "amr", "Mutual", "Does it help?", "2 methods.", "Little.", "regmix reproduce amr", [CLAIM, PER_RUN],
    [["arm", "clean"], ["regmix", "39.4 ± 1.7"]], ["Test images: all."], ["pgk-seed0: alarm in epoch 3: overfitting."],
)  # fmt: skip
RESULT = Reproduction("0.2", "cpu", "cifar10-regmix-cpu", 3, "Corrected for 2.", [SECTION], [])


def page(tmp_path: Path, figures: Figures | None = None, result: Reproduction = RESULT) -> str:
    write_reproduction(result, {} if figures is None else {"amr": figures}, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_every_claim_stands_on_the_page_with_its_numbers(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "RegMix is &lt;b&gt;more&lt;/b&gt; robust." in text
    assert f"+2.6 points [{MINUS}1.0, +6.0]" in text
    assert "regmix, pgd-50, best: 29.3%; pgk, pgd-50, best: 26.7% (5 and 3 seeds, 10,000 test images)" in text
    assert "Smallest visible effect: 4.1." in text
    assert "+7.5 epochs [+2.2, +12.8]" in text
    assert "(1 seed each)" in text
    shown = (*SECTION.notes, *SECTION.doubts, SECTION.command, SECTION.cannot_show, "39.4 ± 1.7", "Corrected for 2.")
    assert all(words in text for words in shown)
    assert "0 supported, 1 contradicted, 1 undecided" in text
    assert "<script" not in text


def test_what_has_no_verdict_says_why(tmp_path: Path) -> None:
    lost = replace(SECTION, claims=[], doubts=["pgk is left out: it lost its steps"])
    text = page(tmp_path, result=replace(RESULT, sections=[lost], left=["agr", "weights"]))
    assert "No claim could be judged." in text
    assert "pgk is left out" in text
    assert "Not evaluated yet: agr, weights." in text
    assert "it makes no claim" in page(tmp_path, result=replace(RESULT, sections=[replace(lost, doubts=[])]))
    assert "Not evaluated yet" not in page(tmp_path)


def test_the_seeds_are_shown_one_by_one() -> None:
    assert replace(CLAIM, by_seed=[0.02, -0.001]).means().endswith(f"; by seed +2.0, {MINUS}0.1")
    assert "by seed" not in replace(CLAIM, by_seed=[0.02]).means()


def test_a_claim_with_a_threshold_names_it() -> None:
    assert f"more than {MINUS}1.0" in replace(CLAIM, threshold=-0.01).numbers()


def test_figures_are_drawn(tmp_path: Path) -> None:
    chart = line_chart("Curve", [Series("regmix", [0.0, 1.0], [0.9, 0.3], 1)], x_label="eps", percent=True)
    heat = HeatMap("gamma 20", ["beta 10", "beta 20"], [("alpha 25", [0.2, None]), ("alpha 50", [0.25, 0.3])])
    text = page(tmp_path, Figures([chart], [heat]))
    assert "<svg" in text
    assert 'style="--shade:60%">30.0' in text
    assert 'style="--shade:0%">20.0' in text


def test_equal_numbers_have_one_shade() -> None:
    assert HeatMap("", ["a"], [("b", [0.5]), ("c", [0.5])]).shade(0.5) == 30


def test_the_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_record(tmp_path / "claims.json", RESULT)
    json.loads((tmp_path / "claims.json").read_text(), parse_constant=pytest.fail)  # no NaN or Infinity
    assert read_record(tmp_path / "claims.json", Reproduction) == RESULT
    assert counts(RESULT) == {"supported": 0, "contradicted": 1, "undecided": 1}
