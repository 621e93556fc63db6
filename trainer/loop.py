"""Algorithm 1: both stages, from the first image to the last, resumable at any checkpoint.

The weights are a function of (configuration, seed, position in the stream) alone. So a resumed run ends in the weights
of an uninterrupted one, and any number of processes gives the same weights up to the order of floating-point sums. With
as many processes as before these are the same bits on CPUs, and on GPUs with `engine.deterministic`; without it some of
their kernels add in another order each time.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from data_shards.stream.stream import Batch
from trainer.config.config import Config, to_yaml
from trainer.engines.compilation import require_compiler
from trainer.engines.cpu import keep_freed_memory
from trainer.engines.determinism import deterministic_kernels
from trainer.preemption import Interrupted, StopRequest, write_requeue
from trainer.process_group import Ranks, process_group
from trainer.run_folder.checkpoint import Checkpoint, RunState, newest_of, read
from trainer.run_folder.configurations import require_of_this_run
from trainer.run_folder.farewell import stop_line
from trainer.run_folder.finite import first_not_finite
from trainer.run_folder.holding import held_by_main
from trainer.run_folder.log import Listener
from trainer.run_folder.restore import open_run_folder
from trainer.run_folder.saver import CheckpointSaver
from trainer.run_folder.trackers.tracker import require_trackers
from trainer.updates.evaluation import HeldOut, compared, unsound_number
from trainer.updates.finished import completed, is_finished, stages_of
from trainer.updates.learner import Learner, require_engine
from trainer.updates.meter import Meter, profiler
from trainer.updates.reporter import Reporter
from trainer.updates.stages import Stages
from trainer.updates.streams import Passes, training_stream
from trainer.waiting import Waits


def train(
    config: Config,
    listener: Listener | None = None,
    *,
    steal_lock: bool = False,
    allow_change: bool = False,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Trains the run that `config` describes, or resumes it from its newest checkpoint. Returns the run folder.

        from trainer import load_config, train
        run = train(load_config("trainer/configs/fashion_mnist.yaml", {"name": "short", "stage1.max_epochs": 1}))

    Started by torchrun or srun, every process calls it; an existing process group is joined. The run is complete when
    state.json of the newest checkpoint says that its last stage has ended; if it stopped before, the file `requeue` in
    the folder says why. listener: called with each event of metrics.jsonl, on every process. steal_lock: takes the run
    folder over from a process that works in it. allow_change: goes on with a trained run although `config` differs in
    fields that do not alter what was learnt so far. asked_to_stop: looked at after each update; once it is true on any
    process, all save and return. Raises InputError where the shards or the run folder do not fit the
    configuration, another process works in the folder, or too many updates or images fail; and KeyboardInterrupt after
    Ctrl-C, when a checkpoint is written.
    """
    with (
        StopRequest(config.folder, config.checkpoint.walltime_minutes, asked_to_stop) as stop_request,
        process_group(config.device) as ranks,
    ):
        config.require_device(ranks.device.type)
        # Before the lease, as nothing needs to be written: the folder may be one that can only be read.
        if is_finished(config, ranks, allow_change=allow_change):
            return config.folder
        with (
            held_by_main(config.folder, ranks, steal=steal_lock) as stop_request.lease,
            deterministic_kernels(config.engine.deterministic and ranks.device.type == "cuda"),
        ):
            stopped = _train_in_folder(config, ranks, stop_request, listener, allow_change=allow_change)
    if stopped == "SIGINT":
        raise KeyboardInterrupt
    return config.folder


