"""A search that gives Ray trials which are known beforehand, one when it asks for one."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from ray.tune.search import Searcher

from tune.search.trials import Trial


class ListedSearch(Searcher):
    """Gives Ray the trials of an iterator, which may be of millions.

    may_begin: whether one may begin now; Ray asks again.
    """

    def __init__(self, trials: Iterable[Trial], may_begin: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._trials, self._may_begin = iter(trials), may_begin

    def __getstate__(self) -> dict[str, Any]:
        return {}  # what is left follows from the run folders

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Ignores Ray's settings: the trials are given."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The configuration of Ray's next trial; None where it has to wait."""
        if not self._may_begin():
            return None
        trial = next(self._trials, None)
        return Searcher.FINISHED if trial is None else {"trial": asdict(trial)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learns nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing: the trials that are left follow from the run folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Is not used."""
