"""slurm/reproduce_celeba.sh: from images in CelebA's form to a report and the tables, in one chain of jobs."""

import re

import pytest
import yaml
from batch_jobs import FIELDS, Cluster, events
from scheduler import wait_for
from support.running import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture
def plan(cluster: Cluster, tmp_path):
    """CelebA's own plan with one method, one epoch a stage and the small model, on shards that are not there yet."""
    content = yaml.safe_load((ROOT / "eval/paper/plans/celeba.yaml").read_text())
    shrunk = {name: yaml.safe_load(str(value)) for name, value in FIELDS.items() if "epochs" not in name}
    content |= {
        "config": "trainer/configs/celeba_small.yaml",
        "shards": str(tmp_path / "shards"),
        "fields": content["fields"] | shrunk | {"data.global_batch": 40},
        "budget": {"stage1_epochs": 1, "stage2_epochs": 1},
        "seeds": [0],
        "methods": {name: content["methods"][name] for name in ("ours", "VAE")},
        "components": {"numbers": [3], "seeds": [0]},
        "measure": content["measure"]
        | {"mixture": {"components": 2}, "distance_images": 30, "likelihood_images": 10, "importance_samples": 2}
        | {"memorisation_images": 10},
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_one_command_makes_the_report_and_the_tables(cluster: Cluster, plan, tmp_path):
    runs = tmp_path / "runs"
    chosen = FIELDS | {"name": "chained", "stage1.max_epochs": 1, "stage2.max_epochs": 1}
    variables = {
        "SHARDS": tmp_path / "shards",
        "RUNS": runs,
        "RUN": runs / "chained",
        "PLAN": plan,
        "COMPONENTS": 2,
        "SAMPLES": 64,
        "IMAGES": 20,
        "PARTS": 2,
        "SHARES": 2,
        "DEVICE": "cpu",
    }
    done = cluster.script("reproduce_celeba.sh", *(f"--{name}={value}" for name, value in chosen.items()), **variables)
    assert done.returncode == 0, done.stderr
    assert "2 trainings" in done.stdout
    submitted = dict(re.findall(r"(shards|report|tables|pages) (\d+)", done.stdout))
    cluster.finish(submitted["shards"])
    cluster.finish(submitted["pages"])
    cluster.finish(submitted["report"])
    assert (runs / "chained" / "report.html").stat().st_size > 10_000
    table = (runs / "reproduction" / "celeba" / "pages" / "table3.md").read_text()
    assert "ours" in table
    assert "VAE" in table


@pytest.mark.parametrize("signal", ["USR2", "TERM"])
def test_a_share_that_is_out_of_time_or_cancelled_saves_its_training(cluster: Cluster, plan, tmp_path, signal):
    content = yaml.safe_load(plan.read_text())
    content |= {"shards": str(cluster.shards), "budget": {"stage1_epochs": 1, "stage2_epochs": 10000}}
    content["fields"]["data.global_batch"] = 8
    plan.write_text(yaml.safe_dump(content))
    variables = {"RUNS": tmp_path / "runs", "PLAN": plan, "SHARES": 1, "STEP": "share", "DEVICE": "cpu"}
    job = cluster.submit(["--array=0-0", "--cpus-per-task=1", "--time=30"], "reproduce_celeba.sh", **variables)
    folder = tmp_path / "runs" / "reproduction" / "celeba"
    log = next(iter(wait_for(lambda: list(folder.glob("**/metrics.jsonl")), "a training starts", 200)))
    run = log.parent
    wait_for(lambda: events(run, "train"), "the training trains", 200)
    words = ["--batch", "--signal=USR2"] if signal == "USR2" else []
    cluster.scheduler.command("scancel", *words, job)
    wait_for(lambda: events(run, "stop"), "the training saves", 60)
    text = "out of time; back into the queue" if signal == "USR2" else "ended by SIGTERM; submitted again, it continues"
    wait_for(lambda: text in "".join(path.read_text() for path in cluster.folder.glob("reproduce-*.log")), text, 60)
    if signal == "USR2":
        cluster.scheduler.command("scancel", job)
