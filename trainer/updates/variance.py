"""How stage 1 finds sigma^2, the variance of the data set (decision D5)."""

import torch
from torch import Tensor

from trainer.config.sections import DataConfig, VarianceConfig
from trainer.networks.model import SigmaVAE
from trainer.noise import global_noise, rank_slice
from trainer.objectives.gaussian import closed_form_variance, reparameterise
from trainer.process_group import Ranks
from trainer.updates.source_order import in_source_order


class VarianceUpdate:
    """Moves log sigma^2 after each update, for the two rules without gradients: `closed_form` and `epoch`.

    Everything stays on the device, so that no step waits for a number.
    """

    def __init__(self, config: VarianceConfig, device: torch.device) -> None:
        self.config = config
        # updates so far; square error and images of the running epoch
        self.state = torch.zeros(3, dtype=torch.float64, device=device)

    def after_batch(self, model: SigmaVAE, square_error: Tensor, images: int, finite: Tensor) -> None:
        """Takes the square error of a global batch, (), summed over images and pixels. A bad batch changes nothing."""
        taken = torch.where(finite, square_error, 0.0)
        counted = finite.double()
        self.state += torch.stack([counted, taken, counted * images])
        if self.config.update == "closed_form":
            # A mean of all batches at first, a running mean with the newest weighing `smoothing` later.
            weight = torch.clamp_min(1 / self.state[0].clamp_min(1), self.config.smoothing)
            newest = closed_form_variance(square_error, images * model.pixels)
            mixed = model.log_variance.double().exp().lerp(newest, weight).log().float()
            model.log_variance.data.copy_(torch.where(finite, mixed, model.log_variance.data))

    def after_epoch(self, model: SigmaVAE) -> None:
        """Ends an epoch: `epoch` takes over the epoch's closed form."""
        if self.config.update == "epoch":
            mean = closed_form_variance(self.state[1], self.state[2] * model.pixels)
            model.log_variance.data.copy_(torch.where(self.state[2] > 0, mean.log().float(), model.log_variance.data))
        self.state[1:] = 0


# Equation 9 over the whole training split: one draw of the posterior for each image.
@torch.no_grad()
def exact_variance(model: SigmaVAE, data: DataConfig, seed: int, ranks: Ranks) -> float:
    """sigma*^2 = mean over images, pixels and draws of (g_k(z) - x_k)^2, the same on any number of processes."""
    training = model.training
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=ranks.device)  # square error, pixel values
    for batch in in_source_order(data, data.train_split, ranks):
        x = batch.image.to(ranks.device).float() / 255
        rows = rank_slice(batch.count, ranks.rank, ranks.world_size)
        noise = global_noise(seed, "exact variance", batch.start, batch.count, model.latent_dim)[rows]
        mean, std = model.encode(x)
        output = model.decode(reparameterise(mean, std, noise.to(ranks.device)))
        sums += torch.stack([(x - output.mean).square().double().sum(), sums.new_tensor(float(x.numel()))])
    model.train(training)
    square_error, values = ranks.sum_(sums).tolist()
    return square_error / values
