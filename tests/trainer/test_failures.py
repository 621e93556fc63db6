"""A failure during a run leads to a skipped update or to a stop with a message, on all ranks together."""

import os
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest
from support.running import ROOT, free_port, run_module
from support.training import events, largest_relative_difference, train, weights, words

from trainer.run_folder.checkpoint import complete_checkpoints, read

# Runs the trainer with a network whose output is not finite on one rank for chosen global batches.
WITH_NANS = """
    import os, sys
    import torch
    from data_shards.io.errors import command
    from trainer.objectives import objective
    from trainer.__main__ import read_command_line
    from trainer.loop import train

    starts = [int(start) for start in os.environ["NAN_STARTS"].split(",")]
    rank = os.environ.get("RANK", "0")
    original = objective.Objective.forward

    def forward(self, batch, whole):
        terms = original(self, batch, whole)
        first = None if batch.noise.is_meta else batch.noise[0, 0].item()
        if rank == "0" and first in NOISE:
            terms = terms._replace(loss=terms.loss * float("nan"))
        return terms

    from trainer.noise import global_noise
    NOISE = {global_noise(0, "posterior", start, 30, 4)[0, 0].item() for start in starts}
    objective.Objective.forward = forward
    sys.exit(command(lambda: train(read_command_line(sys.argv[1:]).config)))
"""


def train_with_nans(tmp_path, arguments, starts, processes):
    script = tmp_path / "with_nans.py"
    script.write_text(textwrap.dedent(WITH_NANS))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*launcher, str(script), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NAN_STARTS": ",".join(map(str, starts))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_by_all(digits_shards, tmp_path):
    arguments = words(digits_shards, tmp_path, "with-nans", stage1__max_epochs=0.3, stage2__max_epochs=0)
    done = train_with_nans(tmp_path, arguments, [60, 90, 300], processes=2)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "with-nans"
    assert [(bad["batch_start"], bad["batch_images"]) for bad in events(run, "bad_step")] == [
        (60, 30),
        (90, 30),
        (300, 30),
    ]
    assert events(run, "stage_end")[0]["elbo"] > -2000


def test_too_many_bad_steps_in_a_row_stop_the_run_and_leave_the_last_checkpoint(digits_shards, tmp_path):
    arguments = words(
        digits_shards, tmp_path, "lost", stage1__max_epochs=1, checkpoint__every_images=150, checkpoint__bad_steps=3
    )
    done = train_with_nans(tmp_path, arguments, [210, 240, 270, 300], processes=2)
    assert done.returncode != 0
    assert "not finite in 3 updates in a row" in done.stderr
    run = tmp_path / "lost"
    assert events(run, "stopped")[0]["in_a_row"] == 3
    assert complete_checkpoints(run)[-1].name == f"{150:012d}"


def test_a_collapsing_variance_ends_the_stage_with_a_warning(digits_shards, tmp_path):
    run = train(digits_shards, tmp_path, "collapsed", variance__min_variance=0.5, stage2__max_epochs=0)
    assert events(run, "stage_end")[0]["reason"] == "collapsed"
    assert "variance.min_variance" in events(run, "warning")[0]["message"]


def test_a_missing_shard_set_gives_one_line(tmp_path):
    done = run_module("trainer", *words(tmp_path / "nowhere", tmp_path, "none"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# Rank 1 reads its shards from a folder that is not there.
ONE_WITHOUT_SHARDS = """
    import dataclasses, os, sys
    from data_shards.io.errors import command
    from trainer.__main__ import read_command_line
    from trainer.loop import train

    config = read_command_line(sys.argv[1:]).config
    if os.environ["RANK"] == "1":
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, shards="/nowhere"))
    sys.exit(command(lambda: train(config)))
"""


def test_a_failure_of_one_rank_before_the_first_update_ends_all(digits_shards, tmp_path):
    script = tmp_path / "one_without_shards.py"
    script.write_text(textwrap.dedent(ONE_WITHOUT_SHARDS))
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, str(script), *words(digits_shards, tmp_path, "half")],
            cwd=ROOT,
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        messages = [process.communicate(timeout=600)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [2, 2]
    assert "/nowhere" in messages[1]
    assert not (tmp_path / "half").exists()


def test_the_message_about_a_missing_split_lists_the_existing_ones(digits_shards, tmp_path):
    done = run_module("trainer", *words(digits_shards, tmp_path, "none", data__valid_split="dev"))
    assert done.returncode == 2
    assert "data.valid_split" in done.stderr
    assert "train, valid, test" in done.stderr


def test_cuda_without_a_gpu_gives_one_line(digits_shards, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = run_module("trainer", *words(digits_shards, tmp_path, "none", device="cuda"))
    assert done.returncode == 2
    assert "device" in done.stderr


def test_a_full_disk_gives_one_line_and_keeps_the_previous_checkpoint(digits_shards, tmp_path):
    """A file system of 700 KiB has room for one checkpoint of about 240 KiB and the next one's files, not for two."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(small)], check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        arguments = words(digits_shards, small, "full", checkpoint__keep_last=100, checkpoint__every_images=300)
        done = run_module("trainer", *arguments)
        assert done.returncode == 1
        assert "the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        newest = complete_checkpoints(small / "full")[-1]
        assert read(newest).state.images == int(newest.name)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_port_in_use_gives_one_line(digits_shards, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        group = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        group["MASTER_PORT"] = str(server.getsockname()[1])
        done = run_module("trainer", *words(digits_shards, tmp_path, "none"), env=group)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: MASTER_PORT")
    assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def damaged_shards(digits_shards, tmp_path_factory):
    """The digits with one pixel of one training image changed, so that its checksum does not match."""
    folder = tmp_path_factory.mktemp("damaged") / "shards"
    shutil.copytree(digits_shards, folder)
    tar = folder / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    where = content.index(b"\x93NUMPY") + 128 + 300
    content[where] ^= 255
    tar.write_bytes(content)
    return folder


def test_an_unreadable_image_is_replaced_and_counted_over_ranks(damaged_shards, tmp_path):
    fields = {"stage1__max_epochs": 1, "stage2__max_epochs": 0}
    two = train(damaged_shards, tmp_path, "two", processes=2, **fields)
    one = train(damaged_shards, tmp_path, "one", **fields)
    assert [event["total"] for event in events(two, "substituted")] == [1]
    assert [event["total"] for event in events(one, "substituted")] == [1]
    assert largest_relative_difference(weights(one), weights(two)) < 1e-4


def test_more_unreadable_images_than_allowed_stop_the_run(damaged_shards, tmp_path):
    fields = {"stage1__max_epochs": 1, "stage2__max_epochs": 0, "data__substitutes": 0}
    done = run_module("trainer", *words(damaged_shards, tmp_path, "strict", **fields))
    assert done.returncode == 2
    assert "train-000000.tar" in done.stderr.strip().splitlines()[-1]
