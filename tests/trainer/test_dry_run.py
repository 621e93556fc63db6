"""The estimate of what a run needs, against what runs really took."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from support.running import run_module

from data_shards.manifest import Manifest
from trainer.config.config import load_config
from trainer.config.sections import ModelConfig
from trainer.dry_run import estimate, forward_operations, this_gpu, time_lines
from trainer.networks.model import SigmaVAE
from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.run_folder.log import LOG, read_events


def test_the_checkpoints_of_a_real_run_are_as_large_as_estimated(digits_run):
    config = load_config(digits_run)
    manifest = Manifest.load(config.data.shards)
    cost = estimate(config, manifest.image_shape, manifest.num_samples("train"), processes=1)
    newest = complete_checkpoints(digits_run)[-1]
    written = sum(path.stat().st_size for path in newest.iterdir())
    assert cost.checkpoint_bytes / (config.checkpoint.keep_last + 3) == pytest.approx(written, rel=0.2)


def test_no_more_checkpoints_are_counted_than_the_run_can_write(digits_run):
    config = load_config(digits_run, {"checkpoint.keep_last": 10**9})
    cost = estimate(config, (1, 28, 28), train_images=1397, processes=1)
    written = 4 * cost.parameters * 3
    assert 20 * written < cost.checkpoint_bytes < 100 * written
    often = load_config(digits_run, {"checkpoint.keep_last": 10**9, "checkpoint.every_images": 50})
    assert estimate(often, (1, 28, 28), train_images=1397, processes=1).checkpoint_bytes > 167 * written


def test_a_finished_run_needs_no_more_time_and_was_timed_by_itself(digits_run):
    config = load_config(digits_run)
    manifest = Manifest.load(config.data.shards)
    cost = estimate(config, manifest.image_shape, manifest.num_samples("train"), processes=1)
    events = [event for event in read_events(digits_run) if event["event"] == "train"]
    assert sum(cost.stage_images) == 6 * 1397
    assert cost.done == events[-1]["images"]
    assert cost.seconds <= config.data.global_batch / cost.rate
    assert cost.rate == events[-1]["images_per_second"]


def test_an_interval_whose_updates_were_all_skipped_is_no_rate(digits_run, tmp_path):
    run = tmp_path / "diverged"
    shutil.copytree(digits_run, run)
    events = [event for event in read_events(run) if event["event"] == "train"]
    with (run / LOG).open("a") as file:
        file.write(json.dumps(events[-1] | {"images_per_second": 0.0}) + "\n")
    cost = estimate(replace(load_config(digits_run), runs=str(tmp_path), name=run.name), (1, 8, 8), 1397, processes=1)
    assert cost.timed
    assert cost.rate == events[-1]["images_per_second"]


def test_operations_are_two_for_each_product_of_a_convolution_or_matrix():
    config = ModelConfig(latent_dim=3, encoder_channels=(8,), decoder_channels=(8, 8), kernel=3, hidden=0, norm="none")
    model = SigmaVAE((1, 8, 8), config)
    products = 0

    def count(module, inputs, output):
        nonlocal products
        if isinstance(module, torch.nn.ConvTranspose2d):
            products += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            positions = output.numel() // module.weight.shape[0]
            products += positions * module.weight.numel()

    operations = forward_operations(model)
    for module in model.modules():
        module.register_forward_hook(count)
    model.decode(model.encode(torch.rand(1, 1, 8, 8)).mean)
    assert operations == 2 * products


def test_twice_the_processes_take_half_the_computing_time():
    config = load_config("trainer/configs/celeba.yaml", {"runs": "nowhere"})
    one, two = (1 / estimate(config, (3, 64, 64), 1000, processes).rate for processes in (1, 2))
    fixed = 0.01 / config.data.global_batch
    assert two - fixed == pytest.approx((one - fixed) / 2)


def test_missing_shards_are_reported_in_one_line(tmp_path):
    done = run_module("trainer", "--dry-run", "--data.shards", str(tmp_path), "--runs", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"error: missing: data.shards: {tmp_path}: no manifest.json there; make it by " + (
        "`python -m data_shards build`\n"
    )


def test_the_run_folder_can_be_printed_alone(digits_shards, tmp_path):
    fields = ("--data.shards", str(digits_shards), "--runs", str(tmp_path), "--name", "small")
    done = run_module("trainer", "--dry-run", "--processes", "2", "--print-folder", *fields)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'small'}\n"
    assert "on 2 cpu processes" in done.stderr
    assert not (tmp_path / "small").exists()


def celeba(processes, name="celeba", *, graphs=False):
    fields = {"runs": "nowhere", "device": "cuda", "engine.cuda_graphs": graphs}
    config = load_config(f"trainer/configs/{name}.yaml", fields)
    return estimate(config, (3, 64, 64), 162_770, processes)


def test_celeba_on_h100s_is_within_a_factor_of_two_of_the_roofline():
    """By hand: 1.9 TFLOP an update at a quarter of 989 TFLOP/s are 7.7 ms; 800 launches of the host are 4 to 9 ms."""
    assert celeba(1).operations == pytest.approx(19.06e9, rel=0.01)
    one, eight = celeba(1).rates["H100"], celeba(8).rates["H100"]
    assert 6_000 < one < 24_000
    assert 7_000 < eight < 32_000
    assert eight < 1.6 * one  # the host asks for as many kernels as for one GPU
    assert celeba(8, "celeba_8gpu").rates["H100"] > 4 * one
    # Replayed, an update of 8 GPUs is 1 ms of products, 1.6 ms of the sum over GPUs and 0.3 ms of Adam.
    assert 20_000 < celeba(8, graphs=True).rates["H100"] < 70_000


def test_a_slower_gpu_has_a_lower_rate():
    rates = celeba(1).rates
    assert rates["H100"] > rates["A100"] > rates["RTX 4090"]


@pytest.mark.parametrize(
    ("name", "known", "line"),
    [
        ("NVIDIA H100 80GB HBM3", "H100", "on 8 cuda processes of H100: "),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", "on 8 cuda processes of RTX 4090: "),
        ("Tesla T4", "", "unknown on 8 cuda processes of Tesla T4: measure 50 updates"),
        # A seventh of one, and about half of one.
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "", "unknown on 8 cuda processes of NVIDIA H100 80GB HBM3 MIG 1g.10gb: "),
        (
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "",
            "unknown on 8 cuda processes of NVIDIA GeForce RTX 4090 Laptop GPU: ",
        ),
    ],
)
def test_the_gpu_of_this_machine_is_told_by_its_name(monkeypatch, name, known, line):
    cost = celeba(8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert this_gpu() == known
    (found,) = time_lines(cost, "cuda", 8)
    assert line in found


def test_for_gpus_that_are_elsewhere_all_known_ones_are_listed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = time_lines(celeba(1), "cuda", 1)
    assert [
        name for name in ("H100", "H200", "A100", "L40S", "RTX 4090") if not any(f"of {name}:" in x for x in found)
    ] == []
    assert found[-1].startswith("unknown on 1 cuda processes of another GPU: measure 50 updates")
