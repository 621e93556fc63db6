"""A run folder whose weights are others than before, as after more training."""

import hashlib
import json
from pathlib import Path

from safetensors.torch import load, save

from trainer.run_folder.checkpoint import complete_checkpoints


def change_weights(run: Path) -> None:
    """Multiplies the newest checkpoint's weights of the last layer by 1.01."""
    folder = complete_checkpoints(run)[-1]
    tensors = load((folder / "model.safetensors").read_bytes())
    name = next(name for name in sorted(tensors) if name.startswith("to_mean"))
    content = save(tensors | {name: 1.01 * tensors[name]})
    (folder / "model.safetensors").write_bytes(content)
    sums = json.loads((folder / "COMPLETE").read_text())
    (folder / "COMPLETE").write_text(json.dumps(sums | {"model.safetensors": hashlib.sha256(content).hexdigest()}))
