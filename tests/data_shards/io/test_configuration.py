"""Configurations are read strictly: what is wrong is one line with the field, its value, and what would be right."""

import dataclasses
import pickle
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

import pytest

from data_shards.io.configuration import (
    Fraction,
    Name,
    PathText,
    PositiveFloat,
    PositiveInt,
    build,
    configuration,
    described,
    fields_of,
    meanings,
    read_configuration,
)
from data_shards.io.errors import InputError
from data_shards.io.strict_yaml import parse_yaml, read_yaml


@configuration
class Layer:
    """A section that can be repeated."""

    kind: Literal["dense", "convolution"]
    """What it computes."""
    width: PositiveInt = 8
    """Channels."""


@configuration
class Network:
    """A section."""

    widths: tuple[PositiveInt, ...] = (32, 64)
    """Channels."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Two decay rates."""
    floor: Literal["half"] | PositiveFloat = "half"
    """Least variance."""
    bias: bool = True
    """Whether layers add one."""
    scale: PositiveFloat | None = None
    """Null leaves it out."""

    def __post_init__(self) -> None:
        if self.scale is not None and not self.bias:
            raise InputError("needs bias; use null", parameter="scale")


@configuration
class Whole:
    """A whole file."""

    name: Name = "run"
    """Of the folder."""
    runs: PathText = "runs"
    """Where the folder lies."""
    images: PositiveInt = 128
    """Images of a batch."""
    network: Network = field(default_factory=Network)
    """The network."""
    layers: tuple[Layer, ...] = ()
    """More layers."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Anything."""


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        build(Whole, parse_yaml(text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images: 0", "images: 0 is not a whole number of at least 1; use for instance 128"),
        ("images: 1.5", "images: 1.5 is not a whole number"),
        ("images: true", "images: true is not a whole number"),
        ("images: '3'", "images: '3' is not a whole number"),
        ("images: null", "images: null is not a whole number"),
        ("images: 1e30", "is not a whole number"),
        ("name: a/b", "name: 'a/b' is not a name of at most 200 letters, digits, dots, dashes and underscores"),
        ("name: 5", "name: 5 is not a name"),
        ("name: ..", "name: '..' is not a name"),
        ("network: {widths: [3, 0]}", "network.widths: [3, 0] is not a list, each a whole number of at least 1"),
        ("network: {betas: [1]}", "network.betas: [1] is not a list of 2, each a number from 0 to 1"),
        ("network: {floor: -1}", "network.floor: -1 is not half or a number above 0; use for instance 'half'"),
        ("network: {bias: 1}", "network.bias: 1 is not true or false"),
        ("network: {bias: yes}", "network.bias: 'yes' is not true or false"),
        ("network: {scale: 0}", "network.scale: 0 is not a number above 0 or null"),
        ("network: {scale: 1, bias: false}", "network.scale: needs bias; use null"),
        ("network:", "network: is empty; use fields below it, such as widths, betas, floor, or leave it out"),
        ("network: 3", "network: 3 is not a section"),
        ("network: {width: [3]}", "network.width: is not a field; use network.widths"),
        ("netwrok: {widths: [3]}", "netwrok: is not a field; use network"),
        ("widths: [3]", "widths: is not a field; use network.widths"),
        ("network.widths: [3]", "network.widths: is not a field here; use widths below network"),
        ("layers: [{kind: dense}, {kind: dens}]", "layers[1].kind: 'dens' is not one of dense, convolution; use dense"),
        ("layers: [{width: 3}]", "layers[0].kind: is missing; use one of dense, convolution"),
        ("~: 3", "null: is not a field"),
        ("fields: 3", "fields: 3 is not a mapping of names to values"),
    ],
)
def test_what_is_wrong_is_one_line_with_field_value_and_remedy(text, message):
    assert message in refused(text)


def test_numbers_are_those_of_yaml_1_2():
    made = build(Whole, parse_yaml("images: 1e3\nnetwork: {scale: 1e-3, floor: 1}"))
    assert (made.images, made.network.scale, made.network.floor) == (1000, 0.001, 1.0)
    assert type(made.images) is int
    assert type(made.network.floor) is float
    assert parse_yaml("[on, 2026-01-31, 010, 0o10, 1_0]") == ["on", "2026-01-31", 10, 8, "1_0"]


