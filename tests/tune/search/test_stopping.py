"""Rungs at parts of each trial's own budget, and what Ray's schedulers make of them."""

import math

import pytest
from support.sweep_cases import write_sweep

from tune.search.stopping import AtRungs, TrialBudget, budget, remember, rungs, scheduler
from tune.search.stopping import RememberedTrial as Stub
from tune.sweep_config import StoppingConfig, read_sweep


def valid(stage: int, elbo: float) -> dict[str, object]:
    return {"stage": stage, "elbo_at_closed_form": elbo}


def test_equal_parts_of_a_budget_are_equal_parts_of_the_same_stage_for_short_and_long_trials(tmp_path, digits_shards):
    stages = {f"stage{stage}.max_epochs": {"choice": [1, 3]} for stage in (1, 2)}
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, space=stages))
    short = budget(sweep, 1000, {"stage1.max_epochs": 1, "stage2.max_epochs": 3})
    long = budget(sweep, 1000, {"stage1.max_epochs": 3, "stage2.max_epochs": 1})
    assert (short.caps, long.caps) == ((1000, 3000), (3000, 1000))
    assert short.percent(1, 500) == long.percent(1, 1500) == 25
    assert short.percent(2, 1500) == long.percent(2, 500) == 75
    assert (short.percent(2, 3100), long.percent(1, 3100)) == (100, 50)


def test_rungs_double_from_one_percent_and_none_lies_at_the_end():
    assert rungs(StoppingConfig()) == (1, 2, 4, 8, 16, 32, 64)
    assert rungs(StoppingConfig(first_percent=25)) == (25, 50)
    assert rungs(StoppingConfig(scheduler="none")) == ()


def test_the_elbo_at_a_rung_is_interpolated_between_the_checks_on_either_side():
    at = AtRungs(budget=TrialBudget(caps=(1000,), first_share=100.0), rungs=(1, 2, 4, 8, 16, 32, 64))
    assert at.event("valid", 100, valid(1, 5.0)) == [(8, 5.0)]  # the first check, near enough to stand for it
    assert at.event("valid", 200, valid(1, 15.0)) == [(16, 11.0)]
    assert at.event("valid", 900, valid(1, 85.0)) == [(32, 27.0), (64, 59.0)]


def test_a_first_check_far_past_a_rung_settles_none_and_numbers_that_are_not_finite_neither():
    at = AtRungs(budget=TrialBudget(caps=(1000,), first_share=100.0), rungs=(1, 2, 4, 8, 16, 32, 64))
    assert at.event("valid", 30, valid(1, math.nan)) == []
    assert at.event("valid", 60, valid(1, 5.0)) == []


def test_no_rung_is_settled_before_the_least_number_of_images():
    at = AtRungs(budget=TrialBudget(caps=(1000,), first_share=100.0), rungs=(1, 2, 4, 8, 16, 32, 64), min_images=100)
    assert at.event("valid", 40, valid(1, 5.0)) == []
    assert at.event("valid", 80, valid(1, 7.0)) == []
    assert at.event("valid", 200, valid(1, 19.0)) == [(16, 15.0)]


def test_a_trial_whose_stage_1_converged_early_stands_at_its_last_value_until_stage_2():
    at = AtRungs(budget=TrialBudget(caps=(1000, 1000), first_share=50.0), rungs=(1, 2, 4, 8, 16, 32, 64))
    at.event("valid", 200, valid(1, 7.0))
    at.event("stage_start", 200, {"stage": 2, "elbo_at_closed_form": 3.0})
    assert at.event("valid", 600, valid(2, 9.0)) == [(16, 7.0), (32, 7.0), (64, 9.0)]


@pytest.mark.parametrize("kind", ["asha", "hyperband", "optuna_hyperband", "median"])
def test_of_two_trials_that_learn_alike_the_one_with_the_longer_budget_is_not_stopped(kind):
    stopping = StoppingConfig(scheduler=kind)

    def run(made, name: str, cap: int) -> bool:
        """Whether a trial that learns log(images) is trained to its end."""
        at, trial = (
            AtRungs(budget=TrialBudget(caps=(cap,), first_share=100.0), rungs=rungs(stopping)),
            Stub(trial_id=name),
        )
        made.on_trial_add(None, trial)
        for images in range(cap // 100, cap + 1, cap // 100):
            for rung, elbo in at.event("valid", images, valid(1, math.log(images))):
                if made.on_trial_result(None, trial, {"progress": rung, "elbo": elbo}) == "STOP":
                    return False
        return True

    made = scheduler(stopping)
    for number in range(6):
        run(made, f"short {number}", 1000)
    assert run(made, "long", 2000)


def test_a_trial_is_judged_once_at_a_rung_also_after_a_restart_and_never_at_its_end():
    made, worst = scheduler(StoppingConfig()), {"progress": 1, "elbo": -1.0}
    remember(made, [(str(number), [(1, float(number))]) for number in range(8)])
    resumed, new = Stub(trial_id="resumed"), Stub(trial_id="new")
    for trial in (resumed, new):
        made.on_trial_add(None, trial)
    assert made.on_trial_result(None, resumed, worst | {"settled": True}) == "CONTINUE"
    assert made.on_trial_result(None, new, worst) == "STOP"
    assert made.on_trial_result(None, resumed, {"progress": 100, "elbo": -1.0, "finished": True}) == "CONTINUE"


def test_optunas_pruner_stops_the_worse_ones_of_a_bracket_and_is_told_of_those_before_a_restart():
    made = scheduler(StoppingConfig(scheduler="optuna_hyperband", reduction_factor=3))
    remember(made, [(str(number), [(1, float(number)), (3, float(number))]) for number in range(30)])
    decisions = []
    for number in range(30):
        trial = Stub(trial_id=f"new {number}")
        made.on_trial_add(None, trial)
        decisions.append(tuple(made.on_trial_result(None, trial, {"progress": at, "elbo": -1.0}) for at in (1, 3)))
    # Those of the brackets that begin at the first rung, at the second and at the third.
    assert set(decisions) == {("STOP", "STOP"), ("CONTINUE", "STOP"), ("CONTINUE", "CONTINUE")}


def test_asha_continues_about_one_in_so_many_trials_past_a_rung():
    made = scheduler(StoppingConfig(reduction_factor=4))
    kept = 0
    for number in range(400):
        trial = Stub(trial_id=str(number))
        made.on_trial_add(None, trial)
        elbo = math.sin(number * 12.9898) * 43758.5453 % 1
        kept += made.on_trial_result(None, trial, {"progress": 1, "elbo": elbo}) == "CONTINUE"
    assert 80 <= kept <= 125
