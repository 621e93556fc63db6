"""What a run needs, before an hour of a GPU is spent on it: python -m trainer --dry-run.

Prints the run folder, the shards, the images of both stages, and estimates of time and disk. What is missing is
reported, a line each.
"""

import os
import sys
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from data_shards.io.disk import existing_parent, free_bytes
from data_shards.io.errors import InputError
from data_shards.io.progress import duration
from data_shards.manifest import Manifest
from trainer.config.automatic import resolved, resolved_model
from trainer.config.config import Config
from trainer.device import planned_device
from trainer.networks.model import SigmaVAE
from trainer.roofline import GPUS, known_gpu, launches_of, update_seconds
from trainer.run_folder.checkpoint import complete_checkpoints, place_of
from trainer.run_folder.log import read_events
from trainer.run_folder.restore import look_into_run_folder
from trainer.trial_batch import require_trainable
from trainer.updates.finished import finished
from trainer.updates.learner import require_engine
from trainer.updates.stages import most_checkpoints

# Floating-point operations a second of one process, for networks that are not trained. cpu: what one core of 2021 does
# with both configurations of CelebA; cuda: an A100 in TF32. A run that has begun is timed instead.
SUSTAINED = {"cpu": 60e9, "cuda": 40e12}
# The same for large products that are float32 throughout, as those of a mixture are; an A100 prints 19.5e12.
FLOAT32_PRODUCTS = {"cpu": SUSTAINED["cpu"], "cuda": 15e12}
# What an update on CPUs costs beside that: Python, the reduction over all processes, the optimiser.
UPDATE_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """The most that a run costs: a stage that converges ends earlier."""

    stage_images: tuple[int, ...]
    """Images of each stage at its cap."""
    done: int
    """Images that its newest checkpoint has seen."""
    parameters: int
    """Weights of the model, without the variance head of stage 2."""
    operations: float
    """Floating-point operations for one image, forward and backward."""
    rate: float
    """Images a second, of all processes."""
    timed: bool
    """True where the rate was measured by this run; else it follows from `SUSTAINED` or, on GPUs, from `rates`."""
    rates: dict[str, float]
    """Images a second of all processes by the kind of GPU; empty for CPUs. `rate` is an A100's for a GPU not in it."""
    checkpoint_bytes: int
    """Bytes of all checkpoints that are kept at a time."""

    @property
    def seconds(self) -> float:
        """Time from here to the caps of all stages."""
        return max(0, sum(self.stage_images) - self.done) / self.rate


