"""DeepSpeed on two CPU processes: the same losses as DDP, and checkpoints that any engine goes on from."""

import pytest
from conftest import ROOT, run_module
from training import events, largest_relative_difference, train, weights, words

ZERO = ROOT / "trainer" / "configs" / "deepspeed"
FIFTY_UPDATES = {
    "stage1__max_epochs": 1.062,
    "stage2__max_epochs": 0,
    "checkpoint__every_images": 10**6,
    "stage1__check_images": 10**6,
    "log__every_images": 30,
}


def zero(stage: int) -> dict[str, str]:
    return {"engine__name": "deepspeed", "engine__deepspeed_config": str(ZERO / f"zero{stage}.json")}


@pytest.fixture(scope="module")
def ddp(digits_shards, tmp_path_factory):
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "ddp", processes=2, **FIFTY_UPDATES)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_fifty_losses_equal_those_of_ddp(digits_shards, tmp_path, ddp, stage):
    run = train(digits_shards, tmp_path, "zero", processes=2, **FIFTY_UPDATES, **zero(stage))
    expected, found = events(ddp, "train"), events(run, "train")
    assert len(expected) == len(found) == 50
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
    assert largest_relative_difference(weights(ddp), weights(run)) < 1e-4


BOTH_STAGES = {"stage1__max_epochs": 1, "stage2__max_epochs": 0.5, "log__every_images": 30}


@pytest.fixture(scope="module")
def undisturbed(digits_shards, tmp_path_factory):
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "undisturbed", processes=2, **BOTH_STAGES)


@pytest.mark.parametrize(("stage", "then"), [(1, 2), (3, 2), (2, 1)], ids=["zero1-zero2", "zero3-zero2", "zero2-ddp"])
def test_a_run_goes_on_under_another_engine(digits_shards, tmp_path, undisturbed, stage, then):
    """Stopped in stage 1 by the walltime, then taken up by another ZeRO stage, or by DDP on one process."""
    train(
        digits_shards, tmp_path, "moved", processes=2, **BOTH_STAGES, **zero(stage), checkpoint__walltime_minutes=1e-4
    )
    assert (tmp_path / "moved" / "requeue").exists()
    engine = zero(then) if then == 2 else {}
    run = train(digits_shards, tmp_path, "moved", processes=2 if engine else 0, **BOTH_STAGES, **engine)
    ends, expected = events(run, "stage_end"), events(undisturbed, "stage_end")
    assert [end["images"] for end in ends] == [end["images"] for end in expected]
    for end, other in zip(ends, expected, strict=True):
        assert end["elbo"] == pytest.approx(other["elbo"], rel=1e-3)
    assert largest_relative_difference(weights(undisturbed), weights(run)) < 1e-3


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"train_batch_size": 4}', "train_batch_size"),
        ('{"optimizer": {"type": "Adam"}}', "optimizer"),
    ],
)
def test_a_wrong_json_is_refused_in_one_line(digits_shards, tmp_path, content, names):
    path = tmp_path / "zero.json"
    path.write_text(content)
    chosen = words(digits_shards, tmp_path, "refused", engine__name="deepspeed", engine__deepspeed_config=path)
    done = run_module("trainer", *chosen)
    assert done.returncode == 2
    assert names in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: engine.deepspeed_config")
