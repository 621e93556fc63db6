"""Grids, variance maps and walks show what they say."""

import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from eval.report import gallery
from eval.report.classes import class_figure, class_means
from eval.report.document import Scale
from eval.report.figures import density_figure, log_aggregate_posterior
from eval.report.gallery import grid, heat, png, scale_of, to_rgb
from trainer.config.sections import ModelConfig
from trainer.networks.model import SigmaVAE
from trainer.run_folder.latents import Latents


@pytest.fixture(scope="module")
def model() -> SigmaVAE:
    torch.manual_seed(0)
    config = ModelConfig(latent_dim=3, encoder_channels=(8,), decoder_channels=(8, 8), hidden=0)
    made = SigmaVAE((1, 8, 8), config, initial_variance=0.02)
    made.add_variance_head(0.01)
    return made.eval()


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def cell(pixels: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """One image of a grid, without the gap of 2 around it."""
    step = side + 4
    return pixels[row * step + 2 : row * step + 2 + side, column * step + 2 : column * step + 2 + side]


def test_a_grid_shows_each_pixel_as_a_square_of_its_colour():
    rows = [torch.randint(0, 256, (3, 3, 5, 5), dtype=torch.uint8) for _ in range(2)]
    pixels = read(png(grid(rows, enlarge=4)))
    for r in range(2):
        for c in range(3):
            np.testing.assert_array_equal(cell(pixels, r, c, 20)[::4, ::4], rows[r][c].permute(1, 2, 0))
            np.testing.assert_array_equal(cell(pixels, r, c, 20)[3::4, 2::4], rows[r][c].permute(1, 2, 0))


def test_grey_images_get_three_equal_channels_and_colours_stay():
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    assert (to_rgb(grey).float() / 255 - grey).abs().max() <= 0.5 / 255 + 1e-6
    assert (to_rgb(colour).float() / 255 - colour).abs().max() <= 0.5 / 255 + 1e-6


def test_a_map_runs_from_the_darkest_to_the_brightest_colour():
    values = torch.tensor([0.1, 0.2, 0.3, 0.9]).reshape(1, 1, 1, 4)
    shown = heat(values, Scale(0.1, 0.3))[0, :, 0].T  # (4, 3)
    expected = [colormaps["magma"](x)[:3] for x in (0.0, 0.5, 1.0, 1.0)]
    np.testing.assert_allclose(shown / 255.0, expected, atol=0.01)


def test_one_outlier_does_not_darken_a_map():
    values = torch.full((1, 1, 100, 100), 0.2)
    values[0, 0, 0, 0] = 50.0
    assert scale_of(values) == Scale(0.0, pytest.approx(0.2))


def test_rows_of_samples_alternate_with_their_variance_maps(model):
    z = torch.randn(2 * gallery.COLUMNS, 3, generator=torch.Generator().manual_seed(1))
    scale = gallery.map_scale(model, torch.rand(4, 1, 8, 8), z)
    pixels, side = read(gallery.samples(model, z, scale)), 8 * gallery.enlargement(8)
    decoded = model.decode(z)
    shown = cell(pixels, 2, 4, side)[:: gallery.enlargement(8), :: gallery.enlargement(8), 0]
    np.testing.assert_allclose(shown / 255.0, decoded.mean[gallery.COLUMNS + 4, 0].detach(), atol=0.003)
    expected = heat(decoded.variance.sqrt().detach(), scale)[gallery.COLUMNS + 4]
    shown = cell(pixels, 3, 4, side)[:: gallery.enlargement(8), :: gallery.enlargement(8)]
    np.testing.assert_array_equal(shown, expected.permute(1, 2, 0))


def test_sets_of_samples_share_one_scale(model):
    near, far = torch.zeros(gallery.COLUMNS, 3), torch.full((gallery.COLUMNS, 3), 4.0)
    scale = gallery.map_scale(model, torch.rand(4, 1, 8, 8), near, far)
    enlarge = gallery.enlargement(8)
    for z in (near, far):
        shown = cell(read(gallery.samples(model, z, scale)), 1, 0, 8 * enlarge)[::enlarge, ::enlarge]
        expected = heat(model.decode(z).variance.sqrt().detach(), scale)[0]
        np.testing.assert_array_equal(shown, expected.permute(1, 2, 0))


def test_a_traversal_moves_one_latent_and_leaves_the_others(model):
    means = torch.randn(50, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([0.5, 2.0, 1.0])
    made, shown = gallery.traversals(model, means, rows=3)
    assert shown == [1, 2, 0]
    z = means[0].clone()
    z[1] = means[:, 1].mean() + 2.5 * means[:, 1].std()
    enlarge = gallery.enlargement(8)
    last = cell(read(made), 0, gallery.COLUMNS - 1, 8 * enlarge)[::enlarge, ::enlarge, 0]
    np.testing.assert_allclose(last / 255.0, model.decode(z[None]).mean[0, 0].detach(), atol=0.003)


def test_an_interpolation_starts_and_ends_at_the_two_codes(model):
    means = torch.randn(10, 3, generator=torch.Generator().manual_seed(3))
    enlarge = gallery.enlargement(8)
    pixels = read(gallery.interpolations(model, means))
    for column, place in ((0, 4), (gallery.COLUMNS - 1, 5)):
        shown = cell(pixels, 2, column, 8 * enlarge)[::enlarge, ::enlarge, 0]
        expected = model.decode(means[place][None]).mean[0, 0].detach()
        np.testing.assert_allclose(shown / 255.0, expected, atol=0.003)


def test_a_single_image_is_traversed_without_a_spread(model):
    mean = torch.randn(1, 3, generator=torch.Generator().manual_seed(7))
    pixels = read(gallery.traversals(model, mean)[0])
    enlarge = gallery.enlargement(8)
    shown = cell(pixels, 0, 0, 8 * enlarge)[::enlarge, ::enlarge, 0]
    np.testing.assert_allclose(shown / 255.0, model.decode(mean).mean[0, 0].detach(), atol=0.003)


def test_the_aggregate_posterior_is_the_mixture_of_all_posteriors():
    generator = torch.Generator().manual_seed(4)
    codes = Latents(
        torch.randn(30, 2, generator=generator), torch.rand(30, 2, generator=generator) + 0.1, torch.arange(30)
    )
    z = torch.randn(250, 2, generator=generator).double()
    components = Independent(Normal(codes.mean.double(), codes.std.double()), 1)
    reference = MixtureSameFamily(Categorical(torch.ones(30).double()), components).log_prob(z)
    torch.testing.assert_close(log_aggregate_posterior(z, codes), reference, rtol=1e-9, atol=1e-9)


def test_the_same_densities_give_the_same_picture():
    codes = Latents(torch.randn(40, 2), torch.full((40, 2), 0.3), torch.arange(40))
    assert density_figure(codes, None) == density_figure(codes, None)


def test_errors_of_reconstructions_are_mean_squares_over_pixels(model):
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = ((images - model.decode(model.encode(images).mean).mean) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(gallery.square_errors(model, images), expected)


def test_a_walk_is_drawn_transported_where_a_transport_is_given(model):
    class Brighter:
        def walk(self, z, images):
            return images + 0.5

    means = torch.randn(4, 3, generator=torch.Generator().manual_seed(6))
    plain, moved = (read(gallery.interpolations(model, means, one)) for one in (None, Brighter()))
    assert moved.mean() > plain.mean() + 20


def test_classes_are_shown_by_their_mean_code_and_rare_ones_together():
    codes = torch.randn(60, 5, generator=torch.Generator().manual_seed(7))
    labels = [f"class {i % 12:02d}" for i in range(60)]
    means, named = class_means(codes, labels)
    assert named == [f"class {i:02d}" for i in range(10)]
    torch.testing.assert_close(means[3], codes[3::12].mean(0))
    drawn, caption = class_figure(codes, labels)
    assert b"others" in drawn
    assert "hold" in caption
    plane, caption = class_figure(codes[:, :2], ["a", "b"] * 30)
    assert b"others" not in plane
    assert caption == "Posterior means by class, in the plane of the two latents."


def test_classes_stand_in_the_legend_by_their_names_whatever_signs_these_have():
    names = ["_unknown", "$^$", "$5 to $10", "others", "a_b"]
    codes = torch.randn(60, 2, generator=torch.Generator().manual_seed(8))
    drawn, _ = class_figure(codes, [*names, *(f"class {i:02d}" for i in range(7))] * 5)
    for name in names:
        assert f">{name}</text>".encode() in drawn
