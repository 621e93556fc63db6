"""`python -m eval reproduce` from nothing to pages, and again."""

import base64
import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.evidence_cases import LABEL, likelihood
from support.running import ROOT, run_module

from data_shards.io.errors import command
from data_shards.manifest import Manifest
from eval.__main__ import main
from eval.paper.figures import picture_path
from eval.paper.jobs import jobs
from eval.paper.plan import configuration_hash, read_plan, resolved
from eval.paper.record import Record, read_kept, write_kept

# The first test waits for the whole plan.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory, digits_shards):
    """The tiny plan, run: the folder of its runs, and the finished command."""
    folder = tmp_path_factory.mktemp("reproduce")
    text = (ROOT / "tests/eval/paper/tiny_plan.yaml").read_text().replace("SHARDS", str(digits_shards))
    (folder / "plan.yaml").write_text(text)
    return folder, reproduce(folder, "all", "--processes", "2")


def reproduce(folder, target, *options):
    """The command on the tiny plan."""
    words = ["eval", "reproduce", target, "--dataset", "mnist", "--plan", str(folder / "plan.yaml")]
    words += [] if "--part" in options else ["--results", str(folder / "RESULTS.md")]
    words += ["--runs", str(folder / "runs"), *options]
    return run_module(*words, timeout=1500)


def test_a_job_that_fails_is_named_and_the_others_go_on(reproduced):
    folder, done = reproduced
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(
        "error: 1 of 3 jobs failed, the first: dip-vae-seed0: error: optimiser.learning_rate:"
    )
    assert "ours-seed0: done" in done.stdout
    assert "vae-seed0: done" in done.stdout
    assert (folder / "runs" / "dip-vae-seed0.log").exists()


def test_tables_hold_what_the_commands_measured(reproduced):
    folder, _ = reproduced
    rows = {row[0]: row for row in csv.reader(io.StringIO((folder / "runs/pages/table2.csv").read_text()))}
    written = json.loads((folder / "runs/vae-seed0/reproduction.json").read_text())
    value = written["results"]["fid q_hat 4-full-posterior final"]["values"]["frechet_distance"]["value"]
    assert rows["VAE"][1] == f"{value:,.1f} (1)"
    assert rows["VAE"][-1] == "74.9"
    assert rows["DIP-VAE"][1:4] == ["not measured"] * 3
    assert written["training"]["images"] == 3 * 1397
    assert written["commands"][0].startswith("python -m trainer --config ")


def test_variants_that_only_change_the_density_share_the_training(reproduced):
    folder, _ = reproduced
    results = json.loads((folder / "runs/ours-seed0/reproduction.json").read_text())["results"]
    best = results["fid q_hat best final"]["protocol"]["mixture"]
    assert best in ("1-full", "2-full")
    assert results["fid flow final"]["protocol"]["source"] == "flow"
    means = results["fid q_hat 4-full-mean final"]["protocol"]
    assert means["mixture_digest"] != results["fid q_hat 4-full-posterior final"]["protocol"]["mixture_digest"]
    assert means["checkpoint"] == results["fid flow final"]["protocol"]["checkpoint"]
    transported = results["fid transported 4-full-posterior final"]["protocol"]
    assert transported["mixture"] == "4-full"
    assert transported["mixture_digest"] != results["fid q_hat 4-full-posterior final"]["protocol"]["mixture_digest"]
    assert results["memorisation transported 4-full-posterior stage1"]["protocol"]["weights"] == "stage1"


