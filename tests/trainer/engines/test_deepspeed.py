"""DeepSpeed on two CPU processes: the same losses as DDP, and checkpoints that any engine resumes from."""

import pytest
from safetensors.torch import load_file
from support.running import ROOT, run_module
from support.training import FIFTY_UPDATES, events, largest_relative_difference, train, train_many, weights, words

from data_shards.io.errors import InputError
from trainer.config.config import load_config
from trainer.engines.deepspeed import settings_of
from trainer.engines.deepspeed_json import read_json
from trainer.process_group import single
from trainer.run_folder.checkpoint import complete_checkpoints

# The first run on a machine compiles a small library of DeepSpeed, for a minute or more.
pytestmark = pytest.mark.timeout(1800)

ZERO = ROOT / "trainer" / "configs" / "deepspeed"
EVERY_LOSS = FIFTY_UPDATES | {"log__every_images": 30}


def zero(stage: int) -> dict[str, str]:
    return {"engine__name": "deepspeed", "engine__deepspeed_config": str(ZERO / f"zero{stage}.json")}


def training_tensors(run):
    return load_file(complete_checkpoints(run)[-1] / "training.safetensors")


BOTH_STAGES = {"stage1__max_epochs": 1, "stage2__max_epochs": 0.5, "log__every_images": 30}
STOPPED = {"checkpoint__walltime_minutes": 1e-4}
# A run's first engine, then the one that resumes it; None is DDP.
MOVES = {"zero1-zero2": (1, 2), "zero3-zero2": (3, 2), "zero2-ddp": (2, None), "ddp-zero3": (None, 3)}


def engine(stage: int | None) -> dict[str, str]:
    return {} if stage is None else zero(stage)


@pytest.fixture(scope="module")
def runs(digits_shards, tmp_path_factory):
    """Fifty updates under each engine; and runs of both stages, whole or stopped and resumed, on two processes."""
    folder = tmp_path_factory.mktemp("runs")
    fifty = {"ddp": EVERY_LOSS} | {f"zero{stage}": EVERY_LOSS | zero(stage) for stage in range(4)}
    whole = {"whole": BOTH_STAGES, "whole-zero3": BOTH_STAGES | zero(3)}
    begun = {name: BOTH_STAGES | engine(first) | STOPPED for name, (first, _) in MOVES.items()}
    train_many(digits_shards, folder, fifty | whole | begun, processes=2)
    for name in MOVES:
        assert (folder / name / "requeue").exists()
    train_many(digits_shards, folder, {n: BOTH_STAGES | engine(then) for n, (_, then) in MOVES.items()}, processes=2)
    return folder


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_fifty_losses_equal_those_of_ddp(runs, stage):
    expected, found = events(runs / "ddp", "train"), events(runs / f"zero{stage}", "train")
    assert len(expected) == len(found) >= 49
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
    assert largest_relative_difference(weights(runs / "ddp"), weights(runs / f"zero{stage}")) < 1e-4


@pytest.mark.parametrize("name", ["whole-zero3", *MOVES])
def test_both_stages_under_any_engine_or_two_of_them_end_in_the_weights_of_ddp(runs, name):
    expected, found = events(runs / "whole", "stage_end"), events(runs / name, "stage_end")
    assert [end["images"] for end in found] == [end["images"] for end in expected]
    for theirs, ours in zip(found, expected, strict=True):
        assert theirs["elbo"] == pytest.approx(ours["elbo"], rel=1e-3)
    assert largest_relative_difference(weights(runs / "whole"), weights(runs / name)) < 1e-3


def test_the_moments_of_zero_3_are_those_of_ddp(runs):
    ours, theirs = (
        {name: value for name, value in training_tensors(runs / name).items() if name.startswith("exp_avg/")}
        for name in ("ddp", "zero3")
    )
    assert largest_relative_difference(ours, theirs) < 1e-3


