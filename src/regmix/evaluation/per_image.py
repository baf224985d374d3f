"""What an evaluation says of single images: images.csv, and small copies of those that break first and last."""

import csv
import io
from pathlib import Path

from regmix.data import ImageSet
from regmix.evaluation.examples import thumbnails
from regmix.runs.distances import Distances
from regmix.runs.evaluations import Outcomes
from regmix.runs.records import Evaluation
from regmix.runs.thumbnails import breaking
from regmix.runtime.files import write_text

IMAGES = "images.csv"


def write_images(folder: Path, evaluation: Evaluation, outcomes: Outcomes, images: ImageSet) -> None:
    """Writes both into the folder of an evaluation, from all of its columns and distances.

    Args:
        images: those that the rows of the outcomes are about, in their order.
    """
    write_text(folder / IMAGES, images_csv(outcomes, images))
    when = breaking(evaluation, outcomes, Distances.read(folder, outcomes.index).found)
    thumbnails(images, outcomes.index, [*dict.fromkeys(when.first + when.last)]).write(folder)


def images_csv(outcomes: Outcomes, images: ImageSet) -> str:
    """One row per image: position in the test split, file if there is one, class, and the predicted class by column.

    A prediction that is not known is left empty. The names of the classes stand for their numbers.
    """
    names, text = [*images.classes, ""], io.StringIO()  # the number -1 stands for a prediction that is not known
    writer = csv.writer(text, lineterminator="\n")
    known = {name: outcomes.predicted[name] for name in outcomes.survives if name in outcomes.predicted}
    columns = {"class": outcomes.label, **known}
    files = {} if images.files is None else {"file": images.files}
    writer.writerow(["index", *files, *columns])
    classes = [[names[number] for number in numbers.tolist()] for numbers in columns.values()]
    writer.writerows(zip(outcomes.index.tolist(), *files.values(), *classes, strict=True))
    return text.getvalue()
