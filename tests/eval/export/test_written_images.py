"""`python -m eval sample`, `reconstruct`, `interpolate`, `traverse`: files of a run's images, whole and its own."""

import csv
import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.picture_folders import pictures, write_pictures
from support.running import run_module

from data_shards.stream.stream import ShardStream
from eval import open_run
from eval.export import output_folder, samples


def eight_bits(images):
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("density", ["mixture", "prior"])
def test_samples_are_those_of_open_run_in_every_format(digits_run, tmp_path, run_eval, density):
    z, x = open_run(digits_run).sample(70, density=density, seed=3)
    expected = eight_bits(x)
    for file_format in ("png", "npz", "shards", "grid"):
        out = tmp_path / file_format
        words = ("--n", 70, "--out", out, "--format", file_format, "--density", density, "--seed", 3)
        code, printed = run_eval("sample", "--run", digits_run, *words)
        assert code == 0, printed.err
        torch.testing.assert_close(load_file(out / "latents.safetensors")["z"], z)
    saved = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "png").glob("*.png"))])
    assert torch.equal(torch.from_numpy(saved), expected[:, 0])
    with np.load(tmp_path / "npz" / "samples.npz") as file:
        assert torch.equal(torch.from_numpy(file["arr_0"]), expected.permute(0, 2, 3, 1))
    assert [path.name for path in (tmp_path / "shards").glob("*.tar")] == ["00000000.tar"]
    assert Image.open(tmp_path / "grid" / "grid.png").width > 9 * 28


@pytest.mark.parametrize(
    "file_format", ["npz", *(pytest.param(name, marks=pytest.mark.slow) for name in ("png", "shards"))]
)
def test_the_files_are_the_same_on_three_processes(digits_run, tmp_path, run_eval, file_format):
    words = ("sample", "--run", str(digits_run), "--n", "200", "--format", file_format)
    assert run_eval(*words, "--out", tmp_path / "one")[0] == 0
    done = run_module("eval", *words, "--out", str(tmp_path / "three"), processes=3)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "three" / path.name).read_bytes() == path.read_bytes()


def test_a_temperature_below_1_draws_nearer_to_the_means(digits_run, tmp_path, run_eval):
    spread = {}
    for temperature in (1.0, 0.5):
        words = ("--density", "prior", "--n", 64, "--temperature", temperature, "--out", tmp_path / str(temperature))
        assert run_eval("sample", "--run", digits_run, *words)[0] == 0
        spread[temperature] = load_file(tmp_path / str(temperature) / "latents.safetensors")["z"]
    torch.testing.assert_close(spread[0.5], 0.5 * spread[1.0])
    run = open_run(digits_run)
    words = ("--n", 64, "--temperature", 1e-6, "--out", tmp_path / "cold")
    assert run_eval("sample", "--run", digits_run, *words)[0] == 0
    cold = load_file(tmp_path / "cold" / "latents.safetensors")["z"]
    nearest = torch.cdist(cold.double(), run.mixture.means).min(1).values
    assert nearest.max() < 1e-4


def test_a_folder_is_made_once_kept_from_other_questions_and_never_taken_from_others(digits_run, tmp_path, run_eval):
    words = ("sample", "--run", digits_run, "--n", 5, "--out", tmp_path / "out")
    assert run_eval(*words)[0] == 0
    assert "made before" in run_eval(*words)[1].out
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    code, printed = run_eval(*words, "--seed", 1)
    assert (code, printed.err.count("\n")) == (2, 1)
    assert "out answers another question (seed is 0 instead of 1); choose another name, or remove it" in printed.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert json.loads(before["made.json"])["address"]
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert "made before" in run_eval(*words[:-1], tmp_path / "link")[1].out
    (tmp_path / "out" / "00000003.png").unlink()
    assert "files were removed or changed" in run_eval(*words)[1].err
    # Pictures that are named as ours are, of someone else.
    write_pictures(tmp_path / "theirs", pictures(2, 0))
    for path in list((tmp_path / "theirs").iterdir()):
        path.rename(path.with_name(f"00000{path.name}"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    code, printed = run_eval("sample", "--run", digits_run, "--n", 5, "--out", tmp_path / "theirs")
    assert (code, printed.err.count("\n")) == (2, 1)
    assert "holds other files" in printed.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()} == before
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        code, printed = run_eval("sample", "--run", digits_run, "--n", 5, "--out", place)
        assert (code, "file is a file" in printed.err) == (2, True)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert run_eval(*words, "--seed", 2)[0] == 2
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_pipe_as_the_record_of_a_folder_is_refused_and_not_waited_for(digits_run, tmp_path, run_eval):
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "made.json")
    code, printed = run_eval("sample", "--run", digits_run, "--n", 5, "--out", tmp_path / "out")
    assert (code, "holds other files" in printed.err) == (2, True)


