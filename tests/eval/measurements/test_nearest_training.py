"""Nearest training images and codes, held against scikit-learn and scipy."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from sklearn.neighbors import NearestNeighbors
from support.results import result_file
from support.running import run_module

from data_shards.io.errors import command
from data_shards.stream.stream import ShardStream
from eval.__main__ import main
from eval.measurements.memorisation import chance_nearer, nearest_code_distance, nearest_images
from trainer.process_group import single


@pytest.fixture(scope="module")
def train_images(digits_shards) -> torch.Tensor:
    (batch,) = ShardStream(digits_shards, split="train", global_batch=2000, shuffle=False)
    return batch.image


def test_nearest_images_are_those_of_scikit_learn(digits_shards, train_images):
    queries = torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.3
    queries[3:] += train_images[:4].float() / 255
    reference = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(train_images.flatten(1).double() / 255)
    distances, places = reference.kneighbors(queries.flatten(1).double())
    near = nearest_images(queries, digits_shards, "train", k=3, ranks=single())
    np.testing.assert_array_equal(near.place, places)
    np.testing.assert_allclose(near.distance, distances, rtol=1e-4)
    assert torch.equal(near.image, train_images[near.place])


def test_a_training_image_is_its_own_nearest_neighbour(digits_shards, train_images):
    near = nearest_images(train_images[500:503].float() / 255, digits_shards, "train", k=1, ranks=single())
    assert near.place[:, 0].tolist() == [500, 501, 502]
    # cdist goes through squared norms, which leaves rounding of the root of float32's precision
    assert near.distance.max() < 0.02


def test_nearest_codes_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(1)
    z, codes = torch.randn(600, 5, generator=generator), torch.randn(900, 5, generator=generator)
    distances, _ = NearestNeighbors(n_neighbors=1).fit(codes).kneighbors(z)
    np.testing.assert_allclose(nearest_code_distance(z, codes), distances[:, 0], rtol=1e-3, atol=1e-3)


def test_the_chance_of_being_nearer_is_the_mann_whitney_statistic():
    generator = torch.Generator().manual_seed(2)
    ours = torch.randint(0, 20, (40,), generator=generator).float()
    others = torch.randint(3, 25, (60,), generator=generator).float()
    reference = stats.mannwhitneyu(others, ours).statistic / (40 * 60)
    assert chance_nearer(ours, others) == pytest.approx(reference, rel=1e-12)


def test_a_hundred_thousand_images_on_each_side_are_compared_without_a_table_of_all_pairs():
    ours = torch.arange(100_000).float()
    assert chance_nearer(ours, ours + 0.5) == pytest.approx(0.5 + 0.5e-5)
    assert chance_nearer(ours, ours) == 0.5


@pytest.mark.filterwarnings("error")
def test_distances_may_be_columns_of_a_table():
    table = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))
    assert chance_nearer(table[:, 0], table[:, 3]) == chance_nearer(table[:, 0].clone(), table[:, 3].clone())


def test_two_processes_find_what_one_finds(tmp_path, digits_run, monkeypatch):
    shutil.copytree(digits_run, tmp_path / "two")
    shutil.copytree(digits_run, tmp_path / "one")
    options = ("memorisation", "--mixture", "4", "--images", "120", "--run")
    done = run_module("eval", *options, str(tmp_path / "two"), processes=2)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", ["eval", *options, str(tmp_path / "one")])
    assert command(main) == 0
    two, one = (result_file(tmp_path / name, "memorisation").read_text() for name in ("two", "one"))
    assert two == one
    assert 0 < json.loads(one)["pixel_distance"]["chance_nearer"]["value"] < 1
    pictures = [
        load_file(result_file(tmp_path / name, "memorisation").with_suffix(".safetensors")) for name in ("two", "one")
    ]
    assert pictures[0]["nearest"].shape == (120, 3, 1, 28, 28)
    assert all(torch.equal(pictures[0][key], pictures[1][key]) for key in ("sample", "nearest"))
