"""The two stages of Algorithm 1 as a small state machine (decisions D1 and D2), and where each was best.

A stage ends when its epochs are used up, or when the relative gain of the smoothed held-out ELBO has stayed below eps
for `patience` checks in a row. Epochs are counted within the stage.
"""

import math
from dataclasses import replace

from trainer.config.sections import StageConfig
from trainer.run_folder.checkpoint import RunState, StageState

# Below one nat an ELBO has no scale of its own, and it crosses zero on the way up.
_SMALLEST_SCALE = 1.0
# Between checks held-out images are measured too, so that a small data set's best weights are not missed: each time
# the stage has seen a quarter more images, but only after four images for each that is measured, which costs a twelfth
# of the updates at most.
_GROWTH, _IMAGES_PER_HELD_OUT = 1.25, 4


def _looks(images: int, held_out_images: int) -> int:
    """Measurements beside the checks that are due up to so many images of a stage."""
    apart = _IMAGES_PER_HELD_OUT * held_out_images
    linear = math.ceil(1 / (_GROWTH - 1))
    if images < linear * apart:
        return images // apart
    return linear + int(math.log(images / (linear * apart)) / math.log(_GROWTH))


def most_checkpoints(config: StageConfig, train_images: int, every_images: int) -> int:
    """The most checkpoints that a stage writes: one in so many images, and one where a measurement is the best so far.

    train_images: of an epoch.
    """
    cap = config.cap(train_images)
    return cap // every_images + cap // config.check_images + _looks(cap, held_out_images=1) + 1


class Stages:
    """Where a run stands in its stages, and when a stage ends.

    configs: the configuration of each stage. train_images: images of an epoch. held_out_images: images of one
    measurement. saved: the state to resume from.
    """

    def __init__(
        self,
        configs: tuple[StageConfig, ...],
        train_images: int,
        held_out_images: int,
        saved: RunState | None = None,
    ) -> None:
        self.configs, self.train_images, self.held_out_images = configs, train_images, held_out_images
        self.state = saved.stages if saved is not None else StageState()
        self.images = saved.images if saved is not None else 0
        if self.is_last:
            self.state = self.state.going_on(self.config, train_images)

    @property
    def config(self) -> StageConfig:
        """The configuration of the running stage."""
        return self.configs[self.state.stage - 1]

    @property
    def cap(self) -> int:
        """Images after which the running stage ends in any case."""
        return self.config.cap(self.train_images)

    @property
    def last_image(self) -> int:
        """Images of the run at which its last stage ends in any case."""
        later = sum(config.cap(self.train_images) for config in self.configs[self.state.stage :])
        return self.images - self.state.images + self.cap + later

    @property
    def is_last(self) -> bool:
        """True in the run's last stage."""
        return self.state.stage == len(self.configs)

    @property
    def complete(self) -> bool:
        """True once the last stage has ended."""
        return self.is_last and bool(self.state.ended)

    def advance(self, images: int) -> bool:
        """Counts the images of an update. Returns whether held-out images must be measured now.

        The state's `check_due` says whether that may end the stage.
        """
        before = self.state.images
        self.images += images
        self.state = replace(self.state, images=before + images)
        every = self.config.check_images
        check = self.state.images // every > before // every or self.state.images >= self.cap
        look = check or _looks(self.state.images, self.held_out_images) > _looks(before, self.held_out_images)
        self.state = replace(self.state, check_due=check, look_due=look)
        return look

    def look(self, elbo: float) -> bool:
        """Notes a held-out ELBO in nats per image. Returns whether it is the largest of the stage so far."""
        self.state, best = replace(self.state, look_due=False), self.state.best_elbo
        if not math.isfinite(elbo) or (best is not None and elbo <= best):
            return False
        self.state = replace(self.state, best_elbo=elbo, best_images=self.images)
        return True

    def check(self, elbo: float, *, collapsed: bool = False) -> None:
        """Updates the smoothed ELBO by a held-out one, nats per image, and ends the stage if its condition is met.

        collapsed: whether sigma^2 has fallen below its smallest value, which ends the stage at once.
        """
        state, config = self.state, self.config
        smoothed, without_gain = elbo, state.without_gain
        if state.smoothed is not None:
            smoothed = (1 - config.smoothing) * state.smoothed + config.smoothing * elbo
            gain = (smoothed - state.smoothed) / max(abs(state.smoothed), _SMALLEST_SCALE)
            without_gain = without_gain + 1 if gain < config.eps else 0
        ended = state.ended
        if collapsed:
            ended = "collapsed"
        elif state.images >= self.cap:
            ended = "cap"
        elif without_gain >= config.patience:
            ended = "converged"
        self.state = replace(state, smoothed=smoothed, without_gain=without_gain, ended=ended, check_due=False)

    def keep(self, elbo: float, *, restored: bool) -> None:
        """Notes the held-out ELBO with which the stage has ended. restored: whether its weights are the best now."""
        if restored or self.state.best_images == self.images:
            self.state = replace(self.state, best_elbo=elbo, best_images=self.images)

    def enter_next(self) -> None:
        """Begins the next stage, whose counters start at zero."""
        self.state = StageState(stage=self.state.stage + 1)
