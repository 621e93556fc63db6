"""A run is known by the configuration that it was trained with, whatever its config.yaml says now."""

import json
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from support.training import train, words

from data_shards.io.errors import InputError
from trainer.__main__ import read_command_line
from trainer.config.config import load_config
from trainer.loop import train as run_training
from trainer.run_folder.checkpoint import complete_checkpoints, read_state
from trainer.run_folder.configurations import trained_configuration
from trainer.run_folder.restore import load_model

STOPPED = {"checkpoint__walltime_minutes": 1e-4}
FEW = {"checkpoint.walltime_minutes": 1e-4, "log.to": []}


@pytest.fixture(scope="module")
def trained(digits_shards, tmp_path_factory):
    """A run that was stopped after its first update."""
    return train(digits_shards, tmp_path_factory.mktemp("runs"), "run", **STOPPED)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, of another name."""
    return shutil.copytree(trained, tmp_path / "copy")


def as_of_an_earlier_version(run):
    """Takes the copy of config.yaml out of the checkpoint."""
    (folder,) = complete_checkpoints(run)
    (folder / "config.yaml").unlink()
    sums = json.loads((folder / "COMPLETE").read_text())
    del sums["config.yaml"]
    (folder / "COMPLETE").write_text(json.dumps(sums))


def cut(run, *sections):
    """Removes sections from config.yaml, which remains valid."""
    content = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in sections}))


def test_a_configuration_that_has_lost_sections_is_refused_everywhere_and_restored_by_the_command_given(run):
    cut(run, "model", "stage1")
    with pytest.raises(InputError) as refused:
        trained_configuration(run)
    message = str(refused.value)
    assert message.startswith(f"{run}/config.yaml: is not what the run was trained with (model.latent_dim: 16, trained")
    assert "more fields" in message
    assert "\n" not in message
    with pytest.raises(InputError, match="is not what the run was trained with"):
        load_model(run)
    with pytest.raises(InputError, match="is not what the run was trained with"):
        run_training(read_command_line(["--config", str(run / "config.yaml")]).config)
    (command,) = re.findall(r"`(cp .*?)`", message)
    subprocess.run(shlex.split(command), check=True)
    assert trained_configuration(run).model.latent_dim == 4


def test_a_run_of_an_earlier_version_is_known_by_its_log(run):
    as_of_an_earlier_version(run)
    assert trained_configuration(run) == load_config(run)
    cut(run, "stage1")
    with pytest.raises(InputError, match=r"stage1\.max_epochs: 10\.0, trained with 1.*in the last start of .*metrics"):
        trained_configuration(run)
    (run / "metrics.jsonl").unlink()
    assert trained_configuration(run) == load_config(run)  # nothing says anything else
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("latent_dim: 4", "latent_dim: 5"))
    with pytest.raises(
        InputError, match=r"config\.yaml: describes another network than its checkpoints hold \(size mis"
    ):
        load_model(run)


def test_a_learning_rate_edited_in_the_file_is_no_change_in_silence(run):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("  learning_rate: 0.001", "  learning_rate: 0.5"))
    with pytest.raises(InputError, match=r"optimiser\.learning_rate: 0\.5, trained with 0\.001.*with --allow-change"):
        run_training(read_command_line(["--config", str(path)]).config, allow_change=True)


def test_where_and_how_a_run_is_carried_out_may_be_edited(run):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("workers: auto", "workers: 0").replace("name: run", "name: other"))
    assert trained_configuration(run).data.workers == 0


def test_a_change_before_whose_first_checkpoint_the_run_was_killed_is_its_own(run, digits_shards):
    words_of = words(digits_shards, run.parent, "copy", **STOPPED, optimiser__learning_rate=0.5)
    before = complete_checkpoints(run)
    run_training(read_command_line(words_of).config, allow_change=True)
    for folder in set(complete_checkpoints(run)) - set(before):
        shutil.rmtree(folder)
    assert trained_configuration(run).optimiser.learning_rate == 0.5
    cut(run, "model")
    with pytest.raises(InputError, match="is not what the run was trained with"):
        trained_configuration(run)


def test_a_damaged_copy_is_passed_over(run):
    (folder,) = complete_checkpoints(run)
    (folder / "config.yaml").write_text("seed: 3\n")
    assert trained_configuration(run).seed == 0


def test_a_checkpoint_of_another_configuration_in_the_place_of_an_earlier_one_is_not_measured(run, digits_shards):
    other = train(digits_shards, run.parent, "other", seed=1, stage2__max_epochs=0)
    train(digits_shards, run.parent, "copy")
    ends = [folder for folder in complete_checkpoints(run) if read_state(folder).stages.ended]
    shutil.rmtree(ends[0])
    put = shutil.copytree(complete_checkpoints(other)[-1], ends[0])
    assert load_model(run) is not None
    with pytest.raises(InputError, match=rf"^{put}: is a checkpoint of another run \(seed: 1, here 0\)"):
        load_model(run, "stage1")


def test_a_configuration_that_a_person_wrote_into_a_new_run_folder_is_kept_beside(digits_shards, tmp_path, capfd):
    mine = tmp_path / "mine" / "config.yaml"
    mine.parent.mkdir()
    mine.write_text("# the seed of the paper\nseed: 3\n")
    fields = {"name": "mine", "runs": str(tmp_path), "data.shards": str(digits_shards)}
    for _ in range(2):
        run_training(load_config(mine, fields | FEW))
    assert (mine.parent / "config.set-aside").read_text() == "# the seed of the paper\nseed: 3\n"
    assert load_config(mine).seed == 3
    assert (
        capfd.readouterr().err.count(f"{mine}: is not as the trainer writes it; it is now {mine.parent}/config.") == 1
    )


@pytest.mark.parametrize(("section", "content"), [("data", "null"), ("data", "[1]"), ("variance", "closed_form")])
def test_a_section_that_is_none_is_named_with_the_file(run, section, content):
    kept = yaml.safe_load((run / "config.yaml").read_text()) | {section: yaml.safe_load(content)}
    (run / "config.yaml").write_text(yaml.safe_dump(kept))
    with pytest.raises(InputError, match=rf"^{section}: .*; use fields below it.*\(in {run}/config\.yaml\)$"):
        trained_configuration(run)
