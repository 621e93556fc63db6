"""What a run writes for people to look at: metrics.jsonl, TensorBoard, W&B and MLflow, with the real packages."""

import datetime
import json
import math
import re

import pytest
import torch
from support.training import events, train, words

from data_shards.io.errors import InputError
from trainer.__main__ import read_command_line
from trainer.config.config import from_files
from trainer.run_folder.log import RunLog
from trainer.run_folder.trackers import tracker
from trainer.run_folder.trackers.tracker import TrackedRun, open_tracker, require_trackers

SHORT = {"stage1__max_epochs": 0.4, "stage1__check_images": 300, "stage2__max_epochs": 0.2, "log__every_images": 150}


def board(run):
    """The content of RUN/tensorboard as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulated = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return accumulated.Reload()


def scalars(run, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in board(run).Scalars(name)]


@pytest.fixture(scope="module")
def tracked(digits_shards, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        fields = {**SHORT, "log__to": "[tensorboard,wandb,mlflow]"}
        return train(digits_shards, tmp_path_factory.mktemp("runs"), "tracked", **fields)


def test_every_event_has_a_time_and_an_epoch(tracked):
    lines = [json.loads(line) for line in (tracked / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert datetime.datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["epoch"] == pytest.approx(line["images"] / 1397)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


def test_an_interval_has_the_learning_rate_and_the_gradients_norm(tracked):
    for line in events(tracked, "train"):
        assert 0 < line["learning_rate"] <= 1e-2
        assert 0 < line["gradient_norm"] <= line["largest_gradient_norm"] < math.inf


def test_the_start_records_the_configuration_and_the_versions(tracked):
    start = events(tracked, "start")[0]
    assert start["configuration"]["model.latent_dim"] == 4
    assert start["torch"] == torch.__version__
    assert start["world_size"] == 1


def test_tensorboard_has_every_number_whatever_its_type(tracked):
    tags = board(tracked).Tags()
    assert "valid/active_dimensions" in tags["scalars"]  # a whole number
    for line in events(tracked, "valid"):
        found = dict(scalars(tracked, "valid/elbo"))
        assert found[line["images"]] == pytest.approx(line["elbo"], rel=1e-6)


def test_tensorboard_has_hyper_parameters_and_pictures_of_each_check(tracked):
    accumulated = board(tracked)
    assert "_hparams_/session_start_info" in accumulated.summary_metadata
    checks = [line["images"] for line in events(tracked, "valid")]
    for name in ("samples", "reconstructions"):
        shown = accumulated.Images(name)
        assert [image.step for image in shown] == checks
        assert (shown[0].width, shown[0].height) == (8 * 29 + 1, (4 if name == "samples" else 2) * 29 + 1)


def test_mlflow_has_parameters_numbers_and_pictures(tracked):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=(tracked.parent / "mlruns").as_uri())
    run = client.get_run(json.loads((tracked / "tracking.json").read_text())["mlflow"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tracked"
    assert run.data.params["model.latent_dim"] == "4"
    history = client.get_metric_history(run.info.run_id, "valid/elbo")
    assert [(m.step, pytest.approx(m.value)) for m in history] == [
        (line["images"], line["elbo"]) for line in events(tracked, "valid")
    ]
    assert len(client.list_artifacts(run.info.run_id, "samples")) == len(history)


def test_weights_and_biases_has_an_offline_run_that_a_restart_goes_on_with(tracked):
    identity = json.loads((tracked / "tracking.json").read_text())["wandb"]
    assert [folder.name.endswith(identity) for folder in (tracked / "wandb").glob("offline-run-*")] == [True]
    assert list((tracked / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))


def test_mlflow_goes_on_with_its_run_or_begins_one_where_the_folder_has_moved(tmp_path):
    def identity(runs) -> str:
        (runs / "run").mkdir(parents=True, exist_ok=True)
        open_tracker("mlflow", TrackedRun(folder=runs / "run", name="run", settings={}, images=0)).close()
        return json.loads((runs / "run" / "tracking.json").read_text())["mlflow"]

    first = identity(tmp_path / "here")
    assert identity(tmp_path / "here") == first
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "run").rename(tmp_path / "there" / "run")
    assert identity(tmp_path / "there") != first
    assert not (tmp_path / "here" / "run").exists()


def test_a_restart_leaves_no_doubled_steps(tmp_path):
    for images, seen in ((0, [300, 600]), (0, [300, 600, 900]), (600, [900])):
        with_log = RunLog(tmp_path, images=images, total=900, main=True)
        with_log.trackers = [
            open_tracker("tensorboard", TrackedRun(folder=tmp_path, name="run", settings={"seed": 0}, images=images))
        ]
        for step in seen:
            with_log.event("train", step, stage=1, elbo=1.0, images_per_second=1.0, seconds=1.0, peak_memory_mib=1.0)
        with_log.close()
    assert [line["images"] for line in events(tmp_path, "train")] == [300, 600, 900]
    assert [step for step, _ in scalars(tmp_path, "train/elbo")] == [300, 600, 900]


def test_an_event_that_is_written_again_at_a_checkpoint_is_tracked_once(tmp_path):
    facts = {"stage": 2, "elbo": 1.0, "elbo_at_closed_form": 1.0}
    for again in ((), ("stage_start",)):
        log = RunLog(tmp_path, images=300, total=900, main=True, again=again)
        log.trackers = [open_tracker("tensorboard", TrackedRun(folder=tmp_path, name="x", settings={}, images=300))]
        log.event("stage_start", 300, **facts)
        log.event("valid", 600, **facts)
        log.close()
    assert [line["images"] for line in events(tmp_path, "stage_start")] == [300]
    assert scalars(tmp_path, "stage_start/elbo") == [(300, 1.0)]
    assert scalars(tmp_path, "valid/elbo") == [(600, 1.0)]


def test_a_tracker_that_fails_is_left_out_and_named_once(tmp_path, capsys):
    class Gone:
        def numbers(self, values, images):
            raise ConnectionError("no route to\nhost")

    log = RunLog(tmp_path, images=0, total=90, main=True)
    log.trackers = [Gone()]
    for images in (30, 60):
        log.event("valid", images, stage=1, elbo=1.0, elbo_at_closed_form=1.0)
    log.close()
    assert len(events(tmp_path, "valid")) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "log.to" in line]
    assert said == ["log.to: Gone failed (ConnectionError: no route to host); the run goes on without it"]


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("tensorboard", {}),
        ("mlflow", {"MLFLOW_TRACKING_URI": "nowhere://at/all"}),
        ("wandb", {"WANDB_MODE": "online", "WANDB_API_KEY": "x"}),
    ],
)
def test_a_tracker_that_cannot_be_opened_is_left_out_and_named(
    name, environment, digits_shards, tmp_path, monkeypatch, capfd
):
    import wandb

    wandb.teardown()  # it keeps the settings of its first run in the process
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file, where its folder would be")
    run = train(digits_shards, tmp_path, "run", log__to=f"[{name}]", stage1__max_epochs=0.1, stage2__max_epochs=0)
    wandb.teardown()
    assert events(run, "stage_end")
    said = [line for line in capfd.readouterr().err.splitlines() if "log.to" in line]
    assert len(said) == 1
    assert re.match(rf"log\.to: {name} failed \(.*\); the run goes on without it", said[0].rpartition("\r")[2])


def test_a_tracker_that_is_not_installed_is_named_before_the_start(monkeypatch, digits_shards, tmp_path):
    monkeypatch.setitem(tracker.TRACKERS, "wandb", ("trainer.nowhere:Nothing", "no_such_package"))
    with pytest.raises(InputError, match=r"log.to: wandb is not installed; .*\[wandb\]"):
        require_trackers(["tensorboard", "wandb"])


def test_old_run_folders_say_whether_they_wrote_for_tensorboard(tmp_path):
    path = tmp_path / "config.yaml"
    for written, meant in (("true", ("tensorboard",)), ("false", ())):
        path.write_text(f"log: {{tensorboard: {written}, every_images: 5}}\n")
        config = from_files([path], {})
        assert (config.log.to, config.log.every_images) == (meant, 5)


def test_the_command_line_takes_a_list_of_trackers(digits_shards, tmp_path):
    asked = read_command_line(words(digits_shards, tmp_path, "run", log__to="[mlflow]"))
    assert asked.config.log.to == ("mlflow",)
    with pytest.raises(InputError, match=r"log\.to"):
        read_command_line(words(digits_shards, tmp_path, "run", log__to="[neptune]"))
