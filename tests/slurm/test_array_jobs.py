"""Arrays of jobs: shards and distances made in parts, and merged by a job that waits for them."""

import json
import re

import pytest
from batch_jobs import Cluster
from scheduler import wait_for
from support.running import run_module

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
SMALL_SHARDS = ["--size", "16", "--shard-images", "20"]


@pytest.fixture(scope="module")
def mixture_run(cluster: Cluster):
    """A short run whose mixture was fitted by slurm/fit_mixture.sh on two nodes."""
    job = cluster.train("measured", fields={"stage1.max_epochs": 2, "stage2.max_epochs": 1})
    run = cluster.runs / "measured"
    resources = ["--nodes=2", "--gpus-per-node=1", "--cpus-per-task=1", f"--dependency=afterok:{job}"]
    fit = cluster.submit(resources, "fit_mixture.sh", RUN=run, COMPONENTS=2, DEVICE="cpu")
    cluster.finish(job)
    cluster.finish(fit)
    return run


def test_shards_built_by_an_array_equal_those_built_at_once(cluster: Cluster):
    out = cluster.folder / "shards-of-an-array"
    done = cluster.script("build_shards.sh", *SMALL_SHARDS, SHARDS=out, PARTS=3)
    assert done.returncode == 0, done.stderr
    cluster.finish(done.stdout.split()[-1])
    made = {path.name: path.read_bytes() for path in out.glob("*") if path.suffix in (".tar", ".json")}
    expected = {path.name: path.read_bytes() for path in cluster.shards.glob("*") if path.suffix in (".tar", ".json")}
    assert len([name for name in made if name.endswith(".tar")]) == 16
    assert made == expected


def test_two_nodes_fit_the_mixture_of_one_process(cluster: Cluster, mixture_run, tmp_path):
    summary = json.loads((mixture_run / "mixtures" / "2-full" / "summary.json").read_text())
    assert summary["settings"]["n_components"] == 2
    parts = list((mixture_run / "latents" / "train").glob("part-*.safetensors"))
    assert len(parts) == 2


def test_a_killed_part_of_four_is_rerun_alone_and_the_merge_equals_one_job(cluster: Cluster, mixture_run):
    command = ["eval_fid.sh", "--n", "256"]
    variables = {"RUN": mixture_run, "COMPONENTS": 2, "DEVICE": "cpu", "PARTS": 4}
    first = cluster.script(*command, **variables)
    assert first.returncode == 0, first.stderr
    assert "parts to make: 0,1,2,3" in first.stderr
    merge = first.stdout.split()[-1]
    (array,) = re.findall(r"afterok:(\d+)", cluster.scheduler.facts(merge)["Dependency"])
    wait_for(lambda: cluster.scheduler.state(f"{array}_2") == "RUNNING", "part 2 runs", 200)
    cluster.scheduler.command("scancel", "--signal=KILL", f"{array}_2")
    cluster.scheduler.wait_until(merge, "CANCELLED", seconds=300)

    second = cluster.script(*command, **variables)
    assert "parts to make: 2\n" in second.stderr
    cluster.finish(second.stdout.split()[-1])
    (path,) = (mixture_run / "eval").glob("fid-*.json")
    merged = json.loads(path.read_text())["values"]

    path.unlink()
    done = run_module(
        "eval", "fid", "--run", str(mixture_run), "--from", "q_hat", "--mixture", "2", "--n", "256", timeout=300
    )
    assert done.returncode == 0, done.stderr
    at_once = json.loads(path.read_text())["values"]
    for name, number in at_once.items():
        assert merged[name]["value"] == pytest.approx(number["value"], rel=1e-9)
