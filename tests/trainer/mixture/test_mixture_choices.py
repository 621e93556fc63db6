"""What a fit chooses and from what, on random problems: shrinkage, inflation, divisions, components, starts."""

import warnings
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.mixture_cases import TYPES, draws, known_mixture

from data_shards.io.errors import InputError
from trainer.mixture import GaussianMixture, fitting
from trainer.mixture.division import divisions
from trainer.mixture.em.dense import hard_statistics
from trainer.mixture.em.e_step import EStep, Statistics
from trainer.mixture.em.m_step import m_step
from trainer.mixture.fitted import FittedMixture
from trainer.mixture.kmeans import kmeans
from trainer.mixture.points import Points, Standardisation, checked_points
from trainer.mixture.settings import Settings
from trainer.mixture.shrinkage import INFLATIONS, _walk, chosen_shrinkage
from trainer.process_group import single

FEW = settings(max_examples=6, deadline=None, derandomize=True)
# Exponents of 2 D that are tried; what is below is 0.
LOWEST, HIGHEST = -8, 10


def clusters(kind: str, k: int, dim: int, n: int, seed: int, spread: float = 4.0) -> torch.Tensor:
    """n points of a random mixture, (n, D) float64."""
    return draws(known_mixture(kind, k=k, dim=dim, spread=spread, seed=seed), n, seed + 1)


def chosen(fit, wanted: str = "prior_strength"):
    """What `chosen_shrinkage` was given and gave, in a call of `fit`, the last of them."""
    calls = []

    def kept(fits, *arguments):
        copies = [(statistics.copy(), e_step) for statistics, e_step in fits]
        choice = chosen_shrinkage(fits, *arguments)
        calls.append((copies, arguments, choice))
        return choice

    with mock.patch.object(fitting, "chosen_shrinkage", kept), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit()
    assume(calls)
    return calls[-1]


def held_out_nats(fits: list[tuple[Statistics, EStep]], strength: float, options: Settings) -> np.ndarray:
    """(n, inflations): nats of every held-out point at one prior strength."""
    found = []
    for statistics, e_step in fits:
        e_step.forget()
        parameters = m_step(
            statistics.copy(), options.covariance_type, ridge=options.reg_covar, prior_strength=strength
        )
        found.append(e_step.held_out(parameters, INFLATIONS).numpy())
    return np.concatenate(found)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    best=st.floats(LOWEST - 4, HIGHEST + 4),
    start=st.one_of(st.just(0.0), st.floats(2.0**-12, 2.0**14)),
    bend=st.floats(1e-3, 1e3),
    dim=st.integers(1, 100),
)
def test_the_strength_of_a_likelihood_with_one_maximum_is_found_wherever_it_lies_and_told_at_the_largest(
    best, start, bend, dim
):
    def evaluated(strength: float) -> tuple[float, int]:
        exponent = LOWEST - 4 if strength == 0 else np.log2(strength / dim)
        return -bend * (exponent - best) ** 2, 0

    strength, value, _, at_end = _walk(evaluated, start, dim)
    assert value == max(value, *(evaluated(dim * 2.0**e)[0] for e in range(LOWEST, HIGHEST + 1)), evaluated(0)[0])
    if LOWEST < best < HIGHEST:
        # No coarser than half of a factor of 2; a parabola finds the maximum of one.
        assert abs(np.log2(strength / dim) - best) <= 0.5 + 1e-9
    assert at_end == (strength == dim * 2.0**HIGHEST)
    assert (strength == 0) == (best < LOWEST - 2)


@FEW
@given(
    kind=st.sampled_from(["full", "diag", "spherical"]),
    k=st.sampled_from([1, 3, 8]),
    dim=st.sampled_from([1, 2, 6]),
    n=st.sampled_from([60, 300, 1500]),
    seed=st.integers(0, 1000),
)
def test_no_strength_of_the_grid_explains_held_out_points_better_than_the_chosen_one(kind, k, dim, n, seed):
    x = clusters(kind, k, dim, n, seed)
    mixture = GaussianMixture(k, covariance_type=kind, max_iter=12, annealing_iter=0)
    fits, (_, options, *_), choice = chosen(lambda: mixture.fit(x))
    tried = [0.0, *(dim * 2.0**e for e in range(LOWEST, HIGHEST + 1))]
    of_grid = []
    for strength in tried:
        try:
            of_grid.append(held_out_nats(fits, strength, options).mean(0)[INFLATIONS.index(1.0)])
        except InputError:
            of_grid.append(-np.inf)
    own = held_out_nats(fits, choice.prior_strength, options).mean(0)
    assert own[INFLATIONS.index(1.0)] >= max(of_grid) - 1e-3
    assert (choice.prior_strength == tried[-1]) == any(r.startswith("prior_strength") for r in choice.remarks)


