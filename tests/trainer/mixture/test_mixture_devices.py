"""What a fit does on a GPU, as far as a machine without one can show it."""

import subprocess
import sys

import pytest
import torch
from support.running import ROOT

from trainer.mixture.em import dense
from trainer.mixture.em.centred import CentredScores
from trainer.mixture.em.dense import chunk_rows
from trainer.mixture.nearest import NearestIndex, by_products
from trainer.mixture.packed import pack, packed_size, products_at_once
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points
from trainer.mixture.working_memory import numbers_at_a_time, numbers_of_share

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GB = 10**9


@pytest.fixture
def gpu_of(monkeypatch):
    """Says that GPUs have so many bytes of memory."""

    def say(memory: int) -> None:
        monkeypatch.setattr("trainer.mixture.working_memory._memory", lambda device: memory)

    return say


def test_on_a_cpu_chunks_stay_in_its_caches():
    assert numbers_at_a_time(1000, CPU) == 1000
    assert [chunk_rows(k, 2209, CPU) for k in (2, 2000, 100_000)] == [768, 524, 384]


def test_features_of_many_dimensions_are_made_of_few_points_unless_many_components_share_them():
    columns = 1 + 512 + packed_size(512)
    assert [chunk_rows(k, columns, CPU) for k in (1, 3, 200, 2000)] == [16, 16, 200, 524]


@pytest.mark.parametrize("dim", [2, 64, 512, 4096])
def test_differences_from_means_stay_far_below_what_the_c_library_gives_back(dim):
    scores = CentredScores(Parameters.of("diag", torch.ones(12) / 12, torch.zeros(12, dim), torch.ones(12, dim)))
    chunks = [chunk for chunk, _ in scores.chunks(Points(torch.zeros(600, dim)))]
    sizes = [block.x.shape.numel() for chunk in chunks for _, block in scores.blocks(chunk)]
    assert sum(sizes) == 600 * 12 * dim
    assert 8 * max(sizes) < 16e6


@pytest.mark.parametrize("memory", [8 * GB, 24 * GB, 80 * GB])
@pytest.mark.parametrize("k", [32, 500, 10_000])
def test_on_a_gpu_a_chunk_takes_a_share_of_its_memory(gpu_of, memory, k):
    gpu_of(memory)
    columns = 1 + 64 + packed_size(64)
    rows = chunk_rows(k, columns, GPU)
    # Responsibilities and their comparison, features and their factors, in float32.
    taken = 4 * rows * 2 * (k + columns)
    assert memory / 30 < taken <= memory / 24
    # Far from a CPU's 768, so that operations are large.
    assert rows > 3000


def test_a_fit_of_ten_million_points_and_ten_thousand_components_has_room_in_24_gb(gpu_of):
    """Streamed: what is there at a time in an exact iteration, by arithmetic."""
    gpu_of(24 * GB)
    n, dim, k = 10**7, 64, 10_000
    columns = 1 + dim + packed_size(dim)
    chunk = 8 * (1 << 22) * 4
    held_out = 100_000 * dim * 4 * 2
    sample = 256 * k * dim * 4 * 2
    statistics, copies = 8 * k * columns, 4
    coefficients, sums = 4 * k * columns, 4 * k * columns
    intermediates = 4 * numbers_of_share(24 * GB) * 4
    assert chunk + held_out + sample + copies * statistics + coefficients + sums + intermediates < 12 * GB
    # A pass has few chunks beside the thousands that a CPU's cache would need.
    assert n / chunk_rows(k, columns, GPU) < 1000 < n / chunk_rows(k, columns, CPU)


def test_a_search_by_products_finds_what_the_index_finds(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, vectors = torch.randn(3000, 20, generator=generator), torch.randn(300, 20, generator=generator)
    monkeypatch.setattr("trainer.mixture.nearest._DISTANCES", 100_000)
    for count in (1, 16):
        numbers, squares = NearestIndex(vectors).found(x, count)
        by_product, less_own = by_products(x, vectors, count)
        assert torch.equal(by_product, numbers)
        torch.testing.assert_close(less_own + x.square().sum(1, keepdim=True), squares, rtol=1e-5, atol=1e-4)
    assert by_products(x[:0], vectors, 2)[0].shape == (0, 2)


def test_packed_products_at_once_are_those_of_a_matrix():
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))  # (D, n)
    out = torch.empty(packed_size(7), 5)
    products_at_once(rows, out)
    assert torch.equal(out.t(), pack(rows.t()[:, :, None] * rows.t()[:, None]))


def test_sums_of_a_large_chunk_join_float64_in_the_steps_of_small_ones(monkeypatch):
    """A chunk of a GPU holds all points; its float32 sums are as short as those of a CPU's chunks."""
    from support.mixture_cases import draws, known_mixture

    from trainer.mixture.em.dense import DenseScores, dense_statistics
    from trainer.mixture.points import Points

    known = known_mixture("full", k=5, dim=4)
    x = Points(draws(known, 30_000).float())
    small = dense_statistics(x, DenseScores(known.parameters_, torch.float32))
    monkeypatch.setattr(dense, "chunk_rows", lambda k, columns, device: 30_000)
    large = dense_statistics(x, DenseScores(known.parameters_, torch.float32))
    exact = dense_statistics(x.to(torch.float64), DenseScores(known.parameters_, torch.float64))
    torch.testing.assert_close(large.sums, small.sums, rtol=1e-5, atol=1e-3)
    size = exact.sums.abs().amax(0)
    assert ((large.sums - exact.sums).abs() / size).max() < 3e-6
    assert ((small.sums - exact.sums).abs() / size).max() < 3e-6


COUNTED = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from device.pretended.install import install
install()
import torch
from device.pretended.counts import COUNTS
from trainer.mixture.fitting import fit_mixture
from trainer.mixture.points import Points
from trainer.mixture.settings import Settings
from trainer.process_group import single

k, dim, seen = {k}, 8, []
for n in (3000, 24_000):
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(k, dim, generator=generator)[torch.arange(n) % k] + torch.randn(n, dim, generator=generator)
    settings = Settings(n_components=k, candidates={candidates}, covariance_type="{kind}", products="{products}",
                        max_iter=12, annealing_iter=10, prior_strength=16.0, inflation=1.0, init_params="k-means++")
    counts = []
    def after(state):
        counts.append([sum(COUNTS.launches.values()), sum(COUNTS.waits.values()), sum(COUNTS.pageable.values())])
    fit_mixture(Points(x.cuda()), None, settings=settings, ranks=single(torch.device("cuda", 0)), after=after)
    print(*(b - a for a, b in zip(counts[1], counts[2])))
"""


@pytest.mark.parametrize(
    ("kind", "k", "candidates", "products"),
    [("full", 300, 0, "float32"), ("diag", 300, 0, "float32"), ("full", 300, 16, "float32"), ("full", 20, 0, "auto")],
)
def test_an_iteration_on_a_gpu_has_few_launches_and_waits_whatever_the_number_of_points(kind, k, candidates, products):
    words = {"kind": kind, "k": k, "candidates": candidates, "products": products}
    script = COUNTED.format(root=str(ROOT), tests=str(ROOT / "tests"), **words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few, many = ([int(count) for count in line.split()] for line in done.stdout.splitlines())
    # The sums of a chunk join float64 ones every 4096 rows, in three launches.
    assert many[0] <= few[0] + 3 * 8
    assert many[0] < 400
    assert many[1] <= few[1] + 2
    assert many[1] < 40
    assert many[2] == few[2]
