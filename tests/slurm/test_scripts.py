"""--dry-run of the batch scripts, which reports what is missing before anything is submitted."""

import pytest
from batch_jobs import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(200)]


def queued(cluster: Cluster) -> list[str]:
    return cluster.scheduler.command("squeue", "--noheader", "--format=%i").split()


def test_a_dry_run_of_training_prints_its_cost_and_submits_nothing(cluster: Cluster):
    done = cluster.script("train_celeba.sh", "--dry-run", "--stage1.max_epochs=3", "--name=planned")
    assert done.returncode == 0, done.stderr
    assert "stage 1 720, stage 2 1,200" in done.stdout
    assert "time     at most" in done.stdout
    assert "GB of checkpoints" in done.stdout
    assert "to start at" in done.stderr  # the scheduler's own answer
    assert queued(cluster) == []
    assert not (cluster.runs / "planned").exists()


@pytest.mark.parametrize(
    ("script", "words", "variables", "message"),
    [
        ("train_celeba.sh", [], {"SHARDS": "/nowhere"}, "/nowhere: no manifest.json there"),
        ("train_celeba.sh", ["--data.train_split=training"], {}, "has no split 'training'"),
        ("train_celeba.sh", [], {"SBATCH_PARTITION": "gold"}, "invalid partition specified: gold"),
        ("train_celeba.sh", [], {"PYTHON": "/usr/bin/false"}, "PYTHON: '/usr/bin/false' cannot import the project"),
        ("build_shards.sh", [], {"SOURCE": "/nowhere"}, "no folder /nowhere"),
        ("fit_mixture.sh", [], {"RUN": "/nowhere"}, "/nowhere holds no config.yaml"),
        ("eval_fid.sh", [], {"RUN": "/nowhere"}, "/nowhere holds no config.yaml"),
        # Neither components nor a number is given where the source has none.
        ("eval_fid.sh", ["--from", "prior"], {"RUN": "/nowhere"}, "/nowhere holds no config.yaml"),
        ("eval_fid.sh", ["--from=half"], {"RUN": "/nowhere"}, "/nowhere holds no config.yaml"),
        ("tune.sh", [], {"SWEEP": "/nowhere.yaml"}, "/nowhere.yaml is not a file"),
        ("tune.sh", [], {"RAY_WAIT": "5m"}, "RAY_WAIT is '5m'; give a whole number of seconds"),
        ("tune.sh", [], {"SAVE_WAIT": "0"}, "SAVE_WAIT is '0'; give a whole number of seconds"),
        ("tune.sh", [], {"RAY_FOLDER": "ray"}, "RAY_FOLDER is 'ray'; give a path of at most 40 letters"),
        ("tune.sh", [], {"SLURM_JOB_ID": "999999"}, "the scheduler does not know job 999999 (SLURM_JOB_ID)"),
        ("build_shards.sh", [], {"PARTS": "08"}, "PARTS is '08'; give a whole number from 1, without leading zeros"),
        ("submit.sh", [], {}, "name one of the scripts of slurm/"),
        ("reproduce_celeba.sh", [], {"SOURCE": "/nowhere"}, "no folder /nowhere"),
    ],
)
def test_a_dry_run_names_what_is_missing(cluster: Cluster, script, words, variables, message):
    done = cluster.script(script, "--dry-run", *words, **variables)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert queued(cluster) == []


def test_a_dry_run_of_the_shards_estimates_time_and_disk(cluster: Cluster):
    done = cluster.script("build_shards.sh", "--dry-run", SHARDS=cluster.folder / "unbuilt")
    assert done.returncode == 0, done.stderr
    assert "images   train 240, valid 30, test 30" in done.stderr
    assert "GB are free" in done.stderr
    assert not (cluster.folder / "unbuilt").exists()


def test_python_is_started_through_the_container_command(cluster: Cluster):
    done = cluster.script("train_celeba.sh", "--dry-run", CONTAINER="env -u HOME")
    assert done.returncode == 0, done.stderr
    assert "shards" in done.stdout
