"""Only checkpoints that this program wrote are ever removed, and none is replaced."""

import json
import shutil

import pytest
from support.trainer_checkpoints import checkpoint

from trainer.run_folder.checkpoint import complete_checkpoints, read, write
from trainer.run_folder.pruning import prune


def save(run, images, ended="", keep_last=1):
    folder = write(run, checkpoint(images, ended))
    prune(run, keep_last, folder)
    return folder


def test_folders_files_copies_and_links_of_others_stay_and_are_not_counted(tmp_path):
    first = save(tmp_path, 300)
    root = tmp_path / "checkpoints"
    shutil.copytree(first, root / f"{first.name}.bak")
    shutil.copytree(first, root / "my_export")
    (root / "000000000999").symlink_to(first)
    for name in ("backup", ".snapshot", "000000000020", ".000000000021.partial"):
        (root / name).mkdir()
        (root / name / "precious.txt").write_text("mine")
    (root / "notes.txt").write_text("mine")
    others = {path.name for path in root.iterdir()} - {first.name}
    save(tmp_path, 600)
    save(tmp_path, 900)
    assert [folder.name for folder in complete_checkpoints(tmp_path)] == [f"{900:012d}"]
    assert {path.name for path in root.iterdir()} == others | {f"{900:012d}"}


def test_a_checkpoint_to_which_someone_has_added_a_file_stays(tmp_path):
    first = save(tmp_path, 300)
    (first / "notes.txt").write_text("the good one")
    save(tmp_path, 600)
    assert (first / "model.safetensors").exists()


def test_a_copy_under_the_name_of_another_place_stays(tmp_path):
    first = save(tmp_path, 300)
    shutil.copytree(first, first.with_name(f"{310:012d}"))
    save(tmp_path, 600)
    assert first.with_name(f"{310:012d}").exists()
    assert not first.exists()


def test_what_is_left_of_an_unfinished_checkpoint_is_removed(tmp_path):
    save(tmp_path, 300)
    unfinished = tmp_path / "checkpoints" / f".{450:012d}.partial"
    unfinished.mkdir()
    (unfinished / ".model.safetensors.4242.partial").write_text("torn")
    (tmp_path / "checkpoints" / f"{460:012d}").mkdir()
    save(tmp_path, 600)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{600:012d}"]


def test_checkpoints_from_a_million_million_images_on_are_known_and_the_earlier_ones_pruned(tmp_path):
    for images in (10**12 - 300, 10**12, 10**13):
        newest = save(tmp_path, images)
        assert complete_checkpoints(tmp_path) == [newest]
    (tmp_path / "checkpoints" / ".2000000000000.partial").mkdir()  # unfinished
    of_others = tmp_path / "checkpoints" / "0000000000300"
    of_others.mkdir()
    newest = save(tmp_path, 3 * 10**13)
    assert set((tmp_path / "checkpoints").iterdir()) == {newest, of_others}


def test_a_second_save_at_one_place_leaves_the_first_as_it_was(tmp_path):
    first = write(tmp_path, checkpoint(300, "cap"))
    before = sorted((path.name, path.stat().st_ino) for path in first.iterdir())
    second = write(tmp_path, checkpoint(300))
    assert complete_checkpoints(tmp_path) == [first, second]
    assert sorted((path.name, path.stat().st_ino) for path in first.iterdir()) == before
    prune(tmp_path, 1, second)
    assert complete_checkpoints(tmp_path) == [first, second]  # the first ends a stage
    assert read(first).state.stages.ended == "cap"


def test_a_damaged_checkpoint_further_on_does_not_take_the_place_of_a_sound_one(tmp_path):
    save(tmp_path, 300)
    damaged = write(tmp_path, checkpoint(900))
    (damaged / "model.safetensors").write_bytes(b"")
    sound = save(tmp_path, 600)
    assert complete_checkpoints(tmp_path) == [sound, damaged]


def test_checkpoints_of_earlier_versions_are_found_and_pruned(tmp_path):
    old = save(tmp_path, 300)
    complete = json.loads((old / "COMPLETE").read_text())
    (old / "COMPLETE").write_text(json.dumps(complete))
    save(tmp_path, 600)
    assert not old.exists()


@pytest.mark.parametrize("name", ["checkpoints", f"checkpoints/{300:012d}"])
def test_a_link_in_the_way_of_a_checkpoint_is_not_followed_into_someone_elses_folder(tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.txt").write_text("mine")
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(elsewhere)
    saved = save(run, 300)
    assert read(saved).state.images == 300
    assert (elsewhere / "precious.txt").read_text() == "mine"
