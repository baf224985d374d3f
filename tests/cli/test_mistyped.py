"""Flags that do not exist: the line names the one that is meant, or says where the flag belongs."""

import pytest

from regmix.cli import quick
from regmix.types import UserError

SAID = {
    "train digits-regmix --eps 0.1": "did you mean --threat.eps?",
    "train digits-regmix --epsilon 0.1": "did you mean --threat.eps?",
    "train digits-regmix --alpha 3": "did you mean --method.alpha?",
    "train digits-regmix --width 3": "did you mean --model.width?",
    "train digits-regmix --lr-max 3": "did you mean --lr?",
    "train digits-regmix --batch 3": "did you mean --batch-size?",
    "train digits-regmix --data.size 32": "--data.size is for --data folder, parquet, hub; choose that",
    "train digits-regmix --size 32": "--data.size is for --data folder, parquet, hub; choose that",
    "train digits-regmix --method standard --method.steps 3": "--method.steps is for --method pgd_at, trades, mart",
    "train digits-regmix --attacks fgsm": "it is a flag of evaluate, compare, sweep, not of train",
    "train --resume run --lr 3": "it is a flag of train RECIPE, not of train --resume RUN",
    "train --resume run --method.alpha 3": "it is a flag of train RECIPE, not of train --resume RUN",
    "evaluate {run} --threat.eps 0.1": "did you mean --eps?",
    "evaluate {run} --threat.epsilon 0.1": "did you mean --eps?",
    "evaluate {run} --root photos": "did you mean --data.root?",
    "evaluate {run} --steps 50": "--attacks: pgd-50 has 50 steps",
    "evaluate {run} --mean 0.5": "it is a flag of evaluate for a model from elsewhere, not of evaluate RUN",
    "evaluate {run} --model resnet": "evaluate for a model from elsewhere, not of evaluate RUN",
    "evaluate {run} --data.size 32": "evaluate for a model from elsewhere, not of evaluate RUN",
    "evaluate {run} --seed 3": "it is a flag of train RECIPE, not of evaluate RUN",
    "evaluate {run} --qqqqq": "see: regmix evaluate RUN --help-all",
    "evaluate net.pth --data digits --data.size 3": "--data.size is for --data folder",
    "evaluate net.pth --steps 50": "--attacks: pgd-50 has 50 steps",
    "compare digits-regmix --size 32": "did you mean --data.size?",
    "report run --eps 0.1": "it is a flag of evaluate, compare, sweep and 1 more, not of report",
}


@pytest.mark.parametrize("words", SAID)
def test_the_line_names_the_flag_that_is_meant(words: str, tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        quick.answer(words.format(run=tmp_path).split())
    assert SAID[words] in str(caught.value)
    assert str(caught.value).startswith(f"unknown flag '{[word for word in words.split() if word[:2] == '--'][-1]}'; ")
