"""Which process of a job this is, as the launcher's environment variables say."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from data_shards.io.errors import InputError

# The variables of each launcher: rank, processes of the job (of two, the first that is set), rank on the machine.
_LAUNCHERS = {
    "torchrun": ("RANK", ("WORLD_SIZE",), "LOCAL_RANK"),
    "srun": ("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "SLURM_LOCALID"),
    "mpirun": ("OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), "OMPI_COMM_WORLD_LOCAL_RANK"),
    "mpiexec": ("PMI_RANK", ("PMI_SIZE",), "MPI_LOCALRANKID"),
}
# Slurm's own steps, such as the shell of `salloc`, have numbers from here on.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0


@dataclass(frozen=True, kw_only=True)
class PlaceInJob:
    """One process's place in its job."""

    rank: int = 0
    """0 to world_size - 1."""
    world_size: int = 1
    local_rank: int | None = None
    """Rank within its machine; None where the launcher does not say."""
    launcher: str = ""
    """Empty for a process that was started by itself."""


@dataclass(frozen=True, kw_only=True)
class MasterAddress:
    """Where the processes of a job find each other."""

    host: str
    port: int
    of_launcher: bool
    """True where torchrun's agent listens there; else rank 0 does."""
    attempt: str
    """Which restart by torchrun this is."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def place_in_job(environment: Mapping[str, str] = os.environ) -> PlaceInJob:
    """This process's rank and the size of its job. Raises InputError where the variables do not fit together."""
    of_machine = _at_least_one(environment, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else None
    for launcher, (rank_name, size_names, local_name) in _LAUNCHERS.items():
        if rank_name not in environment or (launcher == "srun" and not _is_srun(environment)):
            continue
        size_name = next((name for name in size_names if name in environment), None)
        if size_name is None:
            raise InputError(f"is set, but {size_names[-1]} is not; {_remedy(rank_name)}", parameter=rank_name)
        rank, world_size = _number(environment, rank_name), _at_least_one(environment, size_name)
        _require_below(rank, rank_name, world_size, size_name)
        local_rank = _number(environment, local_name) if local_name in environment else None
        if local_rank is not None:
            _require_below(local_rank, local_name, world_size, size_name)
            if launcher == "torchrun" and of_machine is not None:
                _require_below(local_rank, local_name, of_machine, "LOCAL_WORLD_SIZE")
        return PlaceInJob(rank=rank, world_size=world_size, local_rank=local_rank, launcher=launcher)
    if environment.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            f"is set ({environment['WORLD_SIZE']!r}), but RANK is not; {_remedy('WORLD_SIZE')}", parameter="WORLD_SIZE"
        )
    return PlaceInJob()


def address_of_job(place: PlaceInJob, environment: Mapping[str, str] = os.environ) -> MasterAddress:
    """Where the processes of a job of several meet. Raises InputError where that is not set, or is no address."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise InputError(
                f"not set, though {place.launcher} started {place.world_size} processes; start them with torchrun, or "
                "set MASTER_ADDR and MASTER_PORT, the same for all, to the machine of rank 0 and a free port",
                parameter=name,
            )
    host, port = environment["MASTER_ADDR"], _number(environment, "MASTER_PORT")
    if not 0 < port < 65536:
        raise InputError(f"{port} is no port; use a free one from 1024 to 65535", parameter="MASTER_PORT")
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise InputError(
            f"{host!r} is not the address of a machine ({error.args[-1]}); use the name or IP address of the machine "
            "of rank 0",
            parameter="MASTER_ADDR",
        ) from error
    return MasterAddress(
        host=host,
        port=port,
        of_launcher=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def require_address(environment: Mapping[str, str] = os.environ) -> None:
    """Raises InputError where the variables say that this process is one of several, but not where they meet."""
    place = place_in_job(environment)
    if place.world_size > 1:
        address_of_job(place, environment)


def _is_srun(environment: Mapping[str, str]) -> bool:
    """Whether a step of srun started this process: a shell inside an allocation carries SLURM_PROCID too."""
    step = environment.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < _FIRST_SPECIAL_STEP


def _at_least_one(environment: Mapping[str, str], name: str) -> int:
    number = _number(environment, name)
    if number < 1:
        raise InputError(f"{number} is below 1; {_remedy(name)}", parameter=name)
    return number


def _require_below(rank: int, rank_name: str, size: int, size_name: str) -> None:
    if rank >= size:
        raise InputError(f"{rank} is not below {size_name}, which is {size}; {_remedy(rank_name)}", parameter=rank_name)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name].strip()
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{environment[name]!r} is not a whole number from 0; {_remedy(name)}", parameter=name)
    return int(text)


def _remedy(name: str) -> str:
    return f"start several processes with torchrun, or one with `unset {name}`"
