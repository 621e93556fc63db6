"""Images in numpy's files, by the name of their array."""

import numpy as np
import pytest

from data_shards.io.errors import InputError
from eval.image_sets.arrays import image_array


def test_an_array_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "two.npz", a=images, b=images)
    with pytest.raises(InputError, match=r"two\.npz: has no array 'c'; choose one of a uint8 \(3, 4, 4, 3\), b uint8"):
        image_array(tmp_path / "two.npz", "c", name="two.npz:c", n=None, seed=0)
    assert image_array(tmp_path / "two.npz", "b", name="two.npz:b", n=None, seed=0).n == 3
