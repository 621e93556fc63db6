"""How a population changes the learning rate that a trial takes over."""

from pathlib import Path

import pytest

from tune.space import Dimension
from tune.trial.population import Population
from tune.trial.takeover import LEARNING_RATE


def population(kind: str, *values: float) -> Population:
    return Population(Path("nowhere"), Dimension(field=LEARNING_RATE, kind=kind, values=values), at_once=2)


@pytest.mark.parametrize("now", [1e-4, 5e-4, 1e-2])
def test_the_learning_rate_becomes_another_one_within_the_space_also_at_its_ends(now):
    made = population("loguniform", 1e-4, 1e-2)
    for _ in range(50):
        rate, how = made._another(now)
        assert 1e-4 <= rate <= 1e-2
        assert rate != now
        assert how == "resample" or how in ("* 0.8", "* 1.2")


def test_of_choices_it_becomes_a_neighbour_or_any():
    made = population("choice", 0.004, 0.001, 0.002)
    assert {made._another(0.002)[0] for _ in range(100)} <= {0.001, 0.002, 0.004}
