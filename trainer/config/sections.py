"""The sections of a run's configuration: every field with its meaning and unit; its type states its range.

What fields may be together is checked after them, with the reason, before anything is started.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from data_shards.io.address import DEFAULT_CACHE_BYTES, DEFAULT_PATIENCE_SECONDS, Location
from data_shards.io.configuration import (
    Fraction,
    Int,
    LocalPathText,
    NonNegativeFloat,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    Text,
    configuration,
)
from data_shards.io.errors import InputError
from trainer.config.methods import METHODS

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]
# Above these nobody has trained; a slip of the hand would fill the memory, or start thousands of processes.
Width = Annotated[PositiveInt, Field(le=100_000)]
Channels = Annotated[tuple[Width, ...], Field(min_length=1, max_length=20)] | Literal["auto"]
Variance = Annotated[float, Field(ge=1e-12, le=1e6)]
"""In squared pixel units of the [0, 1] scale, as float32 can divide by it."""
TrackerName = Literal["tensorboard", "wandb", "mlflow"]
Decay = Annotated[float, Field(ge=0, lt=1)]


@configuration
class DataConfig:
    """The shards and how they are read."""

    shards: PathText = "shards/fashion-mnist"
    """Folder or address of the shard set that `python -m data_shards build` wrote."""
    train_split: Text = "train"
    """Split that is trained on."""
    valid_split: Text = "valid"
    """Held-out split that decides when a stage ends; never the test split of a result."""
    valid_images: PositiveInt = 2000
    """Images of the held-out split that one check evaluates, from its start."""
    global_batch: PositiveInt = 128
    """Images of one update, summed over all processes."""
    workers: Annotated[NonNegativeInt, Field(le=256)] | Literal["auto"] = "auto"
    """Reader processes beside each training process; 0 reads ahead in a thread; auto is 0 but for JPEGs on a GPU."""
    on_device: bool | Literal["auto"] = "auto"
    """Keeps the training split in the device's memory; auto does on GPUs where it takes at most a quarter of it."""
    substitutes: NonNegativeInt = 16
    """Unreadable images that may be replaced by readable ones over the whole run before it stops; 0 allows none."""
    flip: bool = False
    """Mirrors each training image, left to right, with probability 1/2, drawn anew each epoch by image and seed."""
    patience_seconds: NonNegativeFloat = DEFAULT_PATIENCE_SECONDS
    """How long a fault of the server of remote shards is waited out, each time one begins; 0 waits for none."""
    cache_bytes: PositiveInt = DEFAULT_CACHE_BYTES
    """Most bytes of the local copies of remote shards, for all processes of a node and all data sets together."""
    cache_dir: LocalPathText | Literal[""] = ""
    """Folder of these copies; empty: `shards` in the user's cache folder."""

    def __post_init__(self) -> None:
        if self.train_split == self.valid_split:
            raise InputError(
                f"{self.valid_split!r} is the training split too; use a held-out split", parameter="valid_split"
            )

    @property
    def location(self) -> Location:
        """Where the shards are and how they are read: what `ShardStream` and `Manifest.load` take."""
        return Location(
            address=self.shards,
            patience_seconds=self.patience_seconds,
            cache_bytes=self.cache_bytes,
            cache_dir=self.cache_dir,
        )


