"""Images per second of our trainer against pythae's, with the same encoder, decoder and batch.

    python tests/benchmarks/trainer_against_pythae.py [--batch 128] [--rounds 12]

Needs the extra `benchmarks`. Both train the network of trainer/configs/fashion_mnist.yaml on 28 x 28 images: ours
streams shards, checks the held-out ELBO, logs and writes checkpoints; pythae's BaseTrainer has its images in memory.
They take turns of 50 updates. On two cores ours runs as two processes and pythae's with two threads; where one core is
free only the first ratio is measured. Target: at least 1.1 times its rate on one core, and 1.3 times on two.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from pythae.data.datasets import BaseDataset  # noqa: E402
from pythae.trainers import BaseTrainer, BaseTrainerConfig  # noqa: E402
from pythae.trainers.training_callbacks import TrainingCallback  # noqa: E402
from pythae_networks import vae  # noqa: E402
from training_turns import IMAGE_SHAPE, IMAGES, UPDATES, build_shards, configuration, trainer  # noqa: E402
from turns import Turns, Work, take_turns, work_in_turns  # noqa: E402

from trainer.config.config import Config  # noqa: E402


class EndOfTurn(TrainingCallback):
    """Ends a turn after as many updates as ours has in one."""

    def __init__(self, turn_over: Callable[[], None]) -> None:
        self._turn_over, self._updates = turn_over, 0

    def on_train_step_end(self, training_config: BaseTrainerConfig, **_: Any) -> None:
        self._updates += 1
        if self._updates % UPDATES == 0:
            self._turn_over()


def pythae(config: Config) -> Work:
    """pythae's trainer on images in memory, with Adam and default settings."""

    def work(turn_over: Callable[[], None]) -> None:
        torch.manual_seed(0)
        settings = BaseTrainerConfig(
            output_dir=str(config.folder),
            num_epochs=1000,
            per_device_train_batch_size=config.data.global_batch,
            learning_rate=1e-4,
            no_cuda=True,
        )
        images = BaseDataset(torch.rand(IMAGES, *IMAGE_SHAPE), torch.zeros(IMAGES))
        model, ends = vae(IMAGE_SHAPE, config.model), [EndOfTurn(turn_over)]
        BaseTrainer(model=model, train_dataset=images, training_config=settings, callbacks=ends).train()

    return work


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help=argparse.SUPPRESS)  # this and --way: for its own processes
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=128, help="images of an update, over all processes")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each way, after two that warm up")
    return parser.parse_args()


def report(seconds: dict[str, list[float]], batch: int) -> None:
    print(f"batch {batch}, {len(seconds['ours-1'])} rounds; medians over rounds")
    for cores, target in ((1, 1.1), (2, 1.3)):
        if f"ours-{cores}" not in seconds:
            continue
        theirs, ours = seconds[f"pythae-{cores}"], seconds[f"ours-{cores}"]
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        whole = sum(theirs) / sum(ours)
        print(f"cores {cores}: {ratio:.3f} times pythae (all rounds together {whole:.3f}; target {target})")
    rates = {name: UPDATES * batch / statistics.median(values) for name, values in seconds.items()}
    print("images/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()))


def main() -> None:
    args = parse()
    if args.way is not None:
        config = configuration(args.folder / "shards", args.way, args.batch)
        work_in_turns((pythae if "pythae" in args.way else trainer)(config))
        return
    first, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        build_shards(Path(folder))
        given = (__file__, Path(folder))
        batch = f"--batch={args.batch}"
        ways = {name: Turns(*given, name, batch, cores=[{first}]) for name in ("ours-1", "pythae-1")}
        if others:
            ways["pythae-2"] = Turns(*given, "pythae-2", batch, cores=[{first, others[0]}], threads=2)
            ways["ours-2"] = Turns(*given, "ours-2", batch, cores=[{first}, {others[0]}])
        report(take_turns(ways, args.rounds), args.batch)


if __name__ == "__main__":
    main()
