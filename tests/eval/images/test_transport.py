"""Samples of a run on real digits, transported to the distribution of real digits."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.running import run_module

from data_shards.io.errors import InputError
from eval.export.walks import interpolation, sampled_ends
from eval.image_sets.run_samples import Sampling, drawn_from
from eval.images.marginals import QUANTILES
from eval.images.sources import from_shards, mixture_sampler
from eval.images.stored_transport import load_transport, make_transport
from eval.images.transport import fit_transport
from eval.run import load_run
from trainer.mixture.density import MixtureDensity
from trainer.mixture.parameters import Parameters
from trainer.process_group import single


def transport(run, *options: str, processes: int = 0):
    return run_module("eval", "transport", "--run", str(run), "--mixture", "4", *options, processes=processes)


@pytest.fixture(scope="module")
def run(digits_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transport") / "digits"
    shutil.copytree(digits_run, folder)
    done = transport(folder)
    assert done.returncode == 0, done.stderr
    return folder


def samples(run, count: int):
    """(z, g(z)) of the mixture."""
    sampler = mixture_sampler(run.mixture(4, "full").parameters)
    z = torch.cat([sampler(torch.Generator().manual_seed(seed)) for seed in range(count // 64)])
    with torch.inference_mode():
        return z, run.model.decode(z).mean


def distance_of_covariances(images, real) -> float:
    a, b = (torch.cov(x.flatten(1).double().mT) for x in (images, real))
    return float((a - b).square().sum())


def test_transported_samples_have_the_covariance_of_images_that_the_map_was_not_fitted_to(run):
    opened = load_run(run)
    z, means = samples(opened, 1920)
    blocks = from_shards(opened.config.data.shards, "test", n=200)(range(4))
    real = torch.cat([images for _, images in blocks]).float() / 255
    transported = load_transport(opened, 4, "full").apply(z, means)
    assert distance_of_covariances(transported, real) < 0.8 * distance_of_covariances(means, real)
    torch.testing.assert_close(transported.mean(), real.mean(), atol=0.02, rtol=0)


def test_a_transported_image_depends_on_itself_alone(run):
    opened = load_run(run)
    z, means = samples(opened, 128)
    apply = load_transport(opened, 4, "full").apply
    alone = torch.cat([apply(z[i : i + 1], means[i : i + 1]) for i in range(128)])
    torch.testing.assert_close(apply(z, means), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_fits_the_same_maps(run, tmp_path, processes):
    shutil.copytree(run, tmp_path / "digits", ignore=shutil.ignore_patterns("transports"))
    done = transport(tmp_path / "digits", processes=processes)
    assert done.returncode == 0, done.stderr
    one, many = (load_file(folder / "transports/4-full/transport.safetensors") for folder in (run, tmp_path / "digits"))
    for name, value in one.items():
        torch.testing.assert_close(many[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("weights", "groups"),
    # 1397 images and 784 pixels: a weight of 0.28 amounts to half as many images as there are pixels.
    [((0.3, 0.1, 0.5, 0.1), [1, 0, 2, 0]), ((0.25,) * 4, [0, 0, 0, 0]), ((0.5, 0.5), [0, 1])],
)
def test_components_with_enough_images_have_maps_of_their_own_and_the_others_share_one(run, weights, groups):
    opened = load_run(run)
    found = opened.mixture(4, "full")
    k = len(weights)
    known = MixtureDensity(Parameters.of("full", torch.tensor(weights), found.means[:k], found.covariances[:k]))
    fitted = fit_transport(opened, known, single())
    assert fitted.transport.group.tolist() == groups
    assert fitted.transport.maps.shape == (max(groups) + 1, 784, 784)
    assert fitted.shared == (groups.count(0) if groups.count(0) > 1 else 0)


def test_large_images_change_in_their_principal_directions_only(run, monkeypatch):
    monkeypatch.setattr("eval.images.transport.MOST_DIRECTIONS", 40)
    opened = load_run(run)
    fitted = fit_transport(opened, opened.mixture(4, "full"), single()).transport
    basis = fitted.basis
    assert basis.shape == (784, 40)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(40), atol=1e-5, rtol=0)
    assert fitted.maps.shape == (4, 40, 40)
    z, means = samples(opened, 64)
    change = (fitted.apply(z, means) - means).flatten(1)
    assert float(change.abs().max()) > 0.05
    torch.testing.assert_close(change @ basis @ basis.mT, change, atol=1e-5, rtol=0)


def test_rounds_of_monotone_maps_follow_the_linear_maps_and_are_kept_with_them(run, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(run, folder)
    done = transport(folder, "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert ", then 2 rounds of monotone maps; components have" in done.stdout
    opened = load_run(folder)
    linear, fitted = load_transport(load_run(run), 4, "full"), load_transport(opened, 4, "full")
    assert fitted.marginals.source.shape == fitted.marginals.target.shape == (2, 784, QUANTILES)
    z, means = samples(opened, 1920)
    moved = fitted.apply(z, means)
    torch.testing.assert_close(moved, fitted.marginals.apply(linear.apply(z, means)), atol=1e-4, rtol=0)
    assert fitted.digest != linear.digest
    # The last round was of pixels, whose distributions are now those of real digits: a linear map leaves some between.
    black = [float((images.clamp(0, 1) * 255 < 0.5).float().mean()) for images in (linear.apply(z, means), moved)]
    blocks = from_shards(opened.config.data.shards, "test", n=200)(range(4))
    real = float((torch.cat([images for _, images in blocks]) == 0).float().mean())
    assert abs(black[1] - real) < 0.02 < abs(black[0] - real)
    before = (folder / "transports/4-full/transport.safetensors").stat().st_mtime_ns
    make_transport(opened, 4, "full", single(), rounds=2)
    assert (folder / "transports/4-full/transport.safetensors").stat().st_mtime_ns == before
    make_transport(opened, 4, "full", single())
    assert load_transport(opened, 4, "full").marginals is None


def test_more_rounds_than_any_use_has_are_refused_in_one_line(run):
    done = transport(run, "--rounds", "31")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("rounds: 31 is above 30")


def test_the_same_command_again_fits_nothing(run):
    before = (run / "transports/4-full/transport.safetensors").stat().st_mtime_ns
    done = transport(run)
    assert "fitted before" in done.stdout
    assert (run / "transports/4-full/transport.safetensors").stat().st_mtime_ns == before


def test_a_transport_of_another_mixture_or_a_damaged_or_a_missing_one_is_refused_in_one_line(run, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(run, folder)
    done = run_module("trainer.mixture", "--run", str(folder), "--components", "4", "--encodings", "mean")
    assert done.returncode == 0, done.stderr
    with pytest.raises(InputError, match="another mixture"):
        load_transport(load_run(folder), 4, "full")
    assert transport(folder).returncode == 0
    file = folder / "transports/4-full/transport.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged"):
        load_transport(load_run(folder), 4, "full")
    shutil.rmtree(folder / "transports")
    done = run_module("eval", "fid", "--run", str(folder), "--from", "transported", "--mixture", "4", "--n", "64")
    assert done.returncode == 2
    assert "no transport is here; fit it with `python -m eval transport" in done.stderr.splitlines()[-1]


def test_interpolations_of_transported_samples_are_continuous(run):
    opened = load_run(run)
    sampling = Sampling(density="transported", seed=2)
    drawn = drawn_from(opened, sampling)
    ends, identity = sampled_ends(opened, sampling, 16)
    largest, jumps = [], []
    for z in interpolation(ends, steps=300, identity=identity).z:
        with torch.inference_mode():
            g = opened.model.decode(z).mean
        walked, jumping = (
            finish(z, g).clamp(0, 1).flatten(1).diff(dim=0).norm(dim=1) for finish in (drawn.walk, drawn.finish)
        )
        largest.append(float(walked.max() / walked.median()))
        jumps.append(float(jumping.max() / jumping.median()))
    # In units of a walk's median step. A map alone, chosen by component, jumps by up to 200 of them.
    assert max(largest) < 4
    assert max(jumps) > 20


def test_a_walk_weighs_the_maps_by_responsibility_and_does_not_jump_where_the_component_changes(run):
    opened = load_run(run)
    fitted = load_transport(opened, 4, "full")
    means = fitted.mixture.means.float()
    # Between the means of two components, in steps that change mean images little.
    z = torch.lerp(means[0], means[1], torch.linspace(0, 1, 400)[:, None])
    with torch.inference_mode():
        g = opened.model.decode(z).mean
    walked, changes = fitted.walk(z, g), fitted.mixture.predict(z).diff().nonzero()[:, 0]
    assert len(changes) > 0
    r = fitted.mixture.predict_proba(z).float()
    literal = torch.zeros(400, 784)
    for k in range(4):
        moved = (g.flatten(1) - fitted.source[k]) @ fitted.maps[fitted.group[k]].mT + fitted.target[k]
        literal += r[:, k, None] * moved
    torch.testing.assert_close(walked.flatten(1), literal, atol=2e-4, rtol=0)
    steps, jumps = (images.flatten(1).diff(dim=0).norm(dim=1) for images in (walked, fitted.apply(z, g)))
    assert steps[changes].max() < 0.2 * jumps[changes].max()
