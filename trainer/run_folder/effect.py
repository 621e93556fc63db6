"""Which fields of the configuration still change anything of a run that goes on from where it is."""

from dataclasses import dataclass

from trainer.config.config import Config
from trainer.config.methods import METHODS
from trainer.run_folder.checkpoint import RunState


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a trained run goes on, with another configuration than it had up to there."""

    old: Config
    new: Config
    state: RunState
    train_images: int
    """Of an epoch."""

    def acts(self, name: str) -> bool:
        """Whether a field of CHANGEABLE, by dotted name, that is not the same in both changes anything from here on."""
        if name == "stage2.max_epochs" and (self.old.two_stages, self.new.two_stages) == (True, False):
            return True  # stage 2 is left out now
        section = name.partition(".")[0]
        new, method = self.new, METHODS[self.new.objective.name]
        in_stage1, stage2 = self._stage == 1, self.new.two_stages
        learns_in_stage1 = in_stage1 and method.learns_variance
        both, images = (self.old, new), self.state.images
        switching = stage2 and (
            not self._in_stage2 or self.state.stages.images < max(one.optimiser.switch_warmup_images for one in both)
        )
        acting = {
            "objective.kl_warmup_images": images < max(one.objective.kl_warmup_images for one in both),
            "variance.learning_rate": learns_in_stage1 and new.variance.update == "adam",
            "variance.smoothing_images": learns_in_stage1 and new.variance.update == "closed_form",
            "variance.min_variance": in_stage1,
            "optimiser.final_fraction": new.optimiser.schedule == "cosine" or switching,
            "optimiser.stage2_fraction": stage2,
            "optimiser.warmup_images": images < max(one.optimiser.warmup_images for one in both),
            "optimiser.switch_warmup_images": switching,
            "optimiser.at_switch": stage2 and not self._in_stage2,
        }
        if section == "stage1":
            acts = in_stage1
        elif section == "stage2":
            acts = stage2
        else:
            acts = acting.get(name, True)
        return acts and not self._complete

    def why(self) -> str:
        """Why some fields do not act, and what would be right."""
        stages, folder = self.state.stages, self.new.folder
        if not self._complete:
            return (
                f"{folder} goes on in stage {self._stage}, after {self.state.images:,} images, where nothing uses them "
                "any more; restore these fields or choose another name"
            )
        last = f"stage{stages.stage}"
        remedies = {
            "cap": f"raise {last}.max_epochs above {stages.images / self.train_images:.4g} to go on with it, or ",
            "converged": f"raise {last}.patience above {stages.without_gain} to go on with it, or ",
        }
        return (
            f"{folder} is complete (stage {stages.stage} has ended: {stages.ended}); {remedies.get(stages.ended, '')}"
            "choose another name"
        )

    @property
    def _last(self) -> int:
        return 2 if self.new.two_stages else 1

    @property
    def _ended(self) -> bool:
        """Whether the stage that the run is in has ended, and does not go on under the new configuration."""
        stages = self.state.stages
        if stages.stage == self._last:
            stages = stages.going_on((self.new.stage1, self.new.stage2)[stages.stage - 1], self.train_images)
        return bool(stages.ended)

    @property
    def _complete(self) -> bool:
        return self._ended and self.state.stages.stage == self._last

    @property
    def _stage(self) -> int:
        """The stage of the next update."""
        return min(2, self.state.stages.stage + self._ended)

    @property
    def _in_stage2(self) -> bool:
        """Whether stage 2 has begun."""
        return self.state.stages.stage == 2
