"""The configuration of a sweep, and the rungs that follow from it."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from support.running import ROOT, run_module
from support.sweep_cases import write_sweep

from data_shards.io.errors import InputError
from data_shards.io.lease import lease
from trainer.config.config import load_config
from tune.checks import check_sweep, corners, require_disk
from tune.search.trials import Trial, random_fields
from tune.settings import keep_settings
from tune.space import canonical
from tune.sweep_config import read_sweep
from tune.trial.folder import save_trial

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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search": "genetic"}, "search: 'genetic' is not one of grid, random, optuna"),
        ({"wokers": 2}, "wokers: is not a field; use workers"),
        ({"workers": 0}, "workers: 0 is not a whole number of at least 1"),
        ({"stopping": {"reduction_factor": 1}}, "stopping.reduction_factor: 1 is not a number above 1"),
        ({"stopping": {"scheduler": "bohb"}}, "stopping.scheduler: 'bohb' is not one of auto, halving, asha, "),
        ({"asha": {"enabled": True}}, "asha: is called stopping now; write stopping: {scheduler: asha}"),
        ({"gpus_per_trial": 0.5, "workers": 2}, "gpus_per_trial: 0.5 is not one for each of 2 workers; use 2"),
        ({"gpus_per_trial": 2}, "gpus_per_trial: 2.* use 1 or, to share a GPU, a number below 1"),
        ({"measure": {"images": 1}}, "measure.images: 1 is too few for a distance"),
        ({"measure": {"images": 100, "also": ["kernl"]}}, "measure.also: 'kernl' is unknown; use some of "),
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
        ("stopping: {reduction_factor: .inf}\n", r"stopping\.reduction_factor: line \d+: \.inf is not a finite number"),
        ("measure: {images: null}\n", r"measure\.images: null is not a whole number of at least 0"),
        ("measure: {first_percent: 3}\n", r"measure\.first_percent: is not a field; use stopping\.first_percent"),
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
    engine = {"engine.name": "deepspeed", "engine.deepspeed_config": "zero.json", "data.cache_dir": "~/copies"}
    path = write_sweep(tmp_path, digits_shards, runs="here", fields=engine)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sweep = read_sweep(path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sweep.trials_folder == tmp_path / "here" / "sweep" / "trials"
    config = sweep.trainer_config("one", 0, {})
    assert config.folder == sweep.trials_folder / "one"
    assert config.engine.deepspeed_config == str(tmp_path / "zero.json")
    assert config.data.cache_dir == str(tmp_path / "home" / "copies")


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


def test_a_second_start_of_a_sweep_is_refused_while_the_first_one_runs(tmp_path, digits_shards):
    path = write_sweep(tmp_path, digits_shards)
    folder = read_sweep(path).folder
    folder.mkdir(parents=True)
    with lease(folder):
        done = run_module("tune", "--config", str(path))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{folder}: in use by process" in done.stderr


def test_settings_that_change_no_trial_are_followed_and_told_and_others_refused(tmp_path, digits_shards, capsys):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards))
    keep_settings(sweep)
    save_trial(sweep.trials_folder / "search-000-seed0", Trial(phase="search", number=0, seed=0, fields={}))
    keep_settings(dataclasses.replace(sweep, concurrent=3, seeds=(0, 1), fields=sweep.fields | {"data.workers": 2}))
    said = capsys.readouterr().err
    assert "the sweep goes on with concurrent 3, before 1" in said
    assert "the sweep goes on with seeds [0, 1], before [0]" in said
    with pytest.raises(InputError, match=r"another search, fields\.model\.hidden; restore it"):
        keep_settings(dataclasses.replace(sweep, search="random", fields=sweep.fields | {"model.hidden": 99}))


def test_a_space_of_fewer_configurations_than_asked_for_is_told(tmp_path, digits_shards):
    checked = check_sweep(read_sweep(write_sweep(tmp_path, digits_shards, search="random", configurations=9)))
    assert checked.notices == (
        "the space has 2 configurations, so that no more than these are trained (configurations: 9)",
    )


def test_a_value_that_can_never_be_trained_is_refused_and_a_combination_is_counted(tmp_path, digits_shards):
    channels = {"model.encoder_channels": {"choice": [[8], [12]]}}
    norms = {"model.norm": {"choice": ["none", "group"]}}
    checked = check_sweep(read_sweep(write_sweep(tmp_path, digits_shards, space=channels | norms)))
    (notice,) = checked.notices
    assert notice.startswith("1 of the combinations that were checked cannot be trained")
    alone = {"model.norm": {"choice": ["none", "group"]}}
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, fields={"model.encoder_channels": [12]}, space=alone))
    with pytest.raises(InputError, match=r"space\.model\.norm: 'group' can never be trained: .*\[12\] does not suit"):
        check_sweep(sweep)


def test_the_corners_of_a_large_space_hold_every_value_with_its_conditions():
    space = read_sweep(ROOT / "tune" / "configs" / "celeba.yaml").space
    found = corners(space)
    assert len(found) < 100
    for dimension in space:
        for value in dimension.values:
            having = [one for one in found if canonical(one.get(dimension.field)) == canonical(value)]
            assert having
            assert all(one[name] == asked for one in having for name, asked in dimension.when)


def test_a_sweep_whose_checkpoints_do_not_fit_on_the_disk_is_refused(tmp_path, digits_shards):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards))
    checked = check_sweep(sweep)
    assert 10**4 < checked.bytes_needed < 10**8
    require_disk(sweep, checked)
    with pytest.raises(InputError, match=r"runs: its checkpoints need 1e[+]09 GB, but .* GB free"):
        require_disk(sweep, dataclasses.replace(checked, bytes_needed=10**18))


def test_a_sweep_does_not_move_into_the_folder_of_a_training(tmp_path, digits_shards, digits_run):
    sweep = read_sweep(write_sweep(tmp_path, digits_shards, name=digits_run.name, runs=str(digits_run.parent)))
    with pytest.raises(InputError, match=r"name: .* is the folder of a training; choose another name"):
        check_sweep(sweep)
