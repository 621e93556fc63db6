"""Tensors with a JSON record that is written last."""

import json
import resource

import pytest
import torch

from data_shards.io.errors import InputError, MachineFault
from trainer.run_folder.tensor_folder import TensorFolder

RESULT = TensorFolder(noun="result", tensors="result.safetensors", record="summary.json")


def test_what_was_written_is_read(tmp_path):
    RESULT.write(tmp_path / "r", {"a": torch.arange(6.0).view(2, 3).t()}, {"seed": 3})
    tensors, record = RESULT.read(tmp_path / "r", "make it")
    assert tensors["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert record["seed"] == RESULT.read_record(tmp_path / "r")["seed"] == 3


def test_a_result_without_a_record_is_missing_whatever_else_is_there(tmp_path):
    (tmp_path / "result.safetensors").write_bytes(b"half of it")
    assert RESULT.read_record(tmp_path) is None
    with pytest.raises(InputError, match="no result is here; make it with `make`"):
        RESULT.read(tmp_path, "make it with `make`")


def test_tensors_that_were_changed_are_refused(tmp_path):
    RESULT.write(tmp_path, {"a": torch.zeros(4)}, {})
    file = tmp_path / "result.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"damaged \(result.safetensors does not match its checksum"):
        RESULT.read(tmp_path, "")


def test_a_record_that_is_not_json_is_refused(tmp_path):
    RESULT.write(tmp_path, {"a": torch.zeros(4)}, {})
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"damaged \(summary.json is not valid JSON"):
        RESULT.read_record(tmp_path)


def test_a_record_without_a_checksum_is_read_as_older_versions_wrote_none(tmp_path):
    RESULT.write(tmp_path, {"a": torch.ones(4)}, {"seed": 3})
    (tmp_path / "summary.json").write_text(json.dumps({"seed": 3}))
    assert RESULT.read(tmp_path, "")[0]["a"].sum() == 4


def test_a_former_result_stays_where_the_new_one_cannot_be_written(tmp_path):
    former, limits = torch.arange(6.0), resource.getrlimit(resource.RLIMIT_FSIZE)
    RESULT.write(tmp_path, {"a": former}, {"seed": 3})
    for tensors, record in (({"a": torch.zeros(9000)}, {}), ({"a": torch.zeros(3)}, {"history": ["x"] * 9000})):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            with pytest.raises(MachineFault, match=rf"^{tmp_path}/.*: the file would be larger"):
                RESULT.write(tmp_path, tensors, {"seed": 4} | record)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        found, record = RESULT.read(tmp_path, "make it")
        assert (found["a"].tolist(), record["seed"]) == (former.tolist(), 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.safetensors", "summary.json"]


def test_what_says_more_of_a_former_result_goes_with_it(tmp_path):
    RESULT.write(tmp_path, {"a": torch.zeros(3)}, {})
    (tmp_path / "figure.json").write_text("{}")
    RESULT.write(tmp_path, {"a": torch.ones(3)}, {}, of_former=["figure.json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.safetensors", "summary.json"]
