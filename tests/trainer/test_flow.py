"""The flow is invertible, its density is exact, and it learns what a Gaussian cannot."""

import json
import math

import pytest
import torch
from support.running import run_module

from data_shards.io.errors import InputError
from trainer.flow.fit import FlowSettings, fit_flow
from trainer.flow.latent_flow import LatentFlow
from trainer.flow.run_flow import fit_run_flow, load_flow, save_flow
from trainer.run_folder import latents
from trainer.run_folder.latents import Latents


def moved(dim: int, seed: int = 0) -> LatentFlow:
    """A flow that is not the identity, in float64."""
    flow = LatentFlow(dim, layers=4, width=16, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in flow.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    flow.set_scale(torch.arange(dim).double(), torch.full((dim,), 4.0).double())
    return flow


def ring(count: int, seed: int) -> Latents:
    """Codes on a circle of radius 2, whose density no single Gaussian has."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    mean = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return Latents(mean=mean, std=torch.full_like(mean, 0.2), index=torch.arange(count))


def test_a_latent_comes_back_from_its_noise():
    flow = moved(5)
    noise = torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = flow.transform(noise)
    x = (z - flow.centre) / flow.spread
    for coupling in flow.couplings:
        x = coupling(x)[0]
    torch.testing.assert_close(x, noise, atol=1e-9, rtol=1e-9)


def test_the_density_is_that_of_the_change_of_variables():
    flow = moved(3)
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = flow.transform(noise)
    for row in range(len(z)):
        jacobian = torch.autograd.functional.jacobian(lambda e: _open_transform(flow, e), noise[row])
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(noise[row]).sum()
        expected = normal - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(flow.score_samples(z[row : row + 1])[0], expected, atol=1e-8, rtol=1e-8)


def _open_transform(flow, noise):
    """One latent from its noise, with gradient."""
    x = noise[None]
    for coupling in reversed(flow.couplings):
        x = coupling.inverse(x)
    return (x * flow.spread + flow.centre)[0]


def test_the_density_integrates_to_one():
    flow = moved(2)
    axis = torch.linspace(-60, 60, 1201, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = sum(float(part.exp().sum()) for part in map(flow.score_samples, z.split(200_000)))
    assert total * 0.1**2 == pytest.approx(1, abs=0.01)


def test_a_new_flow_is_the_gaussian_of_the_codes_scale():
    flow = LatentFlow(3)
    flow.set_scale(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 1.0, 0.25]))
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.5]))
    torch.testing.assert_close(flow.score_samples(z), normal.log_prob(z).sum(1), atol=1e-5, rtol=1e-5)


def test_it_learns_a_ring_that_a_gaussian_cannot(tmp_path):
    codes, held_out = ring(2000, 0), ring(500, 1)
    settings = FlowSettings(layers=6, width=32, epochs=15, batch=100, learning_rate=0.01)
    fitted = fit_flow(codes, held_out, settings)
    # The best Gaussian of a ring of radius 2 with deviation 0.2: variance 2 + 0.04 in both directions.
    gaussian = -math.log(2 * math.pi * 2.04) - 1
    assert fitted.held_out > gaussian + 0.5
    radius = fitted.flow.sample(2000, torch.Generator().manual_seed(0)).norm(dim=1)
    assert float((radius - 2).abs().mean()) < 0.5
    save_flow(tmp_path / "flows" / "final", fitted, settings, {"codes": "0"})
    torch.testing.assert_close(
        load_flow(tmp_path).score_samples(held_out.mean), fitted.flow.score_samples(held_out.mean)
    )


def test_a_single_held_out_code_has_no_standard_error(tmp_path):
    settings = FlowSettings(layers=2, width=8, epochs=1)
    fitted = fit_flow(ring(300, 0), ring(1, 1), settings)
    assert fitted.held_out_error is None
    save_flow(tmp_path / "flows" / "final", fitted, settings, {"codes": "0"})
    assert load_flow(tmp_path).score_samples(ring(1, 1).mean).isfinite().all()


def test_the_same_seed_gives_the_same_flow():
    settings = FlowSettings(layers=2, width=8, epochs=1)
    first, second = (fit_flow(ring(300, 0), ring(50, 1), settings) for _ in range(2))
    assert first.held_out == second.held_out


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "flow: some codes are NaN or infinite"),
        (math.inf, "flow: some codes are NaN or infinite"),
        (1e30, "flow: the variance of latent 1 over the codes is inf, and a flow needs a finite one above 0"),
    ],
)
def test_codes_that_have_no_density_are_refused(value, message):
    codes = ring(300, 0)
    codes.mean[7, 1] = value
    with pytest.raises(InputError, match=message):
        fit_flow(codes, ring(50, 1), SHORT)


def test_a_latent_that_is_the_same_in_all_codes_is_named():
    codes = ring(300, 0)
    codes.mean[:, 1], codes.std[:, 1] = 3.0, 0.0
    with pytest.raises(InputError, match="flow: the variance of latent 1 over the codes is 0"):
        fit_flow(codes, ring(50, 1), SHORT)


def test_an_epoch_whose_density_is_not_finite_is_never_the_best_one():
    codes = ring(300, 0)
    held_out = ring(50, 1)
    held_out.mean[0, 0] = 1e25  # whose square is infinite
    with pytest.raises(InputError, match=r"learning_rate: .* was never finite"):
        fit_flow(codes, held_out, SHORT)


def test_mistakes_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="epochs: 0 is not a whole number of at least 1"):
        FlowSettings(epochs=0)
    with pytest.raises(InputError, match="2 latents or more"):
        fit_flow(Latents(torch.zeros(3, 1), torch.ones(3, 1), torch.arange(3)), ring(5, 0), FlowSettings())
    with pytest.raises(InputError, match=r"python -m trainer\.flow --run"):
        load_flow(tmp_path)
    done = run_module("trainer.flow", "--run", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_in_one_line(tmp_path):
    done = run_module("trainer.flow", "--run", str(tmp_path), "--device", "cuda")
    assert done.returncode == 2
    assert done.stderr == "error: --device: cuda is requested, but this machine has no CUDA device; use cpu\n"


SHORT = FlowSettings(layers=2, width=8, epochs=1)


@pytest.fixture
def run(tmp_path):
    """A run folder that holds codes of both splits."""
    latents.write(tmp_path, "train", ring(300, 0))
    latents.write(tmp_path, "valid", ring(50, 1))
    return tmp_path


def test_a_fitted_flow_is_fitted_once(run):
    assert fit_run_flow(run, SHORT).is_new
    assert not fit_run_flow(run, SHORT).is_new


def test_held_out_codes_that_were_encoded_anew_are_another_fit(run):
    fit_run_flow(run, SHORT)
    latents.write(run, "valid", ring(50, 2))
    assert fit_run_flow(run, SHORT).is_new


@pytest.mark.parametrize("damage", ["no weights", "other weights", "no codes", "unknown settings"])
def test_a_flow_that_cannot_be_read_is_named_and_fitted_again(run, capsys, damage):
    folder = fit_run_flow(run, SHORT).folder
    record = json.loads((folder / "summary.json").read_text())
    if damage == "no weights":
        (folder / "flow.safetensors").unlink()
    elif damage == "other weights":
        (folder / "flow.safetensors").write_bytes(b"other")
    else:
        del record["codes"]
        changed = {"settings": {"depth": 2}} if damage == "unknown settings" else {}
        (folder / "summary.json").write_text(json.dumps(record | changed))
    assert fit_run_flow(run, SHORT).is_new
    assert f"warning: {folder}: " in capsys.readouterr().err
    assert not fit_run_flow(run, SHORT).is_new


def test_codes_of_different_weights_are_refused(run):
    for split in ("train", "valid"):
        record = latents.latents_folder(run, split) / latents.RECORD
        record.write_text(json.dumps({"checkpoint": f"weights of {split}", "data": "0", "n": 1}))
    with pytest.raises(InputError, match="of different weights; encode both again"):
        fit_run_flow(run, SHORT)