def test_maximum_likelihood_is_chosen_where_clusters_have_nothing_in_common():
    generator = torch.Generator().manual_seed(0)
    along = [torch.tensor([[3.0, 0.01]]), torch.tensor([[0.01, 3.0]])]
    x = torch.cat([torch.randn(4000, 2, generator=generator).double() * a + 100 * i for i, a in enumerate(along)])
    assert GaussianMixture(2).fit(x).prior_strength_ == 0.0


@FEW
@given(
    kind=st.sampled_from(["full", "diag", "spherical"]),
    width=st.floats(0.01, 100.0),
    strength=st.floats(0, 1e4),
    dim=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 1000),
)
def test_however_strong_the_pull_is_each_component_keeps_its_volume(kind, width, strength, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    own = [torch.randn(500, dim, generator=generator).double() * w for w in (1.0, width)]
    labels = torch.arange(2).repeat_interleave(500)
    points = Points(torch.cat(own))
    statistics = hard_statistics(points, labels, kind, torch.zeros(2, dim, dtype=torch.float64))
    parameters = m_step(statistics, kind, ridge=0.0, prior_strength=strength)
    # Standard deviation of a geometric mean direction, of which 500 points say 5 %.
    covariances = parameters.expanded_covariances()
    log_det = torch.logdet(covariances) if kind == "full" else covariances.reshape(2, -1).log().mean(1) * dim
    np.testing.assert_allclose((0.5 * log_det / dim).exp(), [1.0, width], rtol=0.12)


@FEW
@given(
    kind=st.sampled_from(TYPES),
    k=st.sampled_from([1, 2, 5]),
    dim=st.sampled_from([1, 3, 10]),
    n=st.sampled_from([30, 100, 600]),
    seed=st.integers(0, 1000),
)
def test_covariances_are_inflated_only_where_that_gains_more_than_its_standard_error(kind, k, dim, n, seed):
    x = clusters(kind, k, dim, n, seed)
    mixture = GaussianMixture(k, covariance_type=kind, max_iter=8, annealing_iter=0)
    fits, (_, options, *_), choice = chosen(lambda: mixture.fit(x))
    nats = held_out_nats(fits, choice.prior_strength, options)
    gains = nats - nats[:, [INFLATIONS.index(1.0)]]
    best = int(nats.mean(0).argmax())
    error = gains[:, best].std() / len(gains) ** 0.5
    assert choice.inflation in (1.0, INFLATIONS[best])
    if choice.inflation != 1.0:
        assert gains[:, best].mean() > error
    assert mixture.inflation_ == choice.inflation


@FEW
@given(
    kind=st.sampled_from(TYPES),
    n=st.integers(2, 9),
    dim=st.integers(1, 4),
    k=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_where_no_point_can_be_held_out_nothing_is_chosen(kind, n, dim, k, seed):
    assume(k < n)
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mixture = GaussianMixture(k, covariance_type=kind, max_iter=5).fit(x)
    assert (mixture.inflation_, mixture.prior_strength_) == (1.0, 2.0 * dim)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=st.integers(10, 3000), fraction=st.sampled_from([0.1, 0.2, 0.34, 0.5]), seed=st.integers(0, 1000))
def test_few_points_decide_by_cross_validation_each_held_out_at_most_once(n, fraction, seed):
    x = torch.arange(n, dtype=torch.float64)[:, None]
    options = Settings(validation_fraction=fraction, random_state=seed, products="centred")
    made = divisions(Standardisation(torch.zeros(1).double(), 1.0), Points(x), None, options, single())
    assert len(made) == (min(5, n // int(n * fraction)) if int(n * fraction) < 1000 else 1)
    held = [set(division.held_out.x[:, 0].tolist()) for division in made]
    assert all(len(rows) == int(n * fraction) for rows in held)
    assert len(set.union(*held)) == sum(map(len, held))
    for rows, division in zip(held, made, strict=True):
        assert rows | set(division.points.x[:, 0].tolist()) == set(range(n))
        assert len(division.points) == n - len(rows)


@FEW
@given(
    kind=st.sampled_from(TYPES),
    k=st.sampled_from([2, 10, 30]),
    dim=st.sampled_from([1, 2, 5]),
    spread=st.sampled_from([0.0, 3.0, 20.0]),
    seed=st.integers(0, 1000),
)
def test_every_component_holds_a_point_or_their_number_is_told(kind, k, dim, spread, seed):
    x = clusters(kind, k, dim, 20 * k, seed, spread)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        mixture = GaussianMixture(k, covariance_type=kind).fit(x)
    alive = int((np.asarray(mixture.weights_) * len(x) >= 1).sum())
    assert mixture.alive_ == alive
    lines = [str(warning.message) for warning in told if "hold less than a point" in str(warning.message)]
    assert lines == ([] if alive == k else [f"n_components: {k - alive} of {k} hold less than a point"])


@FEW
@given(
    kind=st.sampled_from(TYPES),
    starts=st.integers(2, 4),
    seed=st.integers(0, 1000),
    k=st.sampled_from([2, 5]),
)
def test_of_several_starts_none_explains_the_held_out_points_better_than_the_kept_one(kind, starts, seed, k):
    ranks = single()
    x = clusters(kind, k, 3, 200, seed, spread=2.0)
    points, out = (checked_points(part, None, "X", None, ranks) for part in (x[:150], x[150:]))
    options = Settings(
        n_components=k, covariance_type=kind, max_iter=10, annealing_iter=0, init_params="random", kmeans_iter=0
    )

    def score(**changed: int) -> float:
        one = replace(options, **changed)
        return float(fitting.fit_mixture(points, out, settings=one, ranks=ranks).density.score_samples(out.x).mean())

    alone = [score(random_state=seed + place) for place in range(starts)]
    assert score(random_state=seed, n_init=starts) == pytest.approx(max(alone), abs=1e-9)


@FEW
@given(
    kind=st.sampled_from(TYPES),
    offset=st.sampled_from([0.0, 1e3, 1e6, 1e8]),
    deviation=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 1000),
    tensors=st.booleans(),
)
def test_samples_differ_in_each_number_and_have_the_mean_and_deviation_of_the_mixture(
    kind, offset, deviation, seed, tensors
):
    x = offset * deviation + deviation * torch.randn(300, 2, generator=torch.Generator().manual_seed(seed)).double()
    # The default ridge is as large as the variance of the narrowest.
    mixture = GaussianMixture(1, covariance_type=kind, reg_covar=1e-6 * deviation**2)
    drawn, _ = mixture.fit(x if tensors else x.numpy()).sample(2000)
    assert isinstance(drawn, torch.Tensor) == tensors
    drawn = np.asarray(drawn)
    assert drawn.dtype == np.float64
    assert all(len(np.unique(column)) > 1990 for column in drawn.T)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.1 * deviation)
    np.testing.assert_allclose(drawn.std(0), x.std(0), rtol=0.15)
    nothing, of_none = mixture.sample(0)
    assert (tuple(nothing.shape), tuple(of_none.shape)) == ((0, 2), (0,))


@FEW
@given(
    distinct=st.integers(1, 40),
    copies=st.integers(1, 30),
    more=st.integers(1, 300),
    init=st.sampled_from(["auto", "random", "k-means++"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_k_means_of_fewer_places_than_centres_ends_with_a_centre_at_every_place(
    distinct, copies, more, init, dtype, seed
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(distinct, 3, generator=generator).to(dtype).repeat(copies, 1)
    k = min(distinct + more, len(x))
    assume(k > distinct)
    centroids, labels = kmeans(x, k, iterations=20, init=init, generator=generator, ranks=single())
    assert len(labels.unique()) == distinct
    # A centre without points lies beside another, which moved by a thousandth of the spread for it.
    torch.testing.assert_close(centroids[labels], x.double(), rtol=0, atol=5e-3)


@FEW
@given(
    kind=st.sampled_from(TYPES),
    k=st.integers(1, 6),
    parts=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_batches_wait_until_there_are_as_many_points_as_components_and_empty_ones_do_nothing(kind, k, parts, seed):
    x = clusters(kind, k, 2, sum(parts) + 40, seed)
    mixture, waiting, steps = GaussianMixture(k, covariance_type=kind), 0, 0
    for part, batch in zip(parts, x.split([*parts, 40]), strict=False):
        before = mixture.parameters_ if hasattr(mixture, "parameters_") else None
        mixture.partial_fit(batch)
        if part == 0:
            assert (mixture.parameters_ if hasattr(mixture, "parameters_") else None) is before
            continue
        waiting += part
        if waiting >= k:
            steps += 1
            assert mixture.n_iter_ == steps
        else:
            assert not hasattr(mixture, "parameters_")


@FEW
@given(kind=st.sampled_from(TYPES), batches=st.integers(1, 3), seed=st.integers(0, 1000))
def test_a_fit_forgets_earlier_batches_and_later_batches_forget_nothing_but_them(kind, batches, seed):
    x = clusters(kind, 3, 2, 300, seed)
    mixture = GaussianMixture(3, covariance_type=kind, max_iter=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh = GaussianMixture(3, covariance_type=kind, max_iter=5).fit(x)
        for batch in x[:90].split(30)[:batches]:
            mixture.partial_fit(batch)
        mixture.fit(x)
    torch.testing.assert_close(mixture.means_, fresh.means_, rtol=0, atol=0)
    given_alone = GaussianMixture.from_fitted(
        FittedMixture(parameters=fresh.parameters_, settings=fresh.settings_, record=None)
    )
    for batch in x[200:].split(50):
        mixture.partial_fit(batch)
        given_alone.partial_fit(batch)
    torch.testing.assert_close(mixture.means_, given_alone.means_, rtol=0, atol=0)
    torch.testing.assert_close(mixture.covariances_, given_alone.covariances_, rtol=0, atol=0)
