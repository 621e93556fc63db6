"""metrics.jsonl: a line that cannot be read is set aside and named, and never stops a training."""

import errno
import json
import os
import resource
import signal
import socket
from pathlib import Path

import pytest
from support.training import events, train, weights, words

from data_shards.io.errors import MachineFault
from trainer.__main__ import read_command_line
from trainer.loop import train as run_training
from trainer.run_folder.log import RunLog, read_events

VALID = {"event": "valid", "images": 30, "stage": 1, "elbo": -3.5, "elbo_at_closed_form": -3.0}
DAMAGED = {
    "torn": b'{"event": "train", "ima',
    "zeros of a power cut": b"\0" * 512,
    "not UTF-8": b'{"event": "note", "images": 1, "text": "\xff\xfe"}',
    "hand-written": b"# learning rate lowered here",
    "a list": b"[1, 2]",
    "no images": b'{"event": "train"}',
    "images that are none": b'{"event": "note", "images": true}',
    "without its numbers": b'{"event": "train", "images": 30}',
    "a number that is a text": b'{"event": "stage_start", "images": 30, "stage": 2, "elbo": "-3.5"}',
    "a stage that is none": b'{"event": "stage_start", "images": 30, "stage": true, "elbo": -3.5}',
    "deep": b"[" * 100_000,
}


def open_log(run, images=60):
    return RunLog(run, images=images, total=90, main=True)


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_line_that_is_no_event_is_set_aside_and_named_once(tmp_path, capfd, line):
    good = json.dumps(VALID).encode()
    (tmp_path / "metrics.jsonl").write_bytes(good + b"\n\n" + line + b"\n" + good + b"\n" + line)
    assert read_events(tmp_path) == [VALID, VALID]
    for _ in range(2):
        log = open_log(tmp_path)
        log.event("note", 60, text="after")
        log.close()
    said = capfd.readouterr().err
    assert said.count("metrics.unreadable") == 1
    assert "2 lines" in said
    assert "line 3" in said
    assert (tmp_path / "metrics.unreadable").read_bytes() == (line + b"\n") * 2
    assert [event["event"] for event in read_events(tmp_path)] == ["valid", "valid", "note", "note"]


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # an address is short


NO_LOGS = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a socket": a_socket,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to(path.parent / "nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("make", NO_LOGS.values(), ids=NO_LOGS)
def test_what_is_no_log_is_renamed_and_named_and_the_log_begins_anew(tmp_path, capfd, make):
    make(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.set-aside").write_text("of a person")
    kind = (tmp_path / "metrics.jsonl").lstat().st_mode
    assert read_events(tmp_path) == []
    log = open_log(tmp_path)
    log.event("note", 60, text="after")
    log.close()
    assert [event["event"] for event in read_events(tmp_path)] == ["note"]
    assert (tmp_path / "metrics.set-aside-2").lstat().st_mode == kind
    assert (tmp_path / "metrics.set-aside").read_text() == "of a person"
    assert capfd.readouterr().err.count("it is now") == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_fault_of_the_machine_while_the_log_is_opened_sets_nothing_aside(tmp_path, monkeypatch, number):
    log, opened = tmp_path / "metrics.jsonl", Path.open
    log.write_text('{"event": "start", "images": 0}\n')

    def failing(path, *arguments, **options):
        if path == log:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        RunLog(tmp_path, total=10, images=0, main=True, listener=None)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_are_set_aside_beside_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "metrics.unreadable")
    (tmp_path / "metrics.jsonl").write_text("mine\n")
    open_log(tmp_path).close()
    assert (tmp_path / "metrics.unreadable-2").read_text() == "mine\n"


def test_blank_lines_and_a_missing_end_of_line_lose_nothing(tmp_path, capfd):
    (tmp_path / "metrics.jsonl").write_text(f"\n{json.dumps(VALID)}\n  \n{json.dumps(VALID)}")
    open_log(tmp_path).close()
    assert read_events(tmp_path) == [VALID, VALID]
    assert capfd.readouterr().err == ""


def test_a_run_whose_log_is_damaged_goes_on_to_the_same_bits(digits_shards, tmp_path, capfd):
    fields = {"stage1__max_epochs": 0.2, "stage2__max_epochs": 0.2, "checkpoint__every_images": 90}
    whole = train(digits_shards, tmp_path, "whole", **fields)

    def stop_early(kind, images, facts):
        if kind == "train" and images == 120:
            os.kill(os.getpid(), signal.SIGTERM)

    config = read_command_line(words(digits_shards, tmp_path, "run", log__every_images=30, **fields)).config
    run = run_training(config, stop_early)
    with (run / "metrics.jsonl").open("ab") as log:
        log.write(b"\0" * 99 + b"\n\nby hand: \xff\n" + b'{"event": "tra')
    assert run_training(config) == run
    assert "3 lines" in capfd.readouterr().err
    assert all((weights(run)[name] == value).all() for name, value in weights(whole).items())
    assert [event["stage"] for event in events(run, "stage_end")] == [1, 2]


def test_a_log_that_can_grow_no_more_is_told_by_its_name(tmp_path):
    log = open_log(tmp_path)
    log.event("note", 60, text="fits")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size, unlimited[1]))
    try:
        with pytest.raises(MachineFault, match=rf"^{tmp_path / 'metrics.jsonl'}: the file would be larger"):
            log.event("note", 60, text="does not")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert [event["text"] for event in read_events(tmp_path)] == ["fits"]
