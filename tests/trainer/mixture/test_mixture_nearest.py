"""The nearest centroids of points, kept while the centroids move."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.mixture import nearest
from trainer.mixture.nearest import Assignment


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 30),
    whole=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    share=st.floats(0, 1),
    moves=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_after_any_moves_the_labels_are_those_of_comparing_with_all_centroids(n, k, whole, dtype, share, moves, seed):
    # Whole numbers make centroids equally near, of which the first is taken.
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> torch.Tensor:
        if whole:
            return torch.randint(-3, 4, (count, 2), generator=generator).double()
        return torch.randn(count, 2, generator=generator, dtype=torch.float64)

    points, centroids = drawn(n).to(dtype), drawn(k)
    kept = Assignment(points, centroids)
    for _ in range(moves):
        chosen = torch.rand(k, generator=generator) < share
        centroids = centroids.where(~chosen[:, None], drawn(k))
        kept.move(centroids)
        assert torch.equal(kept.labels, Assignment(points, centroids).labels)


def test_points_are_compared_only_with_centroids_that_moved_and_with_all_where_their_own_went_away(monkeypatch):
    compared = []
    found = nearest._nearest
    monkeypatch.setattr(
        nearest,
        "_nearest",
        lambda points, centroids: compared.append((len(points), len(centroids))) or found(points, centroids),
    )
    places = torch.arange(10.0, dtype=torch.float64)[:, None]
    kept = Assignment(places + 0.1, places)
    places = places.clone()
    places[3], places[7] = 20.0, 7.05
    kept.move(places)
    assert compared == [(10, 10), (10, 2), (1, 10)]
    assert kept.labels.tolist() == [0, 1, 2, 4, 4, 5, 6, 7, 8, 9]