def test_the_page_contains_everything_and_names_what_is_missing(reproduced):
    folder, _ = reproduced
    page = (folder / "runs/pages/index.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert "dip-vae-seed0: not measured; error: optimiser.learning_rate" in page
    results = (folder / "RESULTS.md").read_text()
    for key in ("### Table 2", "### Table 3", "### Figure 1", "### Figure 4", "### Beyond the paper"):
        assert key in results
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", results):
        Image.open(folder / picture).verify()
    assert "## CelebA\n\nNothing was measured: its images must be requested" in results


def test_the_same_command_again_trains_and_measures_nothing_but_what_failed(reproduced):
    folder, _ = reproduced
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*-seed0/reproduction.json")}
    done = reproduce(folder, "table3", "--part", "0/3")
    assert done.stdout == "1 jobs, 1 of them done before\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_dry_run_counts_only_what_is_not_done(reproduced):
    folder, _ = reproduced
    words = ["--plan", str(folder / "plan.yaml"), "--runs", str(folder / "runs"), "--dry-run"]
    done = run_module("eval", "reproduce", "all", "--dataset", "mnist", *words)
    assert done.returncode == 0, done.stderr
    first, jobs, images, *_ = done.stdout.splitlines()
    assert first == "3 jobs, 2 of them done before"
    assert jobs.split(maxsplit=1)[1] == "1 trainings, 4 measurements of them"
    assert images.split(maxsplit=1)[1] == f"{3 * 1397:,} in all trainings together"


def test_what_was_kept_is_enough_for_the_pages(reproduced, tmp_path):
    folder, _ = reproduced
    kept = folder / "runs" / "measured"
    assert set(read_kept(kept, "mnist")) == {"ours-seed0", "vae-seed0"}
    words = ["--plan", str(folder / "plan.yaml"), "--measured", str(kept), "--runs", str(tmp_path), "--pages-only"]
    done = run_module("eval", "reproduce", "table2", "--dataset", "mnist", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pages/table2.csv").read_text() == (folder / "runs/pages/table2.csv").read_text()


def test_another_data_sets_chapter_takes_nothing_from_the_run_folders_of_this_one(tmp_path, monkeypatch):
    other = read_plan("mnist", None)
    (job,) = [job for job in jobs(other, ["figure4"]) if job.pictures]
    shards = Path(other.shards)
    known = Record(
        configuration=configuration_hash(resolved(other, job.training)),
        data=Manifest.load(shards).hash if shards.exists() else "d",
        commit="1234",
        training={"images": 1},
        results={f"likelihood {LABEL} final": likelihood(-463, -464, cap=-449)},
    )
    write_kept(tmp_path / "measured", "mnist", {job.training.name: known})
    drawn = picture_path(tmp_path / "runs" / job.training.name, "figure4")
    drawn.parent.mkdir(parents=True)
    Image.new("L", (2, 2)).save(drawn)
    words = ["eval", "reproduce", "figure4", "--dataset", "fashion-mnist", "--pages-only"]
    words += ["--runs", str(tmp_path / "runs"), "--measured", str(tmp_path / "measured")]
    monkeypatch.setattr(sys, "argv", [*words, "--results", str(tmp_path / "RESULTS.md")])
    assert command(main) == 0
    assert "1 trainings" in (tmp_path / "RESULTS.md").read_text()
    assert "figure4.png" not in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--processes", "-1"], "--processes: -1 is not a whole number of at least 0"),
        (["--part", "0/2", "--pages-only"], "--part: goes with neither --address nor --pages-only"),
        (["--part", "2/2"], "--part: '2/2' is not a part"),
        (["--plan", "nowhere.yaml"], "--plan: nowhere.yaml is not a file"),
    ],
)
def test_mistakes_get_one_line(tmp_path, monkeypatch, capsys, options, said):
    words = ["eval", "reproduce", "table2", "--dataset", "mnist", "--runs", str(tmp_path), *options]
    monkeypatch.setattr(sys, "argv", words)
    assert command(main) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {said}")
    assert message.count("\n") == 1


def test_a_dry_run_estimates_every_job_and_starts_none(tmp_path, digits_shards, monkeypatch, capsys):
    text = (ROOT / "tests/eval/paper/tiny_plan.yaml").read_text().replace("SHARDS", str(digits_shards))
    (tmp_path / "plan.yaml").write_text(text)
    words = ["eval", "reproduce", "all", "--dataset", "mnist", "--plan", str(tmp_path / "plan.yaml"), "--dry-run"]
    monkeypatch.setattr(sys, "argv", [*words, "--runs", str(tmp_path / "runs"), "--processes", "4"])
    assert command(main) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["jobs"].startswith("3 trainings, ")
    assert rows["images"] == f"{3 * 3 * 1397:,} in all trainings together"
    assert "on 4 cpu processes" in rows["time"]
    assert not (tmp_path / "runs").exists()
