"""The E-step over points that come in chunks: the statistics of one chunk after another, added up."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from trainer.mixture.em.dense import DenseEStep
from trainer.mixture.em.e_step import Statistics
from trainer.mixture.em.truncated import TruncatedEStep
from trainer.mixture.parameters import Parameters
from trainer.mixture.points import Points


class StreamedEStep:
    """The `EStep` of `inner`, which sees one chunk at a time as its training points.

    chunks: standardised points, read again in each pass. The held-out points are those of `inner`, in memory.
    """

    def __init__(self, chunks: Iterable[Points], inner: DenseEStep | TruncatedEStep) -> None:
        self._chunks, self._inner = chunks, inner

    def statistics(self, parameters: Parameters, beta: float) -> Statistics:
        """See `EStep`."""
        return self._sum(lambda: self._inner.statistics(parameters, beta))

    def held_out(self, parameters: Parameters, inflations: Sequence[float] = (1.0,)) -> Tensor:
        """See `EStep`."""
        return self._inner.held_out(parameters, inflations)

    def exact(self, name: str, parameters: Parameters, onto: Statistics | None = None) -> Statistics:
        """See `EStep`."""
        if name == "held_out":
            return self._inner.exact(name, parameters, onto)
        for points in self._chunks:
            self._inner.see(points)
            onto = self._inner.exact(name, parameters, onto)
        assert onto is not None
        return onto

    def forget(self) -> None:
        """See `EStep`."""
        self._inner.forget()

    def state(self) -> dict[str, Tensor]:
        """See `EStep`. What is known of single points is not kept, as it would grow with their number."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `EStep`."""

    def _sum(self, of_chunk: Callable[[], Statistics]) -> Statistics:
        total: Statistics | None = None
        for points in self._chunks:
            self._inner.see(points)
            found = of_chunk()
            total = found if total is None else total.add_(found)
        assert total is not None
        return total
