"""n items cut into parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.io.partition import partition


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_the_parts_in_order_are_all_items_once_and_differ_by_at_most_one_in_size(n, parts):
    ranges = [partition(n, part, parts) for part in range(parts)]
    assert [item for part in ranges for item in part] == list(range(n))
    sizes = [len(part) for part in ranges]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("n", "part", "parts"), [(10, -1, 2), (10, 2, 2), (-1, 0, 1), (10, 0, 0)])
def test_a_part_that_does_not_exist_is_refused(n, part, parts):
    with pytest.raises(ValueError, match="does not exist"):
        partition(n, part, parts)
