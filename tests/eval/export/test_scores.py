"""`python -m eval score`: likelihoods of single images, and how well they tell images of another kind apart."""

import csv
import json
import math
import os

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from support.picture_folders import write_pictures
from support.running import run_module

from data_shards.io.errors import InputError
from data_shards.stream.stream import ShardStream
from eval import open_run
from eval.export.output_file import OutputFile
from eval.export.scores import auroc, from_csv
from eval.images.blocks import image_noise
from eval.images.files import png_bytes
from eval.measurements.likelihood import image_values, units
from eval.measurements.posterior_samples import sample_posterior
from trainer.objectives.gaussian import log_prior


def rows_of(path):
    return list(csv.DictReader(path.open()))


@pytest.fixture(scope="module")
def digits(digits_shards):
    (batch,) = ShardStream(digits_shards, split="test", global_batch=200, shuffle=False)
    return batch.image


@pytest.mark.parametrize("density", ["mixture", "prior"])
def test_the_score_of_a_file_is_its_log_likelihood(digits_run, digits, tmp_path, run_eval, density):
    folder = write_pictures(tmp_path / "mine", digits[:70, 0].numpy())
    code, printed = run_eval(
        *("score", folder, "--run", digits_run, "--density", density, "--samples", 8, "--out", tmp_path / "s.csv")
    )
    assert code == 0, printed.err
    rows = rows_of(tmp_path / "s.csv")
    assert [row["image"] for row in rows] == [f"{number:03d}.png" for number in range(70)]
    expected = open_run(digits_run).log_likelihood(digits[:70].float() / 255, samples=8, density=density)
    np.testing.assert_allclose([float(row["log_likelihood"]) for row in rows], expected.numpy(), rtol=1e-6)


def test_the_ratio_is_that_of_the_probabilities_of_8_bit_pixels_and_of_their_png(
    digits_run, digits, tmp_path, run_eval
):
    folder = write_pictures(tmp_path / "mine", digits[:5, 0].numpy())
    words = ("--run", digits_run, "--density", "prior", "--samples", 4, "--out", tmp_path / "s.csv")
    assert run_eval("score", folder, *words)[0] == 0
    model = open_run(digits_run).measured.model
    drawn = sample_posterior(model, digits[:5].float() / 255, image_noise(0, range(5), 4, model.latent_dim))
    bits = image_values(drawn, model.pixels, {"prior": log_prior})[
        :, list(units({"prior": log_prior})).index("bits_per_dimension_prior")
    ]
    nats = -bits * model.pixels * math.log(2) + torch.tensor([8 * math.log(2) * len(png_bytes(x)) for x in digits[:5]])
    found = [float(row["log_likelihood_ratio"]) for row in rows_of(tmp_path / "s.csv")]
    np.testing.assert_allclose(found, nats.numpy(), rtol=1e-6)


def test_noise_is_told_from_digits_and_the_command_prints_how_well(digits_run, digits_shards, tmp_path, run_eval):
    noise = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    write_pictures(tmp_path / "noise", noise)
    words = ("--run", digits_run, "--against", tmp_path / "noise", "--n", 40, "--samples", 2)
    code, printed = run_eval("score", f"shards:{digits_shards}/test", *words)
    assert code == 0, printed.err
    assert "AUROC by likelihood: 1.0000" in printed.out
    assert "AUROC by likelihood ratio to PNG: " in printed.out


def test_auroc_is_scikit_learns_with_ties():
    rng = np.random.default_rng(1)
    inside, outside = rng.integers(3, 9, 50), rng.integers(0, 7, 80)
    expected = roc_auc_score([1] * 50 + [0] * 80, [*inside, *outside])
    assert auroc(inside, outside) == pytest.approx(expected, abs=1e-12)


def test_unreadable_files_have_no_row_and_foreign_tables_are_not_replaced(digits_run, digits, tmp_path, run_eval):
    folder = write_pictures(tmp_path / "mine", digits[:4, 0].numpy())
    (folder / "bad.png").write_bytes(b"nothing")
    words = ("score", folder, "--run", digits_run, "--samples", 2, "--out", tmp_path / "s.csv")
    code, printed = run_eval(*words)
    assert code == 2
    assert "1 of 5 images cannot be read (bad.png" in printed.err
    assert not (tmp_path / "s.csv").exists()
    assert run_eval(*words, "--skip-bad", 1)[0] == 0
    assert [row["image"] for row in rows_of(tmp_path / "s.csv")] == [f"{number:03d}.png" for number in range(4)]
    assert "1 of 5 images cannot be read" in run_eval(*words)[1].err
    (tmp_path / "s.csv").write_text("a,b\n1,2\n")
    assert "was changed since it was made" in run_eval(*words, "--skip-bad", 1)[1].err
    (tmp_path / "s.made.json").unlink()
    assert "no s.made.json says what it was made from" in run_eval(*words, "--skip-bad", 1)[1].err
    assert (tmp_path / "s.csv").read_text() == "a,b\n1,2\n"


