"""The files of a checkpoint."""

import contextlib
import hashlib
import json
import os
import shutil

import pytest
import torch
from support.trainer_checkpoints import checkpoint

from data_shards.io.errors import InputError
from trainer.process_group import single
from trainer.run_folder.checkpoint import (
    Checkpoint,
    RunState,
    complete_checkpoints,
    fingerprint,
    newest_undamaged,
    read,
    write,
)
from trainer.run_folder.restore import checkpoint_of
from trainer.run_folder.saver import CheckpointSaver

# Of {"a": 0 to 5, "b": 1}, computed by an earlier version.
FINGERPRINT = 3127706906451358404
# A state.json as it was before its content had a class.
STATE = """{
 "images": 1397,
 "stages": {
  "stage": 1,
  "images": 1397,
  "smoothed": -371.5,
  "without_gain": 0,
  "ended": "cap"
 },
 "per_pixel": false,
 "image_shape": [
  1,
  28,
  28
 ],
 "manifest": "fc09dca491095d8a",
 "bad_steps": 0,
 "substituted": 0,
 "seed": 0,
 "world_size": 2
}"""


def save(run, *args, keep_last: int = 1, **fields) -> None:
    with CheckpointSaver(run, single(), keep_last=keep_last, may_write=lambda: None) as saver:
        saver.save(checkpoint(*args, **fields))


def test_state_json_has_the_bytes_of_earlier_versions(tmp_path):
    state = RunState.from_json(json.loads(STATE))
    write(tmp_path, Checkpoint(model={}, training={}, state=state))
    assert (complete_checkpoints(tmp_path)[0] / "state.json").read_text() == STATE


def test_what_was_saved_is_read(tmp_path):
    save(tmp_path, 300)
    found = read(complete_checkpoints(tmp_path)[0])
    assert found.state == checkpoint(300).state
    assert torch.equal(found.model["w"], torch.arange(3.0))
    assert torch.equal(found.training["m"], torch.ones(2))


def test_the_newest_checkpoint_and_the_end_of_a_stage_are_kept(tmp_path):
    for images, ended in ((300, ""), (600, "cap"), (900, ""), (1200, "")):
        save(tmp_path, images, ended)
    assert [int(folder.name) for folder in complete_checkpoints(tmp_path)] == [600, 1200]


def test_the_best_of_every_kept_checkpoint_is_kept(tmp_path):
    for images, best in ((300, 300), (600, 600), (900, 600), (1200, 600), (1500, 1500), (1800, 1500)):
        save(tmp_path, images, best=best, keep_last=2)
    assert [int(folder.name) for folder in complete_checkpoints(tmp_path)] == [1500, 1800]
    save(tmp_path, 2100, best=1500, keep_last=2)
    assert [int(folder.name) for folder in complete_checkpoints(tmp_path)] == [1500, 1800, 2100]


def test_a_checkpoint_with_numbers_that_are_not_finite_counts_as_damaged(tmp_path):
    save(tmp_path, 300)
    bad = checkpoint(600)
    write(tmp_path, Checkpoint(model={"w": torch.tensor([1.0, float("nan")])}, training={}, state=bad.state))
    found, damaged = newest_undamaged(tmp_path)
    assert found is not None
    assert found.state.images == 300
    assert "w is not finite" in damaged[0]


def test_a_changed_byte_is_found(tmp_path):
    save(tmp_path, 300)
    folder = complete_checkpoints(tmp_path)[0]
    (folder / "state.json").write_text((folder / "state.json").read_text().replace("300", "301"))
    with pytest.raises(InputError, match="does not match its checksum"):
        read(folder)


def test_a_pipe_in_a_checkpoint_is_damage_and_not_waited_for(tmp_path):
    kept, folder = write(tmp_path, checkpoint(300)), write(tmp_path, checkpoint(600))
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")
    assert complete_checkpoints(tmp_path) == [kept, folder]
    found, damaged = newest_undamaged(tmp_path)
    assert found is not None
    assert found.state.images == 300
    assert "state.json: is a pipe" in damaged[0]


