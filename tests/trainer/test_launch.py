"""python -m trainer --launch slurm, up to the words that the batch script gets; tests/slurm submits them."""

import shutil
import subprocess

import pytest
from support.running import ROOT

from data_shards.io.errors import InputError
from trainer.__main__ import read_command_line
from trainer.launch import submit

CONFIG = str(ROOT / "trainer/configs/fashion_mnist.yaml")


def test_words_and_options_reach_the_job_one_by_one_and_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my config.yaml").write_text((ROOT / "trainer/configs/fashion_mnist.yaml").read_text())
    job = ["--launch=slurm", "--nodes=2", "--gpus-per-node=4", "--sbatch=--time=2-0", "--sbatch=--comment=a b; c"]
    launch = read_command_line([*job, "--config=my config.yaml", "--runs=my runs", "--name=x"]).launch
    assert launch is not None
    assert launch.options == ("--nodes=2", "--gpus-per-node=4", "--time=2-0", "--comment=a b; c")
    assert launch.words[0] == f"--config={tmp_path}/my config.yaml"
    assert f"--runs={tmp_path}/my runs" in launch.words
    assert f"--data.shards={tmp_path}/shards/fashion-mnist" in launch.words
    assert "--name=x" in launch.words


def test_the_words_in_the_job_make_the_configuration_that_was_asked_for(tmp_path, monkeypatch):
    words = [f"--config={CONFIG}", "--model.latent_dim=5", f"--runs={tmp_path}", "--data.shards=s3://bucket/shards"]
    launch = read_command_line(["--launch=slurm", *words]).launch
    assert launch is not None
    assert read_command_line(launch.words).config == read_command_line(words).config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--launch=slurm"], "launch: needs --config FILE, which says what is trained"),
        (["--launch=slurm", f"--config={CONFIG}", "--nodes=0"], "nodes: 0 is not a whole number of at least 1"),
        (
            ["--launch=slurm", f"--config={CONFIG}", "--dry-run", "--processes=2"],
            "processes: does not go with --launch",
        ),
        (["--dry-run", "--steal-lock"], "steal_lock: takes nothing over with --dry-run"),
        (["--nodes=2"], "--nodes=2: options of a batch job go with --launch slurm"),
        (["--sbatch=--mem=1G"], "--mem=1G: options of a batch job go with --launch slurm"),
        (["--launch=slurm", f"--config={CONFIG}", "--model.latent_dim=0"], "--model.latent_dim: 0 is not"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(words, message):
    with pytest.raises(InputError) as caught:
        read_command_line(words)
    assert str(caught.value).startswith(message)


def test_scripts_that_are_not_beside_the_package_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGMA_VAE_HOME", str(tmp_path))
    launch = read_command_line(["--launch=slurm", f"--config={CONFIG}"]).launch
    assert launch is not None
    with pytest.raises(InputError, match=r"slurm/submit.sh is not there; set SIGMA_VAE_HOME to the project's folder"):
        submit(launch, dry_run=False)


@pytest.mark.parametrize("words", [["train_celeba.sh"], ["train_celeba.sh", "--dry-run"]])
def test_without_a_scheduler_the_script_says_one_line(tmp_path, words):
    for program in ("bash", "basename", "dirname", "realpath", "date"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    command = [str(tmp_path / "bash"), str(ROOT / "slurm/submit.sh"), *words]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    expected = "error: slurm/submit.sh: sbatch is not installed here; call this on a node of a Slurm cluster\n"
    assert done.stderr == expected
