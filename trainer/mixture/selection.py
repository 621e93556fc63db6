"""Prior strength and inflation, chosen on held-out points from the statistics of one E-step."""

from trainer.mixture.estimate import maximise
from trainer.mixture.expectation import Expectation
from trainer.mixture.settings import Settings
from trainer.mixture.statistics import Statistics
from trainer.process_group import Ranks

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # in units of D
INFLATIONS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.45, 1.6, 1.8, 2.0)


def choose(
    statistics: Statistics, expectation: Expectation, settings: Settings, dim: int, ranks: Ranks
) -> tuple[float, float]:
    """(prior strength, inflation) with the best held-out log-likelihood; those that the settings fix are kept."""
    strengths = [dim * s for s in STRENGTHS] if settings.prior_strength is None else [settings.prior_strength]
    inflations = INFLATIONS if settings.inflation is None else (settings.inflation,)
    scored: dict[tuple[float, float], float] = {}
    for nu in strengths:
        parameters = maximise(statistics.copy(), settings.covariance_type, ridge=settings.reg_covar, prior_strength=nu)
        sums = ranks.sum_(expectation.held_out(parameters, inflations)).tolist()
        scored |= {(nu, inflation): total for inflation, total in zip(inflations, sums[:-1], strict=True)}
    return max(scored, key=lambda pair: scored[pair])
