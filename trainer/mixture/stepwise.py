"""Stepwise EM: one M-step a batch, for points that do not fit in memory."""

from dataclasses import replace

from trainer.full_precision import full_precision
from trainer.mixture.em.dense import DenseEStep
from trainer.mixture.em.e_step import Statistics
from trainer.mixture.em.m_step import m_step
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points, Standardisation, place_among_ranks, second_moment
from trainer.mixture.settings import Settings
from trainer.mixture.start import kmeans_start
from trainer.process_group import Ranks

# The weight of batch t is (t + 2)^-0.7; any power in (0.5, 1] converges, and 0.7 forgets the start soon.
_FORGETTING = 0.7


class Stepwise:
    """Stepwise EM (Cappe and Moulines 2009).

    Keeps running sufficient statistics per point. The first batch sets the standardisation and, by k-means, the start.

    start: parameters in the data's coordinates to continue from, or None for k-means.
    """

    @full_precision()
    def __init__(self, settings: Settings, first: Points, start: Parameters | None, ranks: Ranks) -> None:
        self._ranks, self._standardisation = ranks, Standardisation.of(first.x, ranks)
        self._settings = replace(settings, reg_covar=settings.reg_covar / self._standardisation.scale**2)
        if start is None:
            self._parameters = kmeans_start(self._standardised(first), self._settings, ranks)[0]
        else:
            self._parameters = self._standardisation.apply_to_parameters(start.to(ranks.device))
        self._running: Statistics | None = None
        self._steps, self._seen = 0, 0.0

    @property
    def parameters(self) -> Parameters:
        """The mixture so far, in the data's coordinates."""
        return self._standardisation.invert(self._parameters)

    @full_precision()
    def step(self, batch: Points) -> float:
        """One step by this process's part of a batch. Returns the batch's nats per point before the step."""
        points = self._standardised(batch)
        total, _ = place_among_ranks(len(points), self._ranks)
        products = self._settings.for_points(total, points.x.shape[1]).products
        exact = DenseEStep(points, None, second_moment(points, self._ranks), products)
        batch_statistics = exact.statistics(self._parameters, 1.0).all_reduce(self._ranks)
        average = batch_statistics.scaled(1 / batch_statistics.points)
        if self._running is not None:
            average = average.about(self._running.origins, self._settings.covariance_type)
        weight = 1.0 if self._running is None else (self._steps + 2) ** -_FORGETTING
        self._running = (
            average if self._running is None else self._running.scaled(1 - weight).add_(average.scaled(weight))
        )
        self._steps += 1
        self._seen += batch_statistics.points
        self._parameters = m_step(
            self._running.scaled(self._seen),
            self._settings.covariance_type,
            ridge=self._settings.reg_covar,
            prior_strength=self._settings.nu(points.x.shape[1]),
        )
        return batch_statistics.mean_log_likelihood + self._standardisation.log_density_shift

    def _standardised(self, points: Points) -> Points:
        return self._standardisation.apply(points, self._settings.working_dtype)
