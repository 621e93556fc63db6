"""Which trials keep their checkpoints: the best configurations'. Records need none once everything is measured."""

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence

from data_shards.io.lease import is_held
from trainer.run_folder.pruning import remove_checkpoints
from tune.sweep_config import OBJECTIVES, SweepConfig
from tune.trial.folder import load_outcome, save_parameters
from tune.trial.record import TrialRecord, parameters_in_checkpoint, trial_record


class KeptWeights:
    """Deletes the checkpoints of ended trials of the search that are not among the `keep_weights` best."""

    def __init__(self, sweep: SweepConfig, before: Sequence[TrialRecord]) -> None:
        self.sweep, self.deleted = sweep, 0
        objective = OBJECTIVES[sweep.objectives[0]]
        self._field, self._sign = objective.field, objective.sign
        self._losers: list[str] = []
        self._values: dict[int, dict[str, float]] = defaultdict(dict)  # by configuration and trial
        for record in before:
            self._add(record)

    def _add(self, record: TrialRecord) -> None:
        value = getattr(record, self._field)
        if record.phase == "search" and record.status == "finished" and value is not None:
            self._values[record.number][record.trial] = self._sign * value

    def ended(self, name: str) -> None:
        """A trial has ended: it, or one that it surpasses, may not be needed any more."""
        if self.sweep.keep_weights == 0:
            return
        record = trial_record(self.sweep.trials_folder / name, self.sweep.measure)
        if record.phase != "search" or load_outcome(self.sweep.trials_folder / name).again:
            return
        self._add(record)
        order = sorted(self._values, key=lambda number: -statistics.fmean(self._values[number].values()))
        self._losers += [trial for number in order[self.sweep.keep_weights :] for trial in self._values.pop(number)]
        if record.status in ("stopped", "failed"):
            self._losers.append(name)
        self.delete()

    def delete(self, wait_seconds: float = 0.0) -> None:
        """Deletes the checkpoints of those in whose folders no process works any more."""
        until = time.monotonic() + wait_seconds
        while True:
            for name in list(self._losers):
                folder = self.sweep.trials_folder / name
                if not is_held(folder):
                    self._losers.remove(name)
                    save_parameters(folder, parameters_in_checkpoint(folder))
                    self.deleted += remove_checkpoints(folder)
            if not self._losers or time.monotonic() >= until:
                return
            time.sleep(0.2)
