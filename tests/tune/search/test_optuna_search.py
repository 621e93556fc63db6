"""Optuna behind Ray's interface: what it tries first, what it learns from stopped trials, and after a restart."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from support.sweep_cases import write_sweep

from tune.search.optuna_search import OptunaSearch, TrialResult
from tune.search.trials import Trial
from tune.space import canonical
from tune.sweep_config import SweepConfig, read_sweep

RATES = {"optimiser.learning_rate": {"loguniform": [0.0001, 0.1]}, "model.norm": {"choice": ["none", "batch"]}}


def sweep_of(folder: Path, shards: Path, **changed: Any) -> SweepConfig:
    content = {"space": RATES, "search": "optuna", "configurations": 60, **changed}
    sweep = read_sweep(write_sweep(folder, shards, **content))
    sweep.folder.mkdir(parents=True, exist_ok=True)
    return sweep


def stopped(percent: float, elbo: float) -> dict[str, Any]:
    return {"progress": percent, "elbo": elbo, "finished": False}


def test_the_default_configuration_is_tried_first(tmp_path, digits_shards):
    search = OptunaSearch(sweep_of(tmp_path, digits_shards, fields={"model.norm": "batch"}), 60)
    first = search.suggest("a")["trial"]
    assert first["fields"] == {"optimiser.learning_rate": 0.005, "model.norm": "batch"}


def test_no_configuration_is_drawn_twice_and_an_exhausted_space_ends_the_search(tmp_path, digits_shards):
    space = {"model.latent_dim": {"randint": [2, 5]}, "model.norm": {"choice": ["none", "batch"]}}
    search = OptunaSearch(sweep_of(tmp_path, digits_shards, space=space), 60)
    drawn = []
    while isinstance(suggested := search.suggest(str(len(drawn))), dict):
        drawn.append(suggested["trial"])
        search.on_trial_complete(str(len(drawn) - 1), {"finished": True, "elbo": 1.0})
    assert suggested == "FINISHED"
    assert len({canonical(trial["fields"]) for trial in drawn}) == len(drawn) == 8
    assert [trial["number"] for trial in drawn] == list(range(8))


def test_the_search_leaves_the_half_of_the_space_whose_trials_are_stopped(tmp_path, digits_shards):
    search = OptunaSearch(sweep_of(tmp_path, digits_shards), 60)
    rates = []
    for number in range(60):
        rate = search.suggest(str(number))["trial"]["fields"]["optimiser.learning_rate"]
        rates.append(rate)
        result = stopped(2.0, -rate) if rate > 0.003 else {"finished": True, "elbo": 100 - rate}
        search.on_trial_complete(str(number), result)
    assert sum(rate > 0.003 for rate in rates[20:]) <= 0.35 * len(rates[20:])


def test_a_stopped_trial_is_told_with_its_elbo_at_its_rung_and_a_failed_one_as_worse_than_all(tmp_path, digits_shards):
    search = OptunaSearch(sweep_of(tmp_path, digits_shards), 60)
    for number, result in enumerate([{"finished": True, "elbo": 9.0}, stopped(8.0, 5.0), {"failed": True}]):
        search.suggest(str(number))
        search.on_trial_complete(str(number), result)
    finished, pruned, failed = search._study.trials
    assert (finished.state, finished.values) == (TrialState.COMPLETE, [9.0])
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {8: 5.0})
    assert (failed.state, failed.intermediate_values) == (TrialState.PRUNED, {})


def test_with_two_objectives_a_stopped_trial_is_told_the_worst_values_so_far(tmp_path, digits_shards):
    measure = {"images": 60, "mixture": 0}
    search = OptunaSearch(sweep_of(tmp_path, digits_shards, objectives=["fd", "cost"], measure=measure), 60)
    search.suggest("0")
    search.on_trial_complete("0", stopped(2.0, 1.0))  # nothing is known yet
    for number, (fd, cost) in enumerate([(10.0, 3.0), (5.0, 7.0)], start=1):
        search.suggest(str(number))
        search.on_trial_complete(str(number), {"finished": True, "fd": fd, "cost": cost})
    search.suggest("3")
    search.on_trial_complete("3", {"failed": True})
    assert [one.values for one in search._study.trials] == [[10.0, 3.0], [10.0, 3.0], [5.0, 7.0], [10.0, 7.0]]


def test_a_fault_of_the_machine_is_told_to_nobody_and_the_trial_is_given_again(tmp_path, digits_shards):
    sweep = sweep_of(tmp_path, digits_shards)
    search = OptunaSearch(sweep, 60)
    trial = Trial(**search.suggest("0")["trial"])
    search.on_trial_complete("0", None, error=True)
    again = OptunaSearch(sweep, 60, [TrialResult(trial=trial, ended=False)])
    assert Trial(**again.suggest("1")["trial"]) == trial
    again.on_trial_complete("1", {"finished": True, "elbo": 3.0})
    assert again._study.trials[0].values == [3.0]


def test_a_restarted_search_learns_what_ended_meanwhile_and_numbers_go_on(tmp_path, digits_shards):
    sweep = sweep_of(tmp_path, digits_shards, seeds=[0, 1])
    search = OptunaSearch(sweep, 3)
    first, second = (Trial(**search.suggest(str(number))["trial"]) for number in (0, 1))
    assert (first.seed, second.seed, first.number) == (0, 1, second.number)
    ended = [TrialResult(trial=first, values=(1.0,)), TrialResult(trial=second, values=(3.0,))]
    again = OptunaSearch(sweep, 3, ended)
    assert again._study.trials[0].values == [2.0]
    numbers = []
    while isinstance(suggested := again.suggest(str(len(numbers))), dict):
        numbers.append((suggested["trial"]["number"], suggested["trial"]["seed"]))
    assert numbers == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_larger_space_goes_on_from_what_was_found_in_the_smaller_one(tmp_path, digits_shards):
    sweep = sweep_of(tmp_path, digits_shards)
    search = OptunaSearch(sweep, 60)
    trial = Trial(**search.suggest("0")["trial"])
    search.on_trial_complete("0", {"finished": True, "elbo": 4.0})
    (tmp_path / "more").mkdir()
    space = RATES | {"model.norm": {"choice": ["none", "batch", "group"]}}
    larger = read_sweep(write_sweep(tmp_path, digits_shards, space=space, search="optuna", configurations=60))
    again = OptunaSearch(larger, 60, [TrialResult(trial=trial, values=(4.0,))])
    assert [one.values for one in again._study.trials] == [[4.0]]
    assert again.suggest("1")["trial"]["number"] == 1


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
