"""Named findings about runs: what is wrong, how that is known, and a command to try.

A rule is a function of a case; its docstring holds the rule, its test and its source. `FINDINGS` lists all of them.
Everything is read from run directories; only `regmix diagnose` adds what it has probed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from regmix.reports.findings.case import RADIUS, Case, Finding, Number
from regmix.reports.findings.classes import weak_class, weak_classes
from regmix.reports.findings.evaluated import (
    eps_tests_nothing,
    eps_too_large,
    eps_turns_grey,
    failed_checks,
    masked_gradients,
    not_evaluated,
    robust_overfitting,
    weak_attacks,
)
from regmix.reports.findings.images import easier_validation, few_test_images
from regmix.reports.findings.training import (
    answers_one_class,
    catastrophic_overfitting,
    cut_short,
    learning_rate_too_high,
    learning_rate_too_low,
    not_finite,
    too_few_epochs,
    too_narrow,
    unfinished,
)
from regmix.reports.findings.weights import gamma_too_high, regularisation_too_strong, weak_at_larger_eps
from regmix.reports.subject import Subject

__all__ = ["FINDINGS", "RADIUS", "Case", "Finding", "Number", "find", "findings_of"]

FINDINGS: tuple[Callable[[Case], Finding | None], ...] = (
    unfinished,
    not_finite,
    failed_checks,
    learning_rate_too_high,
    regularisation_too_strong,
    eps_turns_grey,
    eps_tests_nothing,
    too_few_epochs,
    learning_rate_too_low,
    too_narrow,
    cut_short,
    eps_too_large,
    catastrophic_overfitting,
    masked_gradients,
    robust_overfitting,
    gamma_too_high,
    easier_validation,
    weak_at_larger_eps,
    weak_class,
    weak_classes,
    few_test_images,
    weak_attacks,
    not_evaluated,
    answers_one_class,
)
"""All rules. What makes the others meaningless comes first."""
ASKED_ALONE = {robust_overfitting, weak_class, weak_classes, weak_at_larger_eps, answers_one_class}
"""Rules that are not asked once there is a finding: what they would find is its consequence."""


def find(subjects: Sequence[Subject]) -> list[list[Finding]]:
    """The findings about every run; the other runs are what it is compared with."""
    return [findings_of(Case(subject, [peer for peer in subjects if peer is not subject])) for subject in subjects]


def findings_of(case: Case) -> list[Finding]:
    """The findings about one run, in the order of FINDINGS."""
    findings: list[Finding] = []
    for rule in FINDINGS:
        if not (findings and rule in ASKED_ALONE) and (found := rule(case)) is not None:
            findings.append(found)
            case = replace(case, proposed=case.proposed + found.change.startswith("regmix train --from"))
    return findings
