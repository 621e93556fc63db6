"""A plan says what is trained and measured; a mistake in it gets one line."""

import pytest
import yaml
from support.running import ROOT

from data_shards.io.errors import InputError
from eval.paper.jobs import jobs
from eval.paper.plan import read_plan, resolved
from eval.paper.tables import EXHIBITS
from eval.report.printed_results import DATASETS


def written(tmp_path, **changes):
    """The tiny plan with some entries changed, as a file."""
    content = yaml.safe_load((ROOT / "tests/eval/paper/tiny_plan.yaml").read_text()) | changes
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_plan_of_the_project_makes_trainings_that_the_trainer_accepts(dataset):
    plan = read_plan(dataset)
    for job in jobs(plan, EXHIBITS):
        if job.training.fields["seed"] == plan.seeds[0]:  # the others differ by their seed alone
            assert resolved(plan, job.training).name == job.training.name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": []}, "seeds: [] is not a list of at least one"),
        ({"methods": {"VAE": {"objective.name": "vae"}}}, "'ours' is missing"),
        ({"budget": {"stage1_epochs": 0, "stage2_epochs": 1}}, "budget.stage1_epochs: 0 is not a number above 0"),
        ({"measure": {"distance_images": 1}}, "measure.distance_images: 1 is not a whole number of at least 2"),
        (
            {"measure": {"mixture": {"encodings": "mode"}}},
            "measure.mixture.encodings: 'mode' is not one of",
        ),
        ({"measure": {"also": ["kernl"]}}, "measure.also: 'kernl' is unknown; use some of cmmd, infinite, "),
        ({"variant_seeds": [7]}, "variant_seeds: seed 7 is not among seeds [0]"),
        ({"typo": 1}, "typo"),
    ],
)
def test_a_mistake_gets_one_line_with_the_file(tmp_path, changes, said):
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_plan("mnist", path)
    assert said in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [0]\nseeds: [1]\n", "stands in line"),
        ("budget: {stage1_epochs: .inf}\n", "budget.stage1_epochs: line"),
        ("measure: {distance_images: null}\n", "measure.distance_images: null is not a whole number of at least 2"),
        ("measure: {stage1_epochs: 3}\n", "measure.stage1_epochs: is not a field; use budget.stage1_epochs"),
        ("measure:\n", "measure: is empty"),
    ],
)
def test_a_plan_is_read_as_strictly_as_a_training(tmp_path, text, said):
    path = tmp_path / "plan.yaml"
    content = yaml.safe_load((ROOT / "tests/eval/paper/tiny_plan.yaml").read_text())
    kept = {name: value for name, value in content.items() if not text.startswith(f"{name}:")}
    path.write_text(yaml.safe_dump(kept) + text)
    with pytest.raises(InputError) as caught:
        read_plan("mnist", str(path))
    assert said in str(caught.value)
    assert str(caught.value).endswith(f"(in {path})")


def test_a_plan_for_another_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="dataset: mnist is another data set than celeba"):
        read_plan("celeba", written(tmp_path))


def test_a_field_that_the_trainer_does_not_know_is_refused_before_anything_starts(tmp_path):
    plan = read_plan("mnist", written(tmp_path, methods={"ours": {"objective.shape": "round"}}))
    (job, *_) = jobs(plan, ["table2"])
    with pytest.raises(InputError, match=r"objective\.shape"):
        resolved(plan, job.training)
