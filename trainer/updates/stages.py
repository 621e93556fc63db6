"""The two stages of Algorithm 1 as a small state machine (decisions D1 and D2).

A stage ends when its epochs are used up, or when the relative gain of the smoothed held-out ELBO has stayed below eps
for `patience` checks in a row. Epochs are counted within the stage.
"""

from dataclasses import asdict, dataclass
from typing import Any

from trainer.config.sections import StageConfig

# Below one nat an ELBO has no scale of its own, and it crosses zero on the way up.
_SMALLEST_SCALE = 1.0


@dataclass(kw_only=True)
class StageState:
    """Where training stands within the stages; all of it is in every checkpoint."""

    stage: int = 1
    """1 or 2."""
    images: int = 0
    """Images seen within the stage."""
    smoothed: float | None = None
    """Exponentially smoothed held-out ELBO in nats per image; None before the stage's first check."""
    without_gain: int = 0
    """Checks in a row whose relative gain was below eps."""
    ended: str = ""
    """Why the stage ended: "cap", "converged" or "collapsed"; empty while it runs."""


class Stages:
    """Decides when a stage ends. stages: the configuration of each; train_images: images of an epoch."""

    def __init__(self, stages: tuple[StageConfig, ...], train_images: int, state: StageState | None = None) -> None:
        self.configs, self.train_images = stages, train_images
        self.state = state if state is not None else StageState()

    @property
    def config(self) -> StageConfig:
        """The configuration of the running stage."""
        return self.configs[self.state.stage - 1]

    @property
    def cap(self) -> int:
        """Images after which the running stage ends in any case."""
        return max(1, round(self.config.max_epochs * self.train_images))

    @property
    def is_last(self) -> bool:
        """True in the run's last stage."""
        return self.state.stage == len(self.configs)

    def advance(self, images: int) -> bool:
        """Counts the images of an update. Returns True where the held-out ELBO is to be checked now."""
        before = self.state.images
        self.state.images += images
        every = self.config.check_images
        return self.state.images // every > before // every or self.state.images >= self.cap

    def check(self, elbo: float) -> None:
        """Takes the held-out ELBO, nats per image, and ends the stage where its time has come."""
        state, config = self.state, self.config
        if state.smoothed is not None:
            smoothed = (1 - config.smoothing) * state.smoothed + config.smoothing * elbo
            gain = (smoothed - state.smoothed) / max(abs(state.smoothed), _SMALLEST_SCALE)
            state.without_gain = state.without_gain + 1 if gain < config.eps else 0
            state.smoothed = smoothed
        else:
            state.smoothed = elbo
        if state.images >= self.cap:
            state.ended = "cap"
        elif state.without_gain >= config.patience:
            state.ended = "converged"

    def enter_next(self) -> None:
        """Leaves the ended stage for the next one, whose counters start at zero."""
        self.state = StageState(stage=self.state.stage + 1)

    def to_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return asdict(self.state)