def _train_in_folder(
    config: Config, ranks: Ranks, stop_request: StopRequest, listener: Listener | None, *, allow_change: bool
) -> str:
    """Trains to the end, or to a stop, and says which. Returns "" or the reason for the stop."""
    if ranks.device.type == "cpu":
        keep_freed_memory()
    ranks.agree(lambda: require_trackers(config.log.to))
    ranks.agree(lambda: require_engine(config, ranks.device))
    ranks.agree(lambda: require_compiler(config, ranks.device))
    opened = open_run_folder(config, ranks, allow_change=allow_change)
    config, stages = opened.config, stages_of(opened)
    stopped = ""
    if not stages.complete:  # or another job has ended it meanwhile
        ranks.agree(stop_request.check_folder)
        waits = Waits(stop_request, ranks)
        passes = Passes(config.data, opened.manifest, waits.in_pass)
        learner = ranks.agree(
            lambda: Learner(config, opened.manifest.image_shape, stages.train_images, ranks, passes, opened.saved)
        )
        with (
            contextlib.closing(learner),
            Reporter(config, ranks, stages, opened, listener) as reporter,
            CheckpointSaver(
                config.folder,
                ranks,
                keep_last=config.checkpoint.keep_last,
                may_write=stop_request.check_lease,
                saved_images=stages.images,
            ) as saver,
            profiler(_trace(config.folder, ranks), config.log.profile_steps) as update_done,
        ):
            stop_request.begin_training()
            stopped = TrainingLoop(
                config, ranks, opened.manifest, stages, learner, reporter, saver, stop_request, waits, update_done
            ).run()
    if ranks.is_main:
        stop = stop_line(config.folder, stopped, stages.images, ranks) if stopped else completed(config, stages)
        print(stop, flush=True)
    return stopped


def _trace(folder: Path, ranks: Ranks) -> Path:
    """Each process has a trace: where one waits in a sum, another one is late."""
    return folder / ("profile.json" if ranks.is_main else f"profile-{ranks.rank}.json")


