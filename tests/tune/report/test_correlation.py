"""Whether the early metric predicts the final one."""

import random

import pytest
from scipy.stats import kendalltau
from support.sweep_cases import record

from tune.report.analysis import early_and_final


@pytest.mark.parametrize(("sign", "rho"), [(1, 1.0), (-1, -1.0)])
def test_the_rank_correlation_is_1_where_the_early_order_is_the_final_one_best_with_best(sign, rho):
    # A low distance is good: the best early trial has the lowest distance where the order is kept.
    records = [record(n, fd_final=100.0 - sign * n**2) for n in range(6)]
    found = {one.final: one for one in early_and_final(records, [1000])}
    assert (found["fd"].rho, found["fd"].trials) == (pytest.approx(rho), 6)
    assert found["elbo"].rho == pytest.approx(1.0)


def test_the_rank_correlation_agrees_in_sign_with_kendalls_and_leaves_out_trials_that_had_ended_by_then():
    generator = random.Random(3)
    finals = [generator.random() for _ in range(10)]
    records = [record(n, fd_final=value) for n, value in enumerate(finals)]
    (found,) = [one for one in early_and_final([*records, record(10, images=900)], [1000]) if one.final == "fd"]
    assert found.trials == 10
    assert found.rho * kendalltau(range(10), [-value for value in finals]).statistic > 0


def test_the_rank_correlation_of_two_trials_is_not_given():
    assert all(one.rho is None for one in early_and_final([record(0), record(1)], [1000]))
