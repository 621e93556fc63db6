"""When a stage ends (decisions D1 and D2)."""

import itertools

from trainer.config.sections import StageConfig
from trainer.run_folder.checkpoint import StageState
from trainer.updates.stages import Stages


def stages(**fields) -> Stages:
    config = StageConfig(**{"max_epochs": 4, "eps": 0.01, "patience": 2, "check_images": 50, "smoothing": 1.0} | fields)
    return Stages((config, config), train_images=100, held_out_images=100)


def test_a_stage_ends_at_its_cap_of_epochs():
    machine = stages()
    checks = [machine.advance(50) for _ in range(8)]
    for elbo in range(1, 8):
        machine.check(100.0 * elbo)
        if machine.state.images < machine.cap:
            assert not machine.state.ended
    assert checks == [True] * 8
    assert machine.state.ended == "cap"


def test_a_stage_ends_after_patience_checks_without_gain():
    machine = stages()
    machine.advance(50)
    for elbo in (100.0, 120.0, 120.5, 121.0):
        assert not machine.state.ended
        machine.check(elbo)
    assert machine.state.ended == "converged"


def test_one_check_with_gain_starts_the_count_again():
    machine = stages()
    machine.advance(50)
    for elbo in (100.0, 100.1, 130.0, 130.1):
        machine.check(elbo)
    assert not machine.state.ended
    assert machine.state.without_gain == 1


def test_smoothing_averages_over_checks():
    machine = stages(smoothing=0.25)
    machine.check(100.0)
    machine.check(200.0)
    assert machine.state.smoothed == 125.0


def test_a_rising_negative_elbo_counts_as_gain():
    machine = stages()
    for elbo in (-1000.0, -900.0, -800.0):
        machine.check(elbo)
    assert machine.state.without_gain == 0


def test_counters_start_at_zero_in_stage_2():
    machine = stages()
    machine.advance(400)
    machine.check(1.0)
    machine.enter_next()
    assert machine.state == StageState(stage=2)
    assert machine.is_last


def test_a_check_is_due_when_its_multiple_of_images_is_crossed():
    machine = stages()
    assert [machine.advance(30) for _ in range(4)] == [False, True, False, True]


def test_held_out_images_are_measured_after_every_quarter_more_images():
    machine = stages(max_epochs=100, check_images=10**6)
    machine.held_out_images = 10
    looks = [machine.state.images for _ in range(1000) if machine.advance(10)]
    assert looks[:7] == [40, 80, 120, 160, 200, 250, 320]
    assert all(later <= 1.25 * before + 10 for before, later in itertools.pairwise(looks[3:]))
    assert looks[-1] == machine.cap


def test_measurements_need_four_images_of_updates_for_each_held_out_image():
    machine = stages(max_epochs=40, check_images=10**6)
    machine.held_out_images = 500
    assert [machine.state.images for _ in range(80) if machine.advance(50)] == [2000, 4000]


def test_the_best_of_a_stage_is_its_largest_finite_elbo():
    machine = stages()
    found = []
    for elbo in (-20.0, 5.0, float("nan"), float("inf"), 4.0):
        machine.advance(50)
        found.append(machine.look(elbo))
    assert found == [True, True, False, False, False]
    assert (machine.state.best_elbo, machine.state.best_images) == (5.0, 100)


def test_a_variance_below_its_minimum_ends_the_stage_as_collapsed():
    machine = stages()
    machine.check(100.0, collapsed=True)
    assert machine.state.ended == "collapsed"


def test_the_last_image_of_a_run_counts_both_stages():
    machine = stages()
    assert machine.last_image == 800
    machine.advance(150)
    machine.enter_next()
    assert machine.last_image == 150 + 400
