"""Prior strength and inflation, chosen on held-out points from the statistics of one E-step."""

import torch

from trainer.mixture.estimate import maximise
from trainer.mixture.expectation_maximisation import Points, mean_log_likelihood
from trainer.mixture.settings import Settings
from trainer.mixture.statistics import Statistics
from trainer.process_group import Ranks

_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # in units of D
_INFLATIONS = (0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
# More held-out points than this a process add nothing to the choice.
_HELD_OUT_POINTS = 4096


def choose(
    statistics: Statistics, held_out: Points, settings: Settings, dtype: torch.dtype, ranks: Ranks
) -> tuple[float, float]:
    """(prior strength, inflation) with the best held-out log-likelihood; those that the settings fix are kept."""
    few = Points(
        held_out.x[:_HELD_OUT_POINTS], None if held_out.variance is None else held_out.variance[:_HELD_OUT_POINTS]
    )
    dim = held_out.x.shape[1]

    def likelihood(nu: float, inflation: float) -> float:
        parameters = maximise(
            statistics, settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu
        ).inflated(inflation)
        return mean_log_likelihood(few, parameters, dtype, ranks)

    inflation = 1.0 if settings.inflation is None else settings.inflation
    strengths = [dim * s for s in _STRENGTHS] if settings.prior_strength is None else [settings.prior_strength]
    nu = strengths[0] if len(strengths) == 1 else max(strengths, key=lambda value: likelihood(value, inflation))
    if settings.inflation is None:
        inflation = max(_INFLATIONS, key=lambda value: likelihood(nu, value))
    return nu, inflation
