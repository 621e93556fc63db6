"""A normalising flow on the latent codes of a run: a second-stage density to compare the mixture with."""

from trainer.flow.latent_flow import FlowSettings, LatentFlow, fit_run_flow, load_flow

__all__ = ["FlowSettings", "LatentFlow", "fit_run_flow", "load_flow"]
