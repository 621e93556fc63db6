"""The trainings behind a table: the same budget for all, none of them twice."""

import dataclasses

import numpy as np
import pytest
from support.evidence_cases import plan

from eval.images.blocks import evenly_spaced
from eval.paper.jobs import jobs, scattered
from eval.paper.plan import (
    Components,
    Variances,
    Variant,
    configuration_hash,
    method_trainings,
    read_plan,
    resolved,
    variance_trainings,
)
from eval.paper.record import KEPT, Question, read_kept
from eval.paper.tables import EXHIBITS


def test_a_method_of_one_stage_sees_as_many_images_as_one_of_two():
    made = plan()
    for method in made.methods:
        fields = method_trainings(made, method)[0].fields
        assert fields["stage1.max_epochs"] + fields["stage2.max_epochs"] == 6
    assert method_trainings(made, "VAE")[0].fields["stage2.max_epochs"] == 0


def test_a_training_that_two_tables_need_is_one_job():
    made = plan(
        seeds=(0,),
        sweep=Variances(variances=(0.5, 0.1, "learned"), seeds=(0,)),
        variants=(Variant(name="one-stage", meaning="no second stage", fields={"stage2.max_epochs": 0}),),
    )
    assert variance_trainings(made, "sweep", 0.5)[0].name == "vae-seed0"
    assert variance_trainings(made, "sweep", "learned")[0].name == "one-stage-seed0"
    names = [job.training.name for job in jobs(made, EXHIBITS)]
    assert sorted(names) == ["one-stage-seed0", "ours-seed0", "sigma2-0.1-seed0", "vae-seed0", "wae-seed0"]


def test_no_two_jobs_train_the_same_configuration():
    made = plan(
        sweep=Variances(variances=(0.5, 1.0, "learned"), seeds=(0, 1)),
        plane=Variances(variances=(0.5, "learned"), seeds=(0,), fields={"model.latent_dim": 2}),
        variants=(Variant(name="ema", meaning="an average", fields={"optimiser.ema_images": 1000}),),
    )
    hashes = [configuration_hash(resolved(made, job.training)) for job in jobs(made, EXHIBITS)]
    assert len(set(hashes)) == len(hashes)


def test_the_hash_ignores_where_a_run_lies_and_sees_what_is_learnt():
    made = plan()
    training = method_trainings(made, "ours")[0]
    elsewhere = dataclasses.replace(training, name="other", fields={**training.fields, "runs": "/tmp/elsewhere"})
    slower = dataclasses.replace(training, fields={**training.fields, "optimiser.learning_rate": 1e-5})
    same, moved, changed = (configuration_hash(resolved(made, each)) for each in (training, elsewhere, slower))
    assert same == moved != changed


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_every_kept_measurement_is_recognised_by_the_hash_of_its_configuration(dataset):
    made = read_plan(dataset)
    kept = read_kept(KEPT, dataset)
    of_jobs = {job.training.name: configuration_hash(resolved(made, job.training)) for job in jobs(made, EXHIBITS)}
    assert len(kept) > 0
    assert {name: record.configuration for name, record in kept.items()} == {name: of_jobs[name] for name in kept}


def test_both_stages_of_ours_are_measured_and_real_images_once():
    questions = {job.training.name: job.questions for job in jobs(plan(seeds=(0, 1)), ["table2"])}
    assert {one.weights for one in questions["ours-seed0"]} == {"stage1", "final"}
    assert {one.weights for one in questions["vae-seed0"]} == {"final"}
    real = Question(kind="fid", source="train")
    assert [name for name, asked in questions.items() if real in asked] == ["ours-seed0"]


def test_a_table_needs_its_own_measurements_only():
    questions = {question for job in jobs(plan(), ["table3"]) for question in job.questions}
    assert {question.kind for question in questions} == {"likelihood"}
    assert "wae-seed0" in {job.training.name for job in jobs(plan(), ["table2"])}


def test_jobs_come_seed_by_seed_so_that_a_table_is_complete_early():
    names = [job.training.name for job in jobs(plan(seeds=(0, 1)), ["table2"])]
    assert names == ["ours-seed0", "vae-seed0", "wae-seed0", "ours-seed1", "vae-seed1", "wae-seed1"]


def test_every_number_of_components_is_fitted_measured_and_checked_for_memorisation():
    questions = jobs(plan(components=Components(numbers=(500,), seeds=(0,))), ["table4"])[0].questions
    assert [(question.kind, question.mixture) for question in questions] == [
        (kind, label)
        for label in ("32-full-posterior", "500-full-posterior")
        for kind in ("mixture", "fid", "memorisation")
    ]


@pytest.mark.parametrize("images", [100, 125, 192, 200, 250])
def test_digits_at_equal_distances_are_of_all_classes(images):
    classes = np.repeat(np.arange(10), 500)[scattered(5000)]
    assert sorted(scattered(5000)) == list(range(5000))
    for split in (classes[:4000], classes[4000:4500], classes[4500:]):
        counts = np.bincount(split[evenly_spaced(images, len(split))], minlength=10)
        assert counts.min() > images / 40
