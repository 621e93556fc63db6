"""Everything that is learnt, and how an update changes it: the networks, sigma^2, and the averaged weights.

First the parts of an update beside Adam's step: sigma^2 without gradients (decision D5), averaged weights.
"""

import copy

import torch
from torch import Tensor

from data_shards.stream.stream import Batch
from trainer.config.config import Config
from trainer.config.methods import METHODS
from trainer.config.sections import VarianceConfig
from trainer.engines.ddp import DdpEngine
from trainer.engines.engine import Engine, StepResult
from trainer.networks import SigmaVAE
from trainer.noise import global_noise
from trainer.objectives.gaussian import closed_form_variance
from trainer.objectives.objective import LocalBatch, Objective, initial_variance, learns_variance_by_gradient
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import Checkpoint
from trainer.run_folder.restore import AVERAGE_PREFIX, averaged, build_model
from trainer.updates.evaluation import HeldOut, exact_variance, held_out
from trainer.updates.feed import Feed
from trainer.updates.pictures import Pictures
from trainer.updates.schedules import kl_weight, learning_rates
from trainer.updates.stages import Stages
from trainer.updates.streams import Passes

# Images that `auto` looks back over; the part of all batches so far that any mean of sigma^2 looks back over at most.
_SMOOTHING_IMAGES, _NEWEST_PART = 1000, 8


def smoothing_images(config: VarianceConfig, train_images: int) -> float:
    """Images that the running mean of `closed_form` looks back over. train_images: images of an epoch."""
    # An epoch has equation 9 itself, and a longer mean would only be of older weights.
    return min(_SMOOTHING_IMAGES, train_images) if config.smoothing_images == "auto" else config.smoothing_images


class VarianceUpdate:
    """Sets log sigma^2 after each update, by `closed_form` or `epoch`.

    All values stay on the device, so no update waits for the host.
    """

    def __init__(self, config: VarianceConfig, device: torch.device, train_images: int) -> None:
        self.config, self.smoothing_images = config, smoothing_images(config, train_images)
        # updates so far; square error and images of the running epoch
        self.state = torch.zeros(3, dtype=torch.float64, device=device)

    def after_batch(self, model: SigmaVAE, square_error: Tensor, images: int, finite: Tensor) -> None:
        """Counts a global batch of `images` images; `closed_form` then updates sigma^2.

        square_error: (), summed over images and pixels. finite: () bool; a batch where it is False changes nothing.
        """
        taken = torch.where(finite, square_error, 0.0)
        counted = finite.double()
        self.state += torch.stack([counted, taken, counted * images])
        if self.config.update == "closed_form":
            # At first a mean over the newest eighth of all batches, for errors fall fastest then; later a running mean
            # over `smoothing_images`, whatever the size of a batch is.
            weight = (_NEWEST_PART / self.state[0].clamp_min(1)).clamp(min(1.0, images / self.smoothing_images), 1.0)
            newest = closed_form_variance(square_error, images * model.pixels)
            mixed = model.log_variance.double().exp().lerp(newest, weight).log().float()
            model.log_variance.data.copy_(torch.where(finite, mixed, model.log_variance.data))

    def after_epoch(self, model: SigmaVAE) -> None:
        """Ends an epoch: `epoch` sets sigma^2 to the closed form over the epoch."""
        if self.config.update == "epoch":
            mean = closed_form_variance(self.state[1], self.state[2] * model.pixels)
            model.log_variance.data.copy_(torch.where(self.state[2] > 0, mean.log().float(), model.log_variance.data))
        self.state[1:] = 0


class WeightAverage:
    """A model whose parameters and buffers are averages of those of `model`, with a half-life in images."""

    def __init__(self, model: SigmaVAE, half_life_images: int) -> None:
        self.half_life = half_life_images
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: SigmaVAE, images: int) -> None:
        """Moves the average toward the weights after an update on `images` images."""
        weight, values = 1 - 0.5 ** (images / self.half_life), model.state_dict()
        averages = self.model.state_dict()
        torch._foreach_lerp_(list(averages.values()), [values[name] for name in averages], weight)


_VARIANCE = "variance/state"


