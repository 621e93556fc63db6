"""`python -m eval fid A B`: any two sets of images, against clean-fid, torchmetrics and torch-fidelity."""

import io
import json
import shutil
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch_fidelity.metric_fid
from cleanfid import fid as clean_fid
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from support.distance_extractor import TINY, make
from support.picture_folders import pictures, write_pictures
from support.running import run_module
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from data_shards.io.errors import InputError
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.saved_statistics import load_statistics

pytestmark = pytest.mark.usefixtures("own_cache")

CPU = torch.device("cpu")


def result(folder):
    (path,) = folder.glob("fid-*.json")
    return json.loads(path.read_text())["values"]["frechet_distance"]["value"]


class Tiny(nn.Module):
    """The tiny extractor's network for other programs: images of its size to (B, 24)."""

    def __init__(self):
        super().__init__()
        self.network = make(CPU)

    def forward(self, images):
        return self.network(images.float()).mean(dim=(2, 3))


def test_two_folders_have_clean_fids_own_distance(place, distance, tmp_path):
    # clean-fid resizes to 299 pixels.
    distance(place / "a", place / "b", *TINY[:3], 299, "--out", tmp_path / "out")
    theirs = clean_fid.compute_fid(
        str(place / "a"),
        str(place / "b"),
        custom_feat_extractor=Tiny(),
        mode="clean",
        num_workers=0,
        device=CPU,
        verbose=False,
    )
    assert result(tmp_path / "out") == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.slow
def test_inceptions_distance_is_clean_fids_own(place, distance, tmp_path):
    weights = ("--extractor", "inception", "--extractor-weights", place / "inception-2015-12-05.pt")
    distance(place / "a", place / "b", *weights, "--out", tmp_path / "out")
    network = InceptionV3W(str(place), download=False, resize_inside=False).eval()
    moments = []
    for name in "ab":
        found = clean_fid.get_folder_features(
            str(place / name), network, mode="clean", num_workers=0, device=CPU, verbose=False
        )
        moments += _moments(found.astype(np.float64))  # clean-fid's own means are of float32 sums
    assert result(tmp_path / "out") == pytest.approx(float(clean_fid.frechet_distance(*moments)), rel=1e-6)


def _moments(features):
    return features.mean(0), np.cov(features, rowvar=False)


def test_torchmetrics_and_torch_fidelity_find_the_same_distance_of_the_same_features(tmp_path, distance):
    sets = {
        name: list(pictures(40, seed, top=top, side=(32, 32))) for name, seed, top in (("a", 5, 256), ("b", 6, 200))
    }
    for name, images in sets.items():
        write_pictures(tmp_path / name, images)
    distance(tmp_path / "a", tmp_path / "b", *TINY, "--out", tmp_path / "out")
    stacked = {name: torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) for name, images in sets.items()}
    metric = FrechetInceptionDistance(feature=Tiny(), input_img_size=(3, 32, 32))
    metric.update(stacked["b"], real=True)
    metric.update(stacked["a"], real=False)
    assert result(tmp_path / "out") == pytest.approx(float(metric.compute()), rel=1e-6)
    with torch.inference_mode():
        statistics = [
            torch_fidelity.metric_fid.fid_features_to_statistics(Tiny()(stacked[name]).double()) for name in "ab"
        ]
    theirs = torch_fidelity.metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert result(tmp_path / "out") == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


