"""The description of a model for RobustBench's model_info folder."""

from typing import Any

from regmix.exports.card import CLEAN, is_masked
from regmix.exports.checkpoint import Checkpointed
from regmix.models import Function, PreActResNet, ResNet, Timm, WideResNet
from regmix.runs.records import Column, Evaluation
from regmix.threats import format_eps, same_eps


def model_info(chosen: Checkpointed) -> dict[str, Any]:
    """The fields of https://github.com/RobustBench/robustbench (model_info/*/*.json), accuracies in percent as texts.

    Texts that only the authors know are empty, and so are accuracies that were not measured as RobustBench does: on the
    run's whole own test split, with AutoAttack at the eps of the threat model. All numbers are from one evaluation.
    """
    whole = [stored.evaluation for stored in chosen.own if stored.evaluation.subject.sample.how == "all"]
    eps = chosen.experiment.threat.eps
    shown = max(whole, key=lambda each: (_autoattack(each, eps) is not None, each.made), default=None)
    clean, robust = (None, None) if shown is None else (shown.columns.get(CLEAN), _autoattack(shown, eps))
    return {
        "link": "",
        "name": "",
        "authors": "",
        "additional_data": None if chosen.is_foreign or chosen.experiment.init is not None else False,
        "number_forward_passes": 1 if shown is None else shown.subject.draws,
        "dataset": chosen.experiment.data.name,
        "venue": "",
        "architecture": _architecture(chosen),
        "eps": format_eps(chosen.experiment.threat.eps),
        "clean_acc": _percent(clean),
        "reported": "",
        "autoattack_acc": _percent(robust),
        "unreliable": any(map(is_masked, chosen.evaluations)),
    }


def _autoattack(evaluation: Evaluation, eps: float) -> Column | None:
    """The column of AutoAttack at the eps of the threat model."""
    columns = evaluation.columns.values()
    return next((column for column in columns if column.attack == "autoattack" and same_eps(column.eps, eps)), None)


def _percent(column: Column | None) -> str:
    return "" if column is None else f"{100 * column.accuracy:.2f}"


def _architecture(chosen: Checkpointed) -> str:
    model = chosen.experiment.model
    if isinstance(model, WideResNet):
        return f"WideResNet-{model.depth}-{model.widen}"
    if isinstance(model, (ResNet, PreActResNet)):
        return f"{type(model).__name__}-{model.depth}"
    if isinstance(model, Timm):
        return model.architecture
    return model.source if isinstance(model, Function) else type(model).__name__
