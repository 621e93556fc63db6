"""The configuration: what is read, what is refused, and in which words."""

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.running import ROOT, run_module

from data_shards.io.errors import InputError
from trainer.config import config as configs
from trainer.config import sections
from trainer.config.config import Config
from trainer.run_folder.restore import load_config

SECTIONS = [value for value in vars(sections).values() if dataclasses.is_dataclass(value)]


@pytest.mark.parametrize("path", sorted((ROOT / "trainer" / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_configuration_is_valid(path):
    assert isinstance(configs.load(path), Config)


def test_a_configuration_survives_writing_and_reading(tmp_path):
    config = configs.load(None, {"data.global_batch": 64, "model.encoder_channels": [8, 16], "variance.floor": 0.01})
    path = tmp_path / "config.yaml"
    path.write_text(configs.to_yaml(config))
    assert configs.load(path) == config


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


def test_an_old_name_is_refused_outside_of_run_folders(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("checkpoint: {keep: 3}\n")
    with pytest.raises(InputError, match="keep"):
        configs.load(path)


def test_the_command_line_overrides_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: 3\ndata: {global_batch: 32}\n")
    config = configs.load(path, ["--seed", "5"])
    assert (config.seed, config.data.global_batch) == (5, 32)


@pytest.mark.parametrize("section", [Config, *SECTIONS], ids=lambda s: s.__name__)
def test_every_field_says_what_it_means(section):
    source = (
        (ROOT / "trainer" / "config" / ("config.py" if section is Config else "sections.py")).read_text().splitlines()
    )
    for field in dataclasses.fields(section):
        line = next(n for n, text in enumerate(source) if text.startswith(f"    {field.name}: "))
        assert source[line + 1].startswith('    """'), f"{section.__name__}.{field.name} has no line below it"


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
        (["--engine.precision", "bf16"], "engine.precision"),
        (["--engine.name", "deepspeed"], "engine.deepspeed_config"),
        (["--data.valid_split", "train"], "data.valid_split"),
        (["--name", "a/b"], "name"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_a_mistake_is_told_in_one_line_that_names_the_field(words, names):
    with pytest.raises(InputError) as caught:
        configs.parse(words)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_ends_with_code_2_and_one_line():
    done = run_module("trainer", "--data.global_batch", "0")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: data.global_batch: 0 is below 1"


def test_help_lists_every_field_of_every_section():
    done = run_module("trainer", "--help")
    assert done.returncode == 0
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(field.type):
            for inner in dataclasses.fields(field.type):
                assert f"--{field.name}.{inner.name}" in done.stdout


field_names = [
    f"{outer.name}.{inner.name}"
    for outer in dataclasses.fields(Config)
    if outer.default_factory is not dataclasses.MISSING
    for inner in dataclasses.fields(outer.default_factory)
]
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
def test_any_file_is_read_or_refused_in_one_line(fields):
    content: dict = {}
    for name, value in fields.items():
        *outer, inner = name.split(".")
        target = content
        for key in outer:
            target = target.setdefault(key, {})
        target[inner] = value
    assert configs.parse(["--config={seed: 3}"]).seed == 3  # the text itself is read where it names no file
    told = ""
    try:
        config = configs.parse([f"--config={yaml.safe_dump(content)}"] if content else [])
    except InputError as error:
        told = str(error)
    else:
        assert isinstance(config, Config)
    assert "\n" not in told


def test_fields_that_decide_the_result_are_compared_and_the_others_are_not():
    old = Config()
    new = dataclasses.replace(
        old,
        seed=1,
        engine=dataclasses.replace(old.engine, compile=True),
        log=dataclasses.replace(old.log, every_images=1),
    )
    assert configs.differences(old, new) == ["seed: 0 -> 1"]
