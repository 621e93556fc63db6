"""Fixtures that the tests of sweeps share."""

import shutil
from pathlib import Path

import pytest

from tune.search.trials import Trial
from tune.trial.folder import save_trial


@pytest.fixture(scope="session")
def trial() -> Trial:
    """A trial of a sweep."""
    return Trial(phase="search", number=3, seed=1, fields={"model.latent_dim": 2})


@pytest.fixture(scope="session")
def trial_folder(tmp_path_factory, digits_run, trial) -> Path:
    """The run on the digits as if a sweep had trained it as `trial`. Tests that write into it copy it first."""
    folder = tmp_path_factory.mktemp("trials") / trial.name
    shutil.copytree(digits_run, folder)
    save_trial(folder, trial)
    return folder
