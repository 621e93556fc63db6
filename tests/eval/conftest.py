"""Fixtures that tests of measurements share."""

import pytest

from data_shards.io.errors import command
from eval.__main__ import main


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """The user's cache, with reference statistics and downloaded files, is a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGMA_VAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run_eval(monkeypatch, capsys):
    """Runs `python -m eval WORDS` in this process; the exit code and what was printed."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["eval", *map(str, words)])
        code = command(main)
        return code, capsys.readouterr()

    return run
