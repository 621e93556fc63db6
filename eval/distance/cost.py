"""What measuring a distance costs, before an hour of a GPU is spent on it."""

from dataclasses import dataclass

from data_shards.io.disk import free_bytes
from data_shards.io.errors import InputError
from data_shards.io.progress import duration
from eval.questions import DistanceQuestion
from eval.run import MeasuredRun
from trainer.dry_run import SUSTAINED, forward_operations

# One image through Inception at 299 x 299, the most expensive extractor.
EXTRACTOR_OPERATIONS = 11.4e9
# Numbers of 8 bytes in the statistics that a process holds: Inception's covariance.
_STATISTICS = 2048.0**2


@dataclass(frozen=True, kw_only=True)
class DistanceCost:
    """An estimate of time and disk, at most: with Inception's features."""

    run: MeasuredRun
    """What is measured."""
    images: int
    """Compared images."""
    reference: int
    """Real images on the other side."""
    split: str
    """Whose they are."""
    seconds: float
    """Time of the whole job."""
    disk: float
    """Bytes to be written."""
    processes: int
    """Processes of the whole job."""
    device: str
    """Where they run, cpu or cuda."""

    def lines(self) -> list[str]:
        """The estimate in words."""
        weights = sum(weight.numel() for weight in self.run.model.parameters())
        free = free_bytes(self.run.folder)
        rate = SUSTAINED[self.device] / 1e9
        return [
            f"run      {self.run.folder}: {weights:,} weights",
            f"shards   {self.run.config.data.shards}",
            f"images   {self.images:,} compared, {self.reference:,} real ones of split {self.split}",
            f"time     about {duration(self.seconds)} on {self.processes} {self.device} processes at {rate:g} GFLOP/s "
            "each",
            f"disk     {self.disk / 1e9:.2g} GB in {self.run.folder}; {free / 1e9:.4g} GB are free",
        ]

    def require_disk(self) -> None:
        """Raises InputError where the disk has too little room."""
        free = free_bytes(self.run.folder)
        if self.disk > free:
            raise InputError(f"{self.run.folder}: {self.disk / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free")


def estimate_cost(run: MeasuredRun, question: DistanceQuestion, *, device: str, processes: int) -> DistanceCost:
    """The cost of an answer on that many processes. device: cpu or cuda, which need not be on this machine.

    Raises InputError where the split does not exist.
    """
    reference = run.manifest.num_samples(question.split)
    each = forward_operations(run.model) / 2 + EXTRACTOR_OPERATIONS
    total = question.images * each + reference * EXTRACTOR_OPERATIONS
    return DistanceCost(
        run=run,
        images=question.images,
        reference=reference,
        split=question.split,
        seconds=total / (processes * SUSTAINED[device]),
        disk=processes * 8 * _STATISTICS,
        processes=processes,
        device=device,
    )
