"""Two ways in which an accuracy says nothing: the model answers one class for everything, or no better than that."""

from torch import Tensor

from regmix.types import Labels, OneAnswer

NEARLY_ALL = 0.98
OTHERS = 5
"""So many images of other classes there must be, before their answers say something."""


def one_answer(predicted: Labels, labels: Labels, classes: tuple[str, ...]) -> OneAnswer | None:
    """The class that is answered for 98 % of the images or more, and for 90 % or more of those of other classes.

    None if there is none, or if hardly any image (fewer than five) is of another class.
    """
    if not len(predicted):
        return None
    answer = int(predicted.bincount().argmax())
    share = float((predicted == answer).double().mean())
    others = predicted[labels != answer]
    if share < NEARLY_ALL or len(others) < OTHERS or float((others == answer).double().mean()) < 0.9:
        return None
    return OneAnswer(classes[answer], share)


def above_largest_class(right: Tensor, labels: Labels) -> bool:
    """Whether an accuracy is above the share of the most frequent label, by a one-sided exact binomial test at 95 %.

    Where that share is so large, or the images so few, that even all of them right would be no proof, any more right
    answers than that class has images will do. right: bool [N]; labels: [N].
    """
    from scipy.stats import binom

    count, most = int(right.sum()), int(labels.bincount().max())
    share = most / len(labels)
    provable = float(share ** len(labels)) <= 0.05
    return count > most and (not provable or float(binom.sf(count - 1, len(labels), share)) <= 0.05)
