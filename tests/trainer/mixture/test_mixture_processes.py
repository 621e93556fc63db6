"""The fit on several real processes, and a fit that is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mixture_worker import CONVERGED, FITS, KEPT
from safetensors import safe_open
from support.mixture_cases import draws, fitted, known_mixture
from support.running import free_port

from trainer.mixture import GaussianMixture
from trainer.mixture.content import digest_of_points
from trainer.mixture.kmeans import KMeansCheckpoint, kmeans
from trainer.mixture.points import Points
from trainer.process_group import single
from trainer.run_folder import latents

HERE = Path(__file__).parent
PYTHONPATH = os.pathsep.join(map(str, (HERE, HERE.parents[1], HERE.parents[2])))


def torchrun(processes: int, *words: str) -> None:
    """Runs a script of this folder on `processes` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *words]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """A folder of fits for each number of processes."""
    folder = tmp_path_factory.mktemp("fits")
    for processes in (1, 2, 3):
        torchrun(processes, str(HERE / "mixture_worker.py"), str(folder / str(processes)))
    return folder


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", CONVERGED)
def test_several_processes_converge_after_as_many_iterations_as_one(fits, name, processes):
    one, several = GaussianMixture.load(fits / "1" / name), GaussianMixture.load(fits / str(processes) / name)
    assert one.converged_
    assert several.converged_
    assert several.n_iter_ == one.n_iter_ < 100
    assert several.inflation_ == one.inflation_
    assert several.prior_strength_ == pytest.approx(one.prior_strength_, rel=1e-2)
    assert several.history_[-1]["held_out"] == pytest.approx(one.history_[-1]["held_out"], abs=1e-4)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", FITS)
def test_several_processes_give_the_parameters_of_one(fits, name, processes):
    one, several = GaussianMixture.load(fits / "1" / name), GaussianMixture.load(fits / str(processes) / name)
    assert several.n_iter_ == one.n_iter_
    assert several.prior_strength_ == pytest.approx(one.prior_strength_, rel=1e-9)
    for attribute in ("weights_", "means_", "covariances_"):
        torch.testing.assert_close(getattr(several, attribute), getattr(one, attribute), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("processes", [2, 3])
def test_a_fit_goes_on_from_the_checkpoint_of_another_number_of_processes(fits, tmp_path, processes):
    shutil.copytree(fits / str(processes) / "checkpoint", tmp_path / "checkpoint")
    x = draws(known_mixture("full", k=12, dim=4, spread=2.0), 901)
    seen: list[int] = []
    after = lambda state: seen.append(state.iteration)  # noqa: E731
    resumed = fitted(x, 12, checkpoint=tmp_path / "checkpoint", after=after, **KEPT)
    assert (seen, resumed.n_iter_) == ([], 6)
    torch.testing.assert_close(resumed.means_, fitted(x, 12, **KEPT).means_, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("processes", [2, 3])
def test_points_have_one_digest_however_they_are_spread_over_processes(fits, processes):
    assert (fits / str(processes) / "digest").read_text() == (fits / "1" / "digest").read_text()


def test_the_digest_of_points_changes_with_each_number_and_with_their_order():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nearly = x.clone()
    nearly[7, 1] = torch.nextafter(nearly[7, 1], torch.tensor(9.0, dtype=torch.float64))
    found = {
        digest_of_points(points, single())
        for points in (Points(x), Points(nearly), Points(x.flip(0)), Points(x, x.square()), Points(x[:49]), Points(-x))
    }
    assert len(found) == 6


KILLED = """
import sys, time
from support.mixture_cases import draws, fitted, known_mixture
x = draws(known_mixture("full", k=20, dim=4, spread=2.0), 2000)
settings = {"max_iter": 24, "annealing_iter": 20, "annealing_start": 0.3, "candidates": 8}
hold = lambda state: time.sleep(600 if state.iteration >= 8 else 0)
fitted(x, 20, checkpoint=sys.argv[1], checkpoint_seconds=0, after=hold, **settings)
"""


def test_a_fit_killed_between_iterations_ends_bit_identical_to_one_that_was_not(tmp_path):
    folder = tmp_path / "checkpoints"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
    )
    while not any(int(f.parent.name) >= 5 for f in folder.glob("*/progress.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    x = draws(known_mixture("full", k=20, dim=4, spread=2.0), 2000)
    settings = {"max_iter": 24, "annealing_iter": 20, "annealing_start": 0.3, "candidates": 8}
    seen: list[int] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = fitted(x, 20, checkpoint=folder, after=lambda state: seen.append(state.iteration), **settings)
        whole = fitted(x, 20, **settings)
    finally:
        torch.set_num_threads(threads)
    assert seen[0] > 5
    assert resumed.n_iter_ == whole.n_iter_
    for name in ("weights_", "means_", "covariances_"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name))


SLOW_KMEANS = {"candidates": 0, "max_iter": 1, "annealing_iter": 0, "kmeans_iter": 400, "prior_strength": 16.0,
               "inflation": 1.0}  # fmt: skip


def uniform_points() -> torch.Tensor:
    """Points without clusters, in which k-means needs hundreds of iterations."""
    return torch.rand(60_000, 8, generator=torch.Generator().manual_seed(0))


KILLED_IN_KMEANS = """
import sys
from support.mixture_cases import fitted
from test_mixture_processes import SLOW_KMEANS, uniform_points
fitted(uniform_points(), 300, checkpoint=sys.argv[1], checkpoint_seconds=0, **SLOW_KMEANS)
"""


def test_a_fit_killed_in_k_means_ends_bit_identical_to_one_that_was_not(tmp_path):
    file = tmp_path / "checkpoints" / "k-means.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_IN_KMEANS, str(file.parent)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH},
    )
    while not file.exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with safe_open(str(file), "pt") as content:
        assert 1 <= int(content.metadata()["iteration"]) < 400
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = fitted(uniform_points(), 300, checkpoint=file.parent, **SLOW_KMEANS)
        whole = fitted(uniform_points(), 300, **SLOW_KMEANS)
    finally:
        torch.set_num_threads(threads)
    for name in ("weights_", "means_", "covariances_"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name))


