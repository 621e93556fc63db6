"""Prior strength and inflation, chosen on held-out points from the statistics of one E-step."""

from functools import cache

from trainer.mixture.em.e_step import Expectation
from trainer.mixture.em.m_step import maximise
from trainer.mixture.em.statistics import Statistics
from trainer.mixture.settings import Settings
from trainer.process_group import Ranks

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # in units of D
INFLATIONS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.45, 1.6, 1.8, 2.0)


def choose(
    statistics: Statistics, expectation: Expectation, settings: Settings, dim: int, ranks: Ranks
) -> tuple[float, float]:
    """(prior strength, inflation) with the best held-out log-likelihood; those that the settings fix are kept.

    The likelihood has one maximum over the prior strength: a walk uphill from that of the fit spares those beyond it.
    """
    strengths = [dim * s for s in STRENGTHS] if settings.prior_strength is None else [settings.prior_strength]
    inflations = INFLATIONS if settings.inflation is None else (settings.inflation,)

    @cache
    def best_inflation(place: int) -> tuple[float, float]:
        """(sum of held-out log-likelihoods, inflation) for one strength."""
        expectation.forget()
        parameters = maximise(
            statistics.copy(), settings.covariance_type, ridge=settings.reg_covar, prior_strength=strengths[place]
        )
        sums = ranks.sum_(expectation.held_out(parameters, inflations)).tolist()
        return max(zip(sums[:-1], inflations, strict=True))

    place = min(range(len(strengths)), key=lambda i: abs(strengths[i] - settings.nu(dim)))
    while True:
        around = range(max(0, place - 1), min(len(strengths), place + 2))
        best = max(around, key=best_inflation)
        if best == place:
            return strengths[place], best_inflation(place)[1]
        place = best