@configuration
class ModelConfig:
    """The networks. The paper's own are in a supplement that is not public; these values are ours."""

    latent_dim: Width = 16
    """Dimensions D of z."""
    encoder_channels: Channels = (32, 64)
    """Channels after each convolution of stride 2 of the encoder; auto chooses them by the size of the images."""
    decoder_channels: Channels = (64, 32, 16)
    """Channels of the decoder's first feature map, then after each doubling of its size; auto as for the encoder."""
    kernel: Annotated[Int, Field(ge=3, le=7)] = 3
    """Side of the convolutions in pixels."""
    hidden: Annotated[NonNegativeInt, Field(le=100_000)] = 256
    """Width of the dense layer between features and latents on both sides; 0 leaves it out."""
    norm: Literal["none", "batch", "group"] = "none"
    """Normalisation after each convolution; batch takes its statistics over the global batch."""
    activation: Literal["relu", "silu", "gelu", "leaky_relu"] = "silu"
    """Nonlinearity after each layer but the last."""
    residual_blocks: Annotated[NonNegativeInt, Field(le=100)] = 0
    """Residual blocks of two 3 x 3 convolutions after each change of size."""

    def __post_init__(self) -> None:
        for field, channels in (
            ("encoder_channels", self.encoder_channels),
            ("decoder_channels", self.decoder_channels),
        ):
            if self.norm == "group" and channels != "auto" and any(n % 8 or n % min(32, n // 8) for n in channels):
                raise InputError(
                    f"{list(channels)} does not suit group norm; use multiples of 8 up to 256, of 32 above, or auto",
                    parameter=field,
                )


@configuration
class ObjectiveConfig:
    """What is minimised. All methods share the networks."""

    name: MethodName = "sigma_vae"
    """sigma_vae learns sigma^2 and has two stages; vae is sigma^2 = 0.5, beta_vae 1, fixed takes `sigma2`."""
    sigma2: Variance | None = None
    """Variance of the likelihood for `fixed`, dip_vae and wae_mmd; the last two have 0.5 by default."""
    dip_off_diagonal: NonNegativeFloat = 10.0
    """Weight of the squared off-diagonal covariances of DIP-VAE; the diagonal's is 10 times it (I) or equal (II)."""
    wae_weight: NonNegativeFloat = 10.0
    """Weight of the MMD against the summed square error, in the units of Tolstikhin et al.; 10 MNIST, 100 CelebA."""
    kl_warmup_images: NonNegativeInt = 0
    """Images over which the weight of the KL term rises from 0 to 1; 0 has it at 1 from the start."""

    def __post_init__(self) -> None:
        method = METHODS[self.name]
        if self.sigma2 is not None and not method.takes_sigma2:
            raise InputError(
                f"{self.name} has its own variance; leave sigma2 out or use objective.name fixed", parameter="sigma2"
            )
        if self.sigma2 is None and method.variance is None and not method.learns_variance:
            raise InputError(f"{self.name} needs a variance; use a number above 0", parameter="sigma2")


@configuration
class VarianceConfig:
    """The variance of the likelihood, which balances reconstruction and prior."""

    update: Literal["adam", "closed_form", "epoch"] = "closed_form"
    """adam: gradients on log sigma^2; closed_form: equation 9 on the global batch, smoothed; epoch: over the epoch."""
    initial: Variance = 1.0
    """sigma^2 before the first update, in squared pixel units of the [0, 1] scale."""
    smoothing_images: Literal["auto"] | PositiveFloat = "auto"
    """Images that closed_form's mean looks back over, after the first eight times as many; auto: 1,000 or an epoch."""
    learning_rate: PositiveFloat = 0.01
    """Learning rate of adam on log sigma^2."""
    min_variance: Variance = 1e-6
    """sigma^2 below which stage 1 counts as collapsed and stops with a warning."""
    floor: Literal["half_dataset_variance"] | Variance = "half_dataset_variance"
    """Least per-pixel variance in stage 2: half of sigma_dataset^2 as in Algorithm 1, or a value."""
    beta_nll: Fraction = 0.0
    """Weighs a pixel's term in stage 2 by (variance / sigma_dataset^2)^this; 1 trains means as stage 1 did."""
    family: Literal["gaussian", "laplace", "student_t"] = "gaussian"
    """Density of a pixel in stage 2 about its mean, with its variance; student_t has 4 degrees of freedom."""

    def __post_init__(self) -> None:
        if self.family != "gaussian" and self.beta_nll > 0:
            raise InputError(
                f"weighs the terms of a Gaussian, and family is {self.family}; use 0 or family gaussian",
                parameter="beta_nll",
            )


@configuration
class StageConfig:
    """When a stage of Algorithm 1 ends: at its cap, or when the held-out ELBO has stopped rising."""

    max_epochs: Annotated[NonNegativeFloat, Field(le=1e9)] = 10.0
    """Cap in epochs of the training split, counted within the stage; 0 leaves the stage out (stage 2 only)."""
    min_images: NonNegativeInt = 0
    """Least cap in images, so that a small data set is seen often enough; 0 leaves the cap at max_epochs."""
    eps: float = 0.001
    """Relative gain of the smoothed held-out ELBO from check to check below which a check counts as without gain."""
    patience: PositiveInt = 3
    """Checks in a row without gain after which the stage ends."""
    check_images: PositiveInt = 50_000
    """Images between two checks."""
    smoothing: PositiveFraction = 0.5
    """Weight of the newest check in the smoothed held-out ELBO."""
    restore_best: bool = True
    """Ends the stage with its weights of the largest held-out ELBO; false ends it with the last ones."""

    def cap(self, train_images: int) -> int:
        """Images after which the stage ends in any case; 0 where it is left out. train_images: of an epoch."""
        if self.max_epochs == 0:
            return 0
        return max(1, self.min_images, round(self.max_epochs * train_images))


@configuration
class OptimiserConfig:
    """Adam and what surrounds it."""

    learning_rate: PositiveFloat = 1e-3
    """Learning rate of Adam after the warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of Adam's two moments."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """cosine falls over each stage's cap from learning_rate to `final_fraction` of it."""
    final_fraction: Fraction = 0.05
    """Fraction of learning_rate that is left at the end of a cosine schedule."""
    stage2_fraction: PositiveFloat = 1.0
    """Fraction of learning_rate that stage 2 falls from."""
    warmup_images: NonNegativeInt = 0
    """Images at the start of the run over which the learning rate rises from 0."""
    max_grad_norm: NonNegativeFloat = 0.0
    """Largest norm of the gradient of the loss in nats per image; 0 leaves gradients alone."""
    switch_warmup_images: NonNegativeInt = 2000
    """Images over which the networks' rate rises from final_fraction to stage 2's, which the new head has at once."""
    at_switch: Literal["shorten", "keep", "reset"] = "shorten"
    """shorten: Adam's moments count as of 1 / (1 - beta1) updates in stage 2; keep: as they are; reset: they go."""
    ema_images: NonNegativeInt = 0
    """Half-life in images of an average of the weights that is evaluated in their place; 0 keeps none."""


@configuration
class EngineConfig:
    """How an update is carried out. Nothing here changes what is learnt, up to rounding."""

    name: Literal["ddp", "deepspeed"] = "ddp"
    """ddp: a replica on each process; deepspeed: ZeRO as `deepspeed_config` says."""
    deepspeed_config: LocalPathText | Literal[""] = ""
    """Path of DeepSpeed's own JSON, for engine deepspeed; see trainer/configs/deepspeed."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """bf16 runs the networks under autocast, losses and optimiser in float32; auto is bf16 on GPUs that have it."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Layout of images and weights; auto is channels_last for ddp, the faster one, and contiguous for deepspeed."""
    compile: bool | Literal["auto"] = False
    """Compiles the networks with torch.compile; auto does on GPUs under engine ddp."""
    cuda_graphs: bool | Literal["auto"] = "auto"
    """Records an update once as a CUDA graph and replays it, if that gives the same; auto does on GPUs under ddp."""
    grad_accumulation_steps: PositiveInt = 1
    """Parts into which each process cuts its rows of a batch to save memory; their gradients are added."""
    deterministic: bool = False
    """On GPUs: only algorithms that give the same bits each time, some of them slower; on CPUs all of them do."""

    def __post_init__(self) -> None:
        if (self.name == "deepspeed") != bool(self.deepspeed_config):
            raise InputError(
                "goes with engine deepspeed, which needs it; "
                + ("leave it out" if self.deepspeed_config else "use a file of trainer/configs/deepspeed"),
                parameter="deepspeed_config",
            )
        if self.name == "deepspeed" and self.memory_format == "channels_last":
            raise InputError(
                "engine deepspeed flattens weights and needs them contiguous; use auto", parameter="memory_format"
            )
        if self.name == "deepspeed" and self.compile is True:
            raise InputError("engine deepspeed compiles nothing here; use auto or false", parameter="compile")
        if self.name == "deepspeed" and self.cuda_graphs is True:
            raise InputError(
                "engine deepspeed waits for the host in each update, which cannot be recorded; use auto or false",
                parameter="cuda_graphs",
            )
        if self.name == "deepspeed" and self.grad_accumulation_steps != 1:
            raise InputError(
                "engine deepspeed takes a process's rows all at once; use 1", parameter="grad_accumulation_steps"
            )


@configuration
class CheckpointConfig:
    """What is kept, and when the run stops by itself."""

    every_images: PositiveInt = 250_000
    """Images between two checkpoints."""
    keep_last: PositiveInt = 2
    """Newest checkpoints kept beside the end of stage 1."""
    walltime_minutes: NonNegativeFloat = 0.0
    """Minutes after which the run writes a checkpoint and ends, to be started again; 0 sets no limit."""
    bad_steps: PositiveInt = 10
    """Updates in a row skipped for a loss or gradient that is not finite, after which the run stops."""


@configuration
class LogConfig:
    """What is written while training."""

    every_images: PositiveInt = 10_000
    """Images between two lines of metrics.jsonl; metrics stay on the device in between."""
    to: tuple[TrackerName, ...] = ("tensorboard",)
    """Programs that get the same numbers, and pictures at each check; [] for none."""
    profile_steps: Annotated[NonNegativeInt, Field(le=10_000)] = 0
    """Updates recorded by the torch profiler into profile.json (profile-RANK.json), after ten of warm-up; 0: none."""

    def __post_init__(self) -> None:
        if twice := [name for name in self.to if self.to.count(name) > 1]:
            raise InputError(f"{twice[0]} stands there twice; leave one of them", parameter="to")