def clusters(x: torch.Tensor, iterations: int, checkpoint: KMeansCheckpoint) -> torch.Tensor:
    """Centroids of 20 clusters."""
    generator = torch.Generator().manual_seed(0)
    settings = {"iterations": iterations, "init": "random", "generator": generator, "ranks": single()}
    return kmeans(x, 20, checkpoint=checkpoint, **settings)[0]


def test_k_means_continues_from_its_checkpoint_only_for_the_same_data(tmp_path):
    x = uniform_points()[:2000]
    first = clusters(x, 10, KMeansCheckpoint(tmp_path / "k", {"data": 1}, single(), 0))
    # All iterations are done, so that the stored centroids are the result whatever the points are.
    assert torch.equal(clusters(-x, 10, KMeansCheckpoint(tmp_path / "k", {"data": 1}, single(), 0)), first)
    assert not torch.equal(clusters(-x, 10, KMeansCheckpoint(tmp_path / "k", {"data": 2}, single(), 0)), first)


def test_k_means_continues_below_a_folder_whose_name_is_not_utf_8(tmp_path):
    x = uniform_points()[:2000]
    file = tmp_path / os.fsdecode(b"caf\xe9") / "k"
    first = clusters(x, 10, KMeansCheckpoint(file, {"data": 1}, single(), 0))
    assert torch.equal(clusters(-x, 10, KMeansCheckpoint(file, {"data": 1}, single(), 0)), first)


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path):
    x = draws(known_mixture("full", k=20), 900)
    fitted(x, 20, max_iter=4, candidates=8, checkpoint=tmp_path / "c", checkpoint_seconds=0)
    seen: list[int] = []
    after = lambda state: seen.append(state.iteration)  # noqa: E731
    fitted(x, 20, max_iter=4, candidates=8, reg_covar=1e-3, checkpoint=tmp_path / "c", after=after)
    assert seen[0] == 1


