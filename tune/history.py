"""What earlier starts of a sweep have reached, read from the run folders of its trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.io.errors import InputError
from trainer.run_folder.log import read_events
from tune.search.optuna_search import TrialResult
from tune.search.stopping import AtRungs, budget, rungs
from tune.search.trials import Phase, Trial, number_of_configurations
from tune.space import Fields
from tune.sweep_config import OBJECTIVES, SweepConfig
from tune.trial.folder import TrialOutcome, load_outcome, load_trial, trial_folders
from tune.trial.record import trial_record


@dataclass(frozen=True, kw_only=True)
class Started:
    """A trial that was started, and how it ended."""

    folder: Path
    trial: Trial
    outcome: TrialOutcome

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do for it in this start."""
        return self.outcome.status != "unfinished"


def started_trials(sweep: SweepConfig, phase: Phase) -> list[Started]:
    """The trials of a phase that were started, by name."""
    found = []
    for folder in trial_folders(sweep.trials_folder):
        trial = load_trial(folder)
        if trial.phase == phase:
            found.append(Started(folder=folder, trial=trial, outcome=load_outcome(folder)))
    return found


def drawn_before(started: Sequence[Started]) -> dict[int, Fields]:
    """The configurations that were drawn, by number."""
    return {one.trial.number: one.trial.fields for one in started}


def search_has_ended(sweep: SweepConfig, started: Sequence[Started]) -> bool:
    """Whether every configuration of the search was drawn, and has ended with each seed. started: its trials."""
    known = drawn_before(started)
    ended = {(one.trial.number, one.trial.seed) for one in started if one.ended}
    everything = {(number, seed) for number in known for seed in sweep.seeds}
    return len(known) >= number_of_configurations(sweep, known) and everything <= ended


def at_rungs(sweep: SweepConfig, images: int, one: Started) -> list[tuple[float, float]]:
    """The (rung, ELBO) pairs that a trial reached; none where its configuration is impossible. images: of an epoch."""
    try:
        reached = AtRungs(
            budget=budget(sweep, images, one.trial.fields),
            rungs=rungs(sweep.stopping),
            min_images=sweep.stopping.min_images,
        )
    except InputError:
        return []
    events = read_events(one.folder)
    return [pair for event in events for pair in reached.event(event["event"], event["images"], event)]


def results(sweep: SweepConfig, images: int, started: Sequence[Started]) -> list[TrialResult]:
    """What the search learns from. images: of an epoch."""
    found = []
    for one in started:
        if one.outcome.status == "finished":
            record = trial_record(one.folder, sweep.measure)
            values = [getattr(record, OBJECTIVES[objective].field) for objective in sweep.objectives]
            whole = tuple(float(value) for value in values if value is not None)
            found.append(TrialResult(trial=one.trial, values=whole if len(whole) == len(values) else None))
        elif one.outcome.status == "stopped":
            reached = at_rungs(sweep, images, one)
            progress, elbo = reached[-1] if reached else (0.0, 0.0)
            found.append(TrialResult(trial=one.trial, progress=progress, elbo=elbo))
        else:
            found.append(TrialResult(trial=one.trial, ended=one.outcome.status == "failed"))
    return found
