"""Products in full precision, whatever the process was told."""

import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from support.mixture_cases import TYPES, draws, fitted, known_mixture
from support.products import Products

from trainer.flow.latent_flow import LatentFlow
from trainer.full_precision import allowed_precision, full_precision
from trainer.mixture import GaussianMixture


def settings() -> tuple[str, str, str]:
    """What the process allows."""
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
    )


@pytest.fixture
def medium():
    """A process that allows bfloat16 everywhere, as training may; checks that it still does at the end."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    wanted = settings()
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert settings() == wanted
    finally:
        torch.set_float32_matmul_precision(before)


POINTS = draws(known_mixture("full", k=30, dim=6), 4000)


def exact_fit(kind):
    return fitted(POINTS, 30, covariance_type=kind, products="float32", max_iter=3, candidates=0)


def truncated_fit(kind):
    return fitted(POINTS, 30, covariance_type=kind, products="float32", max_iter=3, candidates=8)


def fit_by_batches(kind):
    mixture = GaussianMixture(30, covariance_type=kind, products="float32")
    for batch in POINTS.float().split(1000):
        mixture.partial_fit(batch)


def scores(kind):
    mixture = known_mixture(kind, k=100, dim=6)
    x = POINTS.float()
    mixture.score_samples(x)
    mixture.predict(x)
    mixture.predict_proba(x)
    mixture.score_samples(x.clone().requires_grad_())


@pytest.mark.parametrize("work", [exact_fit, truncated_fit, fit_by_batches, scores])
@pytest.mark.parametrize("kind", TYPES)
def test_no_product_of_the_mixture_is_lowered(medium, work, kind):
    with Products() as products:
        work(kind)
    assert products.counts[torch.float32] > 0
    assert products.lowered == []


def test_no_product_of_pruned_statistics_is_lowered(medium):
    x = draws(known_mixture("full", k=40, dim=32, spread=3.0), 3000)
    with Products() as products:
        fitted(x, 40, max_iter=3, candidates=8, annealing_iter=0)
    assert products.counts[torch.float32] > 0
    assert products.lowered == []


def test_samples_are_drawn_in_float64(medium):
    mixture = known_mixture("full", k=20)
    with Products() as products:
        draws(mixture, 100)
    assert set(products.counts) == {torch.float64}


def test_no_product_of_a_flow_s_density_is_lowered(medium):
    flow = LatentFlow(4)
    with Products() as products, torch.no_grad():
        flow.score_samples(torch.randn(10, 4))
        flow.sample(10)
    assert products.counts[torch.float32] > 0
    assert products.lowered == []


def test_the_same_fit_comes_out_of_a_process_that_allows_less():
    before = exact_fit("full")
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            after = exact_fit("full")
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(after.means_, before.means_)
    assert torch.equal(after.covariances_, before.covariances_)


def test_the_settings_return_after_an_error(medium):
    def fails(state):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fitted(POINTS, 3, max_iter=2, after=fails)


ALLOWED = {
    "nothing": "pass",
    "high": "torch.set_float32_matmul_precision('high')",
    "medium": "torch.set_float32_matmul_precision('medium')",
    "cuda": "torch.backends.cuda.matmul.allow_tf32 = True",
    "cuda, new words": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "CPU, new words": "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "all, new words": "torch.backends.fp32_precision = 'tf32'",
    "an environment": "pass",
}
CHECKED = """
import torch
from trainer.full_precision import full_precision
g = torch._C._get_fp32_precision_getter
def seen():
    return [g(*place) for place in (("cuda", "matmul"), ("mkldnn", "matmul"), ("cuda", "conv"), ("generic", "all"))]
{}
before = seen()
with full_precision():
    assert seen()[:2] == ["ieee", "ieee"], seen()
    assert seen()[2:] == before[2:]
    with full_precision():
        pass
    assert seen()[:2] == ["ieee", "ieee"], seen()
assert seen() == before, (seen(), before)
# What followed a setting of all backends goes on to follow it.
if before[3] == "tf32":
    torch.backends.fp32_precision = "ieee"
    assert seen()[0] == "ieee"
"""


@pytest.mark.parametrize("allowed", ALLOWED)
def test_every_way_to_allow_less_is_set_aside_and_returns(allowed):
    environment = os.environ | ({"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} if allowed == "an environment" else {})
    command = [sys.executable, "-W", "error", "-c", CHECKED.format(ALLOWED[allowed])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_settings_return_with_the_last_of_several_threads():
    torch.set_float32_matmul_precision("medium")
    inside, done = threading.Event(), threading.Event()

    def stay():
        with full_precision():
            inside.set()
            done.wait(300)

    thread = threading.Thread(target=stay)
    try:
        thread.start()
        assert inside.wait(300)
        with full_precision():
            pass
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        done.set()
        thread.join()
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        done.set()
        torch.set_float32_matmul_precision("highest")


def test_nothing_is_warned_of_where_there_is_no_gpu():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with full_precision():
            pass


def test_what_networks_are_allowed_is_told_by_device():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert allowed_precision(cpu) == ("highest", "highest")
    assert allowed_precision(gpu) == ("highest", "high")
    torch.set_float32_matmul_precision("medium")
    try:
        assert allowed_precision(cpu)[0] == "medium"
        assert allowed_precision(gpu)[0] == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
