"""Sums of features: exact under any division into parts, and never silently wrong on disk."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from data_shards.io.errors import InputError
from eval.distance.measures.frechet import frechet_distance
from eval.distance.statistics import FeatureStatistics

DIM, N = 12, 300
PROTOCOL = {"extractor": "a", "seed": 0}


@pytest.fixture(scope="module")
def features():
    return torch.randn(N, DIM, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, DIM) + 3


def statistics(features, ids, **options):
    made = FeatureStatistics(DIM, protocol=PROTOCOL, **options)
    made.update(features[ids], ids)
    return made


def test_mean_and_covariance_are_numpys(features):
    made = statistics(features, torch.arange(N))
    np.testing.assert_allclose(made.mean(), features.double().numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(
        made.covariance(), np.cov(features.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_in_any_order_merge_to_what_one_process_finds(features, parts):
    whole = statistics(features, torch.arange(N))
    shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(parts))
    merged = FeatureStatistics.merge([statistics(features, ids) for ids in shuffled.tensor_split(parts)])
    other = torch.eye(DIM, dtype=torch.float64), torch.zeros(DIM, dtype=torch.float64)
    expected = frechet_distance(whole.mean(), whole.covariance(), other[1], other[0])
    assert frechet_distance(merged.mean(), merged.covariance(), other[1], other[0]) == pytest.approx(expected, rel=1e-9)
    assert torch.equal(merged.ids, torch.arange(N))


def test_kept_features_follow_their_ids_through_a_merge(features):
    parts = [statistics(features, torch.arange(200, 300), keep_features=True)]
    parts.append(statistics(features, torch.arange(200), keep_features=True))
    assert torch.equal(FeatureStatistics.merge(parts).features, features)


def test_what_is_saved_comes_back_exactly(features, tmp_path):
    made = statistics(features, torch.arange(N), keep_features=True)
    made.save(tmp_path / "part.safetensors")
    back = FeatureStatistics.load(tmp_path / "part.safetensors")
    for name in ("ids", "sum", "outer", "features"):
        assert torch.equal(getattr(back, name), getattr(made, name))
    assert back.protocol == PROTOCOL


def test_the_same_statistics_give_the_same_bytes(features, tmp_path):
    for name in "ab":
        statistics(features, torch.arange(N)).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_image_in_two_parts_is_refused(features):
    with pytest.raises(InputError, match="image 99 is in two"):
        FeatureStatistics.merge([statistics(features, torch.arange(100)), statistics(features, torch.arange(99, 150))])


def test_parts_of_two_protocols_are_refused_and_the_field_is_named(features):
    other = FeatureStatistics(DIM, protocol=PROTOCOL | {"seed": 1})
    other.update(features[100:], torch.arange(100, N))
    with pytest.raises(InputError, match="seed is 1 instead of 0"):
        FeatureStatistics.merge([statistics(features, torch.arange(100)), other])


def test_a_feature_that_is_not_finite_names_its_image(features):
    bad = features[:5].clone()
    bad[3, 2] = float("inf")
    with pytest.raises(InputError, match="image 13"):
        FeatureStatistics(DIM).update(bad, torch.arange(10, 15))


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.99])
def test_a_file_cut_off_anywhere_is_refused_by_name(features, tmp_path, kept):
    path = tmp_path / "part.safetensors"
    statistics(features, torch.arange(N)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"part\.safetensors: damaged"):
        FeatureStatistics.load(path)


def test_a_single_flipped_bit_is_refused(features, tmp_path):
    path = tmp_path / "part.safetensors"
    statistics(features, torch.arange(N)).save(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="digest"):
        FeatureStatistics.load(path)


def test_a_changed_protocol_is_refused(features, tmp_path):
    path = tmp_path / "part.safetensors"
    made = statistics(features, torch.arange(N))
    made.save(path)
    tensors = load(path.read_bytes())
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["record"])
    path.write_bytes(save(tensors, {"record": json.dumps(record | {"protocol": {"seed": 5}})}))
    with pytest.raises(InputError, match="digest"):
        FeatureStatistics.load(path)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"gone\.safetensors: missing"):
        FeatureStatistics.load(tmp_path / "gone.safetensors")


def test_statistics_below_a_folder_whose_name_is_not_utf_8_are_read(features, tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    path = tmp_path / os.fsdecode(b"caf\xe9") / "part.safetensors"
    statistics(features, torch.arange(N)).save(path)
    assert FeatureStatistics.load(path).n == N


def test_one_image_has_no_covariance(features):
    with pytest.raises(InputError, match="at least 2"):
        statistics(features, torch.arange(1)).covariance()
