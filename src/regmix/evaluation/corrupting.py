"""The accuracy of a model under corruptions."""

from functools import partial

from regmix.evaluation.evaluator import Evaluator
from regmix.evaluation.task import Task
from regmix.runs.records import Checkpoint, Corruptions


def under_corruptions(evaluator: Evaluator, task: Task, checkpoint: Checkpoint) -> Corruptions:
    """The accuracy under every corruption of the task at every severity; tells the user each row."""
    images = task.test.images
    task.progress.stage(f"{checkpoint}, corruptions", len(task.kinds) * len(images))
    make = partial(task.corruptions.images, images=images.pixels(), labels=images.labels)
    right, spent = evaluator.withstood(task.kinds, make)
    accuracy: dict[str, dict[int, float]] = {}
    for (name, severity), share in zip(task.kinds, right.double().mean(1).tolist(), strict=True):
        accuracy.setdefault(name, {})[severity] = share
    rows = [[*row.values()] for row in accuracy.values()]
    for name, row in zip(accuracy, rows, strict=True):
        task.progress.corruption(checkpoint, name, row)
    means = [sum(column) / len(accuracy) for column in zip(*rows, strict=True)]
    task.progress.corruption(checkpoint, "mean of all", means)
    folder = task.questions.corruption_files
    cost = spent.cost(len(task.kinds) * len(images))
    task.progress.note(f"{checkpoint:<9} corruptions took {cost.text()}")
    return Corruptions("computed" if folder is None else str(folder), accuracy, cost)
