"""How jobs are submitted: from anywhere, with any of sbatch's options for GPUs, and what the first seconds say."""

import re
import shutil
import socket
import subprocess

import pytest
from batch_jobs import FIELDS, Cluster
from support.running import ROOT, run_module

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
# The trainer's own words, which say that the script has found both the project and Python.
STARTED = "/nowhere: no manifest.json there"


def ended(cluster: Cluster, job: str) -> str:
    """The log of a job that fails in its first seconds."""
    cluster.scheduler.wait_until(job, "FAILED", "COMPLETED", seconds=60)
    return cluster.log(job)


def sbatch(cluster: Cluster, script, *options: str, cwd, **variables) -> str:
    """Submits a script by any path from any folder, with shards that are not there, and returns the job's id."""
    env = {**cluster.scheduler.env, **cluster.script_env(SHARDS="/nowhere", **variables)}
    command = ["sbatch", "--parsable", f"--output={cluster.folder}/%x-%j.log", *options, str(script), "--seed", "3 4"]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def moved_project(tmp_path):
    """The project in a folder whose name has spaces; the packages are links, the scripts are copies."""
    project = tmp_path / "my project"
    project.mkdir()
    shutil.copytree(ROOT / "slurm", project / "slurm")
    for package in ("data_shards", "trainer", "eval", "tune"):
        (project / package).symlink_to(ROOT / package)
    return project


@pytest.mark.parametrize("how", ["absolute path", "relative path", "inside slurm", "link", "copy with SIGMA_VAE_HOME"])
def test_a_script_finds_its_project(cluster: Cluster, moved_project, tmp_path, how):
    script, other = moved_project / "slurm" / "train_celeba.sh", tmp_path / "other"
    other.mkdir()
    (other / "link.sh").symlink_to(script)
    shutil.copy(script, other / "copy.sh")
    if how == "absolute path":
        job = sbatch(cluster, script, cwd=other)
    elif how == "relative path":
        job = sbatch(cluster, "../my project/slurm/train_celeba.sh", cwd=other)
    elif how == "inside slurm":
        job = sbatch(cluster, "train_celeba.sh", cwd=script.parent)
    elif how == "link":
        job = sbatch(cluster, other / "link.sh", cwd=other)
    else:
        job = sbatch(cluster, other / "copy.sh", cwd=other, SIGMA_VAE_HOME=moved_project)
    log = ended(cluster, job)
    assert "seed: '3 4' is not" in log or STARTED in log, log
    assert "import" not in log


def test_a_copy_that_knows_no_project_says_what_to_set(cluster: Cluster, tmp_path):
    shutil.copy(ROOT / "slurm" / "train_celeba.sh", tmp_path / "copy.sh")
    log = ended(cluster, sbatch(cluster, tmp_path / "copy.sh", cwd=tmp_path))
    assert log == f"error: slurm/train_celeba.sh: the project is not in {tmp_path}; set SIGMA_VAE_HOME to its folder\n"


@pytest.mark.parametrize("script", ["train_celeba.sh", "fit_mixture.sh", "tune.sh"])
def test_a_job_called_without_sbatch_says_one_line_and_leaves_nothing(cluster: Cluster, script, tmp_path):
    done = cluster.script(script, RUNS=tmp_path / "runs", HOME=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: slurm/{script}: this is a batch job; submit it: slurm/submit.sh slurm/{script}, "
        f"or sbatch [OPTIONS] slurm/{script}\n"
    )
    assert list(tmp_path.iterdir()) == []


# (options of sbatch, GPUs of each node)
GPUS = [
    (["--gres=gpu:2"], 2),
    (["--gpus=3"], 3),
    (["-G", "3"], 3),
    (["--gpus-per-node=4"], 4),
    (["--gpus-per-task=2"], 2),
]


