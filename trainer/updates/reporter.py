"""What a run writes to its log and to the terminal, its warnings, and how many failures end it."""

import math
import shlex
import socket
import sys
import time
from typing import Any, NoReturn

import torch

from data_shards.io.errors import InputError
from trainer.config.config import Config, flattened
from trainer.config.methods import METHODS
from trainer.peers.code_version import versions
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import RunState, complete_checkpoints
from trainer.run_folder.log import Listener, RunLog
from trainer.run_folder.restore import OpenedRun
from trainer.run_folder.trackers.tracker import TrackedRun
from trainer.updates import advice
from trainer.updates.evaluation import HeldOut, compared
from trainer.updates.learner import Learner
from trainer.updates.meter import WARM_UP_STEPS, Meter, Reading
from trainer.updates.stages import Stages

_SECONDS_BETWEEN_MOVES, _SECONDS_BETWEEN_ESTIMATES = 0.1, 5.0


class Reporter:
    """Writes the events of a run, each at the current place in `stages`.

    opened: what the run starts from. listener: called with each event, on every process.
    """

    def __init__(
        self, config: Config, ranks: Ranks, stages: Stages, opened: OpenedRun, listener: Listener | None = None
    ) -> None:
        self.config, self.stages, self.pixels = config, stages, math.prod(opened.manifest.image_shape)
        self.bad_steps = opened.state.bad_steps if opened.state else 0
        self.substituted = opened.state.substituted if opened.state else 0
        self.log = RunLog(
            config.folder,
            images=stages.images,
            total=stages.last_image,
            main=ranks.is_main,
            listener=listener,
            again=_written_again(opened.state),
        )
        # Held-out and training ELBO of the last measurements, in nats per image.
        self._last: HeldOut | None = None
        self._train_elbo: float | None = None
        self._warned_in_stage = 0
        if ranks.is_main:
            tracked = TrackedRun(
                folder=config.folder, name=config.name, settings=flattened(config), images=stages.images
            )
            self.log.open_trackers(config.log.to, tracked)
        # What the bar shows, and when it changes next.
        self._estimates: dict[str, str] = {}
        self._updates, self._next_look, self._next_estimate = 0, 0.0, 0.0
        self._show_progress()
        if opened.changes:
            self._event("configuration", stage=stages.state.stage, changes=list(opened.changes))
        for message in opened.damaged:
            self._event("checkpoint_damaged", message=message)
            self._say(message)
        self._event(
            "resume" if opened.state else "start",
            stage=stages.state.stage,
            world_size=ranks.world_size,
            host=socket.gethostname(),
            **versions(),
            configuration=flattened(config),
        )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    def _event(self, kind: str, **facts: Any) -> None:
        self.log.event(kind, self.stages.images, epoch=self.stages.images / self.stages.train_images, **facts)

    def _say(self, message: str) -> None:
        """A line on the terminal, above the bar, from one process."""
        if self.log.main:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """A warning, in the log and on the terminal."""
        self._event("warning", message=message)
        self._say(message)

    def updates(self, reading: Reading) -> None:
        """The updates of an interval. Raises InputError where more of them failed than the configuration allows."""
        stage = self.stages.state.stage
        self.bad_steps = reading.bad_in_a_row + (self.bad_steps if reading.good_steps == 0 else 0)
        for start, count in reading.bad_batches:
            self._event("bad_step", stage=stage, batch_start=start, batch_images=count)
            self._say(f"the update on images {start:,} to {start + count - 1:,} was skipped: not finite")
        if reading.substituted:
            self.substituted += reading.substituted
            self._event("substituted", stage=stage, now=reading.substituted, total=self.substituted)
            self._say(f"{reading.substituted} images could not be read and were replaced, {self.substituted} so far")
        facts = reading.facts()
        if reading.good_steps:
            has_kl = METHODS[self.config.objective.name].has_kl
            self._train_elbo = facts["elbo" if has_kl else "log_likelihood"]
        self._event("train", stage=stage, **facts)
        self._estimate(reading)
        self._show_progress()
        self._limit_failures()

    def update_done(self, meter: Meter, learner: Learner) -> None:
        """Moves the bar. Its estimates begin after ten updates and are new every few seconds."""
        if not self.log.main:
            return
        self._updates += 1
        now = time.monotonic()
        if self._updates == WARM_UP_STEPS or (self._updates > WARM_UP_STEPS and now >= self._next_estimate):
            self._estimate(meter.look(learner))
        elif now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN_MOVES
        self._show_progress()

    def _estimate(self, reading: Reading) -> None:
        self._next_estimate = time.monotonic() + _SECONDS_BETWEEN_ESTIMATES
        if reading.good_steps:
            facts = reading.facts()
            self._estimates = {"ELBO": f"{facts['elbo']:.1f}", "sigma2": f"{facts['sigma2']:.5f}"}

    def _show_progress(self) -> None:
        stages = self.stages
        self.log.progress(stages.images, stages.last_image, stages.state.stage, **self._estimates)

    def _limit_failures(self) -> None:
        data, images = self.config.data, self.stages.images
        if self.substituted > data.substitutes:
            words = shlex.join(["python", "-m", "data_shards", "verify", data.shards])
            raise InputError(
                f"{self.substituted} images could not be read where {data.substitutes} are allowed; run `{words}`",
                parameter="data.substitutes",
            )
        if self.bad_steps >= self.config.checkpoint.bad_steps:
            self._stopped(
                f"loss or gradient was not finite in {self.bad_steps} updates in a row (the last at image {images})"
            )

    def not_finite(self, name: str) -> NoReturn:
        """Ends the run because of a number that is not finite. name: which one. Raises InputError."""
        self._stopped(f"{name} is not finite at image {self.stages.images}, so no checkpoint was written there")

    def pictures(self, pictures: dict[str, torch.Tensor]) -> None:
        """Pictures of a check, uint8 of shape (C, H, W), for the programs of log.to."""
        self.log.pictures(pictures, self.stages.images)

    def _stopped(self, what: str) -> NoReturn:
        self._event("stopped", stage=self.stages.state.stage, reason="not finite", in_a_row=self.bad_steps)
        sound = complete_checkpoints(self.config.folder)
        where = f"the last sound checkpoint is {sound[-1]}" if sound else "there is no earlier checkpoint"
        raise InputError(
            f"{what}; {where}; {advice.SLOWER}, and go on from there with --allow-change",
            parameter="optimiser.learning_rate",
        )

    def look(self, measured: HeldOut) -> None:
        """A measurement of held-out images, with a warning once a stage where their ELBO has fallen far."""
        state, self._last = self.stages.state, compared(measured, self.config.objective.name)
        self._event("valid", stage=state.stage, smoothed_elbo=state.smoothed, **vars(measured))
        if state.best_elbo is None or state.best_images is None or self._warned_in_stage == state.stage or state.ended:
            return
        message = advice.fallen(
            best=state.best_elbo,
            best_images=state.best_images,
            now=self._last.elbo,
            train=self._train_elbo,
            images=self.stages.images,
            pixels=self.pixels,
        )
        if message is not None:
            self._warned_in_stage = state.stage
            self.warn(message)

    def stage_end(self, measured: HeldOut, sigma2: float, *, restored: bool) -> None:
        """The end of a stage with its reason, and what may be wrong with it.

        measured: of the weights that it ends with; restored: whether these are the best, and not the last. Raises
        InputError where they are worth nothing.
        """
        state = self.stages.state
        self._event(
            "stage_end",
            stage=state.stage,
            reason=state.ended,
            stage_images=state.images,
            sigma2=sigma2,
            weights_of_images=state.best_images if restored else self.stages.images,
            **vars(measured),
        )
        kept = compared(measured, self.config.objective.name)
        last = self._last or kept
        end = advice.StageEnd(
            stage=state.stage,
            reason=state.ended,
            rising=state.without_gain == 0 and self.stages.config.eps > 0,
            last=last,
            kept=kept,
            best_elbo=last.elbo if state.best_elbo is None else state.best_elbo,
            best_images=self.stages.images if state.best_images is None else state.best_images,
            images=self.stages.images,
            restored=restored,
            train_elbo=self._train_elbo,
            train_images=self.stages.train_images,
            pixels=self.pixels,
        )
        if advice.is_lost(kept, self.pixels):
            self._event("stopped", stage=state.stage, reason="diverged")
            raise InputError(advice.lost(end, self.config.optimiser.learning_rate), parameter="optimiser.learning_rate")
        for message in advice.at_stage_end(end):
            self.warn(message)

    def stage2_start(self, measured: HeldOut, floor: float) -> None:
        """The start of stage 2, with the floor of the per-pixel variance."""
        self._event("stage_start", stage=2, floor=floor, **vars(measured))

    def stop(self, reason: str) -> None:
        """A requested stop before the end."""
        self._event("stop", stage=self.stages.state.stage, reason=reason)


def _written_again(state: RunState | None) -> tuple[str, ...]:
    """The kinds of events that a run writes at the place of the checkpoint from which it goes on."""
    if state is None:
        return ()
    if state.stages.check_due or state.stages.look_due:
        return ("valid", "stage_end", "warning")
    return ("stage_start",) if state.stages.ended else ()
