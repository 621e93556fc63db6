"""What was measured is kept in a small file, and counts as done only where nothing that matters has changed."""

import dataclasses
import shlex

import pytest
from support.evidence_cases import LABEL, distance, likelihood, plan

from data_shards.io.errors import InputError
from eval.paper.evidence import Evidence
from eval.paper.figures import picture_path
from eval.paper.jobs import jobs, undone
from eval.paper.pages import Chapter
from eval.paper.plan import Measurements, configuration_hash, resolved
from eval.paper.record import KEPT, Record, keep_pictures, known_records, picture_key, read_kept, write_kept
from eval.paper.tables import exhibits
from trainer.__main__ import read_command_line

KEYS = {"distance": f"fid q_hat {LABEL} final", "likelihood": f"likelihood {LABEL} final"}
MEASURE = Measurements(extractor="efficientnet-lite0")


def record(made, job, results):
    return Record(
        configuration=configuration_hash(resolved(made, job.training)), data="d", commit="1234", results=results
    )


@pytest.fixture
def vae():
    """A plan of the VAE alone, its job, and a full record of it."""
    made = plan(seeds=(0,), methods={"ours": {}, "VAE": {"objective.name": "vae"}}, measure=MEASURE)
    job = next(job for job in jobs(made, ["table3"]) if job.training.name == "vae-seed0")
    return made, job, record(made, job, {KEYS["likelihood"]: likelihood(-463, -464, cap=-449)})


def test_a_file_gives_back_what_was_written_to_seven_digits(tmp_path, vae):
    _, _, known = vae
    results = {KEYS["distance"]: distance(123.456789012), KEYS["likelihood"]: likelihood(-463.1, -464.2, cap=-449.0)}
    known = dataclasses.replace(known, results=results)
    write_kept(tmp_path, "mnist", {"vae-seed0": known, "twin": known})
    back = read_kept(tmp_path, "mnist")
    assert back["twin"] == back["vae-seed0"]
    found = back["vae-seed0"].results
    assert found[KEYS["distance"]].value == 123.4568
    assert found[KEYS["distance"]].protocol == results[KEYS["distance"]].protocol
    assert found[KEYS["likelihood"]] == results[KEYS["likelihood"]]


def test_what_results_share_is_written_once(tmp_path, vae):
    _, _, known = vae
    sizes = []
    for count in (1, 9):
        write_kept(tmp_path, "mnist", {f"run{i}": known for i in range(count)})
        sizes.append((tmp_path / "mnist.json").stat().st_size)
    assert sizes[1] < 9 * sizes[0]
    assert (tmp_path / "mnist.json").read_text().count('"subset"') == 1


def test_a_damaged_file_is_named_in_one_line(tmp_path):
    (tmp_path / "mnist.json").write_text("{")
    with pytest.raises(InputError, match=r"mnist\.json: holds no measurements"):
        read_kept(tmp_path, "mnist")


def test_a_kept_record_stands_in_for_a_run_folder(tmp_path, vae):
    made, job, known = vae
    found = known_records(made, [job.training], tmp_path / "no-runs", {"vae-seed0": known})
    assert undone(made, [job], found, tmp_path / "no-runs", tmp_path) == []


def test_a_record_of_another_configuration_does_not_count(tmp_path, vae):
    made, job, known = vae
    changed = dataclasses.replace(made, fields={"optimiser.learning_rate": 1e-5})
    assert known_records(changed, [job.training], tmp_path, {"vae-seed0": known}).keys() == {"vae-seed0"}
    (again,) = [j for j in jobs(changed, ["table3"]) if j.training.name == "vae-seed0"]
    assert known_records(changed, [again.training], tmp_path, {"vae-seed0": known}) == {}


def of_weights(result, checkpoint):
    return dataclasses.replace(result, protocol=dataclasses.replace(result.protocol, checkpoint=checkpoint))


def test_numbers_of_two_trainings_do_not_stand_on_one_page(tmp_path, vae):
    made, job, known = vae
    kept = dataclasses.replace(known, results=known.results | {KEYS["distance"]: distance(500.0)})
    newer = of_weights(known.results[KEYS["likelihood"]], "of a later training")
    record(made, job, {KEYS["likelihood"]: newer}).save(tmp_path / "vae-seed0")
    found = known_records(made, [job.training], tmp_path, {"vae-seed0": kept})["vae-seed0"]
    assert found.results == {KEYS["likelihood"]: newer}


def test_a_result_by_another_definition_of_its_measure_is_measured_again(tmp_path, vae, monkeypatch):
    made, job, known = vae
    monkeypatch.setattr("eval.results.LikelihoodResult.MEASURE", "likelihood 2")
    assert known_records(made, [job.training], tmp_path, {"vae-seed0": known}) == {}


