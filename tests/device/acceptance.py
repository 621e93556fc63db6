"""python tests/device/acceptance.py: the tests that need a GPU, then what it does, one line a check, in ten minutes.

Each line has the figures that were measured and whether they are within the stated bounds. Without a GPU it says so,
and how many tests and checks were skipped. Exit code 1 where one fails.

    PYTHONPATH=tests/device/pretended/every_process python tests/device/acceptance.py

does the same on the GPU that is pretended (tests/device/pretended), with small mixtures and networks, which shows that
the checks themselves run. Times, memory and rates mean nothing there, and the checks say what it cannot show.
"""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Float32 that is compared with the CPU's, as in the tests; what is timed below computes in bfloat16.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from device.pretended.install import NAME  # noqa: E402
from device.sessions import COMMANDS, commands_on, measured, no_waits, run_session  # noqa: E402
from support.running import run_module, write_digits  # noqa: E402
from support.training import events, train, weights, words  # noqa: E402

from trainer.__main__ import read_command_line  # noqa: E402
from trainer.loop import train as run_training  # noqa: E402
from trainer.mixture import GaussianMixture  # noqa: E402
from trainer.mixture.nearest import NearestIndex  # noqa: E402
from trainer.updates.learner import Learner  # noqa: E402
from trainer.updates.recording import CHECKED_UPDATES, WARM_UP_UPDATES  # noqa: E402

PRETENDED = torch.cuda.is_available() and torch.cuda.get_device_name() == NAME
CHECKS: list[Callable[[Path], str]] = []
FIELDS = {"stage1__max_epochs": 2, "stage2__max_epochs": 1, "optimiser__learning_rate": 0.005}


def check(function: Callable[[Path], str]) -> Callable[[Path], str]:
    """Adds a check: given a folder with shards of digits it returns its figures, or raises AssertionError with them."""
    CHECKS.append(function)
    return function


class NotShown(Exception):
    """Raised by a check that only a real GPU can pass."""


def needs_a_real_gpu(what: str) -> None:
    if PRETENDED:
        raise NotShown(what)


def elbo(run: Path) -> float:
    return events(run, "valid")[-1]["elbo"]


def within(found: float, expected: float, part: float) -> str:
    figures = f"{found:.4f}, CPU {expected:.4f}"
    assert abs(found - expected) <= part * abs(expected), f"{figures}: more than {part:.1%} apart"
    return figures


@check
def float32_training_reaches_the_elbo_of_the_cpu(folder: Path) -> str:
    runs = [train(folder / "shards", folder, device, device=device, **FIELDS) for device in ("cuda", "cpu")]
    return within(elbo(runs[0]), elbo(runs[1]), 0.01) + " nats"


@check
def bf16_compiled_training_reaches_the_elbo_of_the_cpu(folder: Path) -> str:
    needs_a_real_gpu("autocast and torch.compile on CUDA")
    lower = {"engine__precision": "bf16", "engine__compile": True, "model__norm": "batch"}
    start = time.monotonic()
    run = train(folder / "shards", folder, "bf16", device="cuda", **FIELDS, **lower)
    seconds = time.monotonic() - start
    other = train(folder / "shards", folder, "batch-norm", device="cpu", **FIELDS, model__norm="batch")
    return f"{within(elbo(run), elbo(other), 0.05)} nats, {seconds:.0f} s with compilation"


@check
def an_update_waits_for_nothing(folder: Path) -> str:
    """torch itself raises where the host would wait, within `Learner.update`, one by one and replayed.

    The pretended GPU raises at the waits that it knows.
    """
    figures = []
    for graphs in (False, True):
        fields = {"engine__cuda_graphs": graphs, "model__norm": "batch", "optimiser__ema_images": 100}
        with no_waits(after=WARM_UP_UPDATES + CHECKED_UPDATES) as updates:
            train(folder / "shards", folder, f"no-wait-{graphs}", device="cuda", **fields)
        figures.append(f"{len(updates)} {'replayed' if graphs else 'one by one'}")
    return ", ".join(figures)


@check
def replayed_updates_give_the_bits_of_others(folder: Path) -> str:
    fields = {"device": "cuda", "engine__deterministic": True, "model__norm": "batch"}
    runs = [
        train(folder / "shards", folder, f"graphs-{graphs}", engine__cuda_graphs=graphs, **fields)
        for graphs in (True, False)
    ]
    said = [event["message"] for event in events(runs[0], "warning") if "cuda_graphs" in event["message"]]
    assert not said, said[0]
    ours, expected = map(weights, runs)
    differing = [name for name in expected if not torch.equal(ours[name], expected[name])]
    assert not differing, f"other bits in {differing[:3]}"
    return f"{len(expected)} tensors"


