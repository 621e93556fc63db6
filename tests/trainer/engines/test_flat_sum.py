"""One buffer for all gradients: what lies where, and what becomes of a missing one."""

import pytest
import torch
from torch import nn

from trainer.engines.flat_sum import FlatSum
from trainer.process_group import single


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 2 * 2, 5)).to(
        memory_format=torch.channels_last
    )


def test_gradients_keep_their_values_shapes_and_layouts():
    torch.manual_seed(0)
    plain = network()
    parameters = list(plain.parameters())
    plain(torch.randn(6, 3, 4, 4)).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in parameters]
    totals = torch.tensor([1.5, -2.0, 1e6 / 3], dtype=torch.float64)
    (flat,) = FlatSum(single(), parameters).sum_(totals)
    assert totals.tolist() == pytest.approx([1.5, -2.0, 1e6 / 3], rel=1e-14)
    assert flat.numel() == sum(parameter.numel() for parameter in parameters)
    for parameter, before in zip(parameters, expected, strict=True):
        assert torch.equal(parameter.grad, before)
        assert parameter.grad.stride() == parameter.stride()
        assert parameter.grad.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()


def test_a_parameter_without_gradient_here_adds_nothing_of_an_earlier_update():
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    flat_sum, totals = FlatSum(single(), parameters), torch.zeros(1, dtype=torch.float64)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 7.0)
    flat_sum.sum_(totals)
    parameters[0].grad, parameters[1].grad = torch.ones(3), None
    flat_sum.sum_(totals)
    assert parameters[0].grad.tolist() == [1, 1, 1]
    assert parameters[1].grad.tolist() == [0, 0]
