"""Whether the best configuration beats the default."""

import pytest
from support.sweep_cases import record

from tune.report.analysis import against_default


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ((1.0, 2.0, 3.0), "best is better with every seed"),
        ((9.0, 9.0, 9.0), "best is worse with every seed"),
        ((1.0, 9.0, 9.0), "best is better with 1 of 3 seeds"),
    ],
)
def test_best_against_default_is_called_better_only_where_that_holds_with_every_seed(ours, verdict):
    records = [
        *(record(0, phase="confirm", seed=seed, fd_final=value) for seed, value in enumerate(ours, start=1)),
        *(record(1, phase="confirm", seed=seed, fd_final=5.0) for seed in (1, 2, 3)),
        record(0, phase="confirm", seed=4, fd_final=0.0),  # the default has not finished this seed
    ]
    found = against_default([record(0), *records], "elbo")
    assert found.seeds == 3
    (distance,) = [one for one in found.comparisons if one.title == "Held-out FD of samples"]
    assert distance.verdict == verdict


def test_what_was_confirmed_before_the_search_found_a_better_one_is_not_called_the_best():
    before = [record(0), record(0, phase="confirm", seed=1, fd_final=1.0), record(1, phase="confirm", seed=1)]
    assert against_default(before, "elbo").fields == {"model.latent_dim": 2}
    # Configuration 5 is the best now; the trial of its confirmation has number 2 there.
    better = record(5)
    assert against_default([*before, better], "elbo") is None
    confirmed = record(2, phase="confirm", seed=1, fields=better.fields, fd_final=7.0)
    found = against_default([*before, better, confirmed], "elbo")
    (distance,) = [one for one in found.comparisons if one.title == "Held-out FD of samples"]
    assert (found.fields, distance.best) == (better.fields, "7.0")
