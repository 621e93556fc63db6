"""The search space: what it accepts, and what it draws."""

import math
from collections import Counter

import pytest
from scipy.stats import kstest

from data_shards.io.errors import InputError
from tune.search.trials import grid, random_fields
from tune.sweep_config import read_space

CONDITIONAL = {
    "variance.update": {"choice": ["closed_form", "adam"]},
    "variance.learning_rate": {"loguniform": [0.001, 0.1], "when": {"variance.update": "adam"}},
}


def test_a_conditional_field_is_drawn_exactly_where_its_condition_holds():
    space = read_space(CONDITIONAL)
    for index in range(50):
        fields = random_fields(space, 0, index)
        assert ("variance.learning_rate" in fields) == (fields["variance.update"] == "adam")


def test_a_configuration_is_a_function_of_seed_and_index_alone():
    space = read_space({"a": {"uniform": [0.0, 1.0]}, "b": {"randint": [1, 100]}})
    drawn = [random_fields(space, 3, index) for index in range(20)]
    assert [random_fields(space, 3, index) for index in reversed(range(20))] == drawn[::-1]
    assert [random_fields(space, 4, index) for index in range(20)] != drawn


def test_a_loguniform_field_is_uniform_in_its_logarithm():
    space = read_space({"a": {"loguniform": [1e-4, 1e-1]}})
    logs = [math.log10(random_fields(space, 0, index)["a"]) for index in range(400)]
    assert kstest(logs, "uniform", args=(-4, 3)).pvalue > 0.01


def test_a_randint_field_takes_both_of_its_ends():
    space = read_space({"a": {"randint": [1, 3]}})
    assert set(Counter(random_fields(space, 0, index)["a"] for index in range(100))) == {1, 2, 3}


def test_a_grid_has_every_combination_once_and_repeats_none_for_a_field_that_is_not_drawn():
    space = read_space(
        {
            "a": {"choice": [1, 2]},
            "b": {"choice": [[8], [8, 8]], "when": {"a": 2}},
        }
    )
    assert list(grid(space)) == [{"a": 1}, {"a": 2, "b": [8]}, {"a": 2, "b": [8, 8]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "space: is empty"),
        ({"a": {"normal": [0, 1]}}, "space.a: .* use one of choice, uniform, loguniform, randint"),
        ({"a": {"uniform": [1, 1]}}, "space.a: uniform needs two numbers"),
        ({"a": {"randint": [1, 2.5]}}, "space.a: randint needs two whole numbers"),
        ({"a": {"loguniform": [0, 1]}}, "space.a: loguniform needs numbers above 0"),
        ({"a": {"choice": []}}, "space.a: choice has no values"),
        ({"a": {"choice": [1], "when": {"b": 2}}}, "space.a.when: b is not searched above it"),
    ],
)
def test_an_impossible_space_is_refused_with_the_field_and_what_would_be_right(content, message):
    with pytest.raises(InputError, match=message):
        read_space(content)


def test_a_grid_over_a_continuous_field_is_refused():
    with pytest.raises(InputError, match=r"space.a: a grid needs choice or randint, not uniform"):
        list(grid(read_space({"a": {"uniform": [0.0, 1.0]}})))
