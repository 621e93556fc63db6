"""Products that decide a number are in full precision, whatever networks are allowed, and what they are is recorded."""

import shutil

import pytest
import torch
from support.distance_extractor import TINY
from support.products import Products

from eval.distance.extractors.extractor import resize_clean
from eval.distance.measures.frechet import frechet_distance
from eval.distance.measures.kernel import kernel_distance
from eval.distance.measures.neighbours import overlap
from eval.distance.statistics import FeatureStatistics
from eval.images.transport import Transport, fit_transport
from eval.measurements.memorisation import nearest_code_distance, nearest_images
from eval.protocol import Protocol
from eval.run import load_run
from trainer.process_group import single

X, Y = torch.randn(2, 120, 16, generator=torch.Generator().manual_seed(0))
COVARIANCE = X.T.double().cov()


@pytest.fixture
def medium():
    """A process that allows bfloat16 in products of float32."""
    torch.set_float32_matmul_precision("medium")
    yield
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")


def statistics():
    found = FeatureStatistics(16)
    found.update(X, torch.arange(120))
    found.covariance()


WORK = {
    "feature statistics": statistics,
    "the Frechet distance": lambda: frechet_distance(X.mean(0), COVARIANCE, Y.mean(0), 2 * COVARIANCE),
    "the kernel distance": lambda: kernel_distance(X, Y),
    "precision and recall": lambda: overlap(X, Y),
    "resizing": lambda: resize_clean(torch.rand(2, 3, 20, 24), 16),
    "distances to the nearest code": lambda: nearest_code_distance(X, Y),
}


@pytest.mark.parametrize("work", WORK)
def test_no_product_of_a_measure_is_lowered(medium, work):
    with Products() as products:
        WORK[work]()
    assert products.lowered == []
    # These go through scipy's BLAS and LAPACK on a CPU, in float64.
    assert products.counts or work in ("feature statistics", "the Frechet distance")


def test_no_product_of_the_nearest_images_is_lowered(medium, digits_shards):
    with Products() as products:
        nearest_images(torch.rand(5, 1, 28, 28), digits_shards, "test", k=2, ranks=single())
    assert products.lowered == []
    assert products.counts[torch.float32] > 0


def test_no_product_of_a_transport_beside_the_network_s_is_lowered(medium, digits_run, monkeypatch):
    monkeypatch.setattr("eval.images.transport.MOST_DIRECTIONS", 40)
    run = load_run(digits_run)

    def outside(products: Products, method):
        def called(*values):
            products.__exit__(None, None, None)
            try:
                return method(*values)
            finally:
                products.__enter__()

        return called

    with Products() as products:
        for name in ("encode", "decode"):
            monkeypatch.setattr(run.model, name, outside(products, getattr(run.model, name)))
        transport: Transport = fit_transport(run, run.mixture(4, "full"), single()).transport
        transport.apply(torch.randn(20, 2), torch.rand(20, 1, 28, 28))
    assert products.lowered == []
    assert products.counts[torch.float32] > 0


def test_features_of_real_images_by_lowered_products_are_not_taken_for_those_in_full_precision(
    digits_run, digits_shards, run_eval, tmp_path, monkeypatch
):
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(tmp_path / "cache"))
    run = shutil.copytree(digits_run, tmp_path / "digits")
    sets = (f"shards:{digits_shards}/valid", f"shards:{digits_shards}/test")
    for words in (("--run", run, "--from", "prior", "--n", "64"), sets):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        for precision, files in (("highest", 1), ("medium", 2), ("highest", 2)):
            torch.set_float32_matmul_precision(precision)
            try:
                code, said = run_eval("fid", *words, *TINY)
            finally:
                torch.set_float32_matmul_precision("highest")
            assert code == 0, said.err
            assert len(list((tmp_path / "cache" / "references").glob("*.safetensors"))) == files


def protocol(**fields) -> Protocol:
    return Protocol(
        run="r", weights="final", checkpoint="c", data="d", split="test", n=10, image_shape=(1, 28, 28), **fields
    )


def test_what_the_process_allows_networks_is_recorded(digits_run):
    run = load_run(digits_run)
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        found = run.protocol(Protocol, split="test", n=10, seed=0)
    finally:
        torch.backends.mkldnn.conv.fp32_precision = "none"
    assert found.record()["convolutions"] == "medium"
    assert "convolutions" not in run.protocol(Protocol, split="test", n=10, seed=0).record()


def test_results_of_a_gpu_and_of_a_cpu_have_one_address_by_default():
    assert protocol(convolutions="high").address() == protocol().address()
    assert protocol(precision="high").address() != protocol().address()
