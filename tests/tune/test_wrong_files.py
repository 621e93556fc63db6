"""Everything that can be known to be wrong with a sweep is one line with exit code 2, before anything is written."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.sweep_cases import write_sweep

from data_shards.io.errors import command
from tune import sweep
from tune.__main__ import main

SPACE = {"model.latent_dim": {"choice": [2, 4]}}


def field(name: str, value: Any) -> dict[str, Any]:
    return {"fields": {name: value}}


def space(**entries: Any) -> dict[str, Any]:
    return {"space": {name.replace("__", "."): entry for name, entry in entries.items()}}


POPULATION: dict[str, Any] = {"stopping": {"scheduler": "pbt"}, "search": "random"} | space(
    optimiser__learning_rate={"loguniform": [0.001, 0.01]}
)

# What replaces parts of a sweep that is right, and what the line must name.
CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"name": "a/b"}, "name"),
    ({"name": ".."}, "name"),
    ({"name": ""}, "name"),
    ({"name": None}, "name"),
    ({"name": 7}, "name"),
    ({"name": "x" * 300}, "name"),
    ({"name": "two\nlines"}, "name"),
    ({"runs": ""}, "runs"),
    ({"runs": 3}, "runs"),
    ({"runs": "/dev/null"}, "runs"),
    ({"base": "nowhere.yaml"}, "base"),
    ({"base": ["a.yaml"]}, "base"),
    ({"search": "TPE"}, "search"),
    ({"search": None}, "search"),
    ({"configurations": 0, "search": "random"}, "configurations"),
    ({"configurations": "16", "search": "random"}, "configurations"),
    ({"configurations": 1.5, "search": "random"}, "configurations"),
    ({"configurations": True, "search": "random"}, "configurations"),
    ({"seed": -1}, "seed"),
    ({"seeds": []}, "seeds"),
    ({"seeds": [0, 0]}, "seeds"),
    ({"seeds": 0}, "seeds"),
    ({"seeds": [0, "1"]}, "seeds"),
    ({"confirm_seeds": [1, 1]}, "confirm_seeds"),
    ({"confirm_seeds": [-1]}, "confirm_seeds"),
    ({"objectives": []}, "objectives"),
    ({"objectives": "elbo"}, "objectives"),
    ({"objectives": ["elbo", "elbo"]}, "objectives"),
    ({"objectives": ["cost"]}, "objectives"),
    ({"objectives": ["fid"]}, "objectives"),
    ({"objectives": ["fd"]}, "measure.images"),
    ({"workers": 0}, "workers"),
    ({"workers": 4096}, "workers"),
    ({"cpus_per_worker": 4096}, "workers"),
    ({"cpus_per_worker": "all"}, "cpus_per_worker"),
    ({"concurrent": -1}, "concurrent"),
    ({"retries": 1e30}, "retries"),
    ({"gpus_per_trial": 0}, "gpus_per_trial"),
    ({"gpus_per_trial": 1.5}, "gpus_per_trial"),
    ({"stopping": "asha"}, "stopping"),
    ({"stopping": {"scheduler": "ASHA"}}, "stopping.scheduler"),
    ({"stopping": {"first_percent": 0}}, "stopping.first_percent"),
    ({"stopping": {"first_percent": 100}}, "stopping.first_percent"),
    ({"stopping": {"reduction_factor": 1}}, "stopping.reduction_factor"),
    ({"stopping": {"grace_images": 10}}, "stopping.grace_images"),
    ({"stopping": {"scheduler": "optuna_hyperband", "reduction_factor": 2.5}}, "stopping.reduction_factor"),
    ({"stopping": {"scheduler": "halving"}, "search": "optuna"}, "stopping.scheduler"),
    ({"stopping": {"scheduler": "pbt"}}, "space.optimiser.learning_rate"),
    (POPULATION | {"configurations": 3}, "configurations"),
    (POPULATION | {"search": "optuna"}, "search"),
    (POPULATION | {"seeds": [0, 1]}, "seeds"),
    ({"confirm_seeds": [3, 0]}, "confirm_seeds"),
    ({"runs": "s3://bucket/runs"}, "runs"),
    ({"measure": {"images": 100, "also": ["kernel", "kernel"]}}, "measure.also"),
    ({"space": "model.latent_dim"}, "space"),
    (space(device={"choice": ["cuda", "cpu"]}), "space.device"),
    (space(data__shards={"choice": ["a", "b"]}), "space.data.shards"),
    (space(checkpoint__keep_last={"choice": [1, 2]}), "space.checkpoint.keep_last"),
    (space(data__valid_images={"choice": [50, 100]}), "space.data.valid_images"),
    (field("objective.name", "vae") | space(stage2__max_epochs={"choice": [1, 2]}), "space.stage2.max_epochs"),
    (field("objective.name", "vae") | space(variance__update={"choice": ["adam"]}), "space.variance.update"),
    ({"measure": {"images": 1}}, "measure.images"),
    ({"measure": {"images": 201, "mixture": 0}}, "measure.images"),
    ({"measure": {"images": 100, "split": "vaild"}}, "measure.split"),
    ({"measure": {"images": 100, "split": "train"}}, "measure.split"),
    ({"measure": {"images": 100, "mixture": 1398}}, "measure.mixture"),
    ({"measure": {"images": 0, "likelihood_images": 5000}}, "measure.likelihood_images"),
    ({"measure": {"images": 100, "also": ["kernl"]}}, "measure.also"),
    ({"space": {}}, "space"),
    ({"space": [1]}, "space"),
    ({"space": None}, "space"),
    (space(model__latent_dims={"choice": [2]}), "space.model.latent_dims"),
    (space(model__latent_dim=[2, 4]), "space.model.latent_dim"),
    (space(model__latent_dim={"choice": 2}), "space.model.latent_dim"),
    (space(model__latent_dim={"choice": [2, 2.0]}), "space.model.latent_dim"),
    (space(model__latent_dim={"choice": [2, 0]}), "space.model.latent_dim"),
    (space(model__latent_dim={"choice": [2, "4"]}), "space.model.latent_dim"),
    (space(model__latent_dim={"choice": [2, None]}), "space.model.latent_dim"),
    (space(model__latent_dim={"uniform": [2, 4]}), "space.model.latent_dim"),
    (space(model__latent_dim={"randint": [4, 2]}), "space.model.latent_dim"),
    (space(model__latent_dim={"randint": [0, 4]}), "space.model.latent_dim"),
    (space(model__latent_dim={"randint": [1, 2], "choice": [2]}), "space.model.latent_dim"),
    (space(model__latent_dim={"randint": [1, 2], "if": {}}), "space.model.latent_dim"),
    (space(model__norm={"choice": ["none", "layer"]}), "space.model.norm"),
    (space(model__encoder_channels={"choice": [[8], [0]]}), "space.model.encoder_channels"),
    (space(model__encoder_channels={"choice": [[8], [-8]]}), "space.model.encoder_channels"),
    (space(data__valid_split={"choice": ["valid", "train"]}), "space.data.valid_split"),
    (space(optimiser__learning_rate={"loguniform": [0, 0.1]}), "space.optimiser.learning_rate"),
    (space(optimiser__learning_rate={"loguniform": ["1e-4", 0.1]}), "space.optimiser.learning_rate"),
    (space(optimiser__learning_rate={"uniform": [0.1, 0.2]}), "space.optimiser.learning_rate"),  # of a grid
    (space(seed={"randint": [0, 9]}), "space.seed"),
    (
        space(
            model__norm={"choice": ["none", "batch"]}, model__hidden={"choice": [8], "when": {"model.norm": "group"}}
        ),
        "space.model.hidden.when",
    ),
    (space(model__hidden={"choice": [8], "when": {"model.norm": "none"}}), "space.model.hidden.when"),
    (space(model__hidden={"choice": [8], "when": ["model.norm"]}), "space.model.hidden.when"),
    (field("model.latent_dims", 2), "fields.model.latent_dims"),
    (field("model.latent_dim", "2"), "model.latent_dim"),
    (field("optimiser.learning_rate", "0.001"), "optimiser.learning_rate"),
    (field("data.shards", "no/such/shards"), "data.shards"),
    (field("data.valid_split", "validation"), "data.valid_split"),
    (field("device", "cuda:1"), "device"),
    (field("engine.name", "deepspeed"), "engine.deepspeed_config"),
    (field("name", "mine"), "fields.name"),
    ({"fields": ["model.latent_dim"]}, "fields"),
    ({"asha": {"enabled": True}}, "asha"),
    ({"worker": 2}, "worker"),
]

# What is written below a sweep that is right, without the top-level fields that it has itself.
WRITTEN: list[tuple[str, str]] = [
    ("workers: 1\nworkers: 2\n", "workers"),
    ("retries: .inf\n", "retries"),
    ("retries: .nan\n", "retries"),
    ("retries: 0x\n", "retries"),
    ("retries: yes\n", "retries"),
    ("retries: 1_0\n", "retries"),
    ("retries: ~\n", "retries"),
    ("measure:\n", "measure"),
    ("measure: {images: 0, images: 0}\n", "measure.images"),
    ("fields: {model.hidden: 8, model.hidden: 16}\n", "fields.model.hidden"),
    ("space: {model.latent_dim: {choice: [2], choice: [4]}}\n", "space.model.latent_dim.choice"),
    ("? [a, b]\n: 1\n", "line"),
    ("\tworkers: 1\n", "line"),
    ("workers: [1\n", "line"),
    ("workers: !!python/object:os.system 1\n", "line"),
    ("--- \nworkers: 1\n", "line"),
]


def refused(path: Path, capsys, monkeypatch, *words: str) -> str:
    """The line of `python -m tune`, which must be one, with code 2, and leave no file."""
    monkeypatch.setattr(sys, "argv", ["tune", "--config", str(path), *words])
    monkeypatch.setattr(sweep, "_run", lambda *_: pytest.fail("the sweep was started"))
    before = sorted(path.parent.rglob("*"))
    code = command(main)
    said = capsys.readouterr()
    assert (code, said.out) == (2, ""), said.err
    assert len(said.err.splitlines()) == 1, said.err
    assert sorted(path.parent.rglob("*")) == before
    return said.err


@pytest.mark.parametrize(("changed", "named"), CHANGED, ids=lambda value: re.sub(r"\W+", "-", str(value))[:60])
def test_a_wrong_value_is_one_line_that_names_its_field(tmp_path, digits_shards, capsys, monkeypatch, changed, named):
    path = write_sweep(tmp_path, digits_shards, fields=changed.get("fields", {}) if named != "fields" else {})
    content = yaml.safe_load(path.read_text()) | {"space": SPACE}
    content |= {name: value for name, value in changed.items() if name != "fields" or named == "fields"}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert f"{named}: " in refused(path, capsys, monkeypatch)


@pytest.mark.parametrize(("text", "named"), WRITTEN, ids=lambda value: re.sub(r"\W+", "-", str(value))[:60])
def test_wrong_yaml_is_one_line_that_names_its_field_or_line(tmp_path, digits_shards, capsys, monkeypatch, text, named):
    path = write_sweep(tmp_path, digits_shards)
    kept = {name: value for name, value in yaml.safe_load(path.read_text()).items() if not text.startswith(f"{name}:")}
    path.write_text(yaml.safe_dump(kept) + text)
    assert named in refused(path, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("option", "words"), [("--processes", ("--processes", "2")), ("--steal-lock", ("--dry-run", "--steal-lock"))]
)
def test_an_option_without_effect_beside_the_others_is_refused(
    tmp_path, digits_shards, capsys, monkeypatch, option, words
):
    path = write_sweep(tmp_path, digits_shards)
    assert f"{option}: " in refused(path, capsys, monkeypatch, *words)


@pytest.mark.parametrize("name", ["sweep.yaml", "base.yaml", "folder", "missing/best.yaml"])
def test_a_best_configuration_that_cannot_be_written_or_would_replace_the_sweeps_own_file_is_refused_before_the_sweep(
    tmp_path, digits_shards, capsys, monkeypatch, name
):
    path = write_sweep(tmp_path, digits_shards)
    (tmp_path / "folder").mkdir()
    assert "--export-best: " in refused(path, capsys, monkeypatch, "--export-best", str(tmp_path / name))


NO_SWEEPS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "a list": lambda path: path.write_text("- 1\n"),
    "no text": lambda path: path.write_bytes(b"name: \xff\xfe\n"),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a training": lambda path: path.write_text("name: x\nmodel: {latent_dim: 2}\n"),
}


@pytest.mark.parametrize("kind", NO_SWEEPS)
def test_a_file_that_is_no_sweep_is_one_line(tmp_path, digits_shards, capsys, monkeypatch, kind):
    path = write_sweep(tmp_path, digits_shards)
    NO_SWEEPS[kind](path)
    refused(path, capsys, monkeypatch)