@check
def a_stopped_run_resumes_to_the_same_bits(folder: Path) -> str:
    fields = {"device": "cuda", "engine__deterministic": True, "model__norm": "batch"}
    whole = train(folder / "shards", folder, "whole", **fields)
    stopped = folder / "stopped"

    def listener(kind: str, images: int, facts: object) -> None:
        if kind == "train" and images < 600:
            os.kill(os.getpid(), signal.SIGUSR2)

    run_training(read_command_line(words(folder / "shards", folder, "stopped", **fields)).config, listener)
    assert "SIGUSR2" in (stopped / "requeue").read_text()
    for _ in range(2):
        train(folder / "shards", folder, "stopped", **fields, checkpoint__walltime_minutes=0.01)
    train(folder / "shards", folder, "stopped", **fields)
    ours, expected = weights(stopped), weights(whole)
    differing = [name for name in expected if not torch.equal(ours[name], expected[name])]
    assert not differing, f"other bits in {differing[:3]} after {len(events(stopped, 'stop'))} stops"
    return f"{len(events(stopped, 'stop'))} stops"


@check
def an_update_that_is_not_finite_is_skipped(folder: Path) -> str:
    original, calls = Learner._inputs, []

    def inputs(*words: Any, **others: Any) -> Any:
        found = original(*words, **others)
        calls.append(1)
        batch = found.batch
        return found._replace(batch=batch._replace(noise=batch.noise * math.nan)) if len(calls) == 5 else found

    Learner._inputs = inputs  # type: ignore[method-assign]
    try:
        run = train(folder / "shards", folder, "nan", device="cuda")
    finally:
        Learner._inputs = original  # type: ignore[method-assign]
    skipped = events(run, "bad_step")
    assert [event["batch_start"] for event in skipped] == [120], f"skipped {skipped}"
    return "1 of 1 skipped, an update late"


@check
def every_measurement_has_the_numbers_of_the_cpu(folder: Path) -> str:
    """All commands of `sessions.COMMANDS`, parts that are merged too. Within 2 %: float32 networks on both."""
    found: dict[str, dict[str, float]] = {}
    for device in ("cuda", "cpu"):
        run, session = folder / f"measured-{device}", folder / f"session-{device}"
        shutil.copytree(folder / "cpu", run)
        session.mkdir()
        commands = commands_on(run, session / "out", device)
        # Where the GPU is pretended, it is in all processes already.
        done = run_session(session, device, 1, {"pretended": False, "commands": commands})["commands"]
        failed = [f"{name}: {one['code']} {one['printed'][-200:]}" for name, one in done.items() if one["code"] != 0]
        assert not failed, f"on {device}, {failed[0]}"
        found[device] = measured(run)
    worst, where = 0.0, ""
    for name, expected in found["cpu"].items():
        error = abs(found["cuda"].get(name, math.nan) - expected) / max(abs(expected), 1e-3)
        if not error <= worst:
            worst, where = error, name
    assert worst <= 0.02, f"{where}: {worst:.1%} apart"
    return f"{len(found['cpu'])} numbers of {len(COMMANDS)} commands, at most {worst:.2%} apart"


@check
def mixtures_of_celebas_size(folder: Path) -> str:
    generator = torch.Generator().manual_seed(0)
    points, dim, sizes = (300, 8, (4, 20)) if PRETENDED else (162_770, 64, (32, 500, 10_000))
    centres = 3 * torch.randn(200, dim, generator=generator)
    x = centres[torch.randint(200, (points,), generator=generator)] + torch.randn(points, dim, generator=generator)
    figures = []
    for components in sizes:
        torch.cuda.reset_peak_memory_stats()
        start = time.monotonic()
        fitted = GaussianMixture(components, max_iter=10, random_state=0).fit(x.cuda())
        torch.cuda.synchronize()
        memory = torch.cuda.max_memory_allocated() / 2**30
        figures.append(f"{components}: {time.monotonic() - start:.1f} s, {memory:.1f} GB, {fitted.score(x[:5000]):.2f}")
    return "; ".join(figures)


