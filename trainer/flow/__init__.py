"""A normalising flow on the latent codes of a run: a second-stage density to hold the mixture against."""

from trainer.flow.latent_flow import LatentFlow

__all__ = ["LatentFlow"]