@pytest.fixture(scope="module")
def same_images(tmp_path_factory):
    """The same 70 images as a folder, a zip, arrays, tars and a shard set."""
    root = tmp_path_factory.mktemp("same")
    images = list(pictures(70, 7, side=(32, 32)))
    write_pictures(root / "folder", images)
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for path in sorted((root / "folder").iterdir()):
            archive.write(path, f"images/{path.name}")
    np.savez(root / "images.npz", arr_0=np.stack(images), arr_1=np.arange(70))
    np.savez(root / "two.npz", x_test=np.stack(images), x_train=np.zeros((9, 4, 4), np.uint8))
    np.save(root / "images.npy", np.stack(images))
    for number in range(2):
        with tarfile.open(root / f"tar-{number:02d}.tar", "w") as tar:
            for path in sorted((root / "folder").iterdir())[number::2]:
                tar.add(path, path.name)
                label = tarfile.TarInfo(f"{path.stem}.cls")
                label.size = 1
                tar.addfile(label, io.BytesIO(b"3"))
    done = run_module(
        *("data_shards", "build", "folder", str(root / "folder"), "--out", str(root / "shards")),
        *("--size", "32", "--valid", "0", "--test", "0"),
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(
    "name",
    [
        "folder",
        "images.zip",
        "images.npz",
        "two.npz:x_test",
        "images.npy",
        "tar-{00..01}.tar",
        "tar-*.tar",
        "shards:shards/train",
    ],
)
def test_every_kind_of_set_has_the_same_distance(same_images, place, distance, name):
    word = f"shards:{same_images}/shards/train" if name.startswith("shards:") else same_images / name
    expected, _ = distance(same_images / "folder", place / "b", *TINY)
    assert distance(word, place / "b", *TINY)[0] == pytest.approx(expected, rel=1e-5)
    assert distance(word, same_images / "folder", *TINY)[0] == pytest.approx(0, abs=1e-6)


def test_samples_of_a_run_are_those_that_the_runs_own_command_compares(digits_run, digits_shards, distance, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "digits")
    for density, source, options in (("mixture", "q_hat", ("--mixture", "4")), ("prior", "prior", ())):
        of_run, _ = distance("--run", run, "--from", source, *options, "--n", "150", *TINY)
        words = (f"run:{run}", f"shards:{digits_shards}/test", "--density", density, "--n", "150")
        assert distance(*words, *TINY)[0] == pytest.approx(of_run, rel=1e-9)


def test_saved_statistics_stand_for_their_images_with_their_extractor_only(
    place, distance, mistake, run_eval, tmp_path
):
    expected, _ = distance(place / "a", place / "b", *TINY)
    code, printed = run_eval("statistics", place / "b", "--out", tmp_path / "b.npz", *TINY)
    assert code == 0, printed.err
    again = ("statistics", place / "b", "--out", tmp_path / "b.npz", *TINY)
    assert "(made before)" in run_eval(*again)[1].out
    before = (tmp_path / "b.npz").read_bytes()
    assert "content is" in mistake("statistics", place / "a", *again[2:])
    assert "size is 32 instead of 40" in mistake(*again, "--extractor-size", 40)
    assert (tmp_path / "b.npz").read_bytes() == before
    assert distance(place / "a", tmp_path / "b.npz", *TINY)[0] == pytest.approx(expected, rel=1e-9)
    assert "another extractor" in mistake("fid", place / "a", tmp_path / "b.npz", *TINY[:3], "40")
    line = mistake("fid", place / "a", tmp_path / "b.npz", *TINY, "--also", "kernel")
    assert "kernel needs images on both sides" in line


@pytest.fixture(scope="module")
def as_inception():
    """The tiny extractor under the name of clean-fid's."""
    made = extractor_by_name("support.distance_extractor:make", CPU, size=32)
    return replace(made, description={"name": "inception", "mode": "clean"})


def test_clean_fids_statistics_go_with_its_network_in_its_mode(as_inception, tmp_path):
    mean, covariance = np.arange(24.0), np.eye(24)
    names = ("ffhq_clean_trainfull_1024", "ffhq_legacy_tensorflow_trainfull_1024", "ffhq_clean_clip_vit_b_32_na")
    for name in names:
        np.savez(tmp_path / f"{name}.npz", mu=mean, sigma=covariance)
    found = load_statistics(tmp_path / f"{names[0]}.npz", as_inception)
    assert found.mean().tolist() == mean.tolist()
    assert (found.n, found.dim) == (0, 24)
    with pytest.raises(InputError, match="mode legacy_tensorflow"):
        load_statistics(tmp_path / f"{names[1]}.npz", as_inception)
    with pytest.raises(InputError, match="CLIP"):
        load_statistics(tmp_path / f"{names[2]}.npz", as_inception)
    with pytest.raises(InputError, match="--extractor inception"):
        load_statistics(tmp_path / f"{names[0]}.npz", replace(as_inception, description={"name": "other"}))
    with pytest.raises(InputError, match=r"statistics of 24 features, but .* has 25"):
        load_statistics(tmp_path / f"{names[0]}.npz", replace(as_inception, dim=25))


def test_parts_give_the_number_of_one_job_and_are_asked_for_by_name(place, distance, run_eval, tmp_path):
    write_pictures(tmp_path / "a", pictures(150, 8))
    sets = (tmp_path / "a", place / "b", *TINY, "--out", tmp_path / "out")
    expected, _ = distance(*sets[:-2])
    assert "0,1" in run_eval("fid", *sets, "--missing", "2")[1].out
    for part in range(2):
        assert run_eval("fid", *sets, "--part", f"{part}/2")[0] == 0
    assert distance(*sets, "--merge", "2")[0] == pytest.approx(expected, rel=1e-9)
    assert "measured before" in distance(*sets)[1]


def remarks(printed):
    """The remarks that a command printed."""
    return [line for line in printed.splitlines() if line.startswith("remark ")]


def test_a_merge_says_of_the_images_what_one_job_says(place, distance, run_eval, mistake, tmp_path):
    write_pictures(tmp_path / "a", pictures(150, 8))
    for name in ("000-clear", "140-clear"):
        Image.new("RGBA", (20, 20), (200, 10, 10, 100)).save(tmp_path / "a" / f"{name}.png")
    for name in ("001-bad", "141-bad"):
        (tmp_path / "a" / f"{name}.png").write_bytes(b"no image")
    sets = (tmp_path / "a", place / "b", *TINY)
    _, whole = distance(*sets, "--skip-bad", "2")
    for part in range(2):
        assert run_eval("fid", *sets, "--out", tmp_path / "out", "--skip-bad", "1", "--part", f"{part}/2")[0] == 0
    merge = (*sets, "--out", tmp_path / "out", "--merge", "2")
    line = mistake("fid", *merge, "--skip-bad", "1")
    assert "2 of 154 images cannot be read" in line
    assert line.endswith("or leave them out by --skip-bad 2")
    _, merged = distance(*merge, "--skip-bad", "2")
    assert remarks(merged) == remarks(whole)
    assert "2 images transparency composited on #ffffff" in merged


def test_statistics_are_not_compared_in_parts(place, run_eval, mistake, tmp_path):
    run_eval("statistics", place / "a", "--out", tmp_path / "a.npz", *TINY)
    words = ("fid", tmp_path / "a.npz", place / "b", *TINY, "--out", tmp_path / "out")
    for option in ("--part=0/2", "--merge=2", "--missing=2"):
        assert "holds statistics, which are read and not made in parts" in mistake(*words, option)
    assert not list(tmp_path.rglob("part-*"))


def test_two_processes_find_the_distance_and_the_decisions_of_one(place, tmp_path, distance):
    write_pictures(tmp_path / "a", pictures(140, 9))
    for number in range(5):
        Image.new("RGBA", (20, 20), (200, 10, 10, 100)).save(tmp_path / "a" / f"clear-{number}.png")
    expected, alone = distance(tmp_path / "a", place / "b", *TINY)
    words = ("eval", "fid", str(tmp_path / "a"), str(place / "b"), *TINY)
    done = run_module(*words, processes=2, env={"PYTHONPATH": "tests:."})
    assert done.returncode == 0, done.stderr
    assert "5 images transparency composited on #ffffff" in done.stdout
    assert [line for line in done.stdout.splitlines() if "remark" in line] == [
        line for line in alone.splitlines() if "remark" in line
    ]
    line = next(line for line in done.stdout.splitlines() if line.startswith("frechet distance "))
    assert float(line.split()[2]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_two_processes_save_statistics_once(place, tmp_path):
    words = ("eval", "statistics", str(place / "b"), "--out", str(tmp_path / "b.npz"), *TINY)
    for before in (False, True):
        done = run_module(*words, processes=2, env={"PYTHONPATH": "tests:."})
        assert done.returncode == 0, done.stderr
        assert ("made before" in done.stdout) == before


def test_a_changed_image_is_another_question(place, tmp_path, distance):
    shutil.copytree(place / "a", tmp_path / "a")
    words = (tmp_path / "a", place / "b", *TINY, "--out", tmp_path / "out")
    first, _ = distance(*words)
    assert "measured before" in distance(*words)[1]
    Image.new("RGB", (32, 40), (255, 0, 0)).save(tmp_path / "a" / "000.png")
    again, printed = distance(*words)
    assert "measured before" not in printed
    assert again != first
    assert len(list((tmp_path / "out").glob("fid-*.json"))) == 2


def test_a_further_measure_is_kept_beside_those_of_the_same_question_that_were_asked_for_before(
    place, distance, run_eval, tmp_path
):
    words = (place / "a", place / "b", *TINY, "--out", tmp_path / "out")
    distance(*words, "--also", "kernel")
    (path,) = (tmp_path / "out").glob("fid-*.json")
    kernel = json.loads(path.read_text())["values"]["kernel_distance"]
    distance(*words, "--also", "cmmd")
    found = json.loads(path.read_text())
    assert (found["values"]["kernel_distance"], len(found["versions"])) == (kernel, 3)
    assert "measured before" in run_eval("fid", *words, "--also", "kernel")[1].out


def test_a_set_compared_with_itself_is_at_zero_and_it_is_said(place, distance):
    value, printed = distance(place / "a", place / "a", *TINY)
    assert value == pytest.approx(0, abs=1e-4)
    assert "both sets hold the same images" in printed
    assert "both sets" not in distance(place / "a", place / "b", *TINY)[1]


def test_grey_images_are_compared_with_colour_ones_and_it_is_said(place, distance, tmp_path):
    grey = write_pictures(tmp_path / "grey", (np.asarray(Image.fromarray(i).convert("L")) for i in pictures(20, 0)))
    value, printed = distance(grey, place / "b", *TINY)
    assert value > 0
    assert "20 images grey stored as RGB" in printed


def test_what_was_left_out_of_a_folder_is_said_with_its_number(place, distance, tmp_path):
    shutil.copytree(place / "a", tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / ".hidden.png").write_text("x")
    _, printed = distance(tmp_path / "a", place / "b", *TINY)
    assert "left out: 1 not images (.txt)" in printed
    assert "left out: 1 hidden" in printed


def test_a_seeded_choice_of_n_images_is_the_seeds_alone(place, distance, mistake):
    words = (place / "a", place / "b", *TINY, "--n", "20")
    values = [distance(*words, "--seed", seed)[0] for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert "--n: 500 images, but" in mistake("fid", place / "a", place / "b", *TINY, "--n", "500")
