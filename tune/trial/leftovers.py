"""What a trial that was stopped leaves behind in Ray.

The CPUs and GPUs of a training's processes are held by a placement group. Ray 2.60 frees it from a watcher that asks
the dashboard whether the training's controller still lives; where the dashboard is off, or two Rays run on a machine,
the watcher fails, and the next trial waits for ever. So the sweep frees them itself.
"""

import json
from pathlib import Path

from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, remove_placement_group

from tune.trial.record import ATTEMPTS


def free_processes(folder: Path) -> None:
    """Removes the placement groups of all attempts of a trial that has ended; those that are gone do no harm."""
    path = folder / ATTEMPTS
    for line in path.read_text().splitlines() if path.exists() else []:
        if group := json.loads(line).get("placement_group"):
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))
