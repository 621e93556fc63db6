"""How stage 1 learns sigma^2, the variance of the data set, without gradients (decision D5)."""

import torch
from torch import Tensor

from trainer.config.sections import VarianceConfig
from trainer.networks.model import SigmaVAE
from trainer.objectives.gaussian import closed_form_variance


class VarianceUpdate:
    """Sets log sigma^2 after each update, by `closed_form` or `epoch`.

    All values stay on the device, so no update waits for the host.
    """

    def __init__(self, config: VarianceConfig, device: torch.device) -> None:
        self.config = config
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
            # At first the mean of all batches, later a running mean in which the newest has the weight `smoothing`.
            weight = torch.clamp_min(1 / self.state[0].clamp_min(1), self.config.smoothing)
            newest = closed_form_variance(square_error, images * model.pixels)
            mixed = model.log_variance.double().exp().lerp(newest, weight).log().float()
            model.log_variance.data.copy_(torch.where(finite, mixed, model.log_variance.data))

    def after_epoch(self, model: SigmaVAE) -> None:
        """Ends an epoch: `epoch` sets sigma^2 to the closed form over the epoch."""
        if self.config.update == "epoch":
            mean = closed_form_variance(self.state[1], self.state[2] * model.pixels)
            model.log_variance.data.copy_(torch.where(self.state[2] > 0, mean.log().float(), model.log_variance.data))
        self.state[1:] = 0