@pytest.mark.parametrize(("options", "gpus"), GPUS, ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_a_job_has_the_gpus_that_the_options_of_sbatch_ask_for(cluster: Cluster, options, gpus):
    # The scheduler's GPUs are empty files, and the line that says so names their number.
    job = cluster.submit(options, "train_celeba.sh", DEVICE="cuda", PROCESSES="")
    expected = rf"error: slurm/train_celeba.sh: node n\d: PyTorch sees 0 GPUs, and {gpus} are needed; .*\n"
    assert re.fullmatch(expected, ended(cluster, job))


@pytest.mark.parametrize(("options", "gpus"), GPUS, ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_a_dry_run_plans_the_resources_that_the_options_of_sbatch_ask_for(cluster: Cluster, options, gpus):
    words = ["slurm/train_celeba.sh", "--name=planned", "--dry-run"]
    done = cluster.script("submit.sh", *options, *words, DEVICE="", PROCESSES="")
    assert done.returncode == 0, done.stderr
    assert f" on {gpus} cuda processes" in done.stdout


def test_a_dry_run_on_two_nodes_plans_the_gpus_of_both(cluster: Cluster):
    for options, gpus in ((["--gpus=4"], 4), (["--gpus-per-node=3"], 6), (["--gres=gpu:1"], 2)):
        words = ["--nodes=2", *options, "slurm/train_celeba.sh", "--name=planned", "--dry-run"]
        done = cluster.script("submit.sh", *words, DEVICE="", PROCESSES="")
        assert f" on {gpus} cuda processes" in done.stdout, done.stderr


def test_eight_gpus_take_the_configuration_for_eight_unless_another_is_named_or_begun(cluster: Cluster, tmp_path):
    def planned(*options, **variables):
        words = ["--nodes=2", *options, "slurm/train_celeba.sh", "--dry-run"]
        variables = {"CONFIG": "", "RUNS": tmp_path} | variables
        done = cluster.script("submit.sh", *words, DEVICE="", PROCESSES="", **variables)
        assert done.returncode == 0, done.stderr
        assert ("celeba_8gpu.yaml, a batch of 800" in done.stderr) == (f"{tmp_path}/celeba-8gpu," in done.stdout)
        return f"{tmp_path}/celeba-8gpu," in done.stdout

    assert planned("--gpus-per-node=4")
    assert not planned("--gpus-per-node=3")
    assert not planned("--gpus-per-node=4", CONFIG="trainer/configs/celeba.yaml")
    (tmp_path / "celeba").mkdir()
    shutil.copy(ROOT / "trainer" / "configs" / "celeba.yaml", tmp_path / "celeba" / "config.yaml")
    assert not planned("--gpus-per-node=4")


def test_without_options_a_dry_run_plans_the_resources_of_the_file(cluster: Cluster):
    done = cluster.script("train_celeba.sh", "--name=planned", "--dry-run", DEVICE="", PROCESSES="")
    assert " on 1 cuda processes" in done.stdout
    done = cluster.script(
        "train_celeba.sh", "--name=planned", "--dry-run", DEVICE="", PROCESSES="", SBATCH_GRES="gpu:3"
    )
    assert " on 3 cuda processes" in done.stdout


def test_submit_passes_the_resources_of_the_file_unless_the_options_ask_for_others(cluster: Cluster):
    jobs = []
    for options in ([], ["--gres=gpu:3"]):
        words = ["--hold", *options, "train_celeba.sh", "--name", "two words"]
        jobs.append(cluster.script("submit.sh", *words).stdout.strip())
    asked = [cluster.scheduler.facts(job)["TresPerNode"] for job in jobs]
    cluster.scheduler.command("scancel", *jobs)
    assert asked == ["gres:gpu:1", "gres:gpu:3"]


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        (["--gres=gpu:1"], {"LAUNCH": "mpirun"}, "LAUNCH is 'mpirun'; use torchrun or srun"),
        ([], {"MAX_REQUEUES": "often"}, "MAX_REQUEUES is 'often'; give a whole number"),
        ([], {"MAX_REQUEUES": "08"}, "MAX_REQUEUES is '08'; give a whole number"),  # an octal number to bash
        ([], {"PROCESSES": "0"}, "PROCESSES is '0'; give the number of processes of each node"),
        ([], {"DEVICE": "cuda"}, "1 processes a node need as many GPUs, and the job has 0 a node; ask for --gpus"),
        (
            ["--gpus=3", "--nodes=2"],
            {"LAUNCH": "srun", "PROCESSES": ""},
            "and they have 1 to 2 GPUs; ask for them with",
        ),
        ([], {"MODULES": "cuda"}, "MODULES: this shell has no command 'module'"),
        ([], {"PYTHON": "/usr/bin/false"}, "PYTHON: '/usr/bin/false' cannot import the project"),
    ],
    ids=lambda part: " ".join(part) if not isinstance(part, str) else "",
)
def test_what_a_job_lacks_is_one_line_within_ten_seconds(cluster: Cluster, options, variables, message):
    job = cluster.submit(options, "train_celeba.sh", **variables)
    lines = [line for line in ended(cluster, job).splitlines() if "no GPU was asked for" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: slurm/train_celeba.sh: ")
    assert message in lines[0]
    hours, minutes, seconds = map(int, cluster.scheduler.facts(job)["RunTime"].split(":"))
    assert 3600 * hours + 60 * minutes + seconds <= 10


def test_a_node_that_does_not_see_the_project_is_named(cluster: Cluster):
    command = "SCRIPT=slurm/x; source slurm/lib.sh; SLURMD_NODENAME=n2; check_node /not/there cpu 1 python"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == (
        "node n2 does not see /not/there; project, shards and runs must lie on a disk that all nodes share\n"
    )


def test_an_activated_conda_environment_stands_in_for_the_projects_own(cluster: Cluster, moved_project, tmp_path):
    environment = tmp_path / "conda"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/bash\nexec {cluster.script_env()["PYTHON"]} "$@"\n')
    python.chmod(0o755)
    variables = {"PYTHON": "", "CONDA_PREFIX": environment}
    log = ended(cluster, sbatch(cluster, moved_project / "slurm/train_celeba.sh", cwd=tmp_path, **variables))
    assert "seed: '3 4' is not" in log or STARTED in log, log


def test_two_jobs_have_different_ports(cluster: Cluster):
    """Ten ports each, also where the ids are as far apart as the numbers repeat."""
    command = (
        "SCRIPT=slurm/x; source slurm/lib.sh; scontrol() { echo n1; }; node_address() { echo 127.0.0.1; };"
        "set_rendezvous; echo $MASTER_PORT"
    )

    def port(job: int) -> int:
        env = {**cluster.scheduler.env, "SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": "n1"}
        return int(subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, check=True).stdout)

    ports = [port(job) for job in range(100, 106)]
    assert sorted(ports) == list(range(min(ports), min(ports) + 60, 10))
    with socket.create_server(("127.0.0.1", ports[0] + 1)):
        assert port(100 + 1200) not in ports[:1]


