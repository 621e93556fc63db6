"""Hidden pixels told from visible ones: exactly where the truth is known, and on a run on real digits."""

import json
import shutil
import sys

import pytest
import torch
from PIL import Image
from support.linear_gaussian import LinearGaussian
from support.results import result_file

from data_shards.io.errors import command
from eval.__main__ import main
from eval.measurements.completion import complete_image
from eval.measurements.hidden import DecoderAlone, WithResiduals, hidden_pixels
from eval.report.known import Subject
from eval.report.number_sections import completion_section
from eval.residuals.covariance import FactorCovariance
from eval.residuals.noise import CorrelatedNoise
from eval.run import load_run
from trainer.mixture.density import MixtureDensity
from trainer.mixture.parameters import Parameters

SHAPE, DIM = (1, 6, 6), 3


@pytest.mark.parametrize(
    ("hide", "correlated"), [("right", False), ("right", True), ("square", True), ("random", True)]
)
def test_a_completion_is_the_exact_conditional_of_a_linear_model(hide, correlated):
    model = LinearGaussian(SHAPE, DIM, variance=0.02)
    generator = torch.Generator().manual_seed(0)
    covariance = FactorCovariance(
        factor=torch.randn(36, 5, generator=generator, dtype=torch.float64) * correlated,
        diagonal=torch.full((36,), 0.5 if correlated else 1.0, dtype=torch.float64),
    )
    hidden = hidden_pixels(hide, SHAPE)
    noise = CorrelatedNoise(covariances=(covariance,), mixture=None, digest="", cap=0.0)
    alone = DecoderAlone(model=model, hidden=hidden)
    completer = WithResiduals(model=model, hidden=hidden, noise=noise) if correlated else alone
    prior = MixtureDensity(Parameters.of("full", torch.ones(1), torch.zeros(1, DIM), torch.eye(DIM)[None]))
    pool = torch.randn(1024, DIM, generator=generator)
    residual = covariance.draw(1, generator)[0] * 0.02**0.5
    z = torch.randn(DIM, generator=generator).double()
    x = (model.offset + model.weight @ z + residual).view(SHAPE).float()
    total = model.weight @ model.weight.mT + 0.02 * covariance.dense
    seen, unseen = ~hidden.flatten(), hidden.flatten()
    gain = total[unseen][:, seen] @ torch.linalg.inv(total[seen][:, seen])
    mean = model.offset[unseen] + gain @ (x.flatten().double() - model.offset)[seen]
    deviation = (total[unseen][:, unseen] - gain @ total[seen][:, unseen]).diagonal().sqrt()
    found = complete_image(x, hidden, completer, prior, pool, seed=0)
    assert found.effective > 20
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=0.03)
    torch.testing.assert_close(found.deviation, deviation, rtol=0.15, atol=0)
    below = torch.special.ndtr((x.flatten().double()[unseen] - mean) / deviation)
    torch.testing.assert_close(found.probability, below, rtol=0, atol=0.12)


@pytest.mark.parametrize(
    ("name", "count"), [("left", 18), ("right", 18), ("top", 18), ("bottom", 18), ("square", 16), ("random", 18)]
)
def test_a_half_a_central_square_or_half_of_the_pixels_at_random_is_hidden(name, count):
    hidden = hidden_pixels(name, SHAPE)
    assert int(hidden.sum()) == count
    assert not hidden_pixels("left", SHAPE)[0, 0, 3]
    assert hidden_pixels("top", SHAPE)[0, 0, 5]


def test_a_pixel_that_is_hidden_at_random_is_hidden_in_all_channels_and_again_the_next_time():
    hidden = hidden_pixels("random", (3, 6, 6))
    assert torch.equal(hidden[0], hidden[2])
    assert torch.equal(hidden, hidden_pixels("random", (3, 6, 6)))
    assert 0 < int(hidden[0, :, :3].sum()) < 18


def test_intervals_with_correlated_noise_hold_more_nearly_what_they_promise_than_the_decoder_alone(
    digits_run, tmp_path
):
    run = tmp_path / "digits"
    shutil.copytree(digits_run, run)

    def command_line(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["eval", *words, "--run", str(run)])
            return command(main)

    options = ("--images", "20", "--mixture", "4", "--hide", "bottom")
    assert command_line("complete", *options) == 2
    assert command_line("residuals") == 0
    assert command_line("complete", *options) == 0
    path = result_file(run, "complete")
    methods = json.loads(path.read_text())["methods"]
    _, alone, correlated = methods.values()
    for one, other in zip(correlated["coverage"][3:], alone["coverage"][3:], strict=True):
        assert abs(one["value"] - one["level"]) < abs(other["value"] - other["level"])
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.size[1] > 8 * 28
    section = completion_section(Subject(load_run(run)).results().shown("test", "4-full"), run)
    assert [row[:3] for row in section.tables[0].rows] == [("bottom", "final", name) for name in methods]
    assert [picture.data for picture in section.pictures] == [path.with_suffix(".png").read_bytes()]
