"""Mixtures and latent codes on disk."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from support.mixture_cases import TYPES, draws, known_mixture

from data_shards.io.errors import InputError
from trainer.mixture import GaussianMixture
from trainer.mixture.fitted import mixture_folder
from trainer.run_folder import latents
from trainer.run_folder.latents import Latents


@pytest.mark.parametrize("kind", TYPES)
def test_a_mixture_comes_back_from_disk_as_it_was(tmp_path, kind):
    mixture = GaussianMixture(3, covariance_type=kind).fit(draws(known_mixture(kind), 200))
    mixture.save(tmp_path / "m")
    back = GaussianMixture.load(tmp_path / "m")
    assert back.get_params() == mixture.get_params()
    assert back.inflation_ == mixture.inflation_
    for name in ("weights_", "means_", "covariances_"):
        assert torch.equal(getattr(back, name), getattr(mixture, name))


def test_a_mixture_that_is_missing_or_damaged_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="no fitted mixture is here"):
        GaussianMixture.load(tmp_path)
    known_mixture("full").save(tmp_path)
    data = (tmp_path / "mixture.safetensors").read_bytes()
    (tmp_path / "mixture.safetensors").write_bytes(data[:-8] + b"damaged!")
    with pytest.raises(InputError, match=r"mixture.safetensors does not match its checksum in mixture.json"):
        GaussianMixture.load(tmp_path)
    (tmp_path / "mixture.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="this is not a mixture of format 1"):
        GaussianMixture.load(tmp_path)


@pytest.mark.parametrize("name", ["mixture.json", "mixture.safetensors"])
def test_a_pipe_in_the_place_of_a_file_of_a_mixture_is_not_waited_for(tmp_path, name):
    known_mixture("full").save(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"the fitted mixture is damaged .{name} is not a file"):
        GaussianMixture.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"covariance_type": "round"}, {"settings": {"n_components": "x"}}, {"settings": {"k": 1}}, {"settings": 7}],
)
def test_unknown_entries_of_a_mixture_are_one_line_that_names_its_folder(tmp_path, change):
    known_mixture("full").save(tmp_path)
    stored = json.loads((tmp_path / "mixture.json").read_text())
    (tmp_path / "mixture.json").write_text(json.dumps(stored | change))
    with pytest.raises(InputError, match=f"^{tmp_path}: .*mixture.json has unknown or missing entries"):
        GaussianMixture.load(tmp_path)


@pytest.mark.parametrize("change", [{"covariance_type": "diag"}, {"covariance_type": "tied"}, {"n_components": 5}])
def test_a_record_edited_away_from_its_tensors_is_refused(tmp_path, change):
    known_mixture("full").save(tmp_path)
    stored = json.loads((tmp_path / "mixture.json").read_text())
    (tmp_path / "mixture.json").write_text(json.dumps(stored | change))
    with pytest.raises(InputError, match=f"^{tmp_path}: .* mixture of . components in 3 dimensions has .*, not "):
        GaussianMixture.load(tmp_path)


def test_the_folder_of_a_mixture_names_size_covariance_and_stage(tmp_path):
    assert mixture_folder(tmp_path, 32) == tmp_path / "mixtures" / "32-full"
    assert mixture_folder(tmp_path, 500, "diag", "stage1") == tmp_path / "mixtures" / "500-diag-stage1"


def codes(n: int) -> Latents:
    return Latents(torch.randn(n, 3), torch.rand(n, 3) + 0.1, torch.arange(n))


def test_codes_written_in_parts_come_back_in_the_order_of_their_images(tmp_path):
    whole = codes(11)
    for part in range(3):
        latents.write(tmp_path, "train", Latents(*(t[part::3] for t in whole)), part=part, parts=3)
    back = latents.read(tmp_path, "train")
    assert all(torch.equal(a, b) for a, b in zip(back, whole, strict=True))


def test_slices_of_the_codes_tile_them_whatever_the_number_of_parts(tmp_path):
    whole = codes(11)
    latents.write(tmp_path, "train", whole)
    slices = [latents.read(tmp_path, "train", part=part, parts=4).index for part in range(4)]
    assert torch.equal(torch.cat(slices), whole.index)


def test_codes_of_the_end_of_stage_1_lie_apart(tmp_path):
    path = latents.write(tmp_path, "test", codes(5), weights="stage1")
    assert path == tmp_path / "latents" / "test-stage1" / "part-00000-of-00001.safetensors"
    assert not latents.exists(tmp_path, "test")


def test_a_new_encoding_with_another_number_of_parts_replaces_the_old(tmp_path):
    whole = codes(8)
    for part in range(2):
        latents.write(tmp_path, "train", Latents(*(t[part::2] for t in whole)), part=part, parts=2)
    latents.write(tmp_path, "train", codes(5))
    assert len(latents.read(tmp_path, "train").index) == 5


def test_missing_doubled_and_damaged_codes_are_refused_with_the_command_that_makes_them(tmp_path):
    remedy = f"python -m eval encode --run {tmp_path}"
    with pytest.raises(InputError, match=remedy):
        latents.read(tmp_path, "train")
    path = latents.write(tmp_path, "train", codes(5), part=1, parts=2)
    with pytest.raises(InputError, match=r"part-00000-of-00002.safetensors: this part is missing"):
        latents.read(tmp_path, "train")
    latents.write(tmp_path, "train", codes(5), part=0, parts=2)
    with pytest.raises(InputError, match="image 0 is encoded twice"):
        latents.read(tmp_path, "train")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="damaged"):
        latents.read(tmp_path, "train")


@pytest.mark.parametrize(
    "wrong", ["a pipe", "a broken link", "an empty file", "another length", "another type", "a place below 0"]
)
def test_codes_of_another_kind_are_refused_in_one_line(tmp_path, wrong):
    good = codes(5)
    path = latents.write(tmp_path, "train", good)
    path.unlink()
    if wrong == "a pipe":
        os.mkfifo(path)
    elif wrong == "a broken link":
        path.symlink_to(tmp_path / "nothing")
    elif wrong == "an empty file":
        path.touch()
    else:
        mean, std, index = good
        changed = {
            "another length": {"mean": mean, "std": std[:4], "index": index},
            "another type": {"mean": mean.long(), "std": std, "index": index},
            "a place below 0": {"mean": mean, "std": std, "index": index - 1},
        }[wrong]
        save_file({name: tensor.contiguous() for name, tensor in changed.items()}, path)
    with pytest.raises(InputError, match=r"part-00000-of-00001.safetensors: damaged \(.*; delete it and encode again"):
        latents.read(tmp_path, "train")


def test_codes_below_a_folder_whose_name_is_not_utf_8_are_read(tmp_path):
    run = tmp_path / os.fsdecode(b"caf\xe9")
    latents.write(run, "train", whole := codes(5))
    assert torch.equal(latents.read(run, "train").mean, whole.mean)


@pytest.mark.parametrize("far", [5, 2**50])
def test_codes_of_some_images_alone_are_refused(tmp_path, far):
    latents.write(tmp_path, "train", codes(5)._replace(index=torch.tensor([0, 1, far, 3, 4])))
    with pytest.raises(InputError, match=f"image 2 has no code, and image {far} has one; make the codes with"):
        latents.read(tmp_path, "train")


def test_parts_of_different_widths_are_refused(tmp_path):
    for part, width in enumerate((3, 2)):
        one = Latents(torch.zeros(2, width), torch.ones(2, width), torch.arange(2) + 2 * part)
        latents.write(tmp_path, "train", one, part=part, parts=2)
    with pytest.raises(InputError, match=r"parts of \[2, 3\] latents are mixed; make the codes with"):
        latents.read(tmp_path, "train")


def test_removing_codes_leaves_the_files_of_others(tmp_path):
    folder = latents.write(tmp_path, "train", codes(5)).parent
    (folder / latents.RECORD).write_text("{}")
    (folder / "part-of-mine.safetensors").write_bytes(b"")
    latents.remove(tmp_path, "train")
    assert [path.name for path in folder.iterdir()] == ["part-of-mine.safetensors"]


@pytest.mark.parametrize("content", ["{", "{}", "[]", "[" * 100_000])
def test_a_damaged_record_of_an_encoding_is_as_none(tmp_path, content):
    folder = latents.write(tmp_path, "train", codes(5)).parent
    (folder / latents.RECORD).write_text(content)
    assert latents.encoded_from(tmp_path, "train") is None


def test_an_unknown_name_of_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="weights: 'newest' is unknown; use one of final, stage1, best"):
        latents.read(tmp_path, "train", weights="newest")
