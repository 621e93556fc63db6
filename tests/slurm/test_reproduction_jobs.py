"""slurm/reproduce_celeba.sh: from images in CelebA's form to a report and the tables, in one chain of jobs."""

import re

import pytest
import yaml
from batch_jobs import FIELDS, Cluster
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
