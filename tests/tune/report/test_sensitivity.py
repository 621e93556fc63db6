"""What each searched field changes."""

from support.sweep_cases import record

from tune.report.analysis import sensitivity
from tune.report.figures import sensitivity_figure
from tune.space import read_space

SPACE = read_space({"model.latent_dim": {"choice": [2, 3, 4, 5, 6, 7]}})


def test_sensitivity_counts_stopped_trials_early_and_finished_ones_late():
    records = [
        record(0, fields={"model.latent_dim": 2}, fd_final=10.0),
        record(2, fields={"model.latent_dim": 2}, status="stopped", fd_final=None),
        record(1, fields={"model.latent_dim": 3}, fd_final=30.0),
        record(3, fields={"model.latent_dim": 3}, status="failed"),
    ]
    two, three = sensitivity(records, SPACE, "fd", 1000)
    assert (two.value, two.trials, two.early, two.finished, two.objective) == ("2", 2, 2.0, 1, 10.0)
    assert (three.trials, three.early, three.objective) == (1, 2.0, 30.0)


def test_a_continuous_field_is_cut_into_thirds_of_its_trials():
    space = read_space({"a": {"loguniform": [0.001, 1.0]}})
    records = [record(n, fields={"a": 0.001 * 2**n}) for n in range(9)]
    groups = sensitivity(records, space, "fd", 1000)
    assert [one.trials for one in groups] == [3, 3, 3]
    assert groups[0].value == "0.001 to 0.004"


def test_values_that_only_an_earlier_space_had_are_groups_of_their_own():
    space = read_space({"model.latent_dim": {"choice": [3, 2]}})
    records = [record(n, fields={"model.latent_dim": value}) for n, value in enumerate([2, 99, 3])]
    assert [one.value for one in sensitivity(records, space, "fd", 1000)] == ["3", "2", "99"]
    assert b"99" in sensitivity_figure(records, space, 1000)
