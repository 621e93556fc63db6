"""A result that is a file of tensors and a JSON record of what they are, such as a fitted mixture.

The record is written last and holds the checksum of the tensors, so that a folder without a record is an unfinished one
and damage is noticed.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from data_shards.io.atomic import json_text, replacing
from data_shards.io.errors import InputError, raise_machine_fault
from data_shards.io.regular_files import kind_if_no_file, read_regular


@dataclass(frozen=True, kw_only=True)
class TensorFolder:
    """The names of the files of one kind of result."""

    noun: str
    """What the result is called in messages, such as "mixture"."""
    tensors: str
    """Name of the safetensors file."""
    record: str
    """Name of the JSON file."""

    def write(
        self, folder: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any], *, of_former: Sequence[str] = ()
    ) -> None:
        """Writes a result in place of the one that `folder` may hold. `record` may not contain "sha256".

        Where it cannot be written, as on a full disk, the former one stays. of_former: names of files that say more of
        the former one, and go with it.
        """
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        text = json_text({**record, "sha256": hashlib.sha256(data).hexdigest()})
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / self.record) as new_record:
            new_record.write(text.encode())
            with replacing(folder / self.tensors) as new_tensors:
                new_tensors.write(data)
                for file in (new_record, new_tensors):
                    file.flush()
                    os.fsync(file.fileno())
                # From here on the disk needs no space. A crash leaves no record, which is an unfinished result.
                for name in (self.record, *of_former):
                    (folder / name).unlink(missing_ok=True)

    def read_record(self, folder: Path) -> dict[str, Any] | None:
        """The record of a finished result, or None where there is none. Raises InputError where it is damaged."""
        path = folder / self.record
        if not path.exists():
            return None
        if kind_if_no_file(path):
            raise self.damaged(folder, f"{self.record} is not a file")
        try:
            content = json.loads(read_regular(path))
        except (ValueError, RecursionError) as error:
            raise self.damaged(folder, f"{self.record} is not valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise self.damaged(folder, f"{self.record} is not a JSON object")
        return content

    def read(self, folder: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors, on the CPU, and the record.

        remedy: how to make the result where there is none, such as "fit it with `python -m ...`". Raises InputError
        where the result is missing or damaged. Records written before checksums were are read without.
        """
        record = self.read_record(folder)
        if record is None:
            raise InputError(f"{folder}: no {self.noun} is here; {remedy}")
        path = folder / self.tensors
        if kind_if_no_file(path):
            raise self.damaged(folder, f"{self.tensors} is not a file")
        try:
            data = read_regular(path)
            if record.get("sha256", digest := hashlib.sha256(data).hexdigest()) != digest:
                raise self.damaged(folder, f"{self.tensors} does not match its checksum in {self.record}")
            return load(data), record
        except (OSError, SafetensorError) as error:
            raise_machine_fault(error, path)
            raise self.damaged(folder, str(error)) from error

    def damaged(self, folder: Path, reason: str) -> InputError:
        """The error of a result that cannot be read, for the caller to raise."""
        return InputError(f"{folder}: the {self.noun} is damaged ({reason}); delete the folder and fit it again")
