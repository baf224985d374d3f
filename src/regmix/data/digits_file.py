"""Writes digits.npz from scikit-learn's copy of the digits: `python -m regmix.data.digits_file`."""

import numpy as np

from regmix.data.digits import FILE


def main() -> None:
    """Writes grey values uint8 [1797, 8, 8] in 0..16 and labels uint8 [1797], in scikit-learn's order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    assert np.array_equal(images, digits.images)
    assert np.array_equal(labels, digits.target)
    np.savez_compressed(FILE, images=images, labels=labels)


if __name__ == "__main__":
    main()
