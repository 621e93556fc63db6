"""The sections of a run's configuration: every field with its meaning, unit and range.

Impossible values and combinations are refused here, with the reason, before anything is started.
"""

from dataclasses import dataclass
from typing import Literal

from data_shards.io.errors import InputError


def require(holds: bool, message: str) -> None:
    """Refuses the configuration with `message` unless `holds`."""
    if not holds:
        raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The shards and how they are read."""

    shards: str = "shards/fashion-mnist"
    """Folder or address of the shard set that `python -m data_shards build` wrote."""
    train_split: str = "train"
    """Split that is trained on."""
    valid_split: str = "valid"
    """Held-out split that decides when a stage ends; never the test split of a result."""
    valid_images: int = 2000
    """Images of the held-out split that one check looks at, from its start; at least 1."""
    global_batch: int = 128
    """Images of one update, summed over all processes; at least 1."""
    workers: int = 0
    """Reader processes beside each training process; 0 reads ahead in a thread."""
    substitutes: int = 16
    """Unreadable images that may be replaced by readable ones over the whole run before it stops; 0 allows none."""

    def __post_init__(self) -> None:
        require(self.global_batch >= 1, f"data.global_batch: {self.global_batch} is below 1")
        require(self.valid_images >= 1, f"data.valid_images: {self.valid_images} is below 1")
        require(self.workers >= 0, f"data.workers: {self.workers} is below 0")
        require(self.substitutes >= 0, f"data.substitutes: {self.substitutes} is below 0")
        require(
            self.train_split != self.valid_split,
            f"data.valid_split: {self.valid_split!r} is the training split too; choose a held-out one",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The networks. The paper's own are in a supplement that is not public; these values are ours."""

    latent_dim: int = 16
    """Dimensions D of z; at least 1."""
    encoder_channels: tuple[int, ...] = (32, 64)
    """Channels after each convolution of stride 2 of the encoder."""
    decoder_channels: tuple[int, ...] = (64, 32, 16)
    """Channels of the decoder's first feature map, then after each doubling of its size."""
    kernel: int = 3
    """Side of the convolutions in pixels, 3 to 7."""
    hidden: int = 256
    """Width of the dense layer between features and latents on both sides; 0 leaves it out."""
    norm: Literal["none", "batch", "group"] = "none"
    """Normalisation after each convolution; batch takes its statistics over the global batch."""
    activation: Literal["relu", "silu", "gelu", "leaky_relu"] = "silu"
    """Nonlinearity after each layer but the last."""
    residual_blocks: int = 0
    """Residual blocks of two 3 x 3 convolutions after each change of size; at least 0."""

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, f"model.latent_dim: {self.latent_dim} is below 1")
        require(len(self.encoder_channels) >= 1, "model.encoder_channels: is empty; give at least one number")
        require(len(self.decoder_channels) >= 1, "model.decoder_channels: is empty; give at least one number")
        for name, channels in (("encoder", self.encoder_channels), ("decoder", self.decoder_channels)):
            require(min(channels) >= 1, f"model.{name}_channels: {list(channels)} has a number below 1")
            require(
                self.norm != "group" or all(c % 8 == 0 for c in channels),
                f"model.{name}_channels: {list(channels)}: group norm needs multiples of 8",
            )
        require(3 <= self.kernel <= 7, f"model.kernel: {self.kernel} is not in 3 to 7")
        require(self.hidden >= 0, f"model.hidden: {self.hidden} is below 0")
        require(self.residual_blocks >= 0, f"model.residual_blocks: {self.residual_blocks} is below 0")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised. All methods share the networks."""

    name: Literal["sigma_vae", "fixed", "vae", "beta_vae", "dip_vae_i", "dip_vae_ii", "wae_mmd"] = "sigma_vae"
    """sigma_vae learns sigma^2 and has two stages; vae is sigma^2 = 0.5, beta_vae 1, fixed takes `sigma2`."""
    sigma2: float | None = None
    """Variance of the likelihood for `fixed`, dip_vae and wae_mmd, above 0; the last two have 0.5 by default."""
    dip_off_diagonal: float = 10.0
    """Weight of the squared off-diagonal covariances of DIP-VAE; the diagonal's is 10 times it (I) or equal (II)."""
    wae_weight: float = 10.0
    """Weight of the MMD against the summed square error, in the units of Tolstikhin et al.; 10 MNIST, 100 CelebA."""
    kl_warmup_images: int = 0
    """Images over which the weight of the KL term rises from 0 to 1; 0 has it at 1 from the start."""

    def __post_init__(self) -> None:
        takes_variance = self.name in ("fixed", "dip_vae_i", "dip_vae_ii", "wae_mmd")
        require(
            self.sigma2 is None or takes_variance,
            f"objective.sigma2: {self.name} sets its own variance; leave sigma2 out or choose objective.name fixed",
        )
        require(self.name != "fixed" or self.sigma2 is not None, "objective.sigma2: fixed needs a value above 0")
        require(self.sigma2 is None or self.sigma2 > 0, f"objective.sigma2: {self.sigma2} is not above 0")
        require(self.dip_off_diagonal >= 0, f"objective.dip_off_diagonal: {self.dip_off_diagonal} is below 0")
        require(self.wae_weight >= 0, f"objective.wae_weight: {self.wae_weight} is below 0")
        require(self.kl_warmup_images >= 0, f"objective.kl_warmup_images: {self.kl_warmup_images} is below 0")


