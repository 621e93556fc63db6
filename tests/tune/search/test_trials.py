"""The search space: what it accepts, and what it draws."""

import itertools
import math
import time
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import kstest
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError
from tune.history import Started, search_has_ended
from tune.search.trials import (
    Trial,
    confirming_trials,
    distinct_draws,
    grid,
    number_of_search_trials,
    random_fields,
    search_trials,
)
from tune.space import Combinations, Dimension, Fields, canonical, draw, read_space
from tune.sweep_config import read_sweep
from tune.trial.folder import TrialOutcome

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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"choice": [1, 1.0]}}, "space.a: choice has 1.0 twice"),
        ({"a": {"choice": [[8], [8]]}}, r"space.a: choice has \[8\] twice"),
        ({"a": {"choice": [1, 2]}, "b": {"choice": [1], "when": {"a": 3}}}, r"space.b.when: a is never 3; .* \[1, 2\]"),
        ({"a": {"randint": [1, 4]}, "b": {"choice": [1], "when": {"a": 5}}}, "space.b.when: a is never 5; .* 1 to 4"),
        ({"a": {"uniform": [0, 1]}, "b": {"choice": [1], "when": {"a": 0.5}}}, "space.b.when: a is a number of an"),
    ],
)
def test_what_would_be_drawn_twice_or_never_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        read_space(content)


def test_a_grid_over_a_continuous_field_is_refused():
    with pytest.raises(InputError, match=r"space.a: a grid needs choice or randint, not uniform"):
        grid(read_space({"a": {"uniform": [0.0, 1.0]}}))


def brute_force(space: tuple[Dimension, ...]) -> list[Fields]:
    """Every combination of all values, each made to a configuration, without repeats."""
    found: list[Fields] = []
    for values in itertools.product(*([one.value(index) for index in range(one.count)] for one in space)):
        chosen = {one.field: value for one, value in zip(space, values, strict=True)}
        fields = draw(space, lambda dimension, chosen=chosen: chosen[dimension.field])
        if fields not in found:
            found.append(fields)
    return found


def test_configurations_are_counted_and_found_by_index_as_brute_force_lists_them():
    space = read_space(
        {
            "a": {"choice": ["x", "y", "z"]},
            "b": {"randint": [1, 3], "when": {"a": "y"}},
            "c": {"choice": [[8], [8, 8]]},
            "d": {"randint": [0, 2], "when": {"b": 2, "a": "y"}},
            "e": {"choice": [1, 2], "when": {"d": 1}},
        }
    )
    every = Combinations(space=space)
    assert [every[index] for index in range(every.size)] == brute_force(space)


def test_a_grid_of_a_million_is_counted_and_begun_at_once(tmp_path, digits_shards):
    fields = (
        "stage1.patience",
        "stage2.patience",
        "model.latent_dim",
        "model.hidden",
        "stage1.min_images",
        "stage2.min_images",
    )
    space = {name: {"randint": [1, 10]} for name in fields}
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, space=space))
    began = time.monotonic()
    assert number_of_search_trials(sweep) == 10**6
    first = list(itertools.islice(search_trials(sweep), 1000))
    assert len({canonical(trial.fields) for trial in first}) == 1000
    assert time.monotonic() - began < 60  # a grid that is made whole takes hours


def test_a_random_search_draws_no_configuration_twice_and_all_of_a_small_space():
    space = read_space({"a": {"choice": [1, 2]}, "b": {"randint": [1, 50], "when": {"a": 2}}})
    drawn = [canonical(fields) for fields in distinct_draws(space, 0)]
    assert len(drawn) == len(set(drawn)) == 51


