"""Arguments that scikit-learn's interface has and `Settings` has not."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from data_shards.io.errors import InputError


def whole(value: object, name: str, least: int) -> int:
    """Parameter `name` as an int. Raises InputError where it is none, or below `least`."""
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"{value!r} is not a whole number of at least {least}", parameter=name)
    return int(value)


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """An integer as it is; else a number drawn as scikit-learn's estimators draw."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
