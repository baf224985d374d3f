import numpy as np
import pytest
import torch

from regmix.data import ImageSet
from regmix.data.images import check_labels
from regmix.types import UserError


def test_subset_takes_images_and_labels_in_the_order_asked_for(some_images):
    index = torch.tensor([7, 3, 99])
    subset = some_images.subset(index)
    assert len(subset) == 3
    assert torch.equal(subset.images, some_images.images[index])
    assert torch.equal(subset.labels, some_images.labels[index])
    assert subset.classes == some_images.classes


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_without_a_class_are_refused(label):
    with pytest.raises(UserError, match=r"0\.\.1"):
        ImageSet(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.tensor([label]), ("a", "b"))


def test_check_labels_names_file_and_row(tmp_path):
    check_labels(tmp_path, np.array([0, 1, 2]), ("a", "b", "c"))
    with pytest.raises(UserError, match=rf"{tmp_path} row 2: the label 3 is outside of 0\.\.2"):
        check_labels(tmp_path, np.array([0, 1, 3]), ("a", "b", "c"))
