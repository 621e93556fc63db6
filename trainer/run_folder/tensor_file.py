"""Files of tensors, read as bytes.

safetensors itself opens only paths in UTF-8, and says of any file that it cannot open that it is missing.
"""

import json
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from data_shards.io.regular_files import read_regular


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the texts that stand beside them.

    Raises SafetensorError or ValueError where it is damaged, else as `read_regular`.
    """
    data = read_regular(Path(path))
    tensors = load(data)  # which checks the header that is read again here
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, header.get("__metadata__") or {}
