"""The configuration of a sweep, and the rungs that follow from it."""

from pathlib import Path

import pytest
import yaml
from support.running import ROOT, run_module
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError
from data_shards.manifest import Manifest
from trainer.config.config import load_config
from tune.search.trials import random_fields
from tune.sweep_config import read_sweep

# The fields that a sweep has to be able to change: width, depth, latent size, norm, variance update, floor, and the
# eps, patience and cap of both stages.
COVERED = {
    "model.encoder_channels",
    "model.latent_dim",
    "model.norm",
    "variance.update",
    "variance.floor",
    *(f"stage{stage}.{name}" for stage in (1, 2) for name in ("eps", "patience", "max_epochs")),
}


@pytest.mark.parametrize("name", ["fashion_mnist", "celeba"])
def test_the_projects_own_sweeps_cover_architecture_and_thresholds_with_configurations_that_the_trainer_takes(name):
    sweep = read_sweep(ROOT / "tune" / "configs" / f"{name}.yaml")
    assert {dimension.field for dimension in sweep.space} >= COVERED
    for index in range(12):
        fields = random_fields(sweep.space, 1, index)
        made = sweep.trainer_config("one", 5, fields)
        assert (made.seed, made.model.latent_dim) == (5, fields["model.latent_dim"])
        assert list(made.model.encoder_channels) == fields["model.encoder_channels"]


def test_a_trial_has_the_bases_fields_then_the_sweeps_then_what_was_drawn(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards, fields={"model.hidden": 24, "data.cache_dir": "copies"})
    (tmp_path / "base.yaml").write_text("name: base\nmodel: {hidden: 32, kernel: 5}\ndata: {shards: elsewhere}\n")
    made = read_sweep(path).trainer_config("one", 0, {"model.latent_dim": 4})
    assert (made.model.kernel, made.model.hidden, made.model.latent_dim) == (5, 24, 4)
    assert Path(made.data.shards) == digits_shards.resolve()
    assert Path(made.data.cache_dir) == Path("copies").resolve()


def test_a_base_survives_the_way_through_the_sweep_with_every_field(tmp_path, digits_shards):
    base = ROOT / "trainer" / "configs" / "celeba.yaml"
    shards = {"data.shards": str(digits_shards)}
    path = write_sweep(tmp_path, digits_shards)
    path.write_text(path.read_text().replace(str(tmp_path / "base.yaml"), str(base)))
    content = path.read_text().split("fields:")[0] + path.read_text()[path.read_text().index("space:") :]
    path.write_text(content + f"fields: {{data.shards: {digits_shards}}}\n")
    made = read_sweep(path).trainer_config("celeba", 0, {})
    expected = load_config(base, {**shards, "runs": str(tmp_path / "runs" / "sweep" / "trials")})
    assert made == expected


def test_no_rung_lies_before_the_latest_possible_switch_of_any_trial_and_its_grace(tmp_path, digits_shards):
    path = write_sweep(
        tmp_path,
        digits_shards,
        space={"stage1.max_epochs": {"choice": [1, 3]}, "stage2.max_epochs": {"choice": [2, 9]}},
        asha={"grace_images": 200, "reduction_factor": 2},
    )
    images = Manifest.load(str(digits_shards)).num_samples("train")
    found = read_sweep(path).rungs()
    assert found[0] >= 3 * images + 200
    assert found[1] == 2 * found[0]
    assert found[-1] <= 12 * images + 2 * 50


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search": "genetic"}, "search: 'genetic' is not one of grid, random, optuna"),
        ({"wokers": 2}, "wokers: is not a field; use workers"),
        ({"workers": 0}, "workers: 0 is not a whole number of at least 1"),
        ({"asha": {"reduction_factor": 1}}, "asha.reduction_factor: 1 is not a number above 1"),
        ({"measure": {"images": 1}}, "measure.images: 1 is too few for a distance"),
        ({"measure": {"images": 100, "also": ["kernl"]}}, "measure.also: 'kernl' is unknown; use some of infinite"),
        ({"measure": {"images": 0, "also": ["kernel"]}}, "measure.images: further measures need images"),
        ({"objectives": ["fd"]}, "measure.images: 0 measures no distance, which objective fd needs"),
        ({"objectives": ["cost"]}, "objectives: cost alone measures no quality"),
        ({"space": {"model.latent_dims": {"choice": [2]}}}, "space.model.latent_dims: .* no such field"),
        ({"space": {"seed": {"choice": [2]}}}, "space.seed: the sweep sets it itself"),
        ({"fields": {"model.latent_dims": 2}}, "fields.model.latent_dims: .* no such field"),
        ({"fields": {"model.latent_dim": 0}}, "model.latent_dim"),
        ({"seeds": [1, 1]}, r"seeds: \[1, 1\] has a seed twice"),
        ({"seeds": []}, "seeds: .* is not a list of at least one"),
        ({"base": "nowhere.yaml"}, "base: nowhere.yaml is not a file"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_what_would_be_right(tmp_path, digits_shards, changed, message):
    with pytest.raises(InputError, match=message):
        read_sweep(write_sweep(tmp_path, digits_shards, **changed))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers: 1\nworkers: 2\n", r"workers: line \d+: stands in line \d+ already"),
        ("asha: {reduction_factor: .inf}\n", r"asha\.reduction_factor: line \d+: \.inf is not a finite number"),
        ("measure: {images: null}\n", r"measure\.images: null is not a whole number of at least 0"),
        ("measure: {grace_images: 3}\n", r"measure\.grace_images: is not a field; use asha\.grace_images"),
        ("measure:\n", "measure: is empty; use fields below it"),
    ],
)
def test_a_sweep_is_read_as_strictly_as_a_training(tmp_path, digits_shards, text, message):
    path = write_sweep(tmp_path, digits_shards)
    kept = {name: value for name, value in yaml.safe_load(path.read_text()).items() if f"{name}:" not in text}
    path.write_text(yaml.safe_dump(kept) + text)
    with pytest.raises(InputError, match=message + rf".* \(in {path}\)$"):
        read_sweep(path)


def test_the_command_ends_with_code_2_and_one_line_before_ray_is_started(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards, search="genetic")
    done = run_module("tune", "--config", str(path))
    message = f"error: search: 'genetic' is not one of grid, random, optuna (in {path})\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_a_sweep_lies_where_it_was_started_also_for_processes_that_run_elsewhere(tmp_path, digits_shards, monkeypatch):
    path = write_sweep(tmp_path, digits_shards, runs="here")
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep(path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sweep.trials_folder == tmp_path / "here" / "sweep" / "trials"
    assert sweep.trainer_config("one", 0, {}).folder == sweep.trials_folder / "one"


def test_a_dry_run_prints_trials_time_and_disk_and_starts_nothing(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards, seeds=[0, 1])
    done = run_module("tune", "--config", str(path), "--dry-run", "--processes", "3")
    assert done.returncode == 0, done.stderr
    assert "1,397 training images" in done.stdout
    assert "trials   at most 4, 3 at once on 1 processes each" in done.stdout
    assert "GB of checkpoints" in done.stdout
    assert not read_sweep(path).folder.exists()


def test_a_dry_run_refuses_trials_of_more_processes_than_there_are(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards, workers=2)
    done = run_module("tune", "--config", str(path), "--dry-run")
    assert (done.returncode, done.stderr) == (2, "error: workers: a trial needs 2 processes, and there are 1\n")