class Learner:
    """The model in its engine, the update of sigma^2, and the average of the weights, new or from a checkpoint.

    Every process of the group calls the same methods in the same order. passes: over the data set's splits.
    """

    def __init__(
        self,
        config: Config,
        image_shape: tuple[int, int, int],
        train_images: int,
        ranks: Ranks,
        passes: Passes,
        saved: Checkpoint | None = None,
    ) -> None:
        self.config, self.ranks, self.passes = config, ranks, passes
        self.engine = build_engine(config, image_shape, ranks, saved)
        self._feed = Feed(ranks.device, memory_format(config))
        self._pictures = Pictures(passes, config.seed)
        self.learning_rate = 0.0
        """Of the networks at the last update."""
        self.learns_variance = METHODS[config.objective.name].learns_variance
        self.variance = VarianceUpdate(config.variance, ranks.device, train_images)
        self.average = WeightAverage(self.model, config.optimiser.ema_images) if config.optimiser.ema_images else None
        if saved is not None:
            self.variance.state.copy_(saved.training[_VARIANCE])
            if self.average is not None:
                self.average.model.load_state_dict(averaged(saved.training))
            self.engine.load_optimiser_state(saved.training)

    @property
    def model(self) -> SigmaVAE:
        """The current model; an engine may replace it at the switch to stage 2."""
        return self.engine.objective.model

    @property
    def evaluated(self) -> SigmaVAE:
        """The model that held-out images and all later measurements see: of averaged weights where they are kept."""
        return self.model if self.average is None else self.average.model

    def update(self, batch: Batch, stages: Stages, *, stop: bool) -> StepResult:
        """One update on a global batch; `stages` does not count its images yet. stop: whether to signal a stop."""
        state = stages.state
        rates = learning_rates(
            self.config,
            stage=state.stage,
            stage_images=state.images,
            stage_cap=stages.cap,
            images=batch.start + batch.count,
            batch_images=batch.count,
        )
        self.learning_rate = rates.networks
        result = self.engine.step(
            self._local(batch),
            learning_rates=rates,
            signals=(float(stop), float(batch.substituted)),
        )
        if state.stage == 1 and self.learns_variance and self.config.variance.update != "adam":
            self.variance.after_batch(self.model, result.sums[3], batch.count, result.finite)
            if (batch.start + batch.count) % stages.train_images == 0:
                self.variance.after_epoch(self.model)
        if self.average is not None:
            self.average.update(self.model, batch.count)
        return result

    def _local(self, batch: Batch) -> LocalBatch:
        """This process's rows on its device, with their part of the noise of the global batch."""
        seed, width = self.config.seed, self.model.latent_dim
        penalty = self.engine.objective.penalty
        draws = batch.count if penalty is not None and penalty.draws_prior else 0
        rows = self.ranks.partition(batch.count)
        numbers = (
            global_noise(seed, "posterior", batch.start, batch.count, width)[rows.start : rows.stop],
            global_noise(seed, "prior", batch.start, draws, width),
            torch.tensor(kl_weight(self.config, batch.start)),
        )
        images, (noise, prior, weight) = self._feed.send(batch.image, numbers)
        return LocalBatch(images=images, noise=noise, prior=prior, start=rows.start, rows=batch.count, kl_weight=weight)

    def held_out(self) -> HeldOut:
        """Evaluates the weights, averaged where averages are kept, on held-out images."""
        return held_out(self.evaluated, self.passes, self.config.seed, self.ranks)

    def pictures(self) -> dict[str, Tensor]:
        """Grids for people to look at; see `Pictures.draw`."""
        return self._pictures.draw(self.evaluated, self.ranks.device)

    def end_stage(self, stage: int, best: Checkpoint | None) -> None:
        """Ends a stage with one set of weights for all that follows, and stage 1 with their sigma_dataset^2.

        best: the checkpoint whose weights and moments replace the current ones; None keeps these. Where averages are
        kept, the weights become their averages.
        """
        if best is not None:
            self._take(self._whole(best))
            self.engine.load_optimiser_state(best.training)
        elif self.average is not None:
            self._take(self.average.model.state_dict())
        if stage == 1 and self.learns_variance:
            exact = exact_variance(self.model, self.passes, self.config.seed, self.ranks)
            for model in {self.model, self.evaluated}:
                model.freeze_variance(max(exact, self.config.variance.min_variance))

    def _take(self, weights: dict[str, Tensor]) -> None:
        self.engine.load_weights(weights)
        if self.average is not None:
            self.average.model.load_state_dict(weights)

    def _whole(self, best: Checkpoint) -> dict[str, Tensor]:
        """The evaluated weights of a checkpoint of this stage, or of the end of stage 1, at which stage 2 began."""
        model = build_model(self.config, self.model.image_shape, per_pixel=best.state.per_pixel)
        model.load_state_dict(averaged(best.training) or best.model)
        if self.model.per_pixel and not model.per_pixel:
            model.add_variance_head(self.model.variance_floor.item())
        return model.state_dict()

    def enter_stage2(self) -> float:
        """The switch of Algorithm 1: adds the variance head. Returns the floor of the per-pixel variance."""
        chosen = self.config.variance.floor
        floor = 0.5 * self.model.dataset_variance if isinstance(chosen, str) else chosen
        self.engine.enter_stage2(floor)
        if self.average is not None:  # stage 1 ended with weights that equal their averages
            self.average = WeightAverage(self.model, self.config.optimiser.ema_images)
        return floor

    def training_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside the weights; the next update may change it."""
        tensors = {**self.engine.optimiser_state(), _VARIANCE: self.variance.state}
        if self.average is not None:
            average = self.average.model.state_dict()
            tensors |= {AVERAGE_PREFIX + name: value for name, value in average.items()}
        return tensors


def memory_format(config: Config) -> torch.memory_format:
    """The layout of images and weights."""
    contiguous = config.engine.memory_format == "contiguous" or config.engine.name == "deepspeed"
    return torch.contiguous_format if contiguous else torch.channels_last


def require_engine(config: Config) -> None:
    """Raises InputError where the settings of the engine are wrong, before anything is written."""
    if config.engine.name == "deepspeed":
        # Imported only where it is used: it takes seconds, and searches for a compiler.
        from trainer.engines.deepspeed import require_json

        require_json(config)


def build_engine(
    config: Config, image_shape: tuple[int, int, int], ranks: Ranks, saved: Checkpoint | None = None
) -> Engine:
    """An engine with the weights of `saved`, or with new ones; the optimiser starts without moments.

    image_shape: (C, H, W). Every process of the group calls it.
    """
    torch.manual_seed(config.seed)
    model = build_model(
        config,
        image_shape,
        per_pixel=saved is not None and saved.state.per_pixel,
        initial_variance=initial_variance(config.objective, config.variance),
        learn_variance=learns_variance_by_gradient(config.objective, config.variance),
    )
    if saved is not None:
        model.load_state_dict(saved.model)
    model = model.to(ranks.device).to(memory_format=memory_format(config)).train()
    objective = Objective(model, config.objective, config.variance)
    if config.engine.name == "deepspeed":
        # Imported only where it is used: it takes seconds, and searches for a compiler.
        from trainer.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(objective, config, ranks)
    return DdpEngine(objective, config, ranks)
