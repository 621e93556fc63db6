"""Updates recorded once as a CUDA graph and replayed: the host asks a GPU for one thing in place of hundreds.

A graph repeats kernels at the same addresses. So it is made for updates of one size, reads its inputs where they lay
when it was recorded, and is dropped by its owner when weights or moments are replaced by other tensors.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.engines.engine import LearningRates
from trainer.objectives.objective import LocalBatch
from trainer.process_group import Ranks

WARM_UP_UPDATES = 3
"""Updates before the recording, in which libraries choose their kernels and Adam makes its moments."""
CHECKED_UPDATES = 2
"""The second has other images, noise and rates than the recording had."""
# Kernels may add in another order each time: parts of the change that an update makes to a tensor, of its size, and of
# the size of a result.
_TOLERANCE_OF_CHANGE, _ROUNDING, _TOLERANCE_OF_RESULT = 0.1, 1e-5, 0.01


class Inputs(NamedTuple):
    """All that differs between two updates of one size, on the device."""

    batch: LocalBatch
    learning_rates: LearningRates
    """On a GPU (), float32 each."""
    signals: Tensor
    """(2,) float32: see `Engine.step`."""

    def tensors(self) -> list[Tensor]:
        """Images, then the float32 numbers."""
        batch, rates = self.batch, vars(self.learning_rates).values()
        return [batch.images, batch.noise, batch.prior, batch.kl_weight, *rates, self.signals]

    def copied(self) -> "Inputs":
        """The same in memory of their own. All learning rates must be tensors."""
        images, noise, prior, kl_weight, *rates, signals = (tensor.clone() for tensor in self.tensors())
        batch = self.batch._replace(images=images, noise=noise, prior=prior, kl_weight=kl_weight)
        names = vars(self.learning_rates)
        return Inputs(batch, LearningRates(**dict(zip(names, rates, strict=True))), signals)


class RecordedUpdates:
    """Carries updates out: the first ones of a size one by one, then as a graph that was found to do the same.

    update: one update, which reads all that differs between updates from its inputs, changes the tensors of `state` in
    place and returns numbers, (n,) float64. state: these tensors by name. rows: of the global batches that are worth a
    recording. same_bits: whether a graph must give the bits of the update. warn: told why there is no graph, once.
    Every process of the group makes the same calls.
    """

    def __init__(
        self,
        update: Callable[[Inputs], Tensor],
        state: Callable[[], dict[str, Tensor]],
        ranks: Ranks,
        *,
        rows: int,
        same_bits: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._update, self._state, self._ranks = update, state, ranks
        self._rows, self._same_bits, self._warn = rows, same_bits, warn
        self._possible = True
        self._recorded: tuple[torch.cuda.CUDAGraph, Inputs, Tensor] | None = None
        self._seen = self._checked = 0

    def drop(self) -> None:
        """Gives up the graph: the tensors of the state are other ones from now on, or no update follows."""
        if self._recorded is not None:
            self._recorded[0].reset()
            self._recorded = None
        self._seen = self._checked = 0

    def __call__(self, inputs: Inputs) -> Tensor:
        """One update. What it returns may be overwritten by the next."""
        if not self._possible or inputs.batch.rows != self._rows:
            return self._update(inputs)
        self._seen += 1
        if self._seen <= WARM_UP_UPDATES:
            return self._update(inputs)
        return self._check(inputs) if self._checked < CHECKED_UPDATES else self._replay(inputs)

    def _replay(self, inputs: Inputs) -> Tensor:
        assert self._recorded is not None
        graph, recorded, values = self._recorded
        images, *numbers = inputs.tensors()
        places = recorded.tensors()
        places[0].copy_(images)
        torch._foreach_copy_(places[1:], numbers)
        graph.replay()
        return values

    @torch.no_grad()
    def _check(self, inputs: Inputs) -> Tensor:
        """An update both ways, from the same state. Where they differ, updates are done one by one from now on."""
        state = self._state()
        before = {name: tensor.clone() for name, tensor in state.items()}
        expected = self._do(inputs).clone()
        if not bool(expected.isfinite().all()):  # of the whole batch, so on every process; it was skipped
            return expected
        after = {name: tensor.clone() for name, tensor in self._state().items()}
        reason = _replaced(state, self._state())
        if not reason:
            _restore(state, before)
            reason = self._record(inputs) if self._recorded is None else ""
        if not self._ranks.any(bool(reason)):  # a sum over processes within a replay needs all of them
            found = self._replay(inputs)
            reason = self._differing({**state, "result": found}, after | {"result": expected}, before)
            if not self._ranks.any(bool(reason)):
                self._checked += 1
                return found
        _restore(self._state(), after)
        self.drop()
        self._possible = False
        self._warn(
            "engine.cuda_graphs: updates are done one by one, which is slower: "
            + (reason or "another process has no graph")
        )
        return expected

    def _do(self, inputs: Inputs) -> Tensor:
        with torch.enable_grad():
            return self._update(inputs)

    def _record(self, inputs: Inputs) -> str:
        """Records an update, which computes nothing yet. Returns why that failed; empty where it did not."""
        graph, inside = torch.cuda.CUDAGraph(), inputs.copied()
        try:
            # The outer block goes back to this stream also where the end of a recording fails. Other threads, such as
            # those that read images, may go on to ask the GPU for memory.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, capture_error_mode="thread_local"),
            ):
                values = self._do(inside)
        except RuntimeError as error:
            return f"it could not be recorded ({' '.join(str(error).split())[:200]})"
        self._recorded = (graph, inside, values)
        return ""

    def _differing(self, found: dict[str, Tensor], expected: dict[str, Tensor], before: dict[str, Tensor]) -> str:
        """Which tensors a replay left as others than the update; empty where they are the same up to rounding."""
        names = [name for name in found if self._differ(found[name], expected[name], before.get(name))]
        return f"{len(names)} tensors were others in a replay, among them {names[0]}" if names else ""

    def _differ(self, found: Tensor, expected: Tensor, before: Tensor | None) -> bool:
        if self._same_bits or not found.is_floating_point():
            return not torch.equal(found, expected)
        size = torch.linalg.vector_norm(expected.double())
        apart = torch.linalg.vector_norm((found - expected).double())
        if before is None:
            return not bool(apart <= _TOLERANCE_OF_RESULT * size)
        change = torch.linalg.vector_norm((expected - before).double())
        return not bool(apart <= _TOLERANCE_OF_CHANGE * change + _ROUNDING * size)


def _replaced(state: dict[str, Tensor], now: dict[str, Tensor]) -> str:
    """Which tensors lie elsewhere now, where a recording would not find them; empty where none does."""
    names = [name for name, tensor in state.items() if now[name].data_ptr() != tensor.data_ptr()]
    return f"{names[0]} does not stay where it lies" if names else ""


def _restore(state: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        tensor.copy_(values[name])
