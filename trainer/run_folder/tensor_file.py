"""Files of tensors, read as bytes.

safetensors itself opens only paths in UTF-8, and says of any file that it cannot open that it is missing.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from data_shards.io.regular_files import open_regular, read_regular

_LENGTH = 8  # bytes before the header, which say how long it is
_TEXTS = "__metadata__"


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the texts that stand beside them.

    Raises SafetensorError or ValueError where it is damaged, else as `read_regular`.
    """
    data = read_regular(Path(path))
    tensors = load(data)  # which checks the header that is read again here
    header = json.loads(data[_LENGTH : _LENGTH + int.from_bytes(data[:_LENGTH], "little")])
    return tensors, header.get(_TEXTS) or {}


def count_numbers(path: str | Path) -> int:
    """How many numbers the tensors of a safetensors file hold together, of which only the header is read.

    Raises ValueError where it is damaged, else as `open_regular`.
    """
    with open(path, "rb", opener=open_regular) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH), "little")
        if _LENGTH + length > size:
            raise ValueError("it is cut off")
        header: dict[str, Any] = json.loads(file.read(length))
    try:
        tensors = [entry for name, entry in header.items() if name != _TEXTS]
        if _LENGTH + length + max((entry["data_offsets"][1] for entry in tensors), default=0) != size:
            raise ValueError("its size is not what its header says")
        return sum(math.prod(entry["shape"]) for entry in tensors)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("its header is none of a file of tensors") from error
