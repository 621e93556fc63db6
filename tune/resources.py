"""What a trial needs of the machines, and how many fit on them: node by node, for a process is on one machine."""

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ray
from ray.tune import PlacementGroupFactory

from data_shards.io.errors import InputError
from tune.sweep_config import SweepConfig


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Of one trial."""

    workers: int
    """Processes; they may be on several machines."""
    cpus: int
    """Of each process."""
    gpus: float
    """Of each process."""

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
        return f"{self.workers} of {self.cpus} CPUs{gpus} each"

    def processes_on(self, node: Mapping[str, float]) -> int:
        """How many of the processes fit on a machine with these resources."""
        fit = int(node.get("CPU", 0) // self.cpus)
        if not self.gpus:
            return fit
        on_one = int(1 / self.gpus + 1e-9)  # of 0.4 two: a part of a GPU is of one GPU
        return min(fit, int(node.get("GPU", 0)) * on_one)

    def trials_on(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many trials fit on machines at a time."""
        return sum(self.processes_on(node) for node in nodes) // self.workers

    def placement(self) -> PlacementGroupFactory:
        """As Ray is asked for it: rank 0 and with it Ray's own actor is the first bundle."""
        bundle: dict[str, float] = {"CPU": self.cpus}
        if self.gpus:
            bundle["GPU"] = self.gpus
        return PlacementGroupFactory([bundle] * self.workers, strategy="PACK")


def nodes() -> list[dict[str, float]]:
    """The resources of each living machine of the Ray cluster, used or not."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def machines_text(found: Iterable[Mapping[str, float]]) -> str:
    """What machines have, in words, the largest first."""
    largest = sorted(found, key=lambda node: (-node.get("GPU", 0), -node.get("CPU", 0)))
    each = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in largest]
    return "; ".join(f"{each.count(one)} x {one}" if each.count(one) > 1 else one for one in dict.fromkeys(each))


@ray.remote
def _sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def runs_on_gpu(sweep: SweepConfig) -> bool:
    """Whether trials run on GPUs: where they must, or where `auto` finds enough that torch can use.

    Raises InputError where cuda is asked for and there is none.
    """
    device = sweep.fields["device"]
    if device == "cpu":
        return False
    needs = Needs(workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=sweep.gpus_per_worker)
    found = nodes()
    if needs.trials_on(found) < 1:
        if device == "cuda" and not sweep.concurrent:
            has = machines_text(found)
            raise InputError(f"cuda is requested: a trial needs {needs}, but the machines have {has}", "device")
        if device != "cuda" and any(node.get("GPU") for node in found):
            _tell_of_cpu(f"a trial on GPUs needs {needs}, but the machines have {machines_text(found)}")
        return bool(device == "cuda")
    # Ray counts what it was told or what the driver lists; torch may have been built without CUDA.
    if ray.get(_sees_cuda.options(num_cpus=0, num_gpus=min(1, sweep.gpus_per_worker)).remote()):
        return True
    if device == "cuda":
        raise InputError("cuda is requested, and Ray has GPUs, but torch there finds no CUDA device", "device")
    _tell_of_cpu("Ray has GPUs, but torch there finds no CUDA device")
    return False


@functools.cache  # said once, also by a sweep with a second phase
def _tell_of_cpu(why: str) -> None:
    print(f"trials train on the CPU: {why}", file=sys.stderr, flush=True)


def trials_at_once(sweep: SweepConfig, needs: Needs) -> int:
    """Trials at once, from the sweep's file or as many as fit on the machines now.

    The file's number may be larger than what fits now: an autoscaled cluster grows when trials wait. Raises InputError
    where not one fits.
    """
    found = nodes()
    fit = needs.trials_on(found)
    if fit < 1 and not sweep.concurrent:
        raise InputError(
            f"{needs} are needed, each on one machine, but the machines have {machines_text(found)}; lower workers or "
            "cpus_per_worker, or add machines",
            parameter="workers",
        )
    return sweep.concurrent or fit
