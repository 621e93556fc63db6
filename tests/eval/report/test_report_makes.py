"""`python -m eval report` makes what is missing, says what and how long it takes, and makes nothing twice."""

import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from support.changed_run import change_weights
from support.results import result_file
from support.running import run_module

from data_shards import build_shards
from data_shards.io.errors import command
from eval.__main__ import main
from eval.images.encoding import encode_split
from eval.measurements.likelihood import measure_likelihood
from eval.measurements.uncertainty import measure_uncertainty
from eval.questions import LikelihoodQuestion, UncertaintyQuestion
from eval.report.sizes import chosen_sizes
from eval.report.steps import report_steps
from eval.run import load_run
from trainer.config.config import load_config
from trainer.loop import train
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import single

pytestmark = pytest.mark.usefixtures("own_cache")

FIELDS = {
    "data.global_batch": 18,
    "model.latent_dim": 3,
    "model.encoder_channels": [8],
    "model.decoder_channels": [8, 8],
    "model.hidden": 16,
    "stage1.max_epochs": 2,
    "stage2.max_epochs": 1,
    "checkpoint.every_images": 10**6,
    "log.to": [],
}


def report(run, *words):
    """Runs `python -m eval report` within this process. Returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["eval", "report", "--run", str(run), *words])
        return command(main)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on 60 pieces of colour photographs, 40 x 40, in two splits: 54 for training, 6 held out, none for tests."""
    folder = tmp_path_factory.mktemp("photos")
    photos = load_sample_images().images
    for number, (top, left) in enumerate(np.ndindex(5, 6)):
        for name, photo in zip(("china", "flower"), photos, strict=True):
            piece = photo[80 * top : 80 * top + 80, 100 * left : 100 * left + 80]
            split = "valid" if number >= 27 else "train"
            path = folder / "source" / split / f"{name}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(piece).save(path)
    build_shards("folder", folder / "shards", source=folder / "source", size=40, test=0)
    fields = FIELDS | {"runs": str(folder / "runs"), "name": "photos", "data.shards": str(folder / "shards")}
    return train(load_config(None, fields))