def test_a_list_becomes_a_tuple_and_a_list_of_sections_their_dataclasses():
    made = build(Whole, parse_yaml("network: {widths: [1, 2]}\nlayers: [{kind: dense}]\nfields: {a: [1]}"))
    assert made.network.widths == (1, 2)
    assert made.layers == (Layer(kind="dense"),)
    assert made.fields == {"a": [1]}


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert build(Whole, {"runs": "~/runs"}).runs == "/home/someone/runs"


def test_values_are_checked_wherever_a_configuration_is_made():
    with pytest.raises(InputError, match="images: 0 is not") as caught:
        dataclasses.replace(Whole(), images=0)
    assert caught.value.parameter == "images"
    with pytest.raises(InputError, match="imges: is not a field; use images"):
        Whole(imges=3)
    with pytest.raises(InputError, match="kind: is missing"):
        Layer()


def test_a_configuration_is_a_frozen_dataclass():
    made = Whole(network=Network(widths=(3,)))
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 (our own)
    assert dataclasses.asdict(made)["network"]["widths"] == (3,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.images = 3


def test_fields_have_a_meaning_and_words_for_their_type():
    assert meanings(Layer) == {"kind": "What it computes.", "width": "Channels."}
    assert described(fields_of(Layer)["width"]) == "a whole number of at least 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "a: line 3: stands in line 1 already; leave one of them"),
        ("a: {b: 1,\n b: 2}", "a.b: line 2: stands in line 1 already"),
        ("a:\n  b: .inf", "a.b: line 2: .inf is not a finite number"),
        ("a: .nan", "a: line 1: .nan is not a finite number"),
        ("a: 1e999", "a: line 1: 1e999 is not a finite number"),
        ("a: [1", "line 1: expected"),
        ("a: !!python/name:os.system", "line 1: could not determine a constructor"),
        ("a: 1\nb: \x00", "line 2: holds the character #x0000; remove it"),
        ("[" * 5000, "nested too deeply"),
        ("? [a]\n: 3", "line 1: a list or section stands where a name must; use a name"),
        ("a:\n\tb: 1", "line 2: a tab stands where spaces must; indent with spaces"),
        ("a: 1\n---\na: 2", "line 2: a second document begins; keep one"),
        ("a: [1, " + "9" * 5000 + "]", "a[1]: line 1: a number of 5000 digits; use a shorter one"),
    ],
)
def test_a_text_that_is_not_plain_yaml_is_refused_with_its_line(text, message):
    with pytest.raises(InputError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: &n\n  network: *n\n", "network.network: line 1: an alias stands within what it names"),
        ("layers: &l [*l]\n", r"layers\[0\]: line 1: an alias stands within what it names"),
        ("network: &n\n  <<: *n\n", "network: line 1: an alias stands within what it names"),
    ],
)
def test_an_alias_within_what_it_names_is_refused(text, message):
    with pytest.raises(InputError, match=f"^{message}; write the values themselves"):
        parse_yaml(text)


def test_aliases_of_aliases_that_stand_for_more_than_any_memory_holds_are_refused():
    lists = ["&a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lists += [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(InputError, match=r"^images\[6\]: line 1: its aliases stand for more than 1,000,000 values"):
        parse_yaml(f"images: [{', '.join(lists)}]")


def test_merge_keys_work():
    assert parse_yaml("x: &a {b: 1, c: 1}\ny: {<<: *a, b: 2}")["y"] == {"b": 2, "c": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"- 1\n", "holds no fields"),
        (b"\xff\xfe\x00", "is not a text file in UTF-8"),
        (b"a: [", "line 1: "),
    ],
)
def test_a_file_that_holds_no_fields_is_named(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_field_that_is_wrong_is_reported_with_its_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("images: 0\n")
    with pytest.raises(InputError) as caught:
        read_configuration(Whole, path)
    assert caught.value.parameter == "images"
    assert str(caught.value).endswith(f"use for instance 128 (in {path})")
