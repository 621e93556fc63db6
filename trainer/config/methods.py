"""The methods that `objective.name` chooses from. A new method with a penalty of its own is one file in
trainer/objectives/ and one line here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a method treats sigma^2, and the penalty on the latents of a global batch that it has, if any."""

    variance: float | None = None
    """Fixed variance of the likelihood where objective.sigma2 gives none; None where it is learnt or must be given."""
    takes_sigma2: bool = False
    """Whether objective.sigma2 may set the variance."""
    learns_variance: bool = False
    """Whether stage 1 learns sigma^2, and a stage with per-pixel variances may follow."""
    has_kl: bool = True
    """Whether the KL term of the ELBO is minimised; where not, weights are compared by their likelihood."""
    penalty: str = ""
    """module:Class of a `BatchPenalty` (trainer/objectives/objective.py); empty where the method has none."""


METHODS: dict[str, Method] = {
    "sigma_vae": Method(learns_variance=True),
    "fixed": Method(takes_sigma2=True),
    "vae": Method(variance=0.5),
    "beta_vae": Method(variance=1.0),
    "dip_vae_i": Method(variance=0.5, takes_sigma2=True, penalty="trainer.objectives.dip_vae:DipVae1"),
    "dip_vae_ii": Method(variance=0.5, takes_sigma2=True, penalty="trainer.objectives.dip_vae:DipVae2"),
    "wae_mmd": Method(variance=0.5, takes_sigma2=True, has_kl=False, penalty="trainer.objectives.wae_mmd:WaeMmd"),
}