def test_more_seeds_and_a_larger_space_add_trials_to_those_that_were_drawn(tmp_path, digits_shards):
    small = read_sweep(write_sweep(tmp_path, digits_shards))
    before = list(search_trials(small))
    known = {trial.number: trial.fields for trial in before}
    space = {"model.latent_dim": {"choice": [1, 2, 4]}}
    larger = read_sweep(write_sweep(tmp_path, digits_shards, space=space, seeds=[0, 1]))
    after = list(search_trials(larger, known))
    assert [trial for trial in after if trial in before] == before
    assert [(trial.number, trial.seed, trial.fields["model.latent_dim"]) for trial in after] == [
        (number, seed, latent) for seed in (0, 1) for number, latent in enumerate([2, 4, 1])
    ]


@pytest.mark.parametrize(
    ("space", "added"),
    [
        ({"model.latent_dim": {"choice": [4, 8, 16]}}, [{"model.latent_dim": 8}, {"model.latent_dim": 16}]),
        (
            {"model.latent_dim": {"choice": [2]}, "model.hidden": {"choice": [16, 32]}},
            [{"model.latent_dim": 2, "model.hidden": 16}, {"model.latent_dim": 2, "model.hidden": 32}],
        ),
    ],
)
def test_a_grid_that_changed_is_trained_whole_beside_the_trials_of_the_former_one(
    tmp_path, digits_shards, space, added
):
    known = {0: {"model.latent_dim": 2}, 1: {"model.latent_dim": 4}}
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, search="grid", space=space))
    assert [trial.fields for trial in search_trials(sweep, known)] == [*known.values(), *added]
    assert number_of_search_trials(sweep, known) == 4


def started(number: int, seed: int) -> Started:
    """A trial that was trained to its end."""
    trial = Trial(phase="search", number=number, seed=seed, fields={"model.latent_dim": number + 2})
    return Started(folder=Path(trial.name), trial=trial, outcome=TrialOutcome(status="finished"))


def test_a_search_has_ended_where_each_configuration_has_with_each_seed_and_not_where_so_many_trials_have(
    tmp_path, digits_shards
):
    def ended(trials: list[Started], configurations: int, seeds: list[int]) -> bool:
        space = {"model.latent_dim": {"randint": [2, 9]}}
        changed = {"space": space, "search": "random", "configurations": configurations, "seeds": seeds}
        return search_has_ended(read_sweep(write_sweep(tmp_path, digits_shards, **changed)), trials)

    of_one_seed = [started(number, 0) for number in range(4)]
    assert ended(of_one_seed, 4, [0])
    assert not ended(of_one_seed, 2, [0, 1])
    of_two_seeds = [*of_one_seed, *(started(number, 1) for number in range(4))]
    assert ended(of_two_seeds, 2, [0, 1])
    assert not ended(of_two_seeds, 8, [0])
    assert not ended([], 1, [0])


def test_a_search_that_lost_a_trial_before_its_folder_was_made_draws_it_again(tmp_path, digits_shards):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, space={"model.latent_dim": {"randint": [2, 9]}}))
    every = list(search_trials(sweep))
    known = {trial.number: trial.fields for trial in every[:4] if trial.number != 2}
    assert list(search_trials(sweep, known)) == every


def test_another_best_configuration_is_confirmed_under_a_number_of_its_own():
    first = confirming_trials({"a": 1}, {}, [7, 8])
    assert [(one.name, one.fields) for one in first] == [
        ("confirm-000-seed7", {"a": 1}),
        ("confirm-001-seed7", {}),
        ("confirm-000-seed8", {"a": 1}),
        ("confirm-001-seed8", {}),
    ]
    known = {one.number: one.fields for one in first}
    assert [one.name for one in confirming_trials({"a": 1.0}, known, [7, 8])] == [one.name for one in first]
    second = confirming_trials({"a": 2}, known, [7])
    assert [(one.name, one.fields) for one in second] == [("confirm-002-seed7", {"a": 2}), ("confirm-001-seed7", {})]
    known |= {one.number: one.fields for one in second}
    assert [one.number for one in confirming_trials({"a": 3}, known, [7])] == [3, 1]
    assert [one.number for one in confirming_trials({"a": 2}, known, [7])] == [2, 1]
