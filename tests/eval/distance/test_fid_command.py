"""`python -m eval fid` and `encode`: results with their protocol, nothing made twice, mistakes in one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.distance_extractor import TINY, fid, question
from support.running import run_module

from data_shards.io.address import Location
from data_shards.io.errors import InputError, OneLineParser, command
from data_shards.manifest import Manifest
from data_shards.stream.stream import ShardStream
from eval.__main__ import main
from eval.commands import encode as encode_command
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.features import reference_statistics
from eval.distance.measures.frechet import frechet_distance
from eval.distance.statistics import FeatureStatistics
from eval.questions import DistanceQuestion
from trainer.process_group import Ranks, single
from trainer.run_folder import latents
from trainer.run_folder.restore import load_model

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def run(tmp_path, digits_run):
    """A copy of the run that a command may write into."""
    return shutil.copytree(digits_run, tmp_path / "digits")


def answer(run):
    """The newest result."""
    path = max((run / "eval").glob("fid-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(path.read_text())


def test_the_demos_command_on_two_processes_names_its_extractor_and_marks_a_small_n(run):
    words = ("--run", str(run), "--from", "q_hat", "--mixture", "4", "--n", "150", "--weights", "final")
    done = run_module("eval", "fid", *words, processes=2)
    assert done.returncode == 0, done.stderr
    got = answer(run)
    assert got["label"] == "FD (EfficientNet-Lite0, 64 px)"
    assert got["values"]["frechet_distance"]["value"] > 0
    assert got["below_protocol"]
    assert "BELOW PROTOCOL" in done.stdout
    assert "repeated to three channels" in done.stdout
    assert got["protocol"]["n"] == 150
    assert got["protocol"]["n_reference"] == 200


def test_the_distance_is_that_of_all_features_in_one_numpy_array(run, digits_shards):
    against_test = question(run, "--n", "100", "--from", "prior")
    fid(run, "--n", "100", "--from", "prior")
    images = torch.cat([images for _, images in against_test.compared.images(range(2))])
    real = torch.cat([b.image for b in ShardStream(digits_shards, split="test", global_batch=50, shuffle=False)])
    features = [against_test.extractor(x).double().numpy() for x in (images, real)]
    moments = [torch.tensor(m) for f in features for m in (f.mean(0), np.cov(f, rowvar=False))]
    assert answer(run)["values"]["frechet_distance"]["value"] == pytest.approx(frechet_distance(*moments), rel=1e-5)


def test_real_images_are_nearer_to_real_ones_than_samples_are(run):
    values = {}
    for source, options in (("half", ()), ("prior", ("--n", "96"))):
        fid(run, "--from", source, *options, "--split", "train")
        values[source] = answer(run)["values"]["frechet_distance"]["value"]
        shutil.rmtree(run / "eval")
    assert values["half"] < values["prior"]


def test_statistics_in_the_cache_of_one_machine_only_are_made_on_all(digits_shards):
    manifest = Manifest.load(Location.of(digits_shards))
    made = extractor_by_name(TINY[1], torch.device("cpu"), size=32)
    ask = lambda ranks: reference_statistics(Location.of(digits_shards), manifest, "test", made, ranks)  # noqa: E731
    ask(single())
    calls = []

    class OtherMachineLacksThem(Ranks):
        def any(self, flag):
            calls.append(flag)
            return True

    found = ask(OtherMachineLacksThem(**vars(single())))
    assert calls
    assert found.n == manifest.num_samples("test")


def test_the_number_of_images_is_by_default_that_of_the_protocol():
    for train_split, n in (("train", 10_000), ("photographs", 50_000)):
        assert DistanceQuestion(source="prior", split="photographs").images_of(train_split) == n


@pytest.mark.parametrize("source", ["reconstruction", "train"])
def test_reconstructions_and_training_images_are_compared_too(run, source):
    fid(run, "--from", source, "--n", "200")
    assert answer(run)["protocol"]["source"] == source
    with pytest.raises(InputError, match="use at most"):
        fid(run, "--from", source, "--n", "5000")


def test_a_result_is_not_measured_twice_until_the_mixture_changes(run, capsys):
    fid(run)
    fid(run)
    assert "measured before" in capsys.readouterr().out
    done = run_module("trainer.mixture", "--run", str(run), "--components", "4", "--seed", "1")
    assert done.returncode == 0, done.stderr
    fid(run)
    assert "measured before" not in capsys.readouterr().out


def test_further_measures_come_with_their_errors_also_from_parts(run):
    also = ("--also", "kernel", "neighbours", "infinite")
    fid(run, *also)
    whole = answer(run)["values"]
    assert {"kernel_distance", "precision", "recall", "density", "coverage"} < set(whole)
    assert whole["kernel_distance"]["standard_error"] > 0
    low, high = whole["frechet_distance_at_infinite_n"]["interval_95"]
    assert low <= whole["frechet_distance_at_infinite_n"]["value"] <= high
    shutil.rmtree(run / "eval")
    for part in range(2):
        fid(run, *also, "--part", f"{part}/2")
    fid(run, *also, "--merge", "2")
    for name, number in answer(run)["values"].items():
        assert number["value"] == pytest.approx(whole[name]["value"], rel=1e-6)


def test_a_further_measure_asked_for_later_joins_those_that_are_there(run):
    fid(run, "--also", "kernel")
    first = answer(run)
    fid(run, "--also", "neighbours")
    both = answer(run)
    assert both["also"] == ["kernel", "neighbours"]
    assert both["values"]["kernel_distance"] == first["values"]["kernel_distance"]
    assert "precision" in both["values"]


def test_further_measures_of_another_question_are_not_kept(run):
    fid(run, "--also", "kernel")
    done = run_module("trainer.mixture", "--run", str(run), "--components", "4", "--seed", "1")
    assert done.returncode == 0, done.stderr
    fid(run)
    assert answer(run)["also"] == []
    assert set(answer(run)["values"]) == {"frechet_distance"}


def test_parts_without_feature_vectors_cannot_answer_what_needs_them(run):
    for part in range(2):
        fid(run, "--part", f"{part}/2")
    with pytest.raises(InputError, match="also: feature vectors are needed"):
        fid(run, "--also", "kernel", "--merge", "2")


def test_saved_images_are_those_that_were_compared(run):
    fid(run, "--n", "70", "--save-images", "png")
    (folder,) = (run / "samples").iterdir()
    saved = torch.tensor(np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]))
    images = torch.cat([images for _, images in question(run, "--n", "70").compared.images(range(2))])
    assert torch.equal(saved, images[:, 0])


def test_reference_statistics_are_made_once_for_each_data_set_split_and_extractor(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(tmp_path / "cache"))
    fid(run, "--n", "64")
    (path,) = (tmp_path / "cache" / "references").glob("*.safetensors")
    before = path.stat().st_mtime_ns
    fid(run, "--n", "65")
    assert path.stat().st_mtime_ns == before
    made = FeatureStatistics.load(path)
    assert made.n == 200
    assert {"data", "split", "extractor"} == set(made.protocol)
    fid(run, "--n", "66", "--split", "valid")
    fid(run, "--n", "67", "--extractor-size", "40")
    assert len(list(path.parent.glob("*.safetensors"))) == 3


def test_a_dry_run_estimates_time_and_disk_and_measures_nothing(run, monkeypatch, capsys):
    options = ("--from", "q_hat", "--mixture", "4", "--device", "cuda", "--dry-run", "--processes", "4")
    monkeypatch.setattr("sys.argv", ["eval", "fid", "--run", str(run), *options])
    assert command(main) == 0
    printed = capsys.readouterr().out
    assert "images   10,000 compared, 200 real ones of split test" in printed
    assert "features 0.063 GFLOP an image" in printed
    assert "on 4 cuda processes" in printed
    assert "GB are free" in printed
    assert not (run / "eval").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--run", "/nowhere", "--from", "prior"), "/nowhere"),
        (("--from", "dreams"), "--from"),
        (("--from", "prior", "--split", "nonesuch"), "nonesuch"),
        (("--from", "prior", "--n", "1"), "--n: 1 is not a whole number of at least 2"),
        (("--from", "q_hat", "--mixture", "77"), "77-full"),
        (("--from", "prior", "--part", "5/2"), "--part: '5/2' is not a part"),
        (("--from", "prior", "--merge", "2", "--save-images", "png"), "--save-images"),
        (("--from", "prior", "--extractor", "nonesuch"), "--extractor: 'nonesuch' is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(digits_run, monkeypatch, capsys, options, message):
    words = options if "--run" in options else ("--run", str(digits_run), *options)
    monkeypatch.setattr("sys.argv", ["eval", "fid", *words])
    assert command(main) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_codes_are_the_models_posteriors_in_source_order(digits_run, digits_shards):
    codes = latents.read(digits_run, "test")
    (batch,) = ShardStream(digits_shards, split="test", global_batch=200, shuffle=False)
    with torch.no_grad():
        posterior = load_model(digits_run).encode(batch.image.float() / 255)
    assert torch.equal(codes.index, torch.arange(200))
    torch.testing.assert_close(codes.mean, posterior.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codes.std, posterior.std, atol=1e-5, rtol=1e-4)


def encode(run, *splits):
    parser = OneLineParser()
    encode_command.add_arguments(parser)
    encode_command.run(parser.parse_args(["--run", str(run), "--split", *splits]))


def test_two_processes_encode_what_one_does_to_the_last_bit(run):
    before = latents.read(run, "test")
    shutil.rmtree(run / "latents" / "test")
    done = run_module("eval", "encode", "--run", str(run), "--split", "test", processes=2)
    assert "200 images encoded" in done.stdout, done.stderr
    after = latents.read(run, "test")
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_codes_are_made_again_only_when_the_weights_are_others(run, capsys):
    encode(run, "test")
    assert "encoded before" in capsys.readouterr().out
    record = run / "latents" / "test" / "encoding.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"checkpoint": "0" * 16}))
    encode(run, "test")
    assert "200 images encoded" in capsys.readouterr().out


def test_an_encoding_that_was_cut_off_is_made_again(run, capsys):
    (run / "latents" / "test" / "encoding.json").unlink()
    encode(run, "test")
    assert "200 images encoded" in capsys.readouterr().out


def test_codes_with_a_lost_part_are_made_again(run, capsys):
    next((run / "latents" / "test").glob("part-*")).unlink()
    encode(run, "test")
    assert "200 images encoded" in capsys.readouterr().out


def test_an_unknown_split_is_refused_before_anything_is_encoded(run):
    shutil.rmtree(run / "latents")
    with pytest.raises(InputError, match="'nonesuch' is not in"):
        encode(run, "train", "nonesuch")
    assert not (run / "latents").exists()
