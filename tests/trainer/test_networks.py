"""Encoder, decoder and batch norm."""

import pytest
import torch

from trainer.config.sections import ModelConfig
from trainer.networks.model import SigmaVAE
from trainer.networks.norm import GlobalBatchNorm


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 64, 64), (1, 8, 8), (3, 33, 50)])
@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7])
def test_the_networks_fit_any_image_and_kernel(image_shape, kernel):
    config = ModelConfig(encoder_channels=(4, 8), decoder_channels=(8, 4, 4), kernel=kernel, hidden=8, latent_dim=3)
    model = SigmaVAE(image_shape, config)
    model.add_variance_head(0.25)
    x = torch.rand(2, *image_shape)
    mean, std = model.encode(x)
    output = model.decode(mean)
    assert mean.shape == std.shape == (2, 3)
    assert output.mean.shape == output.variance.shape == x.shape


def test_batch_norm_over_one_process_equals_torchs():
    x = torch.randn(6, 5, 7, 3, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    ours, torchs = GlobalBatchNorm(5).double(), torch.nn.BatchNorm2d(5).double()
    weigh = torch.randn(6, 5, 7, 3, dtype=torch.float64)
    a, b = ours(x), torchs(y)
    (a * weigh).sum().backward()
    (b * weigh).sum().backward()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.running_variance, torchs.running_var, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(y), rtol=1e-6, atol=1e-6)


def test_batch_norm_normalises_a_single_value_by_its_running_moments_and_keeps_them():
    norm = GlobalBatchNorm(5)
    norm(torch.randn(6, 5, 7, 3) + 2)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(1, 5, 1, 1, requires_grad=True)
    y = norm(x)
    torch.testing.assert_close(y, norm.eval()(x))
    y.sum().backward()
    assert (x.grad != 0).all()
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_batch_norm_of_two_values_has_torchs_running_moments():
    x = torch.randn(2, 5, 1, 1)
    ours, torchs = GlobalBatchNorm(5), torch.nn.BatchNorm2d(5)
    torch.testing.assert_close(ours(x), torchs(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_variance, torchs.running_var)


def test_batch_norm_of_bfloat16_is_as_exact_as_torchs_own():
    """Under autocast the convolutions before it give bfloat16; only the result may be rounded to that."""
    x = (3 * torch.randn(1, 8, 1, 1) + torch.randn(16, 8, 9, 9, generator=torch.Generator().manual_seed(0))).bfloat16()
    ours, torchs = GlobalBatchNorm(8), torch.nn.BatchNorm2d(8)
    exact = torch.nn.functional.batch_norm(x.double(), None, None, training=True)
    found, expected = ours(x), torchs(x)
    assert found.dtype == torch.bfloat16
    error, torchs_error = ((y.double() - exact).abs() for y in (found, expected))
    assert (error <= 2**-8 * exact.abs() + 1e-6).all()  # one rounding to eight binary digits
    assert error.square().mean() <= 1.001 * torchs_error.square().mean()
    torch.testing.assert_close(ours.running_variance, torchs.running_var, rtol=1e-5, atol=1e-6)


def test_gradients_of_batch_norm_of_bfloat16_are_as_exact_as_torchs_own():
    generator = torch.Generator().manual_seed(0)
    values = (2 + torch.randn(16, 8, 9, 9, generator=generator)).bfloat16()
    weigh = torch.randn(16, 8, 9, 9, generator=generator)

    def gradient(norm, dtype):
        x = values.to(dtype).requires_grad_()
        (norm(x) * weigh.to(dtype)).sum().backward()
        return x.grad.double()

    exact = gradient(GlobalBatchNorm(8).double(), torch.float64)
    ours, torchs = gradient(GlobalBatchNorm(8), torch.bfloat16), gradient(torch.nn.BatchNorm2d(8), torch.bfloat16)
    assert (ours - exact).norm() <= 1.05 * (torchs - exact).norm()