@dataclass(frozen=True)
class TrainingLoop:
    """One process's side of a run: the loop of Algorithm 1 and the steps between two updates.

    The parts change during the run: `stages` is the place in it, `learner` holds the weights.
    """

    config: Config
    ranks: Ranks
    manifest: Manifest
    stages: Stages
    learner: Learner
    reporter: Reporter
    saver: CheckpointSaver
    stop_request: StopRequest
    waits: Waits
    update_done: Callable[[], None]

    def run(self) -> str:
        """Algorithm 1. Returns "" at the end of the last stage, or early the reason for which a stop was requested."""
        try:
            stopped = self._train()
        except Interrupted:
            stopped = True
        return self._stop() if stopped else ""

    def _train(self) -> bool:
        """Returns whether it was stopped before the end."""
        config, stages, learner = self.config, self.stages, self.learner
        meter = Meter(self.ranks.device)
        if stages.state.look_due or stages.state.check_due:  # the run was stopped before it, or during it
            self._look()
        if stages.complete:
            return False
        if stages.state.ended:  # the checkpoint is the one at the end of stage 1
            self._enter_stage2()
        for batch in meter.waiting(self._batches()):
            # The networks, and sigma^2 (stage 1, equation 8) or the per-pixel variances (stage 2, equation 10).
            meter.add(batch, learner.update(batch, stages, stop=bool(self.stop_request.reason())))
            while learner.remarks:
                self.reporter.warn(learner.remarks.pop(0))
            stop = meter.stop_requested()
            self.update_done()

            look = stages.advance(batch.count)
            self.reporter.update_done(meter, learner)
            if look or self._crossed(config.log.every_images, batch) or meter.must_read():
                self.reporter.updates(meter.read(learner))
            best = look and self._look()
            if stages.complete:
                return False
            if stages.state.ended:
                if not stop:
                    self._enter_stage2()
            elif best or self._crossed(config.checkpoint.every_images, batch):
                self._save(self._checkpoint())
            if stop:
                return True
        raise AssertionError("the stream of batches has no end")

    def _batches(self) -> Iterator[Batch]:
        """The global batches from the run's position on, epoch after epoch without end."""
        stream = training_stream(self.config, self.manifest, self.ranks, self.stages.images)
        while True:
            yield from self.waits.for_updates(stream)

    def _crossed(self, every: int, batch: Batch) -> bool:
        """Whether the run has passed a multiple of `every` images with this batch."""
        return self.stages.images // every > batch.start // every

    def _look(self) -> bool:
        """Measures held-out images. Returns whether the weights are the best of the stage so far, and are to be kept.

        Where a check is due this is the condition of Algorithm 1's loops: the held-out ELBO decides whether the stage
        ends; if so, ends it. A stop in between leaves a checkpoint of the moment before, from which all of this is done
        again.
        """
        check = self.stages.state.check_due
        before = self._checkpoint() if check else None
        measured, minimum = self._measured(), self.config.variance.min_variance
        best = self.stages.look(self._score(measured))
        if check:
            collapsed = self.stages.state.stage == 1 and self.learner.model.dataset_variance < minimum
            self.stages.check(self._score(measured), collapsed=collapsed)
        self.reporter.look(measured)
        if self.config.log.to:
            self.reporter.pictures(self.learner.pictures())
        if self.stages.state.ended and before is not None:
            before = before.copied()  # the end of a stage changes weights
            try:
                self._end_stage()
            except Interrupted:
                self._save(before)
                raise
        return best

    def _measured(self) -> HeldOut:
        measured = self.learner.held_out()
        if (name := unsound_number(measured)) is not None:
            self.reporter.not_finite(f"held-out {name}")
        return measured

    def _score(self, measured: HeldOut) -> float:
        return compared(measured, self.config.objective.name).elbo

    def _end_stage(self) -> None:
        """A stage ends with its best weights and a checkpoint; stage 1 with equation 9 for them, over all images."""
        best = self._best()
        self.learner.end_stage(self.stages.state.stage, best)
        measured = self._measured()
        self.reporter.stage_end(measured, self.learner.model.dataset_variance, restored=best is not None)
        self.stages.keep(self._score(measured), restored=best is not None)
        self._save(self._checkpoint())

    def _best(self) -> Checkpoint | None:
        """The best checkpoint of the stage that ends; None where its last weights are the best or are to be kept."""
        images = self.stages.state.best_images
        if not self.stages.config.restore_best or images is None or images == self.stages.images:
            return None
        self.saver.wait()
        found, message = None, "it is gone"
        try:
            folder = newest_of(self.config.folder, images)
            if folder is not None:
                require_of_this_run(folder, self.config)
                found = read(folder)
        except InputError as error:
            message = str(error)
        if self.ranks.any(found is None):
            self.reporter.warn(f"the stage ends with its last weights, its best cannot be restored: {message}")
            return None
        return found

    def _enter_stage2(self) -> None:
        """Per-pixel variances begin, above the floor that the fixed sigma_dataset^2 sets."""
        floor = self.learner.enter_stage2()
        self.stages.enter_next()
        measured = self._measured()
        self.stages.look(self._score(measured))
        self.reporter.stage2_start(measured, floor)

    def _checkpoint(self) -> Checkpoint:
        """The run at this moment; the next update may change the tensors."""
        weights, training = self.learner.engine.weights(), self.learner.training_tensors()
        state = RunState(
            images=self.stages.images,
            stages=self.stages.state,
            per_pixel=self.learner.model.per_pixel,
            image_shape=self.manifest.image_shape,
            manifest=self.manifest.hash,
            bad_steps=self.reporter.bad_steps,
            substituted=self.reporter.substituted,
            seed=self.config.seed,
            world_size=self.ranks.world_size,
        )
        return Checkpoint(model=weights, training=training, state=state, configuration=self._written_configuration)

    @cached_property
    def _written_configuration(self) -> str:
        return to_yaml(self.config)

    def _save(self, checkpoint: Checkpoint) -> None:
        """Begins to write a checkpoint of weights that are finite; others end the run."""
        name = first_not_finite(checkpoint.model) or first_not_finite(checkpoint.training)
        if name is not None:
            self.reporter.not_finite(name)
        self.saver.save(checkpoint)

    def _stop(self) -> str:
        """Ends the run early with a checkpoint, and with `requeue`, which says why. Returns the reason."""
        reason = self.stop_request.agreed_reason(self.ranks)
        if self.saver.saved_images != self.stages.images:
            self._save(self._checkpoint())
        self.saver.wait()
        self.reporter.stop(reason)
        if self.ranks.is_main:
            write_requeue(self.config.folder, reason)
        return reason
