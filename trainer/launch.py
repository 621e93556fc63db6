"""python -m trainer --launch slurm: submits the training as a batch job, by the script that a user would submit.

Nothing of a job stands here: slurm/train_celeba.sh is called through slurm/submit.sh with options of sbatch and with
the words that `python -m trainer` got, each as one word and never as a line for a shell.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.io.errors import InputError
from trainer.config.config import Config


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A batch job that is asked for on the command line."""

    options: tuple[str, ...]
    """Options of sbatch, such as --nodes=2."""
    words: tuple[str, ...]
    """Words for `python -m trainer` inside the job."""


def batch_job(
    config: Config, files: Sequence[str], given: Mapping[str, str], flags: Sequence[str], options: Sequence[str]
) -> Launch:
    """The job that trains `config`, which was read from `files` and the fields `given`, by name as they were typed.

    flags: further options of `python -m trainer`; options: those of sbatch. The job runs in the project's folder, so
    paths become absolute. Raises InputError where no file is given.
    """
    if not files:
        raise InputError("needs --config FILE, which says what is trained", parameter="launch")
    paths = {"runs": config.runs, "data.shards": config.data.shards, "data.cache_dir": config.data.cache_dir}
    paths["engine.deepspeed_config"] = config.engine.deepspeed_config
    absolute = {name: os.path.abspath(path) for name, path in paths.items() if path and "://" not in path}
    fields = {"name": config.name} | dict(given) | absolute
    words = [f"--config={os.path.abspath(file)}" for file in files]
    words += [f"--{name}={word}" for name, word in fields.items()]
    return Launch(options=tuple(options), words=(*words, *flags))


def submit(launch: Launch, *, dry_run: bool) -> int:
    """Submits the job, or checks and estimates it. Prints what the script prints and returns its exit code.

    Raises InputError where the scripts are not beside the package.
    """
    project = Path(os.environ.get("SIGMA_VAE_HOME") or Path(__file__).parents[1]).resolve()
    script = project / "slurm" / "submit.sh"
    if not script.is_file():
        raise InputError(f"{script} is not there; set SIGMA_VAE_HOME to the project's folder", parameter="launch")
    command = [str(script), *launch.options, "slurm/train_celeba.sh", *launch.words, *["--dry-run"] * dry_run]
    env = {"PYTHON": sys.executable} | os.environ | {"SIGMA_VAE_HOME": str(project)}
    # What the environment says beside the words would go between the files and the words.
    for name in ("CONFIG", "SHARDS", "RUNS"):
        env.pop(name, None)
    return subprocess.run(command, env=env, check=False).returncode