@pytest.fixture(scope="module")
def reported(trained, tmp_path_factory):
    """The run with its report, and what the command printed."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("reported") / "photos")
    done = run_module("eval", "report", "--run", str(run))
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def test_every_part_is_said_before_it_is_made_with_the_time_it_takes(reported):
    printed = reported[1]
    (total,) = re.findall(r"(\d+) of the report's \1 parts are to be made, in about \d+s", printed)
    steps = re.findall(rf"\[(\d+)/{total}\] (.*): about (\d+s|\dm\d\ds)\n\[\1/{total}\] took", printed)
    assert [int(number) for number, _, _ in steps] == list(range(1, int(total) + 1))
    titles = " ".join(title for _, title, _ in steps)
    for what in ("codes of split train", "mixture", "transport", "distance", "likelihood", "calibration", "nearest"):
        assert what in titles


def test_what_few_images_change_is_said_in_the_terminal_and_on_the_page(reported):
    run, printed = reported
    page = (run / "report.html").read_text()
    for sentence in (
        "no split test, so split valid stands for new images",
        "Split valid has 6 images, so distances are of 6",
        "The mixture has 5 components, not 32, as there are 54 training images",
    ):
        assert sentence in printed
        assert sentence in page


def test_nothing_is_missing_from_the_page(reported):
    page = (reported[0] / "report.html").read_text()
    assert 'class="missing"' not in page


def test_the_page_leads_with_the_answer_then_come_pictures_numbers_and_the_training(reported):
    page = (reported[0] / "report.html").read_text()
    order = ('class="answer"', 'id="samples"', 'id="reconstructions"', 'id="memorisation"', 'id="distance"')
    places = [page.index(word) for word in (*order, 'id="likelihood"', 'id="uncertainty"', 'id="training"')]
    assert places == sorted(places)


def test_nothing_is_made_twice(reported, capsys):
    run = reported[0]
    before = {
        path: path.stat().st_mtime_ns
        for folder in ("eval", "latents", "mixtures", "transports")
        for path in (run / folder).rglob("*")
        if path.is_file()
    }
    assert report(run) == 0
    assert "parts of the report were made before" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_asked_to_make_nothing_it_shows_what_is_there(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "photos")
    assert report(run, "--make-nothing") == 0
    assert not (run / "mixtures").exists()
    page = (run / "report.html").read_text()
    assert "python -m trainer.mixture" in page


def test_a_split_that_is_not_there_is_refused_in_one_line(trained, capsys):
    assert report(trained, "--split", "test") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "use one of train, valid" in told


def undone(run):
    """The titles of the steps that are still to be made for a run."""
    measured = load_run(run)
    sizes = chosen_sizes(measured, None, None, "full")
    return [step.title for step in report_steps(measured, sizes, "full", single()) if not step.is_done()]


def test_all_parts_of_weights_that_were_trained_further_are_made_again(reported, tmp_path):
    run = shutil.copytree(reported[0], tmp_path / "photos")
    assert undone(run) == []
    change_weights(run)
    assert all("final weights" in title for title in undone(run))
    assert len(undone(run)) == 15
    shutil.rmtree(run / "latents")  # so that only the mixture's own record says which codes it was fitted to
    measured = load_run(run)
    for split in ("train", "valid"):
        encode_split(measured, split, single())
    settings = Settings(n_components=5)
    assert fit_run_mixture(run, settings, ranks=single()).is_new
    assert not fit_run_mixture(run, settings, ranks=single()).is_new


def test_numbers_of_another_noise_or_bound_or_split_do_not_stand_for_what_a_page_shows(reported, tmp_path):
    run = shutil.copytree(reported[0], tmp_path / "photos")
    for name in ("likelihood", "uncertainty"):
        shutil.move(result_file(run, name), tmp_path / f"{name}.json")
    measured = load_run(run)
    likelihood = LikelihoodQuestion(images=2, samples=2, mixture=5, split="valid")
    measure_likelihood(measured, replace(likelihood, annealing=2), single())
    measure_likelihood(measured, replace(likelihood, split="train"), single())
    measure_uncertainty(measured, UncertaintyQuestion(images=2, split="train"), single())
    assert [title.partition(" of ")[0] for title in undone(run)] == ["the likelihood", "the calibration"]
    measure_likelihood(measured, likelihood, single())
    measure_uncertainty(measured, UncertaintyQuestion(images=2, split="valid"), single())
    assert undone(run) == []
    of_train = report_steps(measured, chosen_sizes(measured, "train", None, "full"), "full", single())
    assert not any(step.is_done() for step in of_train if step.title.startswith("the distance"))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_nearest_images_whose_pictures_are_missing_or_damaged_are_looked_for_again(reported, tmp_path, damage):
    run = shutil.copytree(reported[0], tmp_path / "photos")
    pictures = result_file(run, "memorisation").with_suffix(".safetensors")
    before = pictures.read_bytes()
    damage(pictures)
    assert report(run, "--make-nothing") == 0
    assert "Nearest training images have not been looked for." in text(run)
    (title,) = undone(run)
    assert title.startswith("the training images nearest to")
    assert report(run) == 0
    assert pictures.read_bytes() == before


def text(run):
    """The page, with ordinary spaces."""
    return (run / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_shows_no_number_of_earlier_weights_and_names_what_renews_it(reported, tmp_path):
    run = shutil.copytree(reported[0], tmp_path / "photos")
    old = json.loads(result_file(run, "likelihood").read_text())["values"]["iwae_q_hat"]
    shown = f"{old['value']:,.1f} ± {old['standard_error']:.1f}"
    assert shown in text(run)
    change_weights(run)
    assert report(run, "--make-nothing") == 0
    page = text(run)
    assert shown not in page
    assert "Of an earlier version" in page
    assert f"python -m eval likelihood --run {run} --split valid --images 6 --samples 20 --mixture 5" in page


@pytest.mark.slow
def test_two_processes_make_what_one_does(reported, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "photos")
    done = run_module("eval", "report", "--run", str(run), processes=2)
    assert done.returncode == 0, done.stderr
    # Sums over processes round otherwise, so that fitted densities, and with them addresses, may differ.
    assert len(list((run / "eval").glob("*.json"))) == len(list((reported[0] / "eval").glob("*.json")))
    assert 'class="missing"' not in (run / "report.html").read_text()
