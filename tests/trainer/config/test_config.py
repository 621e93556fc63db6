"""The configuration: what is read, what is refused, and with which messages."""

import dataclasses
import math
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.running import ROOT, run_module

from data_shards.io.configuration import fields_of, is_configuration, leaf_fields, meanings
from data_shards.io.errors import InputError
from trainer.__main__ import read_command_line
from trainer.config import sections
from trainer.config.config import Config, load_config, to_dict, to_yaml
from trainer.config.earlier_versions import ADDED_FIELDS, as_first_written
from trainer.config.what_may_change import FREE_TO_CHANGE, changed_fields

SECTIONS = [value for value in vars(sections).values() if is_configuration(value)]


def parsed(words):
    return read_command_line(words).config


@pytest.mark.parametrize("path", sorted((ROOT / "trainer" / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_configuration_is_valid(path):
    assert isinstance(load_config(path), Config)


def test_a_configuration_survives_writing_and_reading(tmp_path):
    config = load_config(None, {"data.global_batch": 64, "model.encoder_channels": [8, 16], "variance.floor": 0.01})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_the_configuration_of_a_run_of_before_the_fields_were_renamed_is_read(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "name: demo\n"
        "optimiser:\n  gradient_clip: 10.0\n"
        "variance:\n  smallest: 1.0e-05\n"
        "engine:\n  micro_batches: 2\n"
        "checkpoint:\n  keep: 3\n"
    )
    config = load_config(tmp_path)
    assert config.optimiser.max_grad_norm == 10.0
    assert config.variance.min_variance == 1e-5
    assert config.engine.grad_accumulation_steps == 2
    assert config.checkpoint.keep_last == 3


def test_the_configuration_of_an_old_run_may_be_given_to_the_trainer(tmp_path):
    (tmp_path / "config.yaml").write_text("checkpoint: {keep: 3}\n")
    assert read_command_line(["--config", str(tmp_path / "config.yaml")]).config.checkpoint.keep_last == 3


def test_an_old_name_is_refused_outside_of_run_folders(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("checkpoint: {keep: 3}\n")
    with pytest.raises(InputError, match="keep"):
        load_config(path)


def test_the_command_line_overrides_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: 3\ndata: {global_batch: 32}\n")
    config = parsed(["--config", str(path), "--seed", "5"])
    assert (config.seed, config.data.global_batch) == (5, 32)


@pytest.mark.parametrize("section", [Config, *SECTIONS], ids=lambda s: s.__name__)
def test_every_field_says_what_it_means(section):
    assert meanings(section).keys() == fields_of(section).keys()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--data.globl_batch", "3"], "globl_batch"),
        (["--model.latent", "3"], "model.latent"),
        (["--data.global_batch", "many"], "data.global_batch"),
        (["--data.global_batch", "0"], "data.global_batch"),
        (["--model.norm", "layer"], "model.norm"),
        (["--model.norm", "group", "--model.encoder_channels", "[3]"], "model.encoder_channels"),
        (["--model.norm", "batch", "--engine.grad_accumulation_steps", "2"], "engine.grad_accumulation_steps"),
        (["--objective.name", "fixed"], "objective.sigma2"),
        (["--objective.name", "vae", "--objective.sigma2", "0.1"], "objective.sigma2"),
        (["--variance.floor", "-0.1"], "variance.floor"),
        (["--device", "cpu", "--engine.precision", "bf16"], "engine.precision"),
        (["--device", "cpu", "--engine.cuda_graphs", "true"], "engine.cuda_graphs"),
        (
            ["--engine.name=deepspeed", "--engine.deepspeed_config=zero1.json", "--engine.cuda_graphs=true"],
            "engine.cuda_graphs",
        ),
        (["--engine.name", "deepspeed"], "engine.deepspeed_config"),
        (["--data.valid_split", "train"], "data.valid_split"),
        (["--name", "a/b"], "name"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--stage2.patience", "0"], "stage2.patience"),
        (["--stage1.max_epochs", "0"], "stage1.max_epochs"),
        (["--variance.update", "null"], "variance.update"),
        (["--optimiser.learning_rate", ".inf"], "optimiser.learning_rate"),
        (["--model.encoder_channels", "[]"], "model.encoder_channels"),
        (["--seed", "18446744073709551616"], "seed"),
        (["--dry-run", "--processes", "0"], "processes"),
        (["--processes", "2"], "dry-run"),
    ],
)
def test_a_mistake_is_reported_in_one_line_that_names_the_field(words, names):
    with pytest.raises(InputError) as caught:
        parsed(words)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_ends_with_code_2_and_one_line():
    done = run_module("trainer", "--data.global_batch", "0")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: --data.global_batch: 0 is not a whole number of at least 1; use for instance 128"
    )


def test_help_lists_every_field_of_every_section():
    done = run_module("trainer", "--help")
    assert done.returncode == 0
    for name in leaf_fields(Config):
        assert f"--{name} " in done.stdout


def test_help_shows_the_meaning_of_a_field_its_range_and_its_default():
    done = run_module("trainer", "--help")
    assert "Images of one update, summed over all processes. (a whole number of at least 1; default: 128)" in " ".join(
        done.stdout.split()
    )


def test_a_mistake_in_a_file_is_reported_with_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {global_batch: 0}\n")
    with pytest.raises(InputError, match=f"data.global_batch: 0 is not .* \\(in {path}\\)"):
        load_config(path)
    with pytest.raises(InputError, match=r"seed: -1 is not .*0$"):
        load_config(path, {"data.global_batch": 1, "seed": -1})


def test_of_several_files_the_later_ones_go_over_the_earlier_ones(tmp_path):
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text("seed: 3\ndata: {global_batch: 32, workers: 1}\n")
    mine.write_text("data: {global_batch: 64}\n")
    config = parsed(["--config", str(base), "--config", str(mine)])
    assert (config.seed, config.data.global_batch, config.data.workers) == (3, 64, 1)


def test_of_several_files_the_one_with_the_mistake_is_named(tmp_path):
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text("data: {global_batch: 0}\n")
    mine.write_text("data: {workers: 1}\n")
    with pytest.raises(InputError, match=rf"data\.global_batch: 0 is not .* \(in {base}\)"):
        parsed(["--config", str(base), "--config", str(mine)])


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} holds no config.yaml"):
        load_config(tmp_path)


field_names = list(leaf_fields(Config))
values = st.one_of(
    st.integers(-3, 10**6),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=8),
    st.booleans(),
    st.none(),
    st.lists(st.integers(-2, 64), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.dictionaries(st.sampled_from([*field_names, "unknown", "data.unknown"]), values, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, fields):
    content: dict = {}
    for name, value in fields.items():
        *outer, inner = name.split(".")
        target = content
        for key in outer:
            target = target.setdefault(key, {})
        target[inner] = value
    path = tmp_path_factory.mktemp("any") / "any.yaml"
    path.write_text(yaml.safe_dump(content))
    message = ""
    try:
        config = load_config(path)
    except InputError as error:
        message = str(error)
        assert str(path) in message
    else:
        assert isinstance(config, Config)
    assert "\n" not in message


@pytest.mark.parametrize("name", field_names)
def test_whatever_is_wrong_with_a_field_is_reported_with_its_name(name):
    optional = {"objective.sigma2": [None], "engine.deepspeed_config": [""], "data.cache_dir": ["x", "", "3"]}.get(
        name, []
    )
    a_text_is_right = leaf_fields(Config)[name].annotation is str
    wrong = [None, {}, {"a": 1}, [[1]], math.nan, math.inf, 10**400, *([] if a_text_is_right else ["x", "", "3"])]
    for value in [one for one in wrong if one not in optional]:
        with pytest.raises(InputError) as caught:
            load_config(None, {name: value})
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)
    *section, last = name.split(".")
    with pytest.raises(InputError, match=f"is not a field; use {re.escape(name)}$"):
        load_config(None, {".".join([*section, f"{last[:-1]}_{last[-1]}"]): 3})


def test_fields_that_decide_the_result_are_compared_and_the_others_are_not():
    old = Config()
    new = dataclasses.replace(
        old,
        seed=1,
        engine=dataclasses.replace(old.engine, compile=True),
        log=dataclasses.replace(old.log, every_images=1),
    )
    assert changed_fields(old, new) == {"seed": (0, 1)}


def test_fields_that_came_later_are_declared_with_the_value_of_before():
    """Else kept measurements would not know their trainings, and old runs would go on under new defaults."""
    first = flat(yaml.safe_load((ROOT / "tests/old_format/run/config.yaml").read_text()))
    # The images that sigma^2's mean looks back over were the weight of a batch before.
    old = ADDED_FIELDS | {"variance.smoothing_images": 1000.0}
    today = flat(as_first_written(to_dict(load_config(None, old))))
    decides = [name for name in today if name not in FREE_TO_CHANGE and name.partition(".")[0] not in FREE_TO_CHANGE]
    assert [name for name in decides if name not in first] == []


def test_a_run_folder_without_a_field_that_came_later_has_its_old_value(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    stored = flat(to_dict(load_config(tmp_path)))
    assert {name: stored[name] for name in ADDED_FIELDS} == ADDED_FIELDS


def flat(content, prefix=""):
    found = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