def test_a_result_of_another_protocol_is_measured_again(tmp_path, vae):
    made, job, known = vae
    more = dataclasses.replace(made, measure=dataclasses.replace(MEASURE, importance_samples=50))
    found = known_records(more, [job.training], tmp_path, {"vae-seed0": known})
    assert undone(more, [job], found, tmp_path, tmp_path) == [job]


def test_the_run_folder_comes_before_what_was_kept(tmp_path, vae):
    made, job, known = vae
    newer = record(made, job, {KEYS["likelihood"]: likelihood(-460, -461, cap=-449)})
    older = record(made, job, known.results | {KEYS["distance"]: distance(5.0)})
    newer.save(tmp_path / "vae-seed0")
    found = known_records(made, [job.training], tmp_path, {"vae-seed0": older})["vae-seed0"]
    assert found.results[KEYS["likelihood"]].values["iwae_q_hat"].value == -460
    assert found.results[KEYS["distance"]].value == 5.0


@pytest.fixture
def pictured(tmp_path):
    """Ours with a picture in its run folder: plan, (run, picture), record, and the folder of what is kept."""
    made = plan(seeds=(0,), measure=MEASURE)
    (job,) = [job for job in jobs(made, ["figure4"]) if job.pictures]
    drawn = picture_path(tmp_path / "runs" / job.training.name, "figure4")
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"new")
    known = record(made, job, {})
    known.save(drawn.parents[1])
    return made, (job.training.name, drawn), known, tmp_path / "kept"


def shown(made, folder, known):
    """The pictures of figure 4 on a page."""
    evidence = Evidence(plan=made, records=known)
    chapter = Chapter(evidence=evidence, exhibits=exhibits(made, ["figure4"]), missing=[], pictures=folder)
    return [picture.data for picture in chapter.section("figure4").pictures]


def test_a_picture_outlives_its_run_folder(pictured):
    made, (name, path), known, kept = pictured
    now = {name: known}
    keep_pictures(kept, [(name, path)], now, {})
    path.unlink()
    keep_pictures(kept, [(name, path)], now, now)
    assert shown(made, kept, now) == [b"new"]


def test_a_picture_of_a_training_that_changed_is_not_kept(pictured):
    _, (name, path), known, kept = pictured
    keep_pictures(kept, [(name, path)], {name: known}, {})
    path.unlink()
    changed = dataclasses.replace(known, configuration="another")
    keep_pictures(kept, [(name, path)], {name: changed}, {name: known})
    assert not any(kept.iterdir())


def test_a_picture_in_a_run_folder_of_another_training_does_not_replace_the_kept_one(pictured):
    _, (name, path), known, kept = pictured
    keep_pictures(kept, [(name, path)], {name: known}, {})
    path.write_bytes(b"of the other")
    dataclasses.replace(known, configuration="another").save(path.parents[1])
    keep_pictures(kept, [(name, path)], {name: known}, {name: known})
    assert (kept / path.name).read_bytes() == b"new"


def test_a_picture_of_another_mixture_than_the_plan_has_now_is_to_be_drawn(pictured, tmp_path):
    made, (name, _), known, _ = pictured
    (job,) = [job for job in jobs(made, ["figure4"]) if job.training.name == name]
    results = {picture_key("figure4"): {"weights": "final", "checkpoint": "c", "mixture": "7-full-posterior"}}
    known = {name: dataclasses.replace(known, results=results)}
    assert undone(made, [job], known, tmp_path / "runs", tmp_path) == [job]
    results[picture_key("figure4")]["mixture"] = LABEL
    assert undone(made, [job], known, tmp_path / "runs", tmp_path) == []


def test_a_picture_of_a_training_of_which_nothing_is_known_is_not_shown(pictured):
    made, (name, path), known, kept = pictured
    keep_pictures(kept, [(name, path)], {name: known}, {})
    assert shown(made, kept, {}) == []


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_the_kept_measurements_of_the_checkout_are_read_and_written_as_they_are(tmp_path, dataset):
    write_kept(tmp_path, dataset, read_kept(KEPT, dataset))
    assert (tmp_path / f"{dataset}.json").read_bytes() == (KEPT / f"{dataset}.json").read_bytes()


def test_a_folder_that_does_not_exist_holds_no_measurements(tmp_path):
    assert read_kept(tmp_path / "nowhere", "mnist") == {}


@pytest.mark.parametrize("dataset", ["fashion-mnist", "mnist"])
def test_each_kept_command_trains_what_its_record_was_trained_with(dataset):
    for name, known in read_kept(KEPT, dataset).items():
        (command,) = known.commands
        python, m, trainer, *words = shlex.split(command)
        assert (python, m, trainer) == ("python", "-m", "trainer")
        assert configuration_hash(read_command_line(words).config) == known.configuration, name