@pytest.mark.parametrize("file", ["progress.json", "parameters.safetensors", "expectation-00000-of-00001.safetensors"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, capsys, file):
    x = draws(known_mixture("full", k=20), 900)
    fitted(x, 20, max_iter=4, candidates=8, checkpoint=tmp_path, checkpoint_seconds=0)
    newest = max(path for path in tmp_path.iterdir() if path.is_dir())
    (newest / file).write_bytes(b"\0" * 40)
    whole = fitted(x, 20, max_iter=4, candidates=8)
    again = fitted(x, 20, max_iter=4, candidates=8, checkpoint=tmp_path)
    assert torch.equal(again.means_, whole.means_)
    assert f"warning: {newest}: a damaged checkpoint is passed over" in capsys.readouterr().err


def test_a_part_of_another_checkpoint_is_named_and_computed_anew(tmp_path, capsys):
    x, settings = draws(known_mixture("full", k=20), 900), {"max_iter": 4, "candidates": 8}
    for name, more in (("own", {}), ("other", {"reg_covar": 1e-3})):
        fitted(x, 20, **settings | more, checkpoint=tmp_path / name, checkpoint_seconds=0)
    (own,), (foreign,) = (list(tmp_path.glob(f"{name}/*/expectation-*")) for name in ("own", "other"))
    shutil.copy(foreign, own)
    seen: list[int] = []
    again = fitted(x, 20, **settings, checkpoint=tmp_path / "own", after=lambda state: seen.append(state.iteration))
    assert f"warning: {own}: is of another checkpoint" in capsys.readouterr().err
    assert 1 not in seen  # the parameters were taken
    own.unlink()
    assert torch.equal(again.means_, fitted(x, 20, **settings, checkpoint=tmp_path / "own").means_)


def test_a_damaged_checkpoint_of_k_means_is_passed_over_and_named(tmp_path, capsys):
    x = uniform_points()[:2000]
    first = clusters(x, 3, KMeansCheckpoint(tmp_path / "k", {"data": 1}, single(), 0))
    (tmp_path / "k").write_bytes(b"torn")
    assert torch.equal(clusters(x, 3, KMeansCheckpoint(tmp_path / "k", {"data": 1}, single(), 0)), first)
    assert "a damaged checkpoint is passed over" in capsys.readouterr().err


def test_a_checkpoint_of_another_start_is_not_used(tmp_path):
    x = draws(known_mixture("full", k=20), 900)
    starts = [known_mixture("full", k=20, seed=seed).parameters_ for seed in (3, 4)]
    settings = {"max_iter": 4, "candidates": 8, "checkpoint_seconds": 0}
    fitted(x, 20, start=starts[0], checkpoint=tmp_path, **settings)
    seen: list[int] = []
    after = lambda state: seen.append(state.iteration)  # noqa: E731
    fitted(x, 20, start=starts[1], checkpoint=tmp_path, after=after, **settings)
    assert seen[0] == 1


def test_only_folders_of_checkpoints_are_removed_from_among_others(tmp_path):
    for name in ("backup", "00000001", "00000002.bak"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    fitted(
        draws(known_mixture("full", k=20), 900), 20, max_iter=3, candidates=8, checkpoint=tmp_path, checkpoint_seconds=0
    )
    assert all((tmp_path / name / "notes.txt").exists() for name in ("backup", "00000001", "00000002.bak"))


OF_OWN_FOLDERS = """
import sys
from pathlib import Path
from data_shards.io.errors import InputError
from trainer.group_command import group_command
from trainer.mixture.fitting import fit_mixture
from trainer.mixture.points import Points
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import process_group
import torch

def main():
    with process_group() as ranks:
        if sys.argv[1] == "settings":
            fit_mixture(Points(torch.randn(20, 2)), None, settings=Settings(n_components=2 + ranks.rank), ranks=ranks)
        else:
            fit_run_mixture(Path(sys.argv[1]) / str(ranks.rank), Settings(n_components=2), ranks=ranks)

sys.exit(group_command(main))
"""


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("train", "codes of split train differs between processes: "),
        pytest.param("valid", "codes of split valid differs between processes: none on rank 0", marks=pytest.mark.slow),
        pytest.param("settings", "n_components differs between processes: 2 on rank 0", marks=pytest.mark.slow),
    ],
)
def test_processes_that_see_other_codes_or_settings_end_in_one_line_that_names_their_ranks(tmp_path, other, message):
    for rank in range(2):
        run = tmp_path / str(rank)
        run.mkdir()
        mean = torch.randn(40, 2, generator=torch.Generator().manual_seed(rank if other == "train" else 0))
        latents.write(run, "train", latents.Latents(mean, torch.ones(40, 2), torch.arange(40)))
        if other == "valid" and rank == 1:
            latents.write(run, "valid", latents.Latents(mean, torch.ones(40, 2), torch.arange(40)))
    script = tmp_path / "fit.py"
    script.write_text(OF_OWN_FOLDERS)
    words = [str(script), "settings" if other == "settings" else str(tmp_path)]
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    environments = [
        os.environ | job | {"PYTHONPATH": PYTHONPATH, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)
    ]
    processes = [
        subprocess.Popen([sys.executable, *words], env=env, stderr=subprocess.PIPE, text=True) for env in environments
    ]
    told = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], told
    lines = "".join(told).splitlines()
    assert all(line.startswith("error: ") and message in line and "on rank 1 on" in line for line in lines), told
    assert lines
    assert not (tmp_path / "0" / "mixtures").exists()