def forward_operations(model: SigmaVAE) -> float:
    """Floating-point operations that encode and decode one image, of a model on any device."""
    images = torch.zeros(1, *model.image_shape, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        model.decode(model.encode(images).mean)
    return float(counter.get_total_flops())


def estimate(config: Config, image_shape: tuple[int, int, int], train_images: int, processes: int) -> RunCost:
    """What the run of `config` costs on that many processes. No weight is allocated, no image read.

    image_shape: (C, H, W); train_images: images of an epoch.
    """
    with torch.device("meta"):
        model = SigmaVAE(image_shape, resolved_model(config.model, image_shape))
    operations = 3.0 * forward_operations(model)  # the backward pass costs two forward ones
    stages = (config.stage1, config.stage2) if config.two_stages else (config.stage1,)
    logged = [event["images_per_second"] for event in read_events(config.folder) if event["event"] == "train"]
    measured = [rate for rate in logged if rate]  # 0 where every update was skipped
    parameters = sum(weight.numel() for weight in model.parameters())
    # Weights and Adam's two moments, perhaps an average, all float32; beside the newest, the end of each stage is kept.
    copies = 3 + (config.optimiser.ema_images > 0)
    saved = complete_checkpoints(config.folder)
    written = sum(most_checkpoints(stage, train_images, config.checkpoint.every_images) for stage in stages)
    kept = min(config.checkpoint.keep_last, written) + len(stages) + 1  # and the best
    batch, rates = config.data.global_batch, {}
    if planned_device(config.device) == "cuda":
        launches = launches_of(replace(config, model=resolved_model(config.model, image_shape)), image_shape)
        for gpu in GPUS:
            seconds = update_seconds(
                gpu,
                operations=batch * operations,
                weights=parameters,
                launches=launches,
                bf16=config.engine.precision != "float32",
                graphs=config.engine.name == "ddp" and bool(config.engine.cuda_graphs),
                processes=processes,
            )
            rates[gpu.name] = batch / seconds
        rate = rates[this_gpu() or "A100"]
    else:
        rate = batch / (batch * operations / (processes * SUSTAINED["cpu"]) + UPDATE_SECONDS)
    return RunCost(
        stage_images=tuple(stage.cap(train_images) for stage in stages),
        done=(place_of(saved[-1]) or (0, 0))[0] if saved else 0,
        parameters=parameters,
        operations=operations,
        rate=measured[-1] if measured else rate,
        timed=bool(measured),
        rates=rates,
        checkpoint_bytes=4 * parameters * copies * kept,
    )


def this_gpu() -> str:
    """The name in the table of the GPU of this machine; empty where it has none or another one."""
    gpu = known_gpu(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return gpu.name if gpu is not None else ""


def time_lines(cost: RunCost, device: str, processes: int) -> list[str]:
    """How long the run takes at most, for each GPU that it may be meant for."""
    on = f"on {processes} {device} processes"
    if cost.timed or device == "cpu":
        from_where = "as this run was timed" if cost.timed else f"guessed at {SUSTAINED['cpu'] / 1e9:g} GFLOP/s each"
        return [f"at most {duration(cost.seconds)} {on}, {from_where}"]
    images = max(0, sum(cost.stage_images) - cost.done)
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    shown = [this_gpu()] if this_gpu() else [] if here else list(cost.rates)
    lines = [
        f"at most {duration(images / cost.rates[name])} {on} of {name}: {cost.rates[name]:,.0f} images/s by its "
        "printed rates, within a factor of 2"
        for name in shown
    ]
    if not this_gpu():
        other = here or "another GPU"
        lines.append(f"unknown {on} of {other}: measure 50 updates; this then takes their rate from the run's log")
    return lines


def missing(config: Config, *, allow_change: bool = False) -> list[str]:
    """One line for everything that would stop the run before its first update."""
    found: list[str] = []
    shape: tuple[int, int, int] | None = None
    try:
        manifest = Manifest.load(config.data.location)
    except InputError as error:
        found.append(f"data.shards: {error}")
    else:
        shape = manifest.image_shape
        for field in ("train_split", "valid_split"):
            split = getattr(config.data, field)
            if split not in manifest.splits:
                found.append(f"data.{field}: {manifest.lacks(split, config.data.shards)}")
    try:
        if shape is not None:
            config = resolved(config, shape)
            require_trainable(config, shape)
        require_engine(config)
        if shape is not None and not found:
            look_into_run_folder(config, allow_change=allow_change)
    except InputError as error:
        found.append(str(error))
    return found


def dry_run(config: Config, processes: int, *, allow_change: bool = False) -> None:
    """Prints what the run of `config` costs on that many processes, or that it is complete.

    Raises InputError where something is missing.
    """
    lines = missing(config, allow_change=allow_change)
    if not lines and (line := finished(config, allow_change=allow_change)) is not None:
        print(line)
        return
    if not os.access(existing_parent(config.folder), os.W_OK):
        lines.append(f"runs: {existing_parent(config.folder)} cannot be written; choose another folder")
    for line in lines[:-1]:
        print(f"missing: {line}", file=sys.stderr)
    if lines:
        raise InputError(f"missing: {lines[-1]}")
    manifest, device = Manifest.load(config.data.location), planned_device(config.device)
    config.require_device(device)
    cost = estimate(config, manifest.image_shape, manifest.num_samples(config.data.train_split), processes)
    counts = ", ".join(f"{split} {manifest.num_samples(split):,}" for split in manifest.splits)
    stages = ", ".join(f"stage {number} {images:,}" for number, images in enumerate(cost.stage_images, start=1))
    free = free_bytes(config.folder)
    print(f"run      {config.folder}, {cost.done:,} images done")
    print(f"shards   {config.data.shards}: {counts}")
    print(f"model    {cost.parameters:,} weights, {cost.operations / 1e9:.3g} GFLOP an image")
    print(f"images   at most: {stages}")
    for line in time_lines(cost, device, processes):
        print(f"time     {line}")
    print(f"disk     {cost.checkpoint_bytes / 1e9:.2g} GB of checkpoints; {free / 1e9:.4g} GB are free")
    if cost.checkpoint_bytes > free:
        raise InputError(f"{cost.checkpoint_bytes / 1e9:.2g} GB are needed, {free / 1e9:.2g} GB are free", "runs")
