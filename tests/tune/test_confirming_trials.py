"""The trials that confirm the best configuration, where the search has gone on since."""

import pytest
from support.sweep_cases import write_sweep

from tune import sweep as sweep_module
from tune.history import drawn_before, started_trials
from tune.search.trials import confirming_trials
from tune.sweep_config import read_sweep
from tune.trial.folder import TrialOutcome, save_outcome, save_trial


def test_another_best_configuration_is_trained_where_the_former_was_confirmed(tmp_path, digits_shards, monkeypatch):
    def start_ray(address):
        raise RuntimeError("it starts")

    monkeypatch.setattr(sweep_module, "start_ray", start_ray)
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, confirm_seeds=[1]))

    def run_phase(best):
        listed = confirming_trials(best, drawn_before(started_trials(sweep, "confirm")), sweep.confirm_seeds)
        return sweep_module._run_phase(sweep, "confirm", len(listed), listed, None)

    best, better = {"model.latent_dim": 2}, {"model.latent_dim": 4}
    for trial in confirming_trials(best, {}, sweep.confirm_seeds):
        save_trial(sweep.trials_folder / trial.name, trial)
        save_outcome(sweep.trials_folder / trial.name, TrialOutcome(status="finished"))
    assert run_phase(best)
    with pytest.raises(RuntimeError, match="it starts"):
        run_phase(better)
    (trial, _) = confirming_trials(better, drawn_before(started_trials(sweep, "confirm")), sweep.confirm_seeds)
    save_trial(sweep.trials_folder / trial.name, trial)
    with pytest.raises(RuntimeError, match="it starts"):
        run_phase(better)  # it has not ended
    save_outcome(sweep.trials_folder / trial.name, TrialOutcome(status="finished"))
    assert run_phase(better)
    assert run_phase(best)
