"""Everything that is learnt, and how an update changes it: the networks, sigma^2, and the averaged weights.

First the parts of an update beside Adam's step: sigma^2 without gradients (decision D5), averaged weights.
"""

import copy
import os
from collections.abc import Callable

import torch
from torch import Tensor

from data_shards.stream.stream import Batch
from trainer.config.config import Config
from trainer.config.methods import METHODS
from trainer.config.sections import VarianceConfig
from trainer.engines.compilation import remark
from trainer.engines.ddp import DdpEngine
from trainer.engines.engine import Engine, LearningRates
from trainer.networks.model import SigmaVAE
from trainer.noise import global_noise
from trainer.objectives.gaussian import closed_form_variance
from trainer.objectives.objective import LocalBatch, Objective, initial_variance, learns_variance_by_gradient
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import Checkpoint
from trainer.run_folder.restore import AVERAGE_PREFIX, averaged, build_model, load_weights
from trainer.updates.evaluation import HeldOut, exact_variance, held_out
from trainer.updates.feed import Feed
from trainer.updates.pictures import Pictures
from trainer.updates.recording import Inputs, RecordedUpdates
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
        # updates so far, for `closed_form`; square error and images of the running epoch, for `epoch`
        self.state = torch.zeros(3, dtype=torch.float64, device=device)
        self._newest_part = torch.full((), _NEWEST_PART, dtype=torch.float64, device=device)
        self._zero = torch.zeros((), dtype=torch.float64, device=device)
        self._counts: dict[int, Tensor] = {}

    def after_batch(self, model: SigmaVAE, square_error: Tensor, images: int, finite: Tensor) -> None:
        """Counts a global batch of `images` images; `closed_form` then updates sigma^2.

        square_error: (), summed over images and pixels. finite: () bool; a batch where it is False changes nothing.
        """
        if self.config.update == "epoch":
            newest = torch.stack([square_error, self._counted(images)])
            self.state[1:].add_(torch.where(finite, newest, self._zero))
        if self.config.update == "closed_form":
            self.state[0].add_(finite)
            # At first a mean over the newest eighth of all batches, for errors fall fastest then; later a running mean
            # over `smoothing_images`, whatever the size of a batch is.
            weight = (self._newest_part / self.state[0]).clamp(min(1.0, images / self.smoothing_images), 1.0)
            newest = closed_form_variance(square_error, images * model.pixels)
            before = model.log_variance.data.double()
            mixed = before.exp().lerp(newest, weight).log()
            model.log_variance.data.copy_(torch.where(finite, mixed, before))

    def _counted(self, images: int) -> Tensor:
        """The images of an update, (); kept, because a recorded update reads it where it lies."""
        if images not in self._counts:
            self._counts[images] = torch.full_like(self._zero, images)
        return self._counts[images]

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


