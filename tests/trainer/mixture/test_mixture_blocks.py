"""Scores of thousands of components, of which blocks are left out by a bound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mixture_cases import TYPES, draws, known_mixture

from trainer.mixture import GaussianMixture, density
from trainer.mixture.blocks import Blocks
from trainer.mixture.em.centred import weighted_log_densities
from trainer.mixture.em.pairs import Factors


def clustered(kind: str, clusters: int, each: int, apart: float, seed: int = 0) -> GaussianMixture:
    """Clusters of `each` overlapping components, `apart` standard deviations from each other."""
    inner = known_mixture(kind, k=clusters * each, dim=4, spread=1.0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(clusters, 4, generator=generator, dtype=torch.float64)
    means = inner.means_ + centres.repeat_interleave(each, 0)
    return GaussianMixture.from_parameters(inner.weights_, means, inner.covariances_, kind)


def blocks_of(mixture: GaussianMixture) -> Blocks:
    return Blocks(mixture.parameters_, Factors.of(mixture.parameters_, torch.float64))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(TYPES),
    apart=st.sampled_from([0.0, 5.0, 100.0, 1e5]),
    far=st.sampled_from([1.0, 1e3, 1e8]),
    seed=st.integers(0, 100),
)
def test_no_block_adds_more_than_its_bound(kind, apart, far, seed):
    mixture = clustered(kind, 10, 8, apart, seed)
    blocks = blocks_of(mixture)
    x = far * draws(mixture, 50, seed)
    logits = weighted_log_densities(x, mixture.parameters_)
    sums = torch.stack([logits[:, members].logsumexp(1) for members in blocks._members], 1)
    assert bool((sums <= blocks.bounds(x) + 1e-9 * sums.abs()).all())


@pytest.mark.parametrize("kind", TYPES)
def test_clusters_that_lie_apart_are_scored_by_few_components_within_the_bound(kind):
    mixture = clustered(kind, 60, 20, 200.0)
    x = draws(mixture, 2000)
    scored = blocks_of(mixture).scored(x)
    exact = weighted_log_densities(x, mixture.parameters_).logsumexp(1)
    assert len(scored.rows) < 0.05 * len(x) * 1200
    assert bool((exact - scored.log_density <= scored.error + 1e-11 * exact.abs()).all())
    assert float(scored.error.max()) <= 1e-9
    assert torch.equal(scored.best, weighted_log_densities(x, mixture.parameters_).argmax(1))


@pytest.mark.parametrize("apart", [0.0, 200.0])
def test_scores_of_many_points_are_those_of_every_component(apart, monkeypatch):
    monkeypatch.setattr(density, "_PAIRS_FOR_BLOCKS", 1)
    mixture = clustered("full", 60, 20, apart)
    x = torch.cat([draws(mixture, 3000), 1e6 + draws(mixture, 100)])
    logits = weighted_log_densities(x, mixture.parameters_)
    scores, errors = mixture.density_.score_samples_within(x)
    assert mixture.density_._made_blocks is not None
    torch.testing.assert_close(scores, logits.logsumexp(1), rtol=1e-11, atol=1e-8)
    assert float(errors.max()) < 1e-8
    assert torch.equal(mixture.density_.predict(x), logits.argmax(1))


def test_components_that_overlap_are_all_compared():
    mixture = known_mixture("full", k=1200, dim=4, spread=0.5)
    assert blocks_of(mixture).scored(draws(mixture, 500)) is None
