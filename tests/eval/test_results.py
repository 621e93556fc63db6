"""Results as frozen dataclasses: files of earlier code are read, and written back byte by byte."""

import json
import os
from pathlib import Path

import pytest

from data_shards.io.errors import InputError
from eval.results import (
    DistanceResult,
    LikelihoodResult,
    MemorisationResult,
    UncertaintyResult,
    measured_before,
    result_path,
)

FILES = Path(__file__).parent / "results_of_earlier_code"
KINDS = {
    "fid-q_hat-32-full-640-test-efficientnet-lite0-64": DistanceResult,
    "likelihood": LikelihoodResult,
    "uncertainty": UncertaintyResult,
    "memorisation": MemorisationResult,
}


@pytest.fixture(params=KINDS)
def path(request):
    return FILES / f"{request.param}.json"


def test_a_file_of_earlier_code_is_written_back_byte_by_byte(path, tmp_path):
    KINDS[path.stem].load(path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_missing_field_is_named_with_the_file(path, tmp_path):
    content = json.loads(path.read_text())
    del content["protocol"]["checkpoint"]
    (tmp_path / "damaged.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"damaged\.json: protocol\.checkpoint: .*; delete"):
        KINDS[path.stem].load(tmp_path / "damaged.json")


def test_a_result_counts_as_measured_before_only_under_the_same_protocol(path, tmp_path):
    kind = KINDS[path.stem]
    result = kind.load(path)
    copied = tmp_path / path.name
    copied.write_bytes(path.read_bytes())
    now = result_path(tmp_path, path.stem, result.protocol)
    assert measured_before(kind, now, result.protocol) == result
    other = kind.from_json(result.to_json() | {"protocol": result.protocol.record() | {"seed": 1}})
    assert measured_before(kind, result_path(tmp_path, path.stem, other.protocol), other.protocol) is None
    assert measured_before(kind, result_path(tmp_path, "nothing", result.protocol), result.protocol) is None


def test_a_pipe_in_the_place_of_a_result_is_named_and_not_waited_for(path, tmp_path):
    kind = KINDS[path.stem]
    protocol = kind.load(path).protocol
    place = result_path(tmp_path, path.stem, protocol)
    os.mkfifo(place)
    with pytest.raises(InputError, match=f"{place.name}: is a pipe or a device; use a file"):
        measured_before(kind, place, protocol)


def test_a_distance_has_the_frechet_distance_as_its_value():
    result = DistanceResult.load(FILES / "fid-q_hat-32-full-640-test-efficientnet-lite0-64.json")
    assert result.value == result.values["frechet_distance"].value
    assert result.error is None
    assert result.values["kernel_distance"].standard_error > 0
    assert result.values["frechet_distance_at_infinite_n"].interval_95[0] < result.value
