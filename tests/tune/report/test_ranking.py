"""Which configuration is best, and which trials are Pareto-optimal."""

import math
import random

import pytest
from support.sweep_cases import record

from tune.report.ranking import best_configuration, pareto_front, ranking


def test_configurations_rank_by_their_mean_over_seeds_with_the_standard_deviation_over_them():
    records = [
        *(record(0, seed=seed, fd_final=value) for seed, value in enumerate((10.0, 30.0))),
        *(record(1, seed=seed, fd_final=value) for seed, value in enumerate((18.0, 20.0))),
    ]
    ranked = ranking(records, "fd")
    assert [(one.number, one.mean) for one in ranked] == [(1, 19.0), (0, 20.0)]
    assert ranked[1].spread == pytest.approx(math.sqrt(200))


def test_a_configuration_with_fewer_finished_seeds_ranks_behind_all_with_more():
    records = [record(0, fd_final=1.0), *(record(1, seed=seed, fd_final=50.0) for seed in (0, 1))]
    assert [one.number for one in ranking(records, "fd")] == [1, 0]


def test_stopped_failed_and_confirming_trials_are_not_ranked():
    records = [
        record(0),
        record(1, status="stopped"),
        record(2, status="failed"),
        record(3, phase="confirm"),
        record(4, fd_final=None),
    ]
    assert best_configuration(records, "fd") == record(0).fields
    assert len(ranking(records, "fd")) == 1
    assert best_configuration(records[1:], "fd") is None


def test_the_pareto_front_holds_exactly_the_trials_that_no_other_beats_in_both():
    generator = random.Random(5)
    records = [record(n, seconds=generator.random(), fd_final=generator.random()) for n in range(60)]

    def beaten(one):
        return any(
            other.seconds <= one.seconds and other.fd_final <= one.fd_final and other is not one for other in records
        )

    expected = {one.trial for one in records if not beaten(one)}
    found = pareto_front(records, "fd")
    assert {one.trial for one in found} == expected
    assert [one.seconds for one in found] == sorted(one.seconds for one in found)
