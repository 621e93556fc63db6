"""Image i of a set is the same image, whichever process makes it and with which others."""

import hashlib
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from data_shards.stream.stream import ShardStream
from eval.images.blocks import BLOCK
from eval.images.files import ImageFolder
from eval.images.sources import from_shards, generated, mixture_sampler, prior_sampler, reconstructed, to_8_bits
from eval.run import load_run
from trainer.process_group import single

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured(digits_run):
    return load_run(digits_run)


def everything(source, n):
    ids, images = (torch.cat(parts) for parts in zip(*source(range(-(-n // BLOCK))), strict=True))
    assert torch.equal(ids, torch.arange(n))
    return images


@pytest.mark.parametrize("density", ["prior", "q_hat"])
def test_an_image_does_not_depend_on_how_many_are_asked_for(measured, density):
    prior = prior_sampler(measured.model.latent_dim)
    sampler = prior if density == "prior" else mixture_sampler(measured.mixture(4, "full").parameters)
    many = everything(generated(measured.model, sampler, n=200, seed=0, device=CPU), 200)
    few = everything(generated(measured.model, sampler, n=70, seed=0, device=CPU), 70)
    (ids, alone), *_ = generated(measured.model, sampler, n=200, seed=0, device=CPU)(range(2, 3))
    assert torch.equal(few, many[:70])
    assert torch.equal(alone, many[ids])


def test_another_seed_gives_other_images(measured):
    sampler = prior_sampler(measured.model.latent_dim)
    first, second = (everything(generated(measured.model, sampler, n=64, seed=seed, device=CPU), 64) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_real_images_are_those_of_the_shards_in_order(digits_shards):
    got = everything(from_shards(str(digits_shards), "test", n=200), 200)
    expected = torch.cat(
        [batch.image for batch in ShardStream(digits_shards, split="test", global_batch=7, shuffle=False)]
    )
    assert torch.equal(got, expected)


def test_two_halves_of_a_shuffle_share_no_image(digits_shards):
    halves = [
        everything(from_shards(str(digits_shards), "train", n=640, shuffle=True, offset=offset), 640)
        for offset in (0, 640)
    ]
    first, second = ({hashlib.sha256(image.numpy()).digest() for image in half} for half in halves)
    assert len(first & second) < 5  # a few of the digits are drawn alike


def test_a_reconstruction_is_the_decoded_posterior_mean(measured, digits_shards):
    real = from_shards(str(digits_shards), "test", n=100)
    got = everything(reconstructed(measured.model, real, device=CPU), 100)
    with torch.no_grad():
        x = everything(real, 100).float() / 255
        expected = measured.model.decode(measured.model.encode(x).mean).mean
    assert ((got.float() / 255 - expected).abs() <= 0.5 / 255 + 1e-5).all()


def test_8_bits_are_rounded_and_not_cut_off():
    assert to_8_bits(torch.tensor([0, 0.0019, 0.0021, 0.5, 1])).tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_png_files_hold_the_pixels_exactly(tmp_path, channels):
    images = torch.randint(0, 256, (5, channels, 9, 7), dtype=torch.uint8)
    folder = ImageFolder(tmp_path / "set", "png", single())
    list(folder.saving(lambda blocks: iter([(torch.arange(5), images)]))(range(1)))
    assert not (tmp_path / "set").exists()
    folder.finish()
    for number in range(5):
        pixels = np.asarray(Image.open(tmp_path / "set" / f"{number:08d}.png")).reshape(9, 7, channels)
        assert np.array_equal(pixels, images[number].permute(1, 2, 0))


def test_saved_shards_are_read_by_webdataset_and_have_the_same_bytes_each_time(tmp_path, measured):
    source = generated(measured.model, prior_sampler(measured.model.latent_dim), n=100, seed=0, device=CPU)
    for name in "ab":
        folder = ImageFolder(tmp_path / name, "shards", single())
        list(folder.saving(source)(range(2)))
        folder.finish()
    (shard,) = (tmp_path / "a").iterdir()
    assert shard.read_bytes() == (tmp_path / "b" / shard.name).read_bytes()
    with tarfile.open(shard) as tar:
        assert len(tar.getnames()) == 100
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("l8"))
    assert np.array_equal(np.stack([s["png"] for s in samples]), everything(source, 100)[:, 0])
