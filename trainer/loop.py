"""Algorithm 1: both stages, from the first image to the last, through any interruption.

What decides the weights is a function of (configuration, seed, position in the stream) alone. So a run that was killed
goes on from its last checkpoint to the very weights of one that was not, and any number of processes gives the same
weights up to the order of floating-point sums.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data_shards.io.atomic import write_text
from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.stream import Batch, ShardStream
from trainer.config.config import Config, differences, to_yaml
from trainer.engines.ddp import DdpEngine, Engine
from trainer.engines.heap import keep_freed_memory
from trainer.engines.meter import Meter
from trainer.engines.profiling import profiler
from trainer.networks.model import SigmaVAE
from trainer.noise import global_noise, rank_slice
from trainer.objectives.objective import Objective, Share, initial_variance, learns_variance_by_gradient
from trainer.preemption import StopRequest
from trainer.process_group import Ranks, process_group
from trainer.run_folder import checkpoint as checkpoints
from trainer.run_folder.checkpoint import Checkpoint
from trainer.run_folder.log import Listener, RunLog
from trainer.run_folder.restore import AVERAGE_PREFIX, averaged, load_config
from trainer.updates.ema import WeightAverage
from trainer.updates.held_out import HeldOut, held_out
from trainer.updates.optimiser import step_size
from trainer.updates.stages import Stages, StageState
from trainer.updates.variance import VarianceUpdate, exact_variance


def train(config: Config, listener: Listener | None = None) -> Path:
    """Trains, or goes on training, the run that `config` describes. Returns its folder.

    Under torchrun or srun all processes call it together. The run is over when state.json of the newest checkpoint
    says that its last stage has ended; stopped before that, `requeue` in the folder says why. The listener hears every
    event of metrics.jsonl on every process; a process group that is there already is joined.
    """
    with process_group(config.device) as ranks:
        if ranks.device.type == "cpu":
            keep_freed_memory()
        # One rank's mistake must end all of them, or the others wait for it.
        trainer = _agreed(ranks, lambda: Trainer(config, ranks, listener))
        trainer.run()
    return config.folder


def _agreed(ranks: Ranks, action: Callable[[], Any]) -> Any:
    """The action's result, or an InputError on every rank where it failed on one."""
    error: InputError | OSError | None = None
    result = None
    try:
        result = action()
    except (InputError, OSError) as caught:
        error = caught
    if ranks.any(error is not None):
        raise error if error is not None else SystemExit(2)
    return result