@check
def k_means_finds_the_nearest_centres(folder: Path) -> str:
    x, centres = torch.randn(2, 20_000, 64, generator=torch.Generator().manual_seed(0))
    labels = NearestIndex(centres[:1000].cuda()).search(x.cuda(), 1)[:, 0].cpu()
    share = float((labels == torch.cdist(x.double(), centres[:1000].double()).argmin(1)).double().mean())
    assert share > 0.9999, f"{share:.5f} of the labels"
    return f"{share:.5f} of 20,000 labels"


@check
def celeba_at_its_two_batches(folder: Path) -> str:
    shards = celeba_like(folder)
    figures = []
    updates, cases = (300, ((100, True), (100, False), (800, True))) if not PRETENDED else (9, ((4, True), (4, False)))
    for batch, graphs in cases:
        name = f"celeba-{batch}-{graphs}"
        fields = {"data.shards": shards, "runs": folder, "name": name, "data.global_batch": batch}
        fields |= {"engine.cuda_graphs": graphs, "log.every_images": updates // 3 * batch, "log.to": "[]"}
        fields |= {"stage1.max_epochs": updates * batch / 2000, "stage2.max_epochs": 0, "stage1.check_images": 10**9}
        fields |= {"data.valid_images": batch, "device": "cuda"}
        if PRETENDED:
            fields |= {"model.encoder_channels": "[8,16]", "model.decoder_channels": "[16,8]", "engine.compile": False}
        config = ROOT / "trainer" / "configs" / "celeba.yaml"
        done = run_module("trainer", "--config", str(config), *(f"--{k}={v}" for k, v in fields.items()), timeout=500)
        assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
        last = events(folder / name, "train")[-1]
        said = [event["message"] for event in events(folder / name, "warning") if "cuda_graphs" in event["message"]]
        assert not said, said[0]
        rate, wait, memory = (last[name] for name in ("images_per_second", "data_wait_share", "peak_memory_mib"))
        how = "replayed" if graphs else "one by one"
        figures.append(f"{batch} {how}: {rate:,.0f} images/s, waiting {wait:.1%}, {memory / 1024:.1f} GB")
    return "; ".join(figures)


def celeba_like(folder: Path) -> Path:
    """Shards of 2,000 random images of CelebA's form for training, and 1,000 more."""
    from PIL import Image

    generator = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    for number in range(3000):
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(images / f"{number}.png")
    words = ["--out", str(folder / "celeba-like"), "--valid", "900", "--test", "100"]
    done = run_module("data_shards", "build", "folder", str(images), *words)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    return folder / "celeba-like"


@check
def deepspeed_trains_in_bf16(folder: Path) -> str:
    needs_a_real_gpu("DeepSpeed on CUDA")
    figures = []
    for stage in (1, 3):
        fields = {"engine__name": "deepspeed", "engine__precision": "bf16", "device": "cuda"}
        path = ROOT / "trainer" / "configs" / "deepspeed" / f"zero{stage}.json"
        run = train(folder / "shards", folder, f"zero-{stage}", engine__deepspeed_config=path, **fields, **FIELDS)
        figures.append(f"ZeRO {stage} {within(elbo(run), elbo(folder / 'cpu'), 0.05)}")
    return "; ".join(figures)


def run_tests(*words: str) -> "subprocess.CompletedProcess[str]":
    """pytest on the tests that need GPUs."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "(gpu or gpus) and not slow", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def main() -> int:
    """Prints the table; returns 1 where a test or a check failed."""
    if not torch.cuda.is_available():
        listed = re.findall(r"^tests/\S+\.py: (\d+)$", run_tests("--collect-only").stdout, re.MULTILINE)
        tests = sum(map(int, listed))
        print(f"no GPU on this machine: {tests} tests and {len(CHECKS)} checks skipped")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    done = run_tests("-rs", *(["-k", "not compiled"] if PRETENDED else []))
    print(done.stdout.strip())
    failed = int(done.returncode != 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, words = write_digits(folder / "digits"), ["--out", str(folder / "shards"), "--valid", "200"]
        done = run_module("data_shards", "build", "mnist", "--source", str(source), *words)
        assert done.returncode == 0, done.stderr
        for function in CHECKS:
            start = time.monotonic()
            try:
                result = "ok      " + function(folder)
            except NotShown as what:
                result = f"-       not shown here: {what}"
            except Exception as error:
                result, failed = f"FAILED  {type(error).__name__}: {' '.join(str(error).split())[:300]}", failed + 1
            print(f"{function.__name__.replace('_', ' '):55}{time.monotonic() - start:6.0f} s  {result}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
