"""Configurations as a person writes them wrong, made from the dataclasses: each is one line, and nothing is written."""

import os
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from support.running import ROOT

from data_shards.io.configuration import leaf_fields
from data_shards.io.errors import command
from trainer.__main__ import main
from trainer.config.config import Config

FIELDS = leaf_fields(Config)


def nested(name: str, text: str) -> str:
    """A YAML text in which the field of that dotted name has the value `text`."""
    section, _, field = name.rpartition(".")
    return f"{section}:\n  {field}: {text}\n" if section else f"{field}: {text}\n"


def parts(annotation: Any, metadata: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """The choices of a type, each with what limits it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from parts(arguments[0], [*metadata, *arguments[1:]])
    elif origin in (typing.Union, types.UnionType):
        for one in arguments:
            yield from parts(one, metadata)
    else:
        yield annotation, [limit for one in metadata for limit in getattr(one, "metadata", [one])]


def wrong_type(name: str) -> str | None:
    kinds = [kind for kind, _ in parts(FIELDS[name].annotation, [])]
    return "[1, [2]]" if str in kinds or bool in kinds else "many"


def a_number_in_quotes(name: str) -> str | None:
    return "'3'" if any(kind in (int, float) for kind, _ in parts(FIELDS[name].annotation, [])) else None


def null(name: str) -> str | None:
    return None if type(None) in [kind for kind, _ in parts(FIELDS[name].annotation, [])] else "null"


def out_of_range(name: str) -> str | None:
    info = FIELDS[name]
    if info.default == "":
        return None
    for kind, limits in parts(info.annotation, list(info.metadata)):
        for limit in limits:
            if hasattr(limit, "ge"):
                return str(limit.ge - 1)
            if hasattr(limit, "gt"):
                return str(limit.gt)
        if typing.get_origin(kind) is Literal:
            return "nonsense"
        if kind is bool:
            return "yes"
        if typing.get_origin(kind) is tuple:
            return "[-1, -1]"
    return None


def too_large(name: str) -> str | None:
    kinds = [kind for kind, _ in parts(FIELDS[name].annotation, [])]
    return "18446744073709551616" if int in kinds else "1e400" if float in kinds else None


def empty(name: str) -> str | None:
    return None if FIELDS[name].default == "" else "''"


VALUES: dict[str, Callable[[str], str | None]] = {
    "wrong type": wrong_type,
    "a number in quotes": a_number_in_quotes,
    "null": null,
    "nothing": lambda name: null(name) and "",
    "NaN": lambda name: ".nan",
    "infinite": lambda name: "-.inf",
    "out of range": out_of_range,
    "too large": too_large,
    "empty": empty,
}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Starts a training with a configuration file, and returns the one line in which it is refused."""
    monkeypatch.chdir(tmp_path)

    def start(content: str, *words: str) -> str:
        Path("mine.yaml").write_text(content)
        monkeypatch.setattr(sys, "argv", ["trainer", "--config", "mine.yaml", *words])
        assert command(main) == 2, content
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1, said
        assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
        return said[0]

    return start


@pytest.mark.parametrize("kind", VALUES)
def test_a_wrong_value_of_any_field_is_one_line_with_file_field_value_and_remedy(kind, refused):
    tried = 0
    for name in FIELDS:
        text = VALUES[kind](name)
        if text is None:
            continue
        said = refused(nested(name, text))
        assert said.startswith(f"error: {name}: "), said
        assert said.endswith("(in mine.yaml)")
        assert "use " in said or "is not one of" in said, said
        value = yaml.safe_load(text) if kind not in ("NaN", "infinite", "too large") else text
        shown = "null" if value is None else text.strip("'") if isinstance(value, str) else str(value)
        assert shown.lower() in said.lower(), said
        tried += 1
    assert tried > 20


def test_a_misspelt_field_is_answered_with_the_right_one(refused):
    for name in FIELDS:
        section, _, field = name.rpartition(".")
        wrong = field[:-2] + field[-1] + field[-2] if field[-1] != field[-2] else f"{field}x"
        said = refused(nested(f"{section}.{wrong}" if section else wrong, "3"))
        assert said == f"error: {f'{section}.' if section else ''}{wrong}: is not a field; use {name} (in mine.yaml)"


def test_a_field_that_is_written_twice_is_named_with_both_lines(refused):
    for name in FIELDS:
        section, _, field = name.rpartition(".")
        line = f"  {field}: 3\n" if section else f"{field}: 3\n"
        said = refused((f"{section}:\n" if section else "") + line + line)
        first = 2 if section else 1
        assert said == (
            f"error: {name}: line {first + 1}: stands in line {first} already; leave one of them (in mine.yaml)"
        )


def test_a_field_in_the_wrong_section_is_answered_with_the_right_one(refused):
    for name in FIELDS:
        section, _, field = name.rpartition(".")
        elsewhere = "checkpoint" if section != "checkpoint" else "optimiser"
        if not section or f"{elsewhere}.{field}" in FIELDS:
            continue
        said = refused(nested(f"{elsewhere}.{field}", "3"))
        right = [one for one in FIELDS if one.rpartition(".")[2] == field]
        assert said == f"error: {elsewhere}.{field}: is not a field; use {' or '.join(right)} (in mine.yaml)"
        if field in FIELDS:  # of the whole run, as `name` is
            continue
        said = refused(f"{field}: 3\n")
        assert said == f"error: {field}: is not a field; use {' or '.join(right)} (in mine.yaml)"


def test_an_empty_section_is_named(refused):
    for section in {name.partition(".")[0] for name in FIELDS if "." in name}:
        assert refused(f"{section}:\n").startswith(f"error: {section}: is empty; use fields below it, such as ")


@pytest.mark.parametrize("kind", ["wrong type", "null", "NaN", "out of range", "too large"])
def test_the_command_line_has_the_same_rules_and_names_the_option(kind, refused):
    for name, info in FIELDS.items():
        text = VALUES[kind](name)
        a_word_is_right = any(one is str for one, _ in parts(info.annotation, []))
        if text is None or a_word_is_right or (kind == "null" and typing.get_origin(info.annotation) is Literal):
            continue
        said = refused("seed: 1\n", f"--{name}={text}")
        assert said.startswith(f"error: --{name}: {text} is not ") or f"'{text}' is not " in said, said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mine.yaml: is empty; write fields into it"),
        (b"# only this\n", "mine.yaml: is empty; write fields into it"),
        (b"- seed: 1\n", "mine.yaml: holds no fields; write them as `name: value`, one a line"),
        (b"seed 1\n", "mine.yaml: holds no fields"),
        ("seed: 1\n".encode("utf-16"), "mine.yaml: is not a text file in UTF-8; save it as one"),
        (b"name: caf\xe9\n", "mine.yaml: is not a text file in UTF-8"),
        (b"data:\n\tworkers: 1\n", "mine.yaml: line 2: a tab stands where spaces must; indent with spaces"),
        (b"seed: 1\n\x00\n", "mine.yaml: line 2: holds the character #x0000; remove it"),
        (b"seed: 1\n---\nseed: 2\n", "mine.yaml: line 2: a second document begins; keep one"),
        (b"runs: ~nobody-of-this-name/runs\n", "runs: '~nobody-of-this-name/runs' is not a path"),
        (b'runs: "a\\nb"\n', "runs: 'a\\nb' is not a path"),
        (b"runs: s3://bucket/runs\n", "runs: 's3://bucket/runs' is not a path of this machine"),
        (b"log: {to: [wandb, wandb]}\n", "log.to: wandb stands there twice; leave one of them"),
    ],
)
def test_a_file_that_is_none_is_named(content, message, refused, monkeypatch, capsys):
    refused("seed: -1\n")
    Path("mine.yaml").write_bytes(content)
    assert command(main) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}"), said
    assert said.count("\n") == 1


