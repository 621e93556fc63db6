"""How a run reads its shards: readers that outlive a stop, a server of shards that fails, and flips."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.failing_server import failing
from support.running import ROOT
from support.training import events, train, weights, words


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(digits_shards, tmp_path_factory):
    return weights(train(digits_shards, tmp_path_factory.mktemp("whole"), "whole"))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR2, marks=pytest.mark.slow)])
def test_a_stop_sent_to_the_whole_process_group_keeps_the_work(digits_shards, tmp_path, whole, number):
    held = [str(ROOT / "tests/support/held_training.py"), str(tmp_path), "600"]
    process = subprocess.Popen(
        [sys.executable, *held, *words(digits_shards, tmp_path, "run", data__workers=2)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = tmp_path / "run"
    while process.poll() is None and not (tmp_path / "held").exists():
        time.sleep(0.02)
    os.killpg(process.pid, number)
    (tmp_path / "go").touch()
    _, errors = process.communicate()
    assert "Traceback" not in errors
    assert "reader process" not in errors
    assert (run / "requeue").exists()
    train(digits_shards, tmp_path, "run", data__workers=2)
    assert same(weights(run), whole)


def test_a_run_over_a_server_that_fails_has_the_weights_of_a_local_one(digits_shards, tmp_path, whole):
    with failing(digits_shards, "503") as server:
        cache = {"data__cache_dir": tmp_path / "cache", "data__workers": 1}
        run = train(server.address, tmp_path, "remote", **cache)
        assert server.failed > 0
    assert same(weights(run), whole)
    assert list((tmp_path / "cache").glob("*/*.tar"))


def test_flips_change_what_is_trained_and_not_what_is_measured(digits_shards, tmp_path, whole):
    options = {"stage1__max_epochs": 0.3, "stage2__max_epochs": 0, "optimiser__learning_rate": 1e-12}
    plain = train(digits_shards, tmp_path, "plain", **options)
    mirrored = train(digits_shards, tmp_path, "mirrored", data__flip="true", **options)
    assert not same(weights(plain), weights(mirrored))
    ends = [events(run, "stage_end")[-1] for run in (plain, mirrored)]
    assert ends[0]["elbo"] == pytest.approx(ends[1]["elbo"], rel=1e-4)