def test_the_fingerprint_depends_on_names_shapes_and_values():
    tensors = {"a": torch.arange(6.0), "b": torch.tensor(1)}
    assert fingerprint(tensors) == FINGERPRINT
    changed = [tensors | {"a": torch.arange(6.0).view(2, 3)}, {"c": tensors["a"], "b": tensors["b"]}]
    changed.append(tensors | {"b": torch.tensor(2)})
    assert FINGERPRINT not in map(fingerprint, changed)


def test_who_loses_the_run_folder_while_a_checkpoint_is_written_removes_none(tmp_path):
    former = write(tmp_path, checkpoint(300))

    def may_write():
        if complete_checkpoints(tmp_path) != [former]:
            raise InputError("taken over")

    saver = CheckpointSaver(tmp_path, single(), keep_last=1, may_write=may_write)
    with pytest.raises(InputError, match="taken over"), saver:
        saver.save(checkpoint(600))
    assert len(complete_checkpoints(tmp_path)) == 2


def test_an_earlier_checkpoint_is_not_used_in_silence(tmp_path, capfd):
    used, incomplete = write(tmp_path, checkpoint(300)), write(tmp_path, checkpoint(600))
    (incomplete / "COMPLETE").unlink()
    incomplete.with_name(f"{900:012d}").symlink_to(used)
    for weights in ("final", "final", "best"):
        with contextlib.suppress(InputError):  # no held-out images were measured
            assert checkpoint_of(tmp_path, weights) == used
    first, second = capfd.readouterr().err.splitlines()
    assert first == f"warning: {incomplete}: has no COMPLETE, so it was passed over"
    assert second == f"warning: {tmp_path}/checkpoints/{900:012d}: is a link, so it was passed over"


def test_a_checkpoint_is_known_by_the_images_in_its_state_and_not_by_its_name(tmp_path, capfd):
    kept = write(tmp_path, checkpoint(300))
    copy = shutil.copytree(kept, kept.with_name(f"{900:012d}"))
    assert complete_checkpoints(tmp_path) == [kept]
    assert checkpoint_of(tmp_path) == kept
    assert f"{copy}: holds the checkpoint after 300 images, so it was passed over" in capfd.readouterr().err


def test_a_state_of_another_version_is_told_and_no_earlier_checkpoint_is_taken_instead(tmp_path):
    write(tmp_path, checkpoint(300))
    folder = write(tmp_path, checkpoint(600))
    state = json.dumps(json.loads((folder / "state.json").read_text()) | {"later": 1}).encode()
    (folder / "state.json").write_bytes(state)
    sums = json.loads((folder / "COMPLETE").read_text()) | {"state.json": hashlib.sha256(state).hexdigest()}
    (folder / "COMPLETE").write_text(json.dumps(sums))
    with pytest.raises(InputError, match=rf"^{folder}/state\.json: was written by another version .*'later'"):
        newest_undamaged(tmp_path)
    save(tmp_path, 900)
    assert folder.exists()


def test_a_checkpoint_in_place_of_a_run_folder_is_told(tmp_path):
    folder = write(tmp_path, checkpoint(300))
    with pytest.raises(InputError, match=rf"run: {folder} is a checkpoint; give its run folder, {tmp_path}"):
        checkpoint_of(folder)


@pytest.mark.parametrize(
    ("weights", "message"), [("stage1", "stage 1 of .* has not ended yet"), ("final", "has no complete checkpoint")]
)
def test_where_there_is_none_the_incomplete_one_is_named(weights, message, tmp_path):
    folder = write(tmp_path, checkpoint(300, "cap"))
    (folder / "COMPLETE").unlink()
    if weights == "stage1":
        write(tmp_path, checkpoint(600))
    with pytest.raises(InputError, match=rf"{message} \({folder}: has no COMPLETE, so it was passed over\)"):
        checkpoint_of(tmp_path, weights)
