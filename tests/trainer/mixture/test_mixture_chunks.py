"""Fits to points that do not fit in memory: a memory-mapped file, or chunks that are read again in every pass."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from support.mixture_cases import TYPES, draws, known_mixture, plain

from data_shards.io.errors import InputError
from trainer.mixture import GaussianMixture, chunks
from trainer.mixture.chunks import Chunks, chunks_of
from trainer.mixture.streaming import ChunkMoments, uniform
from trainer.process_group import single

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X = draws(known_mixture("full", k=6, dim=3), 5000).numpy()


class Again:
    """Chunks of some rows, made anew in each pass."""

    def __init__(self, x, rows):
        self.x, self.rows = x, rows

    def __iter__(self):
        return iter([self.x[start : start + self.rows] for start in range(0, len(self.x), self.rows)])


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 1000 points, and files of any size are streamed."""
    monkeypatch.setattr(chunks, "_NUMBERS", 3000)
    monkeypatch.setattr(chunks, "STREAMED_BYTES", 0)


def mapped(path, x) -> np.memmap:
    file = np.memmap(path, x.dtype, "w+", shape=x.shape)
    file[:] = x
    file.flush()
    return np.memmap(path, x.dtype, "r", shape=x.shape)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("products", ["auto", "float64", "float32"])
def test_maximum_likelihood_of_chunks_is_that_of_the_whole(small_chunks, kind, products):
    start = known_mixture(kind, k=6)
    given = {
        "weights_init": start.weights_, "means_init": start.means_, "precisions_init": start.precisions_,
    }  # fmt: skip
    settings = plain(covariance_type=kind, products=products, max_iter=20, tol=1e-12) | given
    whole = GaussianMixture(6, **settings).fit(X)
    streamed = GaussianMixture(6, **settings).fit(Again(X, 700))
    tolerance = 5e-3 if products == "float32" else 1e-9
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(whole, name), rtol=tolerance, atol=tolerance)
    if products != "float32":
        assert streamed.n_iter_ == whole.n_iter_


def test_a_fit_does_not_depend_on_how_points_are_chunked(small_chunks, tmp_path):
    sources = [Again(X, 5000), Again(X, 77), list(Again(X, 900)), mapped(tmp_path / "x", X)]
    fits = [GaussianMixture(6).fit(source) for source in sources]
    for other in fits[1:]:
        assert other.n_iter_ == fits[0].n_iter_
        np.testing.assert_allclose(other.means_, fits[0].means_, rtol=1e-9)
        np.testing.assert_allclose(other.covariances_, fits[0].covariances_, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("candidates", [0, 8])
def test_a_fit_to_chunks_explains_fresh_points_as_one_to_the_whole_does(small_chunks, candidates):
    known = known_mixture("full", k=12, dim=6)
    x, fresh = draws(known, 10_000), draws(known, 5000, seed=7)
    # From one start, as k-means may end in different optima.
    settings = {"candidates": candidates, "max_iter": 30, "means_init": known.means_}
    whole = GaussianMixture(12, **settings).fit(x)
    streamed = GaussianMixture(12, **settings).fit(Again(x, 3000))
    assert isinstance(streamed.means_, torch.Tensor)
    assert streamed.score(fresh) > whole.score(fresh) - 0.02
    if candidates:
        assert 0 <= streamed.truncation_loss_ < 1e-3


def test_methods_take_chunks_too(small_chunks, tmp_path):
    mixture, file = GaussianMixture(6).fit(X), mapped(tmp_path / "x", X)
    for source in (Again(X, 600), file):
        np.testing.assert_array_equal(mixture.score_samples(source), mixture.score_samples(X))
        np.testing.assert_array_equal(mixture.predict(source), mixture.predict(X))
        np.testing.assert_allclose(mixture.predict_proba(source), mixture.predict_proba(X))
        assert mixture.score(source) == pytest.approx(mixture.score(X), rel=1e-12)
        assert mixture.bic(source) == pytest.approx(mixture.bic(X), rel=1e-12)


def test_moments_of_chunks_lose_nothing_far_from_the_origin(small_chunks):
    far = X + 1e8
    found = ChunkMoments.of(Chunks(Again(far, 800)), single())
    exact = (far - 1e8).var(0)
    assert (found.count, found.first) == (5000, 0)
    np.testing.assert_allclose(found.variance.numpy(), exact, rtol=1e-6)
    np.testing.assert_allclose(found.mean.numpy() - 1e8, (far - 1e8).mean(0), atol=1e-6)


def test_places_have_uniform_and_independent_numbers():
    one, two = (uniform(torch.arange(100_000) + 10**10, seed) for seed in (0, 1))
    for found in (one, two):
        counts = torch.histc(found, 20, 0, 1)
        assert ((counts - 5000).abs() < 5 * 5000**0.5).all()
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.02
    assert abs(float(torch.corrcoef(torch.stack([one[1:], one[:-1]]))[0, 1])) < 0.02


def test_what_is_an_array_stays_one(tmp_path):
    small = mapped(tmp_path / "x", X)
    for x in (X, torch.from_numpy(X), X.tolist(), small, [X[0], X[1]]):
        assert chunks_of(x) is None


BAD = {
    "an iterator": (lambda: iter([X]), "an iterator can be read only once"),
    "nothing": (lambda: Again(X[:0], 10), "there are no chunks"),
    "another width": (lambda: [X, X[:, :2]], "2 dimensions, where 3 are expected"),
    "NaN": (lambda: [X, np.full((3, 3), np.nan)], "NaN or infinite"),
    "one row": (lambda: Again(X[0], 1), "is not"),
    "too few": (lambda: [X[:2], X[:2]], "6 components for 4 points"),
}


@pytest.mark.parametrize("case", BAD)
def test_chunks_that_cannot_be_fitted_are_named(case):
    source, words = BAD[case]
    with pytest.raises(InputError, match=words):
        GaussianMixture(6).fit(source())


def test_chunks_that_change_between_passes_are_refused():
    class Growing:
        rows = 1000

        def __iter__(self):
            self.rows += 1
            return iter([X[: self.rows]])

    with pytest.raises(InputError, match="one pass gave 1003 points, the next 1004"):
        GaussianMixture(3).fit(Growing())


PEAK = """
import sys
import numpy as np
from trainer.mixture import GaussianMixture, chunks, streaming
chunks.STREAMED_BYTES, chunks._NUMBERS, streaming._LEAST_SAMPLED = 0, 1 << 20, 20_000
streaming._MOST_HELD_OUT = 10_000
x = np.memmap(sys.argv[1], np.float32, "r", shape=(1_600_000, 16))
for count in (200_000, 200_000, 1_600_000):
    open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
    GaussianMixture(4, covariance_type="diag", max_iter=2, annealing_iter=0, kmeans_iter=1).fit(x[:count])
    print([int(line.split()[1]) / 1000 for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def test_memory_does_not_grow_with_the_number_of_points(tmp_path):
    """The peak of a process, in MB, for 13 and for 102 MB of points."""
    file = np.memmap(tmp_path / "x", np.float32, "w+", shape=(1_600_000, 16))
    rng = np.random.default_rng(0)
    for part in np.split(file, 8):
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    file.flush()
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, small, large = map(float, done.stdout.split())
    # One copy of the points, or one number in float64 for each dimension and point, would be 90 MB or more.
    assert large < small + 45
