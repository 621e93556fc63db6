"""python -m trainer.mixture on the codes of a run folder."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_shards.io.errors import MachineFault
from trainer.mixture import GaussianMixture
from trainer.mixture.comparison_figure import draw_comparison
from trainer.mixture.cost import estimate_cost
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.mixture.summary import summary_line
from trainer.process_group import single
from trainer.run_folder import latents, tensor_folder
from trainer.run_folder.latents import Latents


def encode(run: Path, split: str, n: int, seed: int) -> None:
    """Codes on two blobs in 3-D with a posterior deviation of 0.3."""
    generator = torch.Generator().manual_seed(1000 + seed)
    mean = torch.randn(n, 3, generator=generator) + 4 * (torch.arange(n) % 2)[:, None]
    latents.write(run, split, Latents(mean, torch.full((n, 3), 0.3), torch.arange(n)))


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer.mixture", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "config.yaml").write_text("name: run\n")
    encode(tmp_path, "train", 1200, 0)
    encode(tmp_path, "valid", 400, 1)
    return tmp_path


def test_the_command_fits_several_sizes_and_returns_at_once_the_second_time(run):
    first = command("--run", str(run), "--components", "2", "4")
    assert first.returncode == 0, first.stderr
    summary = json.loads((run / "mixtures" / "2-full" / "summary.json").read_text())
    assert summary["held_out"]["source"] == "split valid"
    assert (run / "mixtures" / "comparison.png").stat().st_size > 0
    assert not (run / "mixtures" / "2-full" / "checkpoints").exists()
    stamp = (run / "mixtures" / "2-full" / "mixture.safetensors").stat().st_mtime_ns
    second = command("--run", str(run), "--components", "2")
    assert "already fitted with these settings" in second.stdout
    assert (run / "mixtures" / "2-full" / "mixture.safetensors").stat().st_mtime_ns == stamp


def test_the_summary_agrees_with_the_stored_mixture(run):
    settings = Settings(n_components=2)
    folder = fit_run_mixture(run, settings, ranks=single()).folder
    summary = json.loads((folder / "summary.json").read_text())
    mixture = GaussianMixture.load(folder)
    # Two equal blobs: the covariance of a code is 1 + 0.3^2 in each dimension.
    assert float(mixture.covariances_.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(1.09, abs=0.06)
    assert summary["effective_components"] == pytest.approx(2, abs=0.01)
    values = torch.linalg.eigvalsh(mixture.covariances_)
    assert summary["eigenvalues"]["smallest"] == pytest.approx(float(values.min()))
    assert summary["eigenvalues"]["largest"] == pytest.approx(float(values.max()))
    assert summary["train"]["points"] == 1200
    # log q of a draw from q averages to minus its entropy: log 2 + 3/2 log(2 pi e 1.09).
    assert summary["held_out"]["nats"] == pytest.approx(-5.08, abs=0.15)


def test_a_single_held_out_code_has_no_standard_error(run):
    encode(run, "valid", 1, 1)
    fitted = [fit_run_mixture(run, Settings(n_components=k), ranks=single()) for k in (1, 2)]
    for one in fitted:
        assert one.summary["held_out"]["standard_error"] is None
        assert one.summary["train"]["standard_error"] > 0
        assert "+-" not in summary_line(one.folder, one.summary).partition(" held out")[0]
    assert draw_comparison([one.folder for one in fitted]).stat().st_size > 0


def test_the_kl_to_the_prior_agrees_with_its_closed_form_for_one_component(run):
    folder = fit_run_mixture(run, Settings(n_components=1), ranks=single()).folder
    summary, mixture = json.loads((folder / "summary.json").read_text()), GaussianMixture.load(folder)
    mean, covariance = mixture.means_[0], mixture.covariances_[0]
    closed = 0.5 * (covariance.trace() + mean @ mean - 3 - torch.logdet(covariance))
    assert abs(summary["kl_to_prior"]["nats"] - float(closed)) < 4 * summary["kl_to_prior"]["standard_error"]


def test_codes_that_were_encoded_anew_are_fitted_anew(run):
    settings = Settings(n_components=2)
    first = fit_run_mixture(run, settings, ranks=single())
    assert not fit_run_mixture(run, settings, ranks=single()).is_new
    encode(run, "train", 1200, 5)
    second = fit_run_mixture(run, settings, ranks=single())
    assert second.is_new
    assert second.summary["train"] != first.summary["train"]


def test_another_mixture_to_start_from_is_another_fit(run):
    for seed in (0, 1):
        fit_run_mixture(run, Settings(n_components=2, random_state=seed, max_iter=1, annealing_iter=0), ranks=single())
        assert fit_run_mixture(run, Settings(n_components=4), start_from=2, ranks=single()).is_new
    assert not fit_run_mixture(run, Settings(n_components=4), start_from=2, ranks=single()).is_new


def test_a_damaged_summary_is_passed_over_and_named(run, capsys):
    folder = fit_run_mixture(run, Settings(n_components=2), ranks=single()).folder
    (folder / "summary.json").write_text("{")
    assert fit_run_mixture(run, Settings(n_components=2), ranks=single()).is_new
    assert f"warning: {folder / 'summary.json'} is damaged" in capsys.readouterr().err
    (folder / "summary.json").unlink()
    os.mkfifo(folder / "summary.json")
    assert fit_run_mixture(run, Settings(n_components=2), ranks=single()).is_new
    assert "is damaged (it is not a file)" in capsys.readouterr().err
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({name: summary[name] for name in summary if name != "bic"}))
    assert fit_run_mixture(run, Settings(n_components=2), ranks=single()).is_new


def test_without_a_validation_split_every_tenth_code_is_held_out(tmp_path):
    encode(tmp_path, "train", 1200, 0)
    folder = fit_run_mixture(tmp_path, Settings(n_components=2), form="mean", ranks=single()).folder
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["train"]["points"], summary["held_out"]["points"]) == (1080, 120)
    assert "every 10th image" in summary["held_out"]["source"]


def test_other_settings_fit_anew(run):
    folder = fit_run_mixture(run, Settings(n_components=2), ranks=single()).folder
    before = (folder / "mixture.safetensors").read_bytes()
    fit_run_mixture(run, Settings(n_components=2, reg_covar=0.5), ranks=single())
    assert (folder / "mixture.safetensors").read_bytes() != before


def test_a_fit_starts_from_a_smaller_one_of_the_run(run):
    fit_run_mixture(run, Settings(n_components=2), ranks=single())
    folder = fit_run_mixture(run, Settings(n_components=5), start_from=2, ranks=single()).folder
    assert len(GaussianMixture.load(folder).weights_) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--components", "many"), "error: argument --components: invalid int value: 'many'"),
        (("--components", "0"), "error: --components: 0 is not a whole number of at least 1"),
        (("--weights", "stage1"), "no codes of split 'train' are here; make the codes with: python -m eval encode"),
        (("--components", "9000"), "error: --components: 9000 components for 1200 points; use 1200 or fewer"),
        (("--components", "3", "--start-from", "2"), "no fitted mixture is here"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, words, message):
    done = command("--run", str(run), *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_dry_run_estimates_time_and_disk_and_fits_nothing(digits_run):
    done = command("--run", str(digits_run), "--components", "50", "70", "--device", "cuda", "--dry-run")
    assert done.returncode == 0, done.stderr
    # Codes of splits train and valid, in 2 dimensions.
    assert "codes    1,597 of 2 dimensions" in done.stdout
    assert "on 1 cuda processes at 15000 GFLOP/s each" in done.stdout
    assert "GB are free" in done.stdout
    assert not (digits_run / "mixtures" / "50-full").exists()


def test_a_dry_run_of_several_sizes_costs_their_sum(digits_run):
    two, four, both = (estimate_cost(digits_run, sizes) for sizes in ([2], [4], [2, 4]))
    encoding = 2 * two.operations - four.operations  # the cost of a fit is proportional to its components
    assert both.operations == pytest.approx(two.operations + four.operations - encoding)
    assert both.disk == pytest.approx(two.disk + 2 * (four.disk - two.disk))


def test_a_former_mixture_keeps_its_summary_where_the_new_one_cannot_be_written(run, monkeypatch):
    former = fit_run_mixture(run, Settings(n_components=2), ranks=single())
    before = {path.name: path.read_bytes() for path in former.folder.iterdir()}

    def full(tensors):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_folder, "save", full)
    with pytest.raises(MachineFault, match="the disk is full"):
        fit_run_mixture(run, Settings(n_components=2, reg_covar=1e-3), ranks=single())
    assert {path.name: path.read_bytes() for path in former.folder.iterdir() if path.is_file()} == before
    assert not fit_run_mixture(run, Settings(n_components=2), ranks=single()).is_new


def test_a_mixture_put_beside_the_summary_of_another_fit_is_fitted_again(run, capsys):
    other = fit_run_mixture(run, Settings(n_components=2, random_state=1), ranks=single()).folder
    files = {path: path.read_bytes() for path in other.glob("mixture.*")}
    folder = fit_run_mixture(run, Settings(n_components=2), ranks=single()).folder
    assert folder == other
    for path, content in files.items():
        path.write_bytes(content)
    assert fit_run_mixture(run, Settings(n_components=2), ranks=single()).is_new
    assert "mixture.json is of another fit than summary.json" in capsys.readouterr().err
    assert not fit_run_mixture(run, Settings(n_components=2), ranks=single()).is_new


def test_a_damaged_mixture_is_not_taken_for_a_finished_fit(run):
    first = command("--run", str(run), "--components", "2")
    tensors = run / "mixtures" / "2-full" / "mixture.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:200])
    second = command("--run", str(run), "--components", "2")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "already fitted" not in second.stdout
    assert "the fitted mixture is damaged" in second.stderr
    assert tensors.read_bytes() == whole
