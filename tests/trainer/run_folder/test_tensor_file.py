"""Files of tensors, whole and by their headers."""

import json

import pytest
import torch
from safetensors.torch import save

from trainer.run_folder.tensor_file import count_numbers, read_tensors

TENSORS = {"weight": torch.ones(3, 5), "scale": torch.tensor(2.0), "none": torch.ones(0, 4)}


def test_the_numbers_of_a_file_are_counted_as_its_tensors_hold_them(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(save(TENSORS, {"fit": "a"}))
    tensors, texts = read_tensors(path)
    assert count_numbers(path) == sum(tensor.numel() for tensor in tensors.values()) == 16
    assert texts == {"fit": "a"}


def header(content: object) -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        save(TENSORS)[:60],
        save(TENSORS)[:-1],
        save(TENSORS) + b"\0",
        header([1, 2]),
        header({"weight": [3]}),
        header({"weight": {"data_offsets": []}}),
    ],
)
def test_a_damaged_file_is_not_counted(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cut off|header|size|Expecting value"):
        count_numbers(path)
