"""Optuna's search behind Ray's interface: several objectives, repeats over seeds, and a study in a file.

The study is a file in the sweep's folder. After a crash, the state of the search that Ray has stored may be older than
that file; numbers of configurations come from the study, so that no two configurations have the same one.
"""

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tune.search.trials import Trial, draw
from tune.sweep_config import OBJECTIVES, Dimension, Fields, SweepConfig


class OptunaSearch(Searcher):
    """Takes configurations from a study, gives each to one trial per seed, and returns their means to the study."""

    def __init__(self, sweep: SweepConfig) -> None:
        super().__init__()
        self.sweep = sweep
        self.state: dict[str, Any] = {"waiting": [], "of": {}, "results": {}}
        self._study: optuna.Study | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_study": None}

    @property
    def study(self) -> optuna.Study:
        """The study in the sweep's folder."""
        if self._study is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            path = self.sweep.folder / "optuna.journal"
            self._study = optuna.create_study(
                study_name=self.sweep.name,
                storage=JournalStorage(JournalFileBackend(str(path))),
                directions=["maximize" if OBJECTIVES[o].sign > 0 else "minimize" for o in self.sweep.objectives],
                load_if_exists=True,
            )
            # A sampler that starts with the same seed after each restart would draw the same points again.
            self._study.sampler = optuna.samplers.TPESampler(
                seed=self.sweep.seed + len(self._study.trials), constant_liar=True
            )
        return self._study

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Ignores Ray's settings: objectives and space are those of the sweep's configuration."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The configuration of Ray's next trial."""
        if not self.state["waiting"]:
            asked = self.study.ask()
            fields = draw(self.sweep.space, lambda dimension: _suggested(asked, dimension))
            self.state["results"][str(asked.number)] = []
            self.state["waiting"] = [
                asdict(Trial(phase="search", number=asked.number, seed=seed, fields=fields))
                for seed in self.sweep.seeds
            ]
        trial: Fields = self.state["waiting"].pop(0)
        self.state["of"][trial_id] = trial["number"]
        return {"trial": trial}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Returns the means to the study when the last of a configuration's seeds has ended."""
        number = self.state["of"].pop(trial_id, None)
        if number is None:
            return  # suggested after Ray last stored the search, so this search does not know it
        values = [(result or {}).get(objective) for objective in self.sweep.objectives]
        complete = (result or {}).get("finished") and None not in values
        results = self.state["results"][str(number)]
        results.append(values if complete else None)
        if len(results) < len(self.sweep.seeds):
            return
        del self.state["results"][str(number)]
        if None in results:
            # Stopped or failed: it has no final numbers to compare with the others'.
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, [statistics.fmean(column) for column in zip(*results, strict=True)])

    def save(self, checkpoint_path: str) -> None:
        """Writes what is not in the study's file."""
        Path(checkpoint_path).write_text(json.dumps(self.state))

    def restore(self, checkpoint_path: str) -> None:
        """Reads what `save` wrote."""
        self.state = json.loads(Path(checkpoint_path).read_text())


def _suggested(asked: optuna.Trial, dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        # Optuna takes texts as categories, but no lists.
        texts = [json.dumps(value) for value in dimension.values]
        return json.loads(asked.suggest_categorical(dimension.field, texts))
    low, high = dimension.values
    if dimension.kind == "randint":
        return asked.suggest_int(dimension.field, low, high)
    return asked.suggest_float(dimension.field, low, high, log=dimension.kind == "loguniform")