def test_a_run_of_zero_3_resumes_under_ddp_on_one_process(digits_shards, runs):
    name = "zero3-alone"
    train_many(digits_shards, runs, {name: BOTH_STAGES | zero(3) | STOPPED}, processes=2)
    run = train(digits_shards, runs, name, **BOTH_STAGES)
    assert largest_relative_difference(weights(runs / "whole"), weights(run)) < 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("\xff", "is not JSON"),
        ('{"steps_per_print": NaN}', "NaN is not a finite number; use one"),
        ('{"steps_per_print": 1, "steps_per_print": 2}', "steps_per_print stands there twice; leave one of them"),
        ('{"train_batch_size": 4}', "train_batch_size follows from the trainer's own data.global_batch; remove it"),
        ('{"optimizer": {"type": "Adam"}}', "optimizer follows from the trainer's own optimiser; remove it"),
        ('{"bf16": {"enabled": true}}', "bf16 follows from the trainer's own engine.precision; remove it"),
        ('{"zero_optimisation": {"stage": 2}}', "zero_optimisation is not a section that acts here; use zero_optim"),
        ('{"zero_optimization": 2}', "zero_optimization: 2 is not a section; use a section"),
        ('{"zero_optimization": {"stage": 4}}', "zero_optimization.stage: 4 is not a stage of ZeRO; use 0, 1, 2 or 3"),
        ('{"zero_optimization": {"stage": "2"}}', "zero_optimization.stage: '2' is not a stage of ZeRO"),
        ('{"zero_optimization": {"stages": 2}}', "zero_optimization.stages: is not a field; use stage"),
        (
            '{"zero_optimization": {"reduce_bucket_size": "many"}}',
            "zero_optimization.reduce_bucket_size: 'many' is",
        ),
        ('{"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}', "zero_optimization.offload_optimizer: "),
        ('{"wall_clock_breakdown": "no"}', "wall_clock_breakdown: 'no' is not true or false"),
        ('{"pipeline": {"stages": 2}}', "pipeline is not a section that acts here; use one of zero_optimization, "),
    ],
)
def test_a_wrong_json_gives_one_line_with_file_and_field(tmp_path, content, message):
    path = tmp_path / "zero.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        read_json(str(path))
    assert str(caught.value).startswith(f"engine.deepspeed_config: {path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(ZERO.glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_json_is_right(path):
    assert read_json(str(path))["zero_optimization"]["stage"] == int(path.stem[-1])


def test_one_process_without_a_launcher_trains_to_the_weights_of_ddp(digits_shards, tmp_path):
    ddp = train(digits_shards, tmp_path, "alone-ddp", **BOTH_STAGES)
    done = run_module("trainer", *words(digits_shards, tmp_path, "alone", **BOTH_STAGES, **zero(1)))
    assert done.returncode == 0, done.stderr
    assert largest_relative_difference(weights(ddp), weights(tmp_path / "alone")) < 1e-3


def test_a_wrong_json_is_refused_before_anything_is_written(digits_shards, tmp_path):
    path = tmp_path / "zero.json"
    path.write_text('{"zero_optimisation": {"stage": 2}}')
    fields = {"engine__name": "deepspeed", "engine__deepspeed_config": str(path)}
    done = run_module("trainer", *words(digits_shards, tmp_path / "runs", "none", **fields))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: engine.deepspeed_config: {path}: zero_optimisation")
    assert not (tmp_path / "runs").exists()


def test_bf16_is_deepspeeds_own_autocast():
    config = load_config(None, {"engine.precision": "bf16", "device": "cuda"})
    assert settings_of(config, single("cuda"))["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert "torch_autocast" not in settings_of(load_config(None), single("cpu"))


def test_what_deepspeed_does_not_do_is_refused():
    for name, value in (("compile", True), ("memory_format", "channels_last"), ("grad_accumulation_steps", 2)):
        fields = {"engine.name": "deepspeed", "engine.deepspeed_config": "zero.json", f"engine.{name}": value}
        with pytest.raises(InputError, match=rf"^engine\.{name}: "):
            load_config(None, fields)
