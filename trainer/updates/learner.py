"""Everything that is learnt, and how an update changes it: the networks, sigma^2, and the averaged weights."""

import torch
from torch import Tensor

from data_shards.stream.stream import Batch
from trainer.config.config import Config
from trainer.config.methods import METHODS
from trainer.engines.ddp import DdpEngine
from trainer.engines.engine import Engine, StepResult
from trainer.networks.model import SigmaVAE
from trainer.noise import global_noise
from trainer.objectives.objective import LocalBatch, Objective, initial_variance, learns_variance_by_gradient
from trainer.process_group import Ranks
from trainer.run_folder.checkpoint import Checkpoint
from trainer.run_folder.restore import AVERAGE_PREFIX, averaged
from trainer.updates.evaluation import HeldOut, exact_variance, held_out
from trainer.updates.rules import VarianceUpdate, WeightAverage, kl_weight, learning_rate
from trainer.updates.stages import Stages

_VARIANCE = "variance/state"


class Learner:
    """The model in its engine, the update of sigma^2, and the average of the weights, new or from a checkpoint.

    Every process of the group calls the same methods in the same order.
    """

    def __init__(
        self, config: Config, image_shape: tuple[int, int, int], ranks: Ranks, saved: Checkpoint | None = None
    ) -> None:
        self.config, self.ranks = config, ranks
        self.engine = build_engine(config, image_shape, ranks, saved)
        self.learns_variance = METHODS[config.objective.name].learns_variance
        self.variance = VarianceUpdate(config.variance, ranks.device)
        self.average = WeightAverage(self.model, config.optimiser.ema_images) if config.optimiser.ema_images else None
        if saved is not None:
            self.variance.state.copy_(saved.training[_VARIANCE])
            if self.average is not None:
                self.average.average = {k: v.to(ranks.device) for k, v in averaged(saved.training).items()}
            self.engine.load_optimiser_state(saved.training)

    @property
    def model(self) -> SigmaVAE:
        """The current model; an engine may replace it at the switch to stage 2."""
        return self.engine.objective.model

    def update(self, batch: Batch, stages: Stages, *, stop: bool) -> StepResult:
        """One update on a global batch; `stages` does not count its images yet. stop: whether to signal a stop."""
        state = stages.state
        result = self.engine.step(
            self._local(batch),
            learning_rate=learning_rate(
                self.config,
                stage=state.stage,
                stage_images=state.images,
                stage_cap=stages.cap,
                images=batch.start + batch.count,
            ),
            kl_weight=kl_weight(self.config, batch.start),
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
        """This process's rows on its device, with the noise of the global batch."""
        seed, device, width = self.config.seed, self.ranks.device, self.model.latent_dim
        penalty = self.engine.objective.penalty
        draws = batch.count if penalty is not None and penalty.draws_prior else 0
        noise = global_noise(seed, "posterior", batch.start, batch.count, width)
        return LocalBatch(
            images=batch.image.to(device, non_blocking=True, memory_format=memory_format(self.config)),
            noise=noise.to(device, non_blocking=True),
            prior=global_noise(seed, "prior", batch.start, draws, width).to(device, non_blocking=True),
            start=self.ranks.partition(batch.count).start,
            rows=batch.count,
        )

    def held_out(self) -> HeldOut:
        """Evaluates the current weights on held-out images."""
        return held_out(self.model, self.config.data, self.config.seed, self.ranks)

    def fix_variance(self) -> None:
        """The end of stage 1: sets sigma_dataset^2 to equation 9 over the training split, where it is learnt."""
        if self.learns_variance:
            exact = exact_variance(self.model, self.config.data, self.config.seed, self.ranks)
            self.model.freeze_variance(max(exact, self.config.variance.min_variance))
            if self.average is not None:
                self.average.average["log_variance"].copy_(self.model.log_variance)

    def enter_stage2(self) -> float:
        """The switch of Algorithm 1: adds the variance head. Returns the floor of the per-pixel variance."""
        chosen = self.config.variance.floor
        floor = 0.5 * self.model.dataset_variance if isinstance(chosen, str) else chosen
        self.engine.enter_stage2(floor)
        if self.average is not None:
            self.average.enter_stage2(self.model)
        return floor

    def training_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside the weights, on the CPU."""
        tensors = {name: value.cpu() for name, value in self.engine.optimiser_state().items()}
        tensors[_VARIANCE] = self.variance.state.cpu()
        if self.average is not None:
            tensors |= {AVERAGE_PREFIX + name: value.cpu() for name, value in self.average.average.items()}
        return tensors


def memory_format(config: Config) -> torch.memory_format:
    """The layout of images and weights."""
    contiguous = config.engine.memory_format == "contiguous" or config.engine.name == "deepspeed"
    return torch.contiguous_format if contiguous else torch.channels_last


def build_engine(
    config: Config, image_shape: tuple[int, int, int], ranks: Ranks, saved: Checkpoint | None = None
) -> Engine:
    """An engine with the weights of `saved`, or with new ones; the optimiser starts without moments.

    image_shape: (C, H, W). Every process of the group calls it.
    """
    model = _build_model(config, image_shape, saved)
    model = model.to(ranks.device).to(memory_format=memory_format(config)).train()
    objective = Objective(model, config.objective, config.variance)
    if config.engine.name == "deepspeed":
        # Imported only where it is used: it takes seconds, and searches for a compiler.
        from trainer.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(objective, config, ranks)
    return DdpEngine(objective, config, ranks)


def _build_model(config: Config, image_shape: tuple[int, int, int], saved: Checkpoint | None) -> SigmaVAE:
    torch.manual_seed(config.seed)
    per_pixel = saved is not None and saved.state.per_pixel
    model = SigmaVAE(
        image_shape,
        config.model,
        initial_variance=initial_variance(config.objective, config.variance),
        learn_variance=learns_variance_by_gradient(config.objective, config.variance) and not per_pixel,
    )
    if per_pixel:
        model.add_variance_head(1.0)  # the floor is a buffer and is loaded with the weights
    if saved is not None:
        model.load_state_dict(saved.model)
    return model