@dataclass(frozen=True, kw_only=True)
class VarianceConfig:
    """The variance of the likelihood, which balances reconstruction and prior."""

    update: Literal["adam", "closed_form", "epoch"] = "closed_form"
    """adam: gradients on log sigma^2; closed_form: equation 9 on the global batch, smoothed; epoch: over the epoch."""
    initial: float = 1.0
    """sigma^2 before the first update, in squared pixel units of the [0, 1] scale; above 0."""
    smoothing: float = 0.01
    """Weight of the newest batch in closed_form's running mean, above 0 and at most 1; the first batches weigh more."""
    learning_rate: float = 0.01
    """Learning rate of adam on log sigma^2; above 0."""
    min_variance: float = 1e-6
    """sigma^2 below which stage 1 counts as collapsed and stops with a warning; above 0."""
    floor: Literal["half_dataset_variance"] | float = "half_dataset_variance"
    """Floor of the per-pixel variance in stage 2: half of sigma_dataset^2 as in Algorithm 1, or a value above 0."""
    beta_nll: float = 0.0
    """Weighs a pixel's term in stage 2 by (variance / sigma_dataset^2)^this, 0 to 1; 1 trains means as stage 1 did."""

    def __post_init__(self) -> None:
        require(self.initial > 0, f"variance.initial: {self.initial} is not above 0")
        require(0 < self.smoothing <= 1, f"variance.smoothing: {self.smoothing} is not in (0, 1]")
        require(self.learning_rate > 0, f"variance.learning_rate: {self.learning_rate} is not above 0")
        require(self.min_variance > 0, f"variance.min_variance: {self.min_variance} is not above 0")
        require(isinstance(self.floor, str) or self.floor > 0, f"variance.floor: {self.floor} is not above 0")
        require(0 <= self.beta_nll <= 1, f"variance.beta_nll: {self.beta_nll} is not in 0 to 1")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """When a stage of Algorithm 1 ends: at its cap, or when the held-out ELBO has stopped rising."""

    max_epochs: float = 10.0
    """Cap in epochs of the training split, counted within the stage; 0 leaves the stage out (stage 2 only)."""
    eps: float = 0.001
    """Relative gain of the smoothed held-out ELBO from check to check below which a check counts as without gain."""
    patience: int = 3
    """Checks in a row without gain after which the stage ends; at least 1."""
    check_images: int = 50_000
    """Images between two checks; at least 1."""
    smoothing: float = 0.5
    """Weight of the newest check in the smoothed held-out ELBO, above 0 and at most 1."""

    def __post_init__(self) -> None:
        require(self.max_epochs >= 0, f"stage max_epochs: {self.max_epochs} is below 0")
        require(self.patience >= 1, f"stage patience: {self.patience} is below 1")
        require(self.check_images >= 1, f"stage check_images: {self.check_images} is below 1")
        require(0 < self.smoothing <= 1, f"stage smoothing: {self.smoothing} is not in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Adam and what surrounds it."""

    learning_rate: float = 1e-3
    """Learning rate of Adam after the warm-up; above 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's two moments; each in [0, 1)."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine falls over each stage's cap from learning_rate to `final_fraction` of it."""
    final_fraction: float = 0.05
    """Fraction of learning_rate that is left at the end of a cosine schedule; 0 to 1."""
    stage2_fraction: float = 1.0
    """Fraction of learning_rate that stage 2 starts from; above 0."""
    warmup_images: int = 0
    """Images at the start of the run over which the learning rate rises from 0; at least 0."""
    max_grad_norm: float = 0.0
    """Largest norm of the gradient of the loss in nats per image; 0 leaves gradients alone."""
    at_switch: Literal["keep", "reset"] = "keep"
    """keep: the moments of the old parameters go on in stage 2; reset: all moments start anew."""
    ema_images: int = 0
    """Half-life in images of an average of the weights that is evaluated in their place; 0 keeps none."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optimiser.learning_rate: {self.learning_rate} is not above 0")
        require(all(0 <= b < 1 for b in self.betas), f"optimiser.betas: {self.betas} are not in [0, 1)")
        require(0 <= self.final_fraction <= 1, f"optimiser.final_fraction: {self.final_fraction} is not in 0 to 1")
        require(self.stage2_fraction > 0, f"optimiser.stage2_fraction: {self.stage2_fraction} is not above 0")
        require(self.warmup_images >= 0, f"optimiser.warmup_images: {self.warmup_images} is below 0")
        require(self.max_grad_norm >= 0, f"optimiser.max_grad_norm: {self.max_grad_norm} is below 0")
        require(self.ema_images >= 0, f"optimiser.ema_images: {self.ema_images} is below 0")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How an update is carried out. Nothing here changes what is learnt, up to rounding."""

    name: Literal["ddp", "deepspeed"] = "ddp"
    """ddp: a replica on each process; deepspeed: ZeRO as `deepspeed_config` says."""
    deepspeed_config: str = ""
    """Path of DeepSpeed's own JSON, for engine deepspeed; see trainer/configs/deepspeed."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 runs the networks under autocast; losses and the optimiser stay in float32."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Layout of images and weights; auto is channels_last for ddp, the faster one, and contiguous for deepspeed."""
    compile: bool = False
    """Compiles the networks with torch.compile; pays on GPUs, not on CPUs."""
    grad_accumulation_steps: int = 1
    """Parts into which each process cuts its share of a batch to save memory; at least 1."""

    def __post_init__(self) -> None:
        require(
            self.grad_accumulation_steps >= 1,
            f"engine.grad_accumulation_steps: {self.grad_accumulation_steps} is below 1",
        )
        require(
            (self.name == "deepspeed") == bool(self.deepspeed_config),
            "engine.deepspeed_config: needed by engine deepspeed, and by it alone",
        )
        require(
            self.name == "ddp" or self.memory_format != "channels_last",
            "engine.memory_format: engine deepspeed flattens weights and needs them contiguous; use auto",
        )
        require(
            self.name == "ddp" or self.grad_accumulation_steps == 1,
            "engine.grad_accumulation_steps: engine deepspeed takes the whole share at once; use 1",
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept, and when the run stops by itself."""

    every_images: int = 250_000
    """Images between two checkpoints; at least 1."""
    keep_last: int = 2
    """Newest checkpoints kept beside the end of stage 1; at least 1."""
    walltime_minutes: float = 0.0
    """Minutes after which the run writes a checkpoint and ends, to be started again; 0 sets no limit."""
    bad_steps: int = 10
    """Updates in a row skipped for a loss or gradient that is not finite, after which the run stops; at least 1."""

    def __post_init__(self) -> None:
        require(self.every_images >= 1, f"checkpoint.every_images: {self.every_images} is below 1")
        require(self.keep_last >= 1, f"checkpoint.keep_last: {self.keep_last} is below 1")
        require(self.walltime_minutes >= 0, f"checkpoint.walltime_minutes: {self.walltime_minutes} is below 0")
        require(self.bad_steps >= 1, f"checkpoint.bad_steps: {self.bad_steps} is below 1")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written while training."""

    every_images: int = 10_000
    """Images between two lines of metrics.jsonl; metrics stay on the device in between; at least 1."""
    tensorboard: bool = True
    """Writes the same numbers for TensorBoard."""
    profile_steps: int = 0
    """Updates recorded by the torch profiler into profile.json, after ten of warm-up; 0 records none."""

    def __post_init__(self) -> None:
        require(self.every_images >= 1, f"log.every_images: {self.every_images} is below 1")
        require(self.profile_steps >= 0, f"log.profile_steps: {self.profile_steps} is below 0")