class Trainer:
    """One process's side of a run."""

    def __init__(self, config: Config, ranks: Ranks, listener: Listener | None = None) -> None:
        self.listener = listener
        self.config, self.ranks, self.run_folder = config, ranks, config.folder
        self.manifest = Manifest.load(config.data.shards)
        self.train_images = self._count(config.data.train_split, "data.train_split")
        self._count(config.data.valid_split, "data.valid_split")
        stages = (config.stage1, config.stage2) if config.two_stages else (config.stage1,)
        saved = self._open_folder()
        state = saved.state if saved else None
        if state and state["manifest"] != self.manifest.hash:
            raise InputError(
                f"data.shards: {config.data.shards} is not the shard set that {self.run_folder} was trained on "
                f"(its hash was {state['manifest'][:12]}, here {self.manifest.hash[:12]}); choose another name"
            )
        self.stages = Stages(stages, self.train_images, StageState(**state["stages"]) if state else None)
        self.position = state["images"] if state else 0
        self.bad_steps = state["bad_steps"] if state else 0
        self.engine = self._build_engine(self._build_model(saved))
        self.variance = VarianceUpdate(config.variance, ranks.device)
        self.average = WeightAverage(self.model, config.optimiser.ema_images) if config.optimiser.ema_images else None
        if saved:
            self.variance.state.copy_(saved.training["variance/state"])
            if self.average is not None:
                self.average.average = {k: v.to(ranks.device) for k, v in averaged(saved.training).items()}
            self.engine.load_optimiser_state(saved.training)
        self.resumed = saved is not None
        self.substituted = state["substituted"] if state else 0

    def _count(self, split: str, field: str) -> int:
        if split not in self.manifest.splits or self.manifest.num_samples(split) == 0:
            known = ", ".join(self.manifest.splits)
            raise InputError(f"{field}: {self.config.data.shards} has no split {split!r}; it has {known}")
        return self.manifest.num_samples(split)

    def _open_folder(self) -> Checkpoint | None:
        """Checks config.yaml of an existing run against this configuration; returns its newest sound checkpoint."""
        path = self.run_folder / "config.yaml"
        if not path.exists():
            self.ranks.barrier()
            if self.ranks.is_main:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, to_yaml(self.config))
            self.damaged: list[str] = []
            return None
        changed = differences(load_config(self.run_folder), self.config)
        if changed:
            raise InputError(
                f"{path}: the run was started with another configuration ({'; '.join(changed)}); "
                "restore these fields or choose another name"
            )
        self.ranks.barrier()
        saved, self.damaged = checkpoints.newest_sound(self.run_folder)
        if saved is None and self.damaged:
            raise InputError(f"{self.damaged[0]}; none is sound")
        return saved

    def _build_model(self, saved: Checkpoint | None) -> SigmaVAE:
        config = self.config
        torch.manual_seed(config.seed)
        model = SigmaVAE(
            self.manifest.image_shape,
            config.model,
            initial_variance=initial_variance(config.objective, config.variance),
            learn_variance=learns_variance_by_gradient(config.objective, config.variance)
            and not (saved and saved.state["per_pixel"]),
        )
        if saved:
            if saved.state["per_pixel"]:
                model.add_variance_head(1.0)
            model.load_state_dict(saved.model)
        engine = config.engine
        contiguous = engine.memory_format == "contiguous" or engine.name == "deepspeed"
        self.memory_format = torch.contiguous_format if contiguous else torch.channels_last
        return model.to(self.ranks.device).to(memory_format=self.memory_format).train()

    def _build_engine(self, model: SigmaVAE) -> Engine:
        objective = Objective(model, self.config.objective, self.config.variance)
        if self.config.engine.name == "deepspeed":
            # Imported where it is asked for: it takes seconds, and looks for a compiler.
            from trainer.engines.deepspeed import DeepSpeedEngine

            return DeepSpeedEngine(objective, self.config, self.ranks)
        return DdpEngine(objective, self.config, self.ranks)

    @property
    def model(self) -> SigmaVAE:
        """The model as it is now; an engine may replace it at the switch."""
        return self.engine.objective.model

    @property
    def last_image(self) -> int:
        """Position at which the run ends at the latest."""
        later = self.stages.configs[self.stages.state.stage :]
        rest = sum(round(stage.max_epochs * self.train_images) for stage in later)
        return self.position - self.stages.state.images + self.stages.cap + rest

    def run(self) -> None:
        """Trains until the last stage ends or a stop is asked for."""
        config = self.config
        if self.resumed and self.stages.is_last and self.stages.state.ended:
            if self.ranks.is_main:
                print(f"{self.run_folder} is complete: {self.position:,} images, {self.stages.state.ended}")
            return
        if self.ranks.is_main:
            (self.run_folder / "requeue").unlink(missing_ok=True)
        self.log = RunLog(
            self.run_folder,
            images=self.position,
            total=self.last_image,
            tensorboard=config.log.tensorboard,
            main=self.ranks.is_main,
            listener=self.listener,
        )
        for line in self.damaged:
            self.log.event("checkpoint_damaged", self.position, message=line)
        if self.resumed:
            self.log.event("resume", self.position, stage=self.stages.state.stage, world_size=self.ranks.world_size)
        self.meter = Meter(self.ranks.device)
        try:
            # The trace is of the first process; the others do the same work.
            steps = config.log.profile_steps if self.ranks.is_main else 0
            with (
                StopRequest(self.run_folder, config.checkpoint.walltime_minutes) as self.stop,
                profiler(self.run_folder / "profile.json", steps) as self.profiler,
            ):
                self._run()
        finally:
            self.log.close()

    def _run(self) -> None:
        if self.stages.state.ended:
            self._enter_stage2()
        stream = ShardStream(
            self.config.data.shards,
            split=self.config.data.train_split,
            global_batch=self.config.data.global_batch,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            workers=self.config.data.workers,
            seed=self.config.seed,
            position=self.position,
            max_substitutes=self.config.data.substitutes,
        )
        while True:
            for batch in self.meter.waiting(stream):
                asked = self._update(batch)
                if self.profiler is not None:
                    self.profiler.step()
                finished = self._after_update(batch)
                if finished:
                    return
                if asked:
                    self._stop()
                    return

    def _update(self, batch: Batch) -> bool:
        """One update. Returns True where any rank was asked to stop."""
        state, config, device = self.stages.state, self.config, self.ranks.device
        width = self.model.latent_dim
        noise = global_noise(config.seed, "posterior", batch.start, batch.count, width)
        draws = batch.count if config.objective.name == "wae_mmd" else 0
        share = Share(
            images=batch.image.to(device, non_blocking=True, memory_format=self.memory_format),
            noise=noise.to(device, non_blocking=True),
            prior=global_noise(config.seed, "prior", batch.start, draws, width).to(device, non_blocking=True),
            start=rank_slice(batch.count, self.ranks.rank, self.ranks.world_size).start,
            rows=batch.count,
        )
        warmup = config.objective.kl_warmup_images
        result = self.engine.step(
            share,
            step_size=step_size(
                config,
                stage=state.stage,
                stage_images=state.images,
                stage_cap=self.stages.cap,
                images=self.position + batch.count,
            ),
            kl_weight=min(1.0, self.position / warmup) if warmup else 1.0,
            signals=(float(bool(self.stop.reason())), float(batch.substituted)),
        )
        if state.stage == 1 and config.objective.name == "sigma_vae" and config.variance.update != "adam":
            self.variance.after_batch(self.model, result.sums[3], batch.count, result.finite)
            if (batch.start + batch.count) % self.train_images == 0:
                self.variance.after_epoch(self.model)
        if self.average is not None:
            self.average.update(self.model, batch.count)
        self.meter.add(batch, result)
        self.position += batch.count
        return self.meter.stop_asked(result)

    def _due(self, every: int, batch: Batch) -> bool:
        return self.position // every > batch.start // every

    def _after_update(self, batch: Batch) -> bool:
        """Everything that happens between two updates. Returns True at the end of the run."""
        check = self.stages.advance(batch.count)
        if check or self._due(self.config.log.every_images, batch) or self.meter.must_read():
            self._report()
        if check:
            self._check()
        ended = bool(self.stages.state.ended)
        if ended:
            self._end_stage()
        elif self._due(self.config.checkpoint.every_images, batch):
            self._save()
        if ended and self.stages.is_last:
            return True
        if ended:
            self._enter_stage2()
        return False

    def _report(self) -> None:
        """Reads the meters, writes a line, and stops a run that has lost its way."""
        read = self.meter.read(self.model)
        state = self.stages.state
        self.bad_steps = read.bad_in_a_row + (self.bad_steps if read.good_steps == 0 else 0)
        for start, count in read.bad_batches:
            self.log.event("bad_step", self.position, stage=state.stage, batch_start=start, batch_images=count)
        if read.substituted:
            self.substituted += read.substituted
            self.log.event(
                "substituted", self.position, stage=state.stage, now=read.substituted, total=self.substituted
            )
        facts = read.facts()
        self.log.event("train", self.position, stage=state.stage, **facts)
        self.log.progress(
            self.position,
            self.last_image,
            state.stage,
            ELBO=f"{facts['elbo']:.1f}",
            sigma2=f"{facts['sigma2']:.5f}",
        )
        allowed = self.config.data.substitutes
        if self.substituted > allowed:
            raise InputError(
                f"data.substitutes: {self.substituted} images could not be read where {allowed} are allowed; run "
                f"`python -m data_shards verify {self.config.data.shards}`"
            )
        if self.bad_steps >= self.config.checkpoint.bad_steps:
            self.log.event("stopped", self.position, stage=state.stage, reason="not finite", in_a_row=self.bad_steps)
            raise InputError(
                f"optimiser.learning_rate: loss or gradient was not finite in {self.bad_steps} updates in a row "
                f"(the last at image {self.position}); the last checkpoint is intact; lower the learning rate, set "
                "optimiser.max_grad_norm, or warm up"
            )

    def _check(self) -> None:
        measured = self._measure()
        self.stages.check(measured.elbo)
        state = self.stages.state
        if state.stage == 1 and self.model.dataset_variance < self.config.variance.min_variance:
            state.ended = "collapsed"
        self.log.event("valid", self.position, stage=state.stage, smoothed_elbo=state.smoothed, **vars(measured))

    def _measure(self) -> HeldOut:
        return held_out(self.model, self.config.data, self.config.seed, self.ranks)

    def _end_stage(self) -> None:
        """The exact variance after stage 1, the event that tells why the stage ended, and a checkpoint that stays."""
        state, config = self.stages.state, self.config
        if state.stage == 1 and config.objective.name == "sigma_vae":
            exact = exact_variance(self.model, config.data, config.seed, self.ranks)
            self.model.freeze_variance(max(exact, config.variance.min_variance))
            if self.average is not None:
                self.average.average["log_variance"].copy_(self.model.log_variance)
        measured = self._measure()
        self.log.event(
            "stage_end",
            self.position,
            stage=state.stage,
            reason=state.ended,
            stage_images=state.images,
            sigma2=self.model.dataset_variance,
            **vars(measured),
        )
        if state.ended == "collapsed":
            self.log.event(
                "warning",
                self.position,
                message="sigma^2 fell to its smallest value: the data may be constant or memorised; "
                "raise variance.min_variance, lower stage1.max_epochs or use a smaller model",
            )
        elif state.ended == "cap" and state.without_gain == 0 and self.stages.configs[state.stage - 1].eps > 0:
            self.log.event(
                "warning",
                self.position,
                message=f"stage {state.stage} ended at its cap while the ELBO was still rising; "
                f"raise stage{state.stage}.max_epochs for a better model",
            )
        self._save()

    def _enter_stage2(self) -> None:
        """The switch of Algorithm 1: sigma_dataset^2 is frozen and becomes the floor of the per-pixel variance."""
        floor = self.config.variance.floor
        absolute = 0.5 * self.model.dataset_variance if isinstance(floor, str) else floor
        self.engine.enter_stage2(absolute)
        if self.average is not None:
            self.average.enter_stage2(self.model)
        self.stages.enter_next()
        measured = self._measure()
        self.log.event("stage_start", self.position, stage=2, floor=absolute, **vars(measured))

    def _save(self) -> None:
        """Writes a checkpoint, after comparing the replicas. All ranks learn of a failure to write."""
        tensors = self.engine.weights()
        training = {name: value.cpu() for name, value in self.engine.optimiser_state().items()}
        training["variance/state"] = self.variance.state.cpu()
        if self.average is not None:
            training |= {AVERAGE_PREFIX + name: value.cpu() for name, value in self.average.average.items()}
        if not self.ranks.equal(checkpoints.fingerprint(tensors)):
            raise RuntimeError(f"the processes' weights differ after {self.position} images; no checkpoint was written")
        saved = Checkpoint(
            images=self.position,
            model=tensors,
            training=training,
            state={
                "stages": self.stages.to_dict(),
                "per_pixel": self.model.per_pixel,
                "image_shape": list(self.model.image_shape),
                "manifest": self.manifest.hash,
                "bad_steps": self.bad_steps,
                "substituted": self.substituted,
                "seed": self.config.seed,
                "world_size": self.ranks.world_size,
            },
        )

        def write() -> None:
            if self.ranks.is_main:
                checkpoints.write(self.run_folder, saved)
                checkpoints.prune(self.run_folder, self.config.checkpoint.keep_last)

        _agreed(self.ranks, write)

    def _stop(self) -> None:
        """Ends early: a checkpoint, and `requeue` with the reason where the run is to be started again."""
        self._save()
        reason = self.stop.reason() or "another process"
        self.log.event("stop", self.position, stage=self.stages.state.stage, reason=reason)
        if self.ranks.is_main:
            write_text(self.run_folder / "requeue", f"{'no' if reason == 'STOP' else 'yes'} {reason}\n")