def test_the_scheduler_can_be_asked_before(cluster: Cluster):
    done = cluster.script("submit.sh", "--gres=gpu:9", "train_celeba.sh", "--dry-run")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the scheduler would not accept this: " in done.stderr


def test_python_submits_the_same_script(cluster: Cluster, tmp_path):
    env = {**cluster.scheduler.env, "SBATCH_OUTPUT": f"{cluster.folder}/%x-%j.log", "DEVICE": "cpu"}
    fields = [f"--{key}={value}" for key, value in (FIELDS | {"stage1.max_epochs": 1, "stage2.max_epochs": 1}).items()]
    config = tmp_path / "my config.yaml"
    config.write_text((ROOT / "trainer/configs/celeba_small.yaml").read_text())
    words = ["--launch=slurm", "--nodes=2", "--sbatch=--time=20", "--sbatch=--cpus-per-task=1", f"--config={config}"]
    words += [f"--data.shards={cluster.shards}", f"--runs={cluster.runs}", "--name=launched", *fields]
    done = run_module("trainer", *words, env=env)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    facts = cluster.scheduler.facts(job)
    assert facts["NumNodes"] in ("2", "2-2")  # a range while the job waits
    assert facts["TimeLimit"] == "00:20:00"
    cluster.finish(job)
    assert (cluster.runs / "launched" / "config.yaml").exists()