def test_an_empty_folder_on_which_a_disk_is_mounted_is_refused_before_anything_is_made(
    digits_run, tmp_path, monkeypatch, run_eval
):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(output_folder.os.path, "ismount", lambda path: path == tmp_path / "out")
    code, printed = run_eval("sample", "--run", digits_run, "--n", 5, "--out", tmp_path / "out")
    assert (code, printed.err.count("\n")) == (2, 1)
    assert "out is where a disk is mounted, which has no other name; choose a folder in it" in printed.err
    assert run_eval("sample", "--run", digits_run, "--n", 5, "--out", tmp_path / "out" / "in it")[0] == 0


def test_a_file_that_is_put_into_the_folder_meanwhile_stays_and_is_named(digits_run, tmp_path, monkeypatch, run_eval):
    (tmp_path / "out").mkdir()
    before = samples.block_latents

    def block_latents(*words):
        (tmp_path / "out" / "mine.txt").write_text("mine")
        return before(*words)

    monkeypatch.setattr(samples, "block_latents", block_latents)
    code, printed = run_eval("sample", "--run", digits_run, "--n", 5, "--out", tmp_path / "out")
    assert code == 2
    assert printed.err.splitlines()[-1].endswith("out: files of others are in it: choose another folder")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_ones_own_images_are_reconstructed_with_maps_of_uncertainty(digits_run, digits_shards, tmp_path, run_eval):
    mine = write_pictures(tmp_path / "mine", pictures(6, 1, side=(40, 50)))
    (batch,) = ShardStream(digits_shards, split="test", global_batch=200, shuffle=False)
    write_pictures(tmp_path / "mine" / "digits", batch.image[:3, 0].numpy())
    code, printed = run_eval("reconstruct", mine, "--run", digits_run, "--out", tmp_path / "out")
    assert code == 0, printed.err
    assert "6 images colours made grey" in printed.out
    assert "6 images cut to their largest centred square" in printed.out
    rows = list(csv.DictReader((tmp_path / "out" / "reconstructions.csv").open()))
    assert len(rows) == len(list((tmp_path / "out").glob("0*.png"))) == 9
    run = open_run(digits_run)
    x = batch.image[:1].float() / 255
    decoded = run.decode(run.encode(x).mean)
    row = next(row for row in rows if row["image"] == "digits/000.png")
    assert float(row["mean_square_error"]) == pytest.approx(float((x - decoded.mean).square().mean()), rel=1e-4)
    sigma = load_file(tmp_path / "out" / "sigma.safetensors")["sigma"]
    torch.testing.assert_close(sigma[int(row["file"][:8])], decoded.variance[0].sqrt(), atol=1e-5, rtol=1e-4)
    assert "made before" in run_eval("reconstruct", mine, "--run", digits_run, "--out", tmp_path / "out")[1].out


def test_images_that_cannot_be_read_are_left_out_of_reconstructions_only_where_that_is_allowed(
    digits_run, tmp_path, run_eval
):
    mine = write_pictures(tmp_path / "mine", pictures(3, 1))
    (mine / "bad.png").write_bytes(b"nothing")
    words = ("reconstruct", mine, "--run", digits_run, "--out", tmp_path / "out")
    assert "1 of 4 images cannot be read" in run_eval(*words)[1].err
    assert "out: 3 images" in run_eval(*words, "--skip-bad", 1)[1].out
    assert "out: 3 images, each with its reconstruction, error and predicted deviation (made before)" in (
        run_eval(*words, "--skip-bad", 1)[1].out
    )
    assert "leaves out 1 images that cannot be read; add --skip-bad 1" in run_eval(*words)[1].err
    for path in mine.glob("0*.png"):
        path.write_bytes(b"nothing")
    assert "4 of 4 images cannot be read" in run_eval(*words[:-1], tmp_path / "none", "--skip-bad", 4)[1].err


