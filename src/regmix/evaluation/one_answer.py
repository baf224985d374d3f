"""Accuracies that mean nothing: the model predicts one class for everything, or is no better than that."""

from torch import Tensor

from regmix.types import Labels, OneAnswer

NEARLY_ALL = 0.98
OTHERS = 5
"""The least number of images of other classes whose predictions count."""


def one_answer(predicted: Labels, labels: Labels, classes: tuple[str, ...]) -> OneAnswer | None:
    """The class that is predicted for at least 98 % of the images, and for at least 90 % of those of other classes.

    None if there is no such class, or if fewer than five images are of another class.
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

    If that share is so large, or the images so few, that even a perfect accuracy would prove nothing, more correct
    predictions than that class has images are enough. right: bool [N]; labels: [N].
    """
    from scipy.stats import binom

    count, most = int(right.sum()), int(labels.bincount().max())
    share = most / len(labels)
    provable = float(share ** len(labels)) <= 0.05
    return count > most and (not provable or float(binom.sf(count - 1, len(labels), share)) <= 0.05)