def test_a_table_knows_what_it_was_measured_on_and_is_kept_from_other_questions(digits_run, digits, tmp_path, run_eval):
    folder, other = (
        write_pictures(tmp_path / name, digits[rows, 0].numpy())
        for name, rows in (("mine", slice(6)), ("other", slice(6, 12)))
    )
    words = ("score", folder, "--run", digits_run, "--samples", 2, "--density", "prior", "--out", tmp_path / "s.csv")
    code, printed = run_eval(*words, "--against", other)
    assert code == 0, printed.err
    record = json.loads((tmp_path / "s.made.json").read_text())
    assert f"address {record['address']}" in printed.out
    before, auroc = (tmp_path / "s.csv").read_bytes(), printed.out.splitlines()[-2:]
    again = run_eval(*words, "--against", other)[1].out
    assert "made before" in again
    assert again.splitlines()[-2:] == auroc
    for changed, field in (
        (("--seed", 1), "seed is 0 instead of 1"),
        (("--samples", 3), "samples is 2 instead of 3"),
        (("--density", "mixture"), "density is 'prior' instead of 'q_hat'"),
        (("--annealing", 2), "annealing"),
        (("--weights", "stage1"), "checkpoint"),
        (("--n", 3), "scores.content"),
    ):
        code, printed = run_eval(*words, *changed)
        assert (code, printed.err.count("\n")) == (2, 1)
        assert field in printed.err
        assert (tmp_path / "s.csv").read_bytes() == before
    (folder / "000.png").rename(folder / "0000.png")
    assert "names is" in run_eval(*words)[1].err


def test_tables_whose_names_differ_in_their_ending_alone_do_not_take_each_others_record(
    digits_run, digits, tmp_path, run_eval
):
    folder = write_pictures(tmp_path / "mine", digits[:3, 0].numpy())
    words = ("score", folder, "--run", digits_run, "--samples", 2, "--density", "prior")
    assert run_eval(*words, "--out", tmp_path / "s.csv")[0] == 0
    code, printed = run_eval(*words, "--seed", 1, "--out", tmp_path / "s.txt")
    assert (code, "s.made.json, which would be the record of" in printed.err) == (2, True)
    assert "is that of s.csv; choose another name" in printed.err
    assert not (tmp_path / "s.txt").exists()
    assert "made before" in run_eval(*words, "--out", tmp_path / "s.csv")[1].out
    (tmp_path / "s.csv").unlink()
    assert run_eval(*words, "--seed", 1, "--out", tmp_path / "s.txt")[0] == 0


@pytest.mark.parametrize("name", ["s.csv", "s.made.json"])
def test_a_pipe_in_the_place_of_a_table_or_its_record_is_refused_and_not_waited_for(
    digits_run, digits, tmp_path, run_eval, name
):
    folder = write_pictures(tmp_path / "mine", digits[:3, 0].numpy())
    os.mkfifo(tmp_path / name)
    code, printed = run_eval("score", folder, "--run", digits_run, "--density", "prior", "--out", tmp_path / "s.csv")
    assert (code, printed.err.count("\n")) == (2, 1)
    assert f"{name} is " in printed.err
    assert "choose another name" in printed.err


def test_a_table_never_takes_the_place_of_a_link_to_nothing(tmp_path):
    (tmp_path / "s.csv").symlink_to(tmp_path / "not-mounted.csv")
    with pytest.raises(InputError, match=r"out: .*s\.csv is a link to .*not-mounted\.csv, which does not exist"):
        OutputFile(path=tmp_path / "s.csv", question={}).made_before()


def test_names_with_line_breaks_are_read_back_from_the_table(digits_run, digits, tmp_path, run_eval):
    folder = write_pictures(tmp_path / "mine", digits[:2, 0].numpy())
    (folder / "000.png").rename(folder / "a\rb.png")
    (folder / "001.png").rename(folder / 'c\n",d.png')
    words = ("score", folder, "--run", digits_run, "--samples", 2, "--density", "prior", "--out", tmp_path / "s.csv")
    first, again = (run_eval(*words)[1].out.splitlines() for _ in range(2))
    assert first[-2] == again[-2]
    assert "made before" in again[-1]


@pytest.mark.slow
def test_two_processes_write_the_table_of_one_and_find_it_again(digits_run, digits, tmp_path, run_eval):
    folder = write_pictures(tmp_path / "mine", digits[:140, 0].numpy())
    (folder / "bad.png").write_bytes(b"nothing")
    words = ("score", str(folder), "--run", str(digits_run), "--samples", "2", "--skip-bad", "1")
    assert run_eval(*words, "--out", tmp_path / "one.csv")[0] == 0
    for said in ("written to", "made before"):
        done = run_module("eval", *words, "--out", str(tmp_path / "two.csv"), processes=2)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    one, two = ((tmp_path / f"{name}.csv").read_text() for name in ("one", "two"))
    torch.testing.assert_close(from_csv(one), from_csv(two), rtol=1e-5, atol=1e-5)
    for before in (False, True):
        place = ("--skip-bad", "1", "--out", str(tmp_path / "maps"))
        done = run_module("eval", "reconstruct", *words[1:4], *place, processes=2)
        assert done.returncode == 0, done.stderr
        assert "maps: 140 images" in done.stdout
        assert ("made before" in done.stdout) == before


def test_annealing_gives_a_tighter_bound_beside_the_others(digits_run, digits, tmp_path, run_eval):
    folder = write_pictures(tmp_path / "mine", digits[:6, 0].numpy())
    words = ("--run", digits_run, "--samples", 2, "--annealing", 30, "--out", tmp_path / "s.csv")
    code, printed = run_eval("score", folder, *words)
    assert code == 0, printed.err
    rows = rows_of(tmp_path / "s.csv")
    gains = [float(row["annealed_log_likelihood"]) - float(row["log_likelihood"]) for row in rows]
    assert np.mean(gains) > 0
    assert "annealed log likelihood" in printed.out
    assert (
        "annealing: -1 is not a whole number of at least 0"
        in run_eval("score", folder, "--run", digits_run, "--annealing", -1)[1].err
    )
