"""A whole sweep through Ray, as the command runs it: one trial is finished, one stopped by ASHA, one impossible."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import ROOT
from support.sweep_cases import write_sweep

from trainer.config.config import load_config
from tune.sweep_config import read_sweep
from tune.trial.folder import trial_folders
from tune.trial.record import TrialRecord, trial_record

# Starting Ray and three trials takes minutes on a busy machine; a free core needs a fraction of this.
pytestmark = pytest.mark.timeout(1800)


def sweep_command(path: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tune", "--config", str(path), *words]


def environment() -> dict[str, str]:
    # Ray starts its workers with a low priority; beside other tests they would wait for minutes.
    ray = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    return {**os.environ, **ray, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run_tune(path: Path, *words: str, timeout: float = 1600) -> subprocess.CompletedProcess:
    return subprocess.run(
        sweep_command(path, *words),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def by_name(path: Path) -> dict[str, TrialRecord]:
    sweep = read_sweep(path)
    return {folder.name: trial_record(folder, sweep.measure) for folder in trial_folders(sweep.trials_folder)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, digits_shards) -> tuple[Path, subprocess.CompletedProcess]:
    """The sweep's file and its finished command. The trials run one after another, so that ASHA's cut is known."""
    path = write_sweep(
        tmp_path_factory.mktemp("swept"),
        digits_shards,
        fields={"stage2.max_epochs": 3},
        # Good; hardly learning at all; and 12 channels, which group norm cannot cut into groups of 8.
        space={
            "optimiser.learning_rate": {"choice": [0.005, 1e-8]},
            "model.norm": {"choice": ["none", "group"], "when": {"optimiser.learning_rate": 1e-8}},
            "model.encoder_channels": {"choice": [[8], [12]], "when": {"optimiser.learning_rate": 1e-8}},
        },
        stopping={"scheduler": "asha", "first_percent": 4, "min_images": 0},
        keep_weights=1,
        measure={"images": 60, "mixture": 2, "likelihood_images": 10, "likelihood_samples": 2},
        objectives=["fd"],
    )
    return path, run_tune(path, "--export-best", str(path.parent / "best.yaml"))


def test_a_sweep_finishes_good_trials_stops_unpromising_ones_and_continues_past_impossible_ones(swept):
    path, done = swept
    assert done.returncode == 0, done.stderr
    good, *unpromising, impossible = by_name(path).values()
    assert good.status == "finished"
    assert [one.status for one in unpromising] == ["stopped"] * 3
    assert all(one.reason.startswith("asha, at the rung of ") for one in unpromising)
    assert impossible.status == "failed"
    assert "does not suit group norm; use multiples of 8" in impossible.reason


def test_an_unpromising_trial_is_stopped_early_in_stage_1(swept):
    path, _ = swept
    stopped = [record for record in by_name(path).values() if record.status == "stopped"]
    assert all(record.stage == 1 and record.images <= 0.2 * read_sweep(path).longest_images() for record in stopped)


def test_only_the_best_configurations_keep_their_checkpoints_and_records_lose_nothing_by_it(swept):
    path, done = swept
    good, *others = by_name(path).values()
    with_weights = [
        one.parent.parent.parent.name for one in read_sweep(path).folder.glob("trials/*/checkpoints/*/COMPLETE")
    ]
    assert set(with_weights) == {good.trial}
    assert (
        "checkpoints were deleted, of trials that are not among the 1 best configurations (keep_weights)" in done.stderr
    )
    assert all(one.parameters for one in others if one.images > 300)


def test_a_finished_trial_has_distances_of_reconstructions_and_of_both_stages_and_likelihoods(swept):
    (good,) = [record for record in by_name(swept[0]).values() if record.status == "finished"]
    assert all(
        getattr(good, name) > 0 for name in ("fd_reconstruction", "fd_stage1", "fd_final", "seconds", "parameters")
    )
    assert all(isinstance(getattr(good, name), float) for name in ("iwae_stage1", "iwae_final"))
    assert (good.retries, good.stage1.reason, good.stage2.reason) == (0, "cap", "cap")


def test_the_terminal_shows_trials_done_running_stopped_failed_the_best_and_the_report(swept):
    path, done = swept
    last = [line for line in done.stderr.splitlines() if line.startswith("search  ")][-1]
    assert "5 of 5 trials" in last
    assert "stopped 3  failed 1" in last
    assert "best ELBO" in last
    assert f"report: {read_sweep(path).folder / 'sweep.html'}" in done.stdout


def test_the_best_configuration_is_exported_with_what_was_drawn_for_it(swept):
    path, _ = swept
    best = load_config(path.parent / "best.yaml")
    assert (best.name, best.optimiser.learning_rate) == ("best-of-sweep", 0.005)


def test_the_same_command_again_trains_nothing(swept):
    path, _ = swept
    before = by_name(path)
    done = run_tune(path)
    assert done.returncode == 0, done.stderr
    assert by_name(path) == before
    assert "search  " not in done.stderr


def test_a_sweep_with_another_field_that_trials_learn_by_is_refused_with_what_changed(swept):
    path, _ = swept
    path.with_name("changed.yaml").write_text(path.read_text().replace("model.hidden: 16", "model.hidden: 24"))
    done = run_tune(path.with_name("changed.yaml"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "the sweep was started with another fields.model.hidden" in done.stderr


def test_with_another_measure_what_is_trained_is_measured_again_and_nothing_trained(swept):
    path, _ = swept
    before = by_name(path)
    path.with_name("measured.yaml").write_text(path.read_text().replace("images: 60", "images: 70"))
    done = run_tune(path.with_name("measured.yaml"))
    assert done.returncode == 0, done.stderr
    assert "the sweep goes on with measure" in done.stderr
    after = by_name(path.with_name("measured.yaml"))
    good = next(name for name, record in before.items() if record.status == "finished")
    assert after[good].checks == before[good].checks
    assert after[good].fd_final != before[good].fd_final
    assert {name: record for name, record in after.items() if name != good} == {
        name: record for name, record in before.items() if name != good
    }
