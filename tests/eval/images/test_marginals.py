"""Rounds of monotone maps of single coefficients, beside numpy's quantiles and a basis written out."""

import numpy as np
import pytest
import torch

from eval.images import marginals
from eval.images.marginals import fit_marginals


def textures(count: int, shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    """Images with edges: random rectangles, and noise with heavy tails."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, shape[0], -(-shape[1] // 3), -(-shape[2] // 3), generator=generator).round()
    image = low.repeat_interleave(3, 2).repeat_interleave(3, 3)[:, :, : shape[1], : shape[2]]
    return image + 0.05 * torch.randn(count, *shape, generator=generator) ** 3


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10), (1, 7, 5)])
def test_the_bases_are_orthonormal_and_have_an_inverse(number, shape):
    d = int(np.prod(shape))
    pixels = torch.eye(d, dtype=torch.float64).view(d, *shape)
    basis = marginals._coefficients(pixels, number).flatten(1)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(d, dtype=torch.float64))
    images = textures(5, shape, 0)
    again = marginals._coefficients(marginals._coefficients(images, number), number, inverse=True)
    torch.testing.assert_close(again, images, atol=1e-5, rtol=0)


def test_coefficients_of_four_pixels_are_their_mean_and_differences():
    image = torch.tensor([[1.0, 2.0], [5.0, 11.0]]).view(1, 1, 2, 2)
    found = marginals._coefficients(image, 0)[0, 0]
    torch.testing.assert_close(found, torch.tensor([[9.5, -3.5], [-6.5, 2.5]]))


def test_a_round_gives_each_pixel_the_quantiles_of_real_ones(monkeypatch):
    monkeypatch.setattr(marginals, "_coefficients", lambda images, number, inverse=False: images)
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(4000, 1, 2, 2, generator=generator).exp()
    samples = torch.randn(4000, 1, 2, 2, generator=generator)
    moved = fit_marginals(real, samples, 1).apply(samples)
    levels = np.linspace(0.05, 0.95, 19)
    for pixel in range(4):
        wanted, found = (np.quantile(one.flatten(1)[:, pixel], levels) for one in (real, moved))
        np.testing.assert_allclose(found, wanted, rtol=0.03)
    # Monotone: the order of images stays.
    assert torch.equal(moved.flatten(1)[:, 0].argsort(), samples.flatten(1)[:, 0].argsort())


def test_samples_that_have_the_distribution_of_real_images_stay():
    real = textures(3000, (1, 6, 6), 1)
    moved = fit_marginals(real, real, 4).apply(real[:50])
    torch.testing.assert_close(moved, real[:50], atol=2e-3, rtol=0)


def test_rounds_bring_distributions_of_edges_nearer_that_a_linear_map_leaves():
    """Differences of neighbours across the blocks of the basis, which no single round sets."""
    real = textures(4000, (1, 12, 12), 2)
    flat = real.flatten(1)
    gaussian = torch.distributions.MultivariateNormal(flat.mean(0), torch.cov(flat.mT) + 1e-4 * torch.eye(144))
    torch.manual_seed(0)
    samples, new = (gaussian.sample((4000,)).view(-1, 1, 12, 12) for _ in range(2))

    def away(images: torch.Tensor) -> float:
        """Mean distance between sorted differences of neighbours, over places: Wasserstein-1 of each."""
        return float(
            sum(
                (a.sort(0).values - b.sort(0).values).abs().mean()
                for a, b in ((one.diff(dim=3).flatten(1), two.diff(dim=3).flatten(1)) for one, two in [(images, real)])
            )
        )

    before, after = away(new), [away(fit_marginals(real, samples, rounds).apply(new)) for rounds in (1, 3, 6)]
    assert after[0] < before
    assert after[1] < 0.6 * before
    assert after[2] < 0.6 * before


def test_a_pixel_that_never_varies_in_samples_or_in_real_images_gives_finite_numbers():
    real, samples = textures(500, (1, 4, 4), 3), textures(500, (1, 4, 4), 4)
    real[:, 0, 0, 0], samples[:, 0, 3, 3] = 0.0, 1.0
    moved = fit_marginals(real, samples, 3).apply(samples)
    assert bool(moved.isfinite().all())
    one = fit_marginals(real, samples, 2)
    assert float(one.target[1, 0].abs().max()) == 0
    assert float((one.source[1, 15] - one.source[1, 15, 0]).abs().max()) < 1.5


def test_images_are_mapped_alone_as_in_a_batch():
    real, samples = textures(600, (3, 4, 4), 5), textures(600, (3, 4, 4), 6)
    rounds = fit_marginals(real, samples, 3)
    alone = torch.cat([rounds.apply(samples[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(rounds.apply(samples[:20]), alone, atol=1e-5, rtol=0)
