"""What is measured of a trial at its end: distances and likelihood on held-out images, by the commands of eval."""

import argparse
import importlib

from eval.commands.encode import encode_split
from eval.run import open_run
from trainer.config.config import Config
from trainer.mixture.command import fit_run
from trainer.mixture.settings import Settings
from trainer.process_group import process_group
from tune.sweep_config import MeasureConfig


def measure_trial(config: Config, asked: MeasureConfig) -> None:
    """Writes the run's eval/*.json. All processes of the trial take part; nothing is measured twice."""
    for weights in ("stage1", "final") if config.two_stages else ("final",):
        if asked.images == 0 and asked.likelihood_images == 0:
            continue
        if asked.mixture:
            _fit(config, weights, asked.mixture)
        chosen = ["--run", str(config.folder), "--weights", weights, "--split", asked.split, "--device", config.device]
        if asked.images:
            source = ["q_hat", "--mixture", str(asked.mixture)] if asked.mixture else ["prior"]
            _command("fid", *chosen, "--n", str(asked.images), "--from", *source)
            if weights == "final":
                _command("fid", *chosen, "--n", str(asked.images), "--from", "reconstruction")
        if asked.likelihood_images:
            numbers = ["--images", str(asked.likelihood_images), "--samples", str(asked.likelihood_samples)]
            _command("likelihood", *chosen, *numbers, "--mixture", str(asked.mixture))


def _fit(config: Config, weights: str, components: int) -> None:
    with process_group(config.device) as ranks:
        run = open_run(config.folder, weights, ranks.device)
        for split in (config.data.train_split, config.data.valid_split):
            encode_split(run, split, ranks)
        fit_run(str(config.folder), Settings(n_components=components), weights=weights, ranks=ranks)


def _command(name: str, *words: str) -> None:
    """`python -m eval NAME WORDS` in this process and its group."""
    module = importlib.import_module(f"eval.commands.{name}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    module.run(parser.parse_args(words))