def test_what_is_right_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    path = tmp_path / "mine.yaml"
    path.write_bytes(
        b"\xef\xbb\xbfseed: 1e6\r\nruns: ~/runs\r\noptimiser: {learning_rate: 1e-3}\r\ndata: {global_batch: 0o100}\r\n"
    )
    from trainer.config.config import load_config

    config = load_config(path)
    assert (config.seed, config.runs, config.optimiser.learning_rate) == (10**6, "/home/someone/runs", 0.001)
    assert config.data.global_batch == 64
    assert type(config.seed) is int


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_what_might_never_end_or_is_far_too_large_is_refused_at_once(kind, tmp_path, monkeypatch, capsys):
    path = {"pipe": tmp_path / "pipe.yaml", "device": Path("/dev/zero"), "large": tmp_path / "large.yaml"}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(2**30)
    monkeypatch.setattr(sys, "argv", ["trainer", "--config", str(path)])
    assert command(main) == 2
    said = capsys.readouterr().err
    remedy = "has more than 1 MB; use a file of settings" if kind == "large" else "is a pipe or a device; use a file"
    assert said == f"error: {path}: {remedy}\n"


def test_what_a_shell_puts_in_the_place_of_a_file_is_read(tmp_path):
    command_line = f"{sys.executable} -m trainer --dry-run --config <(echo 'seed: -1')"
    done = subprocess.run(
        ["bash", "-c", command_line], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert done.stderr.startswith("error: seed: -1 is not a whole number of at least 0")
