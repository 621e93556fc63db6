"""Progress on a terminal and in log files."""

import time

import pytest

from data_shards.io.progress import Progress, duration


def test_progress_away_from_a_terminal_ends_with_a_line_of_all_facts(capsys):
    with Progress("build", 1000) as bar:
        bar.update(0)
        time.sleep(0.01)
        bar.update(1000, bad=3)
    line = capsys.readouterr().err
    assert line.startswith("build  1,000 of 1,000 images  ")
    assert "images/s  bad 3  0s left\n" in line


def test_a_rank_that_does_not_show_says_nothing(capsys):
    with Progress("build", 10, show=False) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.4, "59s"), (185, "3m05s"), (4020, "1h07m")])
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text
