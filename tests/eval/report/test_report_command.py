"""The report carries everything in itself, says what is missing, and prints what was measured."""

import base64
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image
from support.results import result_file

from data_shards.io.errors import command
from eval.__main__ import main
from trainer.config.config import load_config
from trainer.loop import train


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        assert tag not in ("script", "link", "iframe", "object")

    def handle_data(self, data):
        self.text += data


def command_line(*words):
    """Runs `python -m eval WORDS` within this process. Returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["eval", *words])
        return command(main)


@pytest.fixture(scope="module")
def bare(tmp_path_factory, digits_run):
    """A run of which nothing has been measured, and no mixture fitted."""
    run = tmp_path_factory.mktemp("bare") / "digits"
    shutil.copytree(digits_run, run, ignore=shutil.ignore_patterns("mixtures", "eval", "latents"))
    assert command_line("report", "--run", str(run), "--make-nothing") == 0
    return run


@pytest.fixture(scope="module")
def measured(tmp_path_factory, digits_run):
    """A run with its likelihood and calibration measured."""
    run = tmp_path_factory.mktemp("measured") / "digits"
    shutil.copytree(digits_run, run)
    options = ("--run", str(run), "--images", "60")
    assert command_line("likelihood", *options, "--mixture", "4", "--samples", "2") == 0
    assert command_line("likelihood", *options, "--mixture", "0", "--samples", "2", "--weights", "stage1") == 0
    assert command_line("uncertainty", *options) == 0
    assert command_line("memorisation", *options, "--mixture", "4") == 0
    assert command_line("transport", "--run", str(run), "--mixture", "4") == 0
    assert command_line("report", "--run", str(run), "--mixture", "4", "--make-nothing") == 0
    return run


def page(run) -> Page:
    return Page((run / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " "))


def test_the_page_refers_to_nothing_outside_itself(measured):
    references = page(measured).references
    assert len(references) > 10
    assert all(reference.startswith(("data:image/", "#")) for reference in references)


def test_every_picture_in_the_page_can_be_opened(measured):
    pictures = [r.split(",", 1) for r in page(measured).references if r.startswith("data:")]
    for kind, data in pictures:
        content = base64.b64decode(data)
        if "png" in kind:
            Image.open(io.BytesIO(content)).load()
        else:
            assert b"<svg" in content


def test_samples_are_shown_transported_where_a_transport_is_fitted(measured, bare):
    assert "transported to the distribution of real images" in page(measured).text
    assert "transported to the distribution of real images" not in page(bare).text


@pytest.mark.parametrize(
    "words",
    [
        "eval likelihood",
        "eval likelihood --run {run} --weights stage1",
        "eval fid",
        "eval uncertainty",
        "eval memorisation",
        "trainer.mixture",
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(bare, words):
    assert f"python -m {words.format(run=bare)}" in page(bare).text


def test_the_measured_numbers_stand_in_the_page_with_their_protocol(measured):
    text = page(measured).text
    written = json.loads(result_file(measured, "likelihood").read_text())
    number = written["values"]["iwae_q_hat"]
    assert f"{number['value']:,.1f} ± {number['standard_error']:.1f}" in text
    assert f"{written['cap']:,.1f}" in text
    assert written["protocol"]["checkpoint"] in text
    assert not re.search("python -m eval likelihood(?! --run [^ ]+ --annealing)", text)  # measured already


def test_the_papers_numbers_stand_beside_those_of_its_data_set(measured):
    # The shard set is called mnist, of which the paper prints 1,307 and 1,323 nats and an FID of 8.9.
    text = page(measured).text
    assert all(printed in text for printed in ("1,307", "1,323", "8.9", "0.422 ± 0.011"))


def test_the_switch_between_the_stages_is_told(measured):
    assert "Stage 2 began at a held-out ELBO of" in page(measured).text


def test_the_overview_is_a_picture_for_the_readme(measured):
    with Image.open(measured / "samples" / "overview.png") as picture:
        assert picture.width > 900


def test_a_run_without_a_mixture_has_no_overview(bare):
    assert not (bare / "samples" / "overview.png").exists()


def test_a_name_that_looks_like_markup_is_shown_as_text(tmp_path, digits_run):
    run = tmp_path / "digits"
    shutil.copytree(digits_run, run)
    (run / "eval").mkdir(exist_ok=True)
    assert command_line("uncertainty", "--run", str(run), "--images", "5") == 0
    path = result_file(run, "uncertainty")
    content = json.loads(path.read_text())
    content["protocol"]["run"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(content))
    assert command_line("report", "--run", str(run), "--mixture", "4", "--make-nothing") == 0
    assert "<script>alert(1)</script>" in page(run).text


def test_a_damaged_result_is_told_in_one_line(tmp_path, digits_run, capsys):
    run = tmp_path / "digits"
    shutil.copytree(digits_run, run)
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval" / "likelihood.json").write_text('{"protocol": {')
    assert command_line("report", "--run", str(run), "--mixture", "4", "--make-nothing") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "likelihood.json" in told


def test_a_baseline_with_one_stage_has_a_report_without_a_second(tmp_path, digits_shards):
    fields = {
        "runs": str(tmp_path),
        "name": "vae",
        "data.shards": str(digits_shards),
        "data.valid_images": 50,
        "objective.name": "vae",
        "model.latent_dim": 2,
        "model.encoder_channels": [8],
        "model.decoder_channels": [8, 8],
        "stage1.max_epochs": 0.2,
        "log.to": [],
    }
    run = train(load_config(None, fields))
    assert command_line("uncertainty", "--run", str(run), "--images", "20") == 0
    assert command_line("report", "--run", str(run), "--make-nothing") == 0
    text = page(run).text
    assert "trained in one stage" in text
    assert "cannot tell where errors are" in text
    assert "--weights stage1" not in text
