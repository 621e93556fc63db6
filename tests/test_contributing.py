"""What CONTRIBUTING.md says about adding something is true: its examples are put into a copy of the project and run."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.running import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILES = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.DOTALL)
ENTRIES = re.findall(r"^In `(\S+)`, below `(.*?)`:\n\n```text\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the packages with the four files and the three entries."""
    folder = tmp_path_factory.mktemp("project")
    for package in ("data_shards", "trainer", "eval", "tune"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert (len(FILES), len(ENTRIES)) == (4, 3)
    for path, content in FILES:
        assert not (folder / path).exists()
        (folder / path).write_text(content)
    for path, above, entry in ENTRIES:
        lines = (folder / path).read_text().splitlines(keepends=True)
        (place,) = [number for number, line in enumerate(lines) if line.strip() == above]
        (folder / path).write_text("".join([*lines[: place + 1], entry, *lines[place + 1 :]]))
    return folder


def run_there(project, *words):
    """`python -m WORDS` with the copy's code."""
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_metric_is_a_file_and_a_sampler_a_file_and_an_entry(project, digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "run")
    words = ("--run", str(run), "--from", "narrow", "--n", "60", "--also", "means")
    assert "mean distance" in run_there(project, "eval", "fid", *words)
    (path,) = (run / "eval").glob("fid-narrow-*.json")
    value = json.loads(path.read_text())["values"]["mean_distance"]["value"]
    assert value > 0
    run_there(project, "eval", "report", "--run", str(run), "--make-nothing")
    page = (run / "report.html").read_text()
    assert "Means ↓" in page
    assert f"{value:,.2f}" in page


def test_sweeps_and_the_papers_tables_take_a_metric_from_its_file(project):
    show = (
        "from dataclasses import replace; from eval.paper.plan import read_plan; from eval.paper.tables import table2;"
        "from tune.sweep_config import MeasureConfig; plan = read_plan('fashion-mnist');"
        "measure = replace(plan.measure, also=MeasureConfig(also=('means',)).also);"
        "print(table2(replace(plan, measure=measure)).head)"
    )
    done = subprocess.run(
        [sys.executable, "-c", show],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Means ↓" in done.stdout


def test_a_source_is_a_file_and_an_entry(project, tmp_path):
    source = tmp_path / "arrays"
    source.mkdir()
    np.save(source / "train.npy", np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8))
    words = ("--source", str(source), "--out", str(tmp_path / "shards"), "--size", "16")
    assert "train 30" in run_there(project, "data_shards", "build", "arrays", *words)


def test_an_objective_is_a_file_and_an_entry(project, digits_shards, tmp_path):
    words = ["--data.shards", str(digits_shards), "--runs", str(tmp_path), "--name", "norm"]
    words += ["--objective.name", "norm_vae", "--model.hidden", "8", "--stage1.max_epochs", "0.1"]
    run_there(project, "trainer", *words)
    assert (tmp_path / "norm" / "checkpoints").is_dir()
