"""What a run writes to its log, its warnings, and how many failures end it."""

from typing import Any

from data_shards.io.errors import InputError
from trainer.config.config import Config
from trainer.process_group import Ranks
from trainer.run_folder.log import Listener, RunLog
from trainer.run_folder.restore import OpenedRun
from trainer.updates.evaluation import HeldOut
from trainer.updates.meter import Reading
from trainer.updates.stages import Stages


class Reporter:
    """Writes the events of a run, each at the current place in `stages`.

    opened: what the run starts from. listener: called with each event, on every process.
    """

    def __init__(
        self, config: Config, ranks: Ranks, stages: Stages, opened: OpenedRun, listener: Listener | None = None
    ) -> None:
        self.config, self.stages = config, stages
        self.bad_steps = opened.state.bad_steps if opened.state else 0
        self.substituted = opened.state.substituted if opened.state else 0
        self.log = RunLog(
            config.folder,
            images=stages.images,
            total=stages.last_image,
            tensorboard=config.log.tensorboard,
            main=ranks.is_main,
            listener=listener,
        )
        for message in opened.damaged:
            self._event("checkpoint_damaged", message=message)
        if opened.state:
            self._event("resume", stage=stages.state.stage, world_size=ranks.world_size)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    def _event(self, kind: str, **facts: Any) -> None:
        self.log.event(kind, self.stages.images, **facts)

    def updates(self, reading: Reading) -> None:
        """The updates of an interval. Raises InputError where more of them failed than the configuration allows."""
        stage = self.stages.state.stage
        self.bad_steps = reading.bad_in_a_row + (self.bad_steps if reading.good_steps == 0 else 0)
        for start, count in reading.bad_batches:
            self._event("bad_step", stage=stage, batch_start=start, batch_images=count)
        if reading.substituted:
            self.substituted += reading.substituted
            self._event("substituted", stage=stage, now=reading.substituted, total=self.substituted)
        facts = reading.facts()
        self._event("train", stage=stage, **facts)
        self.log.progress(
            self.stages.images,
            self.stages.last_image,
            stage,
            ELBO=f"{facts['elbo']:.1f}",
            sigma2=f"{facts['sigma2']:.5f}",
        )
        self._limit_failures()

    def _limit_failures(self) -> None:
        data, images = self.config.data, self.stages.images
        if self.substituted > data.substitutes:
            raise InputError(
                f"{self.substituted} images could not be read where {data.substitutes} are allowed; run "
                f"`python -m data_shards verify {data.shards}`",
                parameter="data.substitutes",
            )
        if self.bad_steps >= self.config.checkpoint.bad_steps:
            self._event("stopped", stage=self.stages.state.stage, reason="not finite", in_a_row=self.bad_steps)
            raise InputError(
                f"loss or gradient was not finite in {self.bad_steps} updates in a row (the last at image {images}); "
                "the last checkpoint is intact; lower the learning rate, set optimiser.max_grad_norm, or warm up",
                parameter="optimiser.learning_rate",
            )

    def check(self, measured: HeldOut) -> None:
        """A check of the held-out ELBO."""
        state = self.stages.state
        self._event("valid", stage=state.stage, smoothed_elbo=state.smoothed, **vars(measured))

    def stage_end(self, measured: HeldOut, sigma2: float) -> None:
        """The end of a stage with its reason, and a warning where the result may be poor."""
        state = self.stages.state
        self._event(
            "stage_end",
            stage=state.stage,
            reason=state.ended,
            stage_images=state.images,
            sigma2=sigma2,
            **vars(measured),
        )
        if state.ended == "collapsed":
            self._event(
                "warning",
                message="sigma^2 fell to its smallest value: the data may be constant or memorised; "
                "raise variance.min_variance, lower stage1.max_epochs or use a smaller model",
            )
        elif state.ended == "cap" and state.without_gain == 0 and self.stages.config.eps > 0:
            self._event(
                "warning",
                message=f"stage {state.stage} ended at its cap while the ELBO was still rising; "
                f"raise stage{state.stage}.max_epochs for a better model",
            )

    def stage2_start(self, measured: HeldOut, floor: float) -> None:
        """The start of stage 2, with the floor of the per-pixel variance."""
        self._event("stage_start", stage=2, floor=floor, **vars(measured))

    def stop(self, reason: str) -> None:
        """A requested stop before the end."""
        self._event("stop", stage=self.stages.state.stage, reason=reason)
