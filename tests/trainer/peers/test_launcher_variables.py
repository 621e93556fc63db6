"""Ranks from the variables of each launcher, and one line where they do not fit together."""

import subprocess
import sys

import pytest
from support.jobs import plain_environment

from data_shards.io.errors import InputError
from trainer.peers.launcher import PlaceInJob, address_of_job, place_in_job


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, PlaceInJob()),
        ({"WORLD_SIZE": "1"}, PlaceInJob()),
        ({"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}, PlaceInJob(rank=1, world_size=3, local_rank=0)),
        ({"RANK": "1", "WORLD_SIZE": "3"}, PlaceInJob(rank=1, world_size=3)),
        (
            {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"},
            PlaceInJob(rank=2, world_size=4, local_rank=1),
        ),
        # A step of fewer tasks than the allocation has.
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "3"},
            PlaceInJob(rank=0, world_size=1),
        ),
        # Shells of `salloc`: of older versions, and of those that run them as a step of their own.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, PlaceInJob()),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "4294967290"}, PlaceInJob()),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
            PlaceInJob(rank=1, world_size=2, local_rank=1),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}, PlaceInJob(rank=1, world_size=2, local_rank=0)),
        # torchrun below srun: its own variables count.
        (
            {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"},
            PlaceInJob(rank=3, world_size=8, local_rank=3),
        ),
    ],
)
def test_the_place_of_a_process_is_what_its_launcher_says(variables, place):
    found = place_in_job(variables)
    assert (found.rank, found.world_size, found.local_rank) == (place.rank, place.world_size, place.local_rank)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"RANK": "0"}, "RANK"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "zero", "WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "²", "WORLD_SIZE": "3"}, "RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "1.5"}, "WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "2"}, "LOCAL_RANK"),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE"),
        ({"LOCAL_WORLD_SIZE": "two"}, "LOCAL_WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, "SLURM_PROCID"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_RANK"),
    ],
)
def test_variables_that_do_not_fit_together_are_refused_by_name(variables, field):
    with pytest.raises(InputError) as refused:
        place_in_job(variables)
    assert refused.value.parameter == field
    assert "unset" in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({}, "MASTER_ADDR"),
        ({"MASTER_ADDR": "", "MASTER_PORT": "29500"}, "MASTER_ADDR"),
        ({"MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "MASTER_PORT"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "70000"}, "MASTER_PORT"),
        ({"MASTER_ADDR": "no.such.machine.invalid", "MASTER_PORT": "29500"}, "MASTER_ADDR"),
    ],
)
def test_an_address_that_is_missing_or_none_is_refused_by_name(variables, field):
    with pytest.raises(InputError) as refused:
        address_of_job(PlaceInJob(rank=0, world_size=2, launcher="torchrun"), variables)
    assert refused.value.parameter == field


@pytest.mark.parametrize(
    ("module", "variables"),
    [
        (("trainer",), {"RANK": "0"}),
        (("trainer.mixture", "--run", "r"), {"RANK": "", "WORLD_SIZE": "2"}),
        (("eval", "encode", "--run", "r"), {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}),
    ],
)
def test_a_command_in_such_an_environment_ends_in_one_line(module, variables, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", *module],
        cwd=tmp_path,
        env=plain_environment() | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert next(iter(variables)) in done.stderr or "MASTER_ADDR" in done.stderr
    assert list(tmp_path.iterdir()) == []
