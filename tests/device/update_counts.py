"""python tests/device/update_counts.py [--config FILE] [--norm none]: what one update asks of a GPU, in a table.

Counted on the pretended GPU: kernels that the host launches, by the part of the update that they belong to; times that
the host waits; copies. The layers are those of the configuration with a sixteenth of their channels and two images,
which changes no count.
"""

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from device.pretended.counts import COUNTS  # noqa: E402
from device.pretended.install import install  # noqa: E402

install()

import torch  # noqa: E402

from data_shards.stream.stream import Batch  # noqa: E402
from trainer.config.config import Config, load_config  # noqa: E402
from trainer.process_group import single  # noqa: E402
from trainer.updates.learner import Learner  # noqa: E402
from trainer.updates.meter import Meter  # noqa: E402
from trainer.updates.recording import CHECKED_UPDATES, WARM_UP_UPDATES  # noqa: E402
from trainer.updates.stages import Stages  # noqa: E402
from trainer.updates.streams import Passes  # noqa: E402

SHAPE, IMAGES, ROWS = (3, 64, 64), 10_000, 2
PARTS = {
    "backward": ("backward",),
    "replay of a graph, and copies to its inputs": ("trainer/updates/recording.py",),
    "Adam": ("Adam",),
    "sums, norm of the gradient, whether it is finite": ("trainer/engines", "trainer/objectives/objective.py Terms"),
    "sigma^2": ("trainer/updates/learner.py VarianceUpdate", "trainer/objectives/gaussian.py closed_form"),
    "images and numbers to the GPU, result to the host": ("trainer/updates",),
    "forward": ("trainer",),
}


def narrow(config: Config) -> Config:
    """The same layers with few channels."""
    model = config.model
    assert model.encoder_channels != "auto"
    assert model.decoder_channels != "auto"
    encoder, decoder = (
        tuple(max(8, n // 16) for n in part) for part in (model.encoder_channels, model.decoder_channels)
    )
    return replace(
        config,
        model=replace(model, encoder_channels=encoder, decoder_channels=decoder),
        data=replace(config.data, global_batch=ROWS),
        engine=replace(config.engine, precision="float32", compile=False),
    )


def counts_of_an_update(config: Config) -> dict[str, Any]:
    """All that is counted of one update of stage 1, after those that come before a replay."""
    torch.manual_seed(0)
    learner = Learner(config, SHAPE, IMAGES, single("cuda"), Passes(config.data))
    stages, meter = Stages((config.stage1,), IMAGES, 100), Meter(torch.device("cuda"))
    for number in range(WARM_UP_UPDATES + CHECKED_UPDATES + 2):
        COUNTS.clear()
        images = torch.randint(0, 256, (ROWS, *SHAPE), dtype=torch.uint8)
        batch = Batch(image=images, index=torch.arange(ROWS), start=number * ROWS, count=ROWS, epoch=0, substituted=0)
        meter.add(batch, learner.update(batch, stages, stop=False))
        stages.advance(ROWS)
    return {name: Counter(counter) for name, counter in vars(COUNTS).items()}


def part_of(what: str, place: str) -> str:
    """The part of an update that a launch belongs to."""
    if "adam" in what or (place.endswith("DdpEngine._update") and what in ("_foreach_add_", "_foreach_sub_")):
        return "Adam"
    return next(name for name, starts in PARTS.items() if place.startswith(starts))


def main() -> None:
    """Prints the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "trainer" / "configs" / "celeba.yaml"))
    parser.add_argument("--norm", help="in place of the configuration's")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    config = narrow(load_config(args.config, {"model.norm": args.norm} if args.norm else {}))
    found = {
        graphs: counts_of_an_update(replace(config, engine=replace(config.engine, cuda_graphs=graphs)))
        for graphs in (False, True)
    }
    launches = {
        graphs: Counter(part for (what, place), n in counts["launches"].items() for part in [part_of(what, place)] * n)
        for graphs, counts in found.items()
    }
    waits = {
        graphs: sum(n for (what, _), n in counts["waits"].items() if what != "event synchronize, with later work")
        for graphs, counts in found.items()
    }
    print(
        f"| one update of {Path(args.config).stem}, norm {config.model.norm} | one by one | replayed |\n|---|---|---|"
    )
    rows = [(f"launches: {part}", *(launches[graphs][part] for graphs in (False, True))) for part in PARTS]
    rows += [("launches in all", *(sum(launches[graphs].values()) for graphs in (False, True)))]
    rows += [("waits of the host for this update", waits[False], waits[True])]
    for title, counter in (("copies through pinned memory", "copies"), ("copies from pageable memory", "pageable")):
        rows.append((title, *(sum(found[graphs][counter].values()) for graphs in (False, True))))
    for name, before, after in rows:
        print(f"| {name} | {before} | {after} |")


if __name__ == "__main__":
    main()