def test_walks_end_where_their_latents_do_and_are_drawn_as_picture_and_gif(digits_run, tmp_path, run_eval):
    words = ("--rows", 3, "--steps", 5, "--density", "prior")
    assert run_eval("interpolate", "--run", digits_run, "--out", tmp_path / "walk", *words)[0] == 0
    z = load_file(tmp_path / "walk" / "latents.safetensors")["z"]
    ends, _ = open_run(digits_run).sample(6, density="prior")
    torch.testing.assert_close(torch.stack([z[:, 0], z[:, -1]], dim=1).reshape(6, -1), ends)
    torch.testing.assert_close(z[:, 2], (z[:, 0] + z[:, 4]) / 2)
    with Image.open(tmp_path / "walk" / "walk.gif") as animation:
        assert animation.n_frames == 8
    assert Image.open(tmp_path / "walk" / "walk.png").width > 5 * 28


def test_a_walk_can_be_a_video_of_the_same_frames(digits_run, tmp_path, run_eval):
    av = pytest.importorskip("av")
    words = ("--rows", 3, "--steps", 5, "--density", "prior")
    for kind in ("gif", "mp4"):
        code, printed = run_eval(
            "interpolate", "--run", digits_run, "--out", tmp_path / kind, *words, "--animation", kind
        )
        assert code == 0, printed.err
    with av.open(str(tmp_path / "mp4" / "walk.mp4")) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        video = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with Image.open(tmp_path / "gif" / "walk.gif") as animation:
        assert len(video) == animation.n_frames
        for number, frame in enumerate(video):
            animation.seek(number)
            expected = np.asarray(animation.convert("RGB"))
            assert (frame.shape[0] % 2, frame.shape[1] % 2) == (0, 0)
            away = np.abs(frame[: expected.shape[0], : expected.shape[1]].astype(int) - expected)
            assert away.mean() < 3
    again = ("interpolate", "--run", digits_run, "--out", tmp_path / "mp4", *words)
    assert "made before" in run_eval(*again, "--animation", "mp4")[1].out
    assert "animation is 'mp4'" in run_eval(*again)[1].err


def test_a_video_without_its_package_is_refused_in_one_line_before_anything_is_made(
    digits_run, tmp_path, monkeypatch, run_eval
):
    monkeypatch.setitem(sys.modules, "av", None)
    code, printed = run_eval("traverse", "--run", digits_run, "--out", tmp_path / "walk", "--animation", "mp4")
    assert code == 2
    assert printed.err == (
        "error: --animation: mp4 needs PyAV; install it by pip install 'two-stage-sigma-vae[video]', or use gif\n"
    )
    assert not (tmp_path / "walk").exists()


def test_traversals_move_one_latent_at_a_time(digits_run, tmp_path, run_eval):
    code, printed = run_eval("traverse", "--run", digits_run, "--out", tmp_path / "walk", "--rows", 2, "--steps", 4)
    assert code == 0, printed.err
    z = load_file(tmp_path / "walk" / "latents.safetensors")["z"]
    assert z.shape == (2, 4, 2)
    moved = (z.std(1) > 0).int()
    assert moved.sum(1).tolist() == [1, 1]
    assert moved.sum(0).tolist() == [1, 1]
    assert "rows: 5" in run_eval("traverse", "--run", digits_run, "--out", tmp_path / "x", "--rows", 5)[1].err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sample", "--run", "nowhere", "--out", "x"), "is no run"),
        (("sample", "--run", "RUN", "--out", "x", "--temperature", "0"), "--temperature: 0.0 is not above 0"),
        (("sample", "--run", "RUN", "--out", "x", "--n", "0"), "--n: 0 is not a whole number of at least 1"),
        (("sample", "--run", "RUN", "--out", "x", "--mixture", "77"), "77-full"),
        (("reconstruct", "nowhere", "--run", "RUN", "--out", "x"), "nowhere does not exist"),
        (
            ("interpolate", "--run", "RUN", "--out", "x", "--steps", "1"),
            "--steps: 1 is not a whole number of",
        ),
        (("interpolate", "--run", "RUN", "--out", "x", "--steps", "100000"), "more than 10,000 images"),
        (("sample", "--run", "RUN", "--out", "x", "--seed", "-1"), "--seed: -1 is not in 0 to"),
        (("sample", "--run", "RUN", "--out", "x", "--seed", str(10**30)), "is not in 0 to"),
        (("sample", "--run", "RUN", "--out", "x", "--temperature", "1e300"), "--temperature: images of such latents"),
        (("sample", "--run", "RUN", "--out", "x", "--n", str(10**12), "--format", "npz"), "use --format png or shards"),
    ],
)
def test_a_mistake_is_one_line(digits_run, tmp_path, monkeypatch, run_eval, words, message):
    monkeypatch.chdir(tmp_path)
    code, printed = run_eval(*(digits_run if word == "RUN" else word for word in words))
    assert code == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
