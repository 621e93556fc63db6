"""Trials wait at a rung until they are among the best there; none is trained to its end for want of others."""

import pytest
from ray.tune.experiment import Trial as RayTrial

from tune.search.halving import LEAST_ENDED, Halving


class Controller:
    """What the scheduler uses of Ray's: trials of which so many are to come."""

    def __init__(self, to_come: int) -> None:
        self.to_come, self.trials, self.search_alg = to_come, [], self

    def is_finished(self):
        return self.to_come == 0

    def get_trials(self):
        return self.trials

    def pause_trial(self, trial, should_checkpoint):
        assert not should_checkpoint
        trial.status = RayTrial.PAUSED

    def stop_trial(self, trial):
        trial.status = RayTrial.TERMINATED
        self.halving.on_trial_remove(self, trial)


class Stub:
    def __init__(self, number: int) -> None:
        self.trial_id, self.number, self.status = str(number), number, RayTrial.PENDING


def swept(numbers, rungs=(1.0, 2.0, 4.0), at_once=1, ended=0):
    """Trains trials whose ELBO is their number. Returns how far each came, and the order in which they ran."""
    waiting, controller = list(numbers), Controller(len(numbers))
    halving = controller.halving = Halving(rungs, 2.0, at_once, ended)
    reached: dict[int, list[float]] = {number: [] for number in numbers}
    order: list[int] = []
    while True:
        if waiting and halving.may_begin():
            controller.trials.append(Stub(waiting.pop(0)))
            controller.to_come = len(waiting)
            halving.on_trial_add(controller, controller.trials[-1])
        trial = halving.choose_trial_to_run(controller)
        if trial is None and not waiting:
            break
        trial.status = RayTrial.RUNNING
        order.append(trial.number)
        while trial.status == RayTrial.RUNNING:
            own = reached[trial.number]
            own.append(rungs[len(own)] if len(own) < len(rungs) else 100.0)
            ends = own[-1] == 100.0
            result = {"progress": own[-1], "elbo": float(trial.number), "finished": ends}
            halving.on_trial_result(controller, trial, result)
            if ends:
                trial.status = RayTrial.TERMINATED
                halving.on_trial_complete(controller, trial, result)
    assert all(trial.status == RayTrial.TERMINATED for trial in controller.trials)
    return {number: own[-1] for number, own in sorted(reached.items())}, order


MIXED = (3, 12, 7, 15, 1, 0, 14, 9, 2, 8, 5, 11, 4, 13, 6, 10)


@pytest.mark.parametrize("numbers", [MIXED, MIXED[::-1], range(15, -1, -1)])
def test_in_any_order_of_arrival_the_best_ends_and_few_do(numbers):
    came, _ = swept(list(numbers))
    assert came[15] == 100.0
    assert LEAST_ENDED <= sum(one == 100.0 for one in came.values()) <= 8
    assert sum(one == 1.0 for one in came.values()) >= 4


def test_the_first_trials_wait_for_others_and_the_promoted_goes_on_before_a_new_one_begins():
    came, order = swept([5, 1, 2, 3])
    assert order[:3] == [5, 1, 5]
    assert came[5] == 100.0


def test_the_best_are_trained_to_their_ends_where_no_other_trial_is_left_and_the_rest_are_stopped():
    came, _ = swept([1, 2, 3, 4])
    assert [number for number, progress in came.items() if progress == 100.0] == [2, 3, 4]
    came, _ = swept([1, 2, 3, 4], ended=LEAST_ENDED)  # before a restart
    assert [number for number, progress in came.items() if progress == 100.0] == [4]


def test_the_last_ones_run_to_their_ends_together_where_there_is_room():
    halving, controller = Halving((1.0,), 2.0, at_once=3), Controller(0)
    trials = [Stub(number) for number in range(4)]
    for trial in trials:
        halving.on_trial_add(controller, trial)
        halving.on_trial_result(controller, trial, {"progress": 1.0, "elbo": -float(trial.number)})
    first = halving.choose_trial_to_run(controller)  # the best of two, when there were two
    second = halving.choose_trial_to_run(controller)
    assert (first, second) == (trials[0], trials[1])
    for trial in (first, second):
        halving.on_trial_result(controller, trial, {"progress": 100.0, "elbo": 0.0, "finished": True})
        halving.on_trial_complete(controller, trial, {})
    assert halving.choose_trial_to_run(controller) is trials[2]
    assert halving.choose_trial_to_run(controller) is None


def test_a_single_trial_is_trained_to_its_end():
    came, _ = swept([7])
    assert came == {7: 100.0}


def test_a_trial_that_is_resumed_is_judged_at_the_last_rung_that_it_has_reached_and_at_a_passed_one_not_again():
    halving, controller = Halving((1.0, 2.0, 4.0), 2.0, at_once=2), Controller(0)
    for name in ("a", "b", "c", "d"):  # of a former start
        halving.on_trial_result(None, Stub(name), {"progress": 1.0, "elbo": 0.0})
    trial = Stub("resumed")
    halving.on_trial_add(controller, trial)
    assert halving.on_trial_result(controller, trial, {"progress": 1.0, "elbo": -1.0, "last": False}) == "CONTINUE"
    assert halving.on_trial_result(controller, trial, {"progress": 2.0, "elbo": -1.0, "last": True}) == "NOOP"
    assert trial.status == RayTrial.PAUSED
    assert halving.choose_trial_to_run(controller) is trial  # nothing else is left
    assert halving.on_trial_result(controller, trial, {"progress": 2.0, "elbo": -1.0, "last": True}) == "CONTINUE"
