"""A change that changes nothing any more is refused: each field of CHANGEABLE, wherever a run may stand."""

import dataclasses
from typing import Any

import pytest

from data_shards.io.configuration import leaf_fields
from data_shards.io.errors import InputError
from trainer.config.config import Config, load_config, to_yaml
from trainer.config.what_may_change import changed_fields, is_changeable
from trainer.run_folder.changes import refuse_without_effect
from trainer.run_folder.checkpoint import RunState, StageState
from trainer.run_folder.effect import Moment

EPOCH = 10_000
OTHER: dict[str, Any] = {
    "data.valid_images": 7,
    "objective.kl_warmup_images": 8_000,
    "variance.learning_rate": 0.5,
    "variance.smoothing_images": 5.0,
    "variance.min_variance": 0.5,
    "optimiser.learning_rate": 0.5,
    "optimiser.schedule": "constant",
    "optimiser.final_fraction": 0.5,
    "optimiser.stage2_fraction": 0.5,
    "optimiser.warmup_images": 8_000,
    "optimiser.switch_warmup_images": 3_000,
    "optimiser.at_switch": "reset",
    "optimiser.max_grad_norm": 5.0,
    **{
        f"{stage}.{name}": value
        for stage in ("stage1", "stage2")
        for name, value in {
            "max_epochs": 1.5,
            "min_images": 3,
            "eps": 0.5,
            "patience": 7,
            "check_images": 3,
            "smoothing": 0.3,
            "restore_best": False,
        }.items()
    },
}
STAGE1, STAGE2 = ({name for name in OTHER if name.startswith(stage)} for stage in ("stage1", "stage2"))
ALWAYS = {"data.valid_images", "optimiser.learning_rate", "optimiser.schedule", "optimiser.max_grad_norm"}
ALWAYS |= {"optimiser.final_fraction", "optimiser.stage2_fraction"} | STAGE2
OF_STAGE1 = {"variance.smoothing_images", "variance.min_variance"} | STAGE1
WARM_UPS = {"objective.kl_warmup_images", "optimiser.warmup_images"}
OF_THE_SWITCH = {"optimiser.switch_warmup_images"}


def state(seen: int, **stages: Any) -> RunState:
    return RunState(
        images=seen,
        stages=StageState(**stages),
        per_pixel=stages["stage"] == 2,
        image_shape=(1, 28, 28),
        manifest="",
        bad_steps=0,
        substituted=0,
        seed=0,
        world_size=1,
    )


def configuration(**fields: Any) -> Config:
    return load_config(None, {"stage1.max_epochs": 1, "stage2.max_epochs": 1, **fields})


MOMENTS = {
    "early in stage 1": (
        state(5_000, stage=1, images=5_000),
        ALWAYS | OF_STAGE1 | WARM_UPS | OF_THE_SWITCH | {"optimiser.at_switch"},
    ),
    "late in stage 1": (
        state(9_000, stage=1, images=9_000),
        ALWAYS | OF_STAGE1 | OF_THE_SWITCH | {"optimiser.at_switch"},
    ),
    "at the end of stage 1": (
        state(10_000, stage=1, images=10_000, ended="cap"),
        ALWAYS | OF_THE_SWITCH | {"optimiser.at_switch"},
    ),
    "just after the switch": (state(12_500, stage=2, images=2_500), ALWAYS | OF_THE_SWITCH),
    "in stage 2": (state(15_000, stage=2, images=5_000), ALWAYS),
    "complete": (state(20_000, stage=2, images=10_000, ended="cap"), {"stage2.max_epochs"}),
    "complete for want of gain": (
        state(18_000, stage=2, images=8_000, ended="converged", without_gain=3),
        {"stage2.patience"},
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_field_acts_or_is_refused_wherever_the_run_stands(moment):
    assert set(OTHER) == {name for name in leaf_fields(Config) if is_changeable(name)}
    where, acting = MOMENTS[moment]
    old, found = configuration(), set()
    for name, value in OTHER.items():
        new = configuration(**{name: value})
        assert name in changed_fields(old, new), name
        if Moment(old=old, new=new, state=where, train_images=EPOCH).acts(name):
            found.add(name)
    assert found == acting


def acts(name: str, where: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    moment = Moment(
        old=configuration(**old), new=configuration(**(old | new)), state=MOMENTS[where][0], train_images=EPOCH
    )
    return moment.acts(name)


@pytest.mark.parametrize(
    ("name", "where", "others", "value", "expected"),
    [
        ("variance.learning_rate", "late in stage 1", {"variance.update": "adam"}, 0.5, True),
        ("variance.smoothing_images", "late in stage 1", {"variance.update": "adam"}, 5.0, False),
        ("variance.smoothing_images", "late in stage 1", {"objective.name": "vae"}, 5.0, False),
        ("optimiser.final_fraction", "in stage 2", {"optimiser.schedule": "constant"}, 0.5, False),
        ("optimiser.final_fraction", "late in stage 1", {"optimiser.schedule": "constant"}, 0.5, True),
        ("optimiser.stage2_fraction", "late in stage 1", {"stage2.max_epochs": 0}, 0.5, False),
        ("stage2.eps", "late in stage 1", {"stage2.max_epochs": 0}, 0.5, False),
        ("stage2.max_epochs", "late in stage 1", {"stage2.max_epochs": 0}, 1, True),
        ("stage2.max_epochs", "at the end of stage 1", {}, 0, True),
        ("stage2.max_epochs", "complete", {}, 0.5, False),
        ("stage2.max_epochs", "complete for want of gain", {}, 1.5, False),
        ("stage2.patience", "complete for want of gain", {}, 2, False),
        ("objective.kl_warmup_images", "in stage 2", {"objective.kl_warmup_images": 20_000}, 0, True),
    ],
)
def test_whether_a_field_acts_depends_on_the_others(name, where, others, value, expected):
    assert acts(name, where, others, {name: value}) is expected


def test_with_a_longer_last_stage_other_fields_of_a_complete_run_act_again():
    assert acts("optimiser.learning_rate", "complete", {}, {"optimiser.learning_rate": 0.5, "stage2.max_epochs": 2})
    assert not acts("stage1.eps", "complete", {}, {"stage1.eps": 0.5, "stage2.max_epochs": 2})


@pytest.mark.parametrize(
    ("where", "fields", "message"),
    [
        (
            "in stage 2",
            {"stage1.max_epochs": 3, "optimiser.learning_rate": 0.5},
            r"config\.yaml: stage1\.max_epochs: 1\.0 -> 3\.0 would .*: \S+ goes on in stage 2, after 15,000 images",
        ),
        ("complete", {"stage2.eps": 0.5}, r"is complete \(stage 2 has ended: cap\); raise stage2\.max_epochs above 1 "),
        ("complete for want of gain", {"stage2.max_epochs": 2}, r"raise stage2\.patience above 3 to go on with it"),
    ],
)
def test_the_line_names_the_fields_and_what_would_be_right(where, fields, message, tmp_path):
    place = {"runs": str(tmp_path), "name": "run"}
    old, new = configuration(**place), configuration(**place, **fields)
    old.folder.mkdir()
    (old.folder / "config.yaml").write_text(to_yaml(old))
    with pytest.raises(InputError, match=message) as refused:
        refuse_without_effect(new, MOMENTS[where][0], EPOCH)
    assert "learning_rate" not in str(refused.value)  # it acts
    refuse_without_effect(dataclasses.replace(old, device="cpu"), MOMENTS[where][0], EPOCH)