def _of_batch(config: Config, train_images: int) -> str:
    """What to say of a batch that is larger than an epoch; empty for others."""
    data = config.data
    if data.global_batch <= train_images:
        return ""
    return (
        f"data.global_batch is {data.global_batch:,} and split {data.train_split!r} has {train_images:,} images: each "
        "update takes all of them"
    )


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
        self._memory_format = memory_format(config)
        self._feed = Feed(ranks.device, self._memory_format)
        self._numbers_on_gpu = ranks.device.type == "cuda" and config.engine.name == "ddp"
        self.remarks = [said for said in (remark(config, ranks.device), _of_batch(config, train_images)) if said]
        """Warnings that nobody has passed on yet."""
        self._updates: Callable[[Inputs], Tensor] = self._one_update
        self._recorded: RecordedUpdates | None = None
        if self._numbers_on_gpu and config.engine.cuda_graphs:
            self._recorded = self._updates = RecordedUpdates(
                self._one_update,
                lambda: (
                    {f"weights/{name}": value for name, value in self.engine.weights().items()}
                    | self.training_tensors()
                ),
                ranks,
                rows=config.data.global_batch,
                same_bits=config.engine.deterministic,
                warn=self.remarks.append,
            )
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

    def update(self, batch: Batch, stages: Stages, *, stop: bool) -> Tensor:
        """One update on a global batch; `stages` does not count its images yet. stop: whether to signal a stop.

        Returns (9,) float64 on the device: the sums of `StepResult`, whether the update was finite, the norm of its
        gradient, and log sigma^2 after it. The next update may overwrite it.
        """
        state = stages.state
        rates = learning_rates(
            self.config,
            stage=state.stage,
            stage_images=state.images,
            stage_cap=stages.cap,
            images=batch.start + batch.count,
            batch_images=batch.count,
        )
        self.learning_rate = float(rates.networks)
        values = self._updates(self._inputs(batch, rates, stop=stop))
        if self._sets_variance and (batch.start + batch.count) % stages.train_images == 0:
            self.variance.after_epoch(self.model)
            values = torch.cat([values[:-1], self.model.log_variance.detach()])
        return values

    @property
    def _sets_variance(self) -> bool:
        """Whether sigma^2 is set by equation 9 now."""
        return self.learns_variance and not self.model.per_pixel and self.config.variance.update != "adam"

    def _one_update(self, inputs: Inputs) -> Tensor:
        """All of an update that the device does; see `RecordedUpdates`."""
        batch, rates, signals = inputs
        batch = batch._replace(images=batch.images.contiguous(memory_format=self._memory_format))
        result = self.engine.step(batch, learning_rates=rates, signals=signals)
        if self._sets_variance:
            self.variance.after_batch(self.model, result.sums[3], batch.rows, result.finite)
        if self.average is not None:
            self.average.update(self.model, batch.rows)
        found = (result.finite.reshape(1), result.gradient_norm.reshape(1), self.model.log_variance.detach())
        return torch.cat([result.sums, *found])

    def _inputs(self, batch: Batch, rates: LearningRates, *, stop: bool) -> Inputs:
        """This process's rows on its device, with their part of the noise of the global batch."""
        seed, width = self.config.seed, self.model.latent_dim
        penalty = self.engine.objective.penalty
        draws = batch.count if penalty is not None and penalty.draws_prior else 0
        rows = self.ranks.partition(batch.count)
        scalars = [kl_weight(self.config, batch.start), float(stop), float(batch.substituted)]
        numbers = (
            global_noise(seed, "posterior", batch.start, batch.count, width)[rows.start : rows.stop],
            global_noise(seed, "prior", batch.start, draws, width),
            torch.tensor([*scalars, *vars(rates).values()] if self._numbers_on_gpu else scalars),
        )
        images, (noise, prior, sent) = self._feed.send(batch.image, numbers)
        weight, signals = sent[0], sent[1:3]
        if self._numbers_on_gpu:
            rates = LearningRates(**dict(zip(vars(rates), sent[3:].unbind(), strict=True)))
        local = LocalBatch(
            images=images, noise=noise, prior=prior, start=rows.start, rows=batch.count, kl_weight=weight
        )
        return Inputs(local, rates, signals)

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
        self._drop_recording()
        if best is not None:
            self._take(self._whole(best))
            self.engine.load_optimiser_state(best.training)
        elif self.average is not None:
            self._take(self.average.model.state_dict())
        if stage == 1 and self.learns_variance:
            exact = exact_variance(self.model, self.passes, self.config.seed, self.ranks)
            for model in {self.model, self.evaluated}:
                model.freeze_variance(max(exact, self.config.variance.min_variance))

    def close(self) -> None:
        """Ends the updates. NCCL leaves its group only when no recorded update holds a sum over processes any more."""
        self._drop_recording()

    def _drop_recording(self) -> None:
        if self._recorded is not None:
            self._recorded.drop()

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
        self._drop_recording()
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


def require_engine(config: Config, device: torch.device | None = None) -> None:
    """Raises InputError where the settings of the engine are wrong, before anything is written.

    device: that of the run, where it is known.
    """
    if config.engine.name == "deepspeed":
        if device is not None and device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read at its import; else it takes a GPU that is there
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
        load_weights(model, saved.model)
    model = model.to(ranks.device).to(memory_format=memory_format(config)).train()
    objective = Objective(model, config.objective, config.variance)
    if config.engine.name == "deepspeed":
        # Imported only where it is used: it takes seconds, and searches for a compiler.
        from trainer.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(objective, config, ranks)
    return DdpEngine(objective, config, ranks)
