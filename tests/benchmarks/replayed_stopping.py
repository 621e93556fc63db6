"""Early stopping replayed on full learning curves: images saved, regret of the winner, ranks of the stopped.

    python tests/benchmarks/replayed_stopping.py [results/sweep/curves.json]

Two trials at a time, as fast as each other by images, in three orders of arrival. The schedulers are the sweep's own
objects, fed with the ELBO at the rungs as in a sweep. Saved: part of all images that is not trained. Regret: how much
less the best final ELBO of the trials that were trained to their ends is than that of all 24, in percent of it.
"""

import argparse
import heapq
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from data_shards.io.tables import Table
from tune.search.stopping import AtRungs, Budget, RememberedTrial, Scheduler, rungs, scheduler
from tune.sweep_config import StoppingConfig

ORDERS, AT_ONCE = 3, 2
Curve = dict[str, Any]
# The rungs that a trial's check settles: (what the scheduler takes for time, ELBO) pairs.
Settle = Callable[[int, int, float], list[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What one order of arrival came to."""

    saved: float
    """Percent of all images."""
    regret: float
    """Percent of the best final ELBO."""
    stopped: list[int]
    """Ranks of the stopped trials by their final ELBO, 1 the best."""


def replay(curves: list[Curve], order: list[int], made: Scheduler, settle: Callable[[Curve], Settle]) -> Replayed:
    """Trains the curves in that order, `AT_ONCE` at a time, and stops them as the scheduler says."""
    waiting, running, used = list(order), [], dict[int, int]()

    def start(now: int) -> None:
        number = waiting.pop(0)
        made.on_trial_add(None, RememberedTrial(trial_id=str(number)))
        heapq.heappush(running, (now + curves[number]["checks"][0][1], now, number, 0, settle(curves[number])))

    for _ in range(AT_ONCE):
        start(0)
    stopped = []
    while running:
        time, began, number, place, settled = heapq.heappop(running)
        checks = curves[number]["checks"]
        stage, images, elbo = checks[place]
        ends = False
        for at, value in settled(stage, images, elbo):
            trial = RememberedTrial(trial_id=str(number))
            ends = ends or made.on_trial_result(None, trial, {"progress": at, "elbo": value}) == "STOP"
        used[number] = images
        if ends and place + 1 < len(checks):
            stopped.append(number)
        if ends or place + 1 == len(checks):
            if waiting:
                start(time)
            continue
        heapq.heappush(running, (began + checks[place + 1][1], began, number, place + 1, settled))
    final = [curve["checks"][-1][2] for curve in curves]
    ranked = sorted(range(len(curves)), key=lambda number: -final[number])
    best = max(final[number] for number in range(len(curves)) if number not in stopped)
    total = sum(curve["checks"][-1][1] for curve in curves)
    return Replayed(
        saved=100 * (1 - sum(used.values()) / total),
        regret=100 * (max(final) - best) / abs(max(final)),
        stopped=sorted(ranked.index(number) + 1 for number in stopped),
    )


def own_budget(curves: list[Curve], stopping: StoppingConfig) -> Callable[[Curve], Settle]:
    """Rungs at parts of each trial's own budget, as a sweep has them."""
    first, second = (max(curve["caps"][stage] for curve in curves) for stage in (0, 1))

    def settle(curve: Curve) -> Settle:
        budget = Budget(caps=tuple(curve["caps"]), first_share=100 * first / (first + second))
        at, stage_of = AtRungs(budget=budget, rungs=rungs(stopping), min_images=stopping.min_images), [1]

        def settled(stage: int, images: int, elbo: float) -> list[tuple[float, float]]:
            if stage != stage_of[0]:
                at.event("stage_start", curve["caps"][0], {"stage": stage})
                stage_of[0] = stage
            return at.event("valid", images, {"stage": stage, "elbo_at_closed_form": elbo})

        return settled

    return settle


def equal_images(_: Curve) -> Settle:
    """Each check at its images, whatever the trial's budget."""
    return lambda stage, images, elbo: [(images, elbo)]


def compared(curves: list[Curve]) -> dict[str, tuple[Callable[[], Scheduler], Callable[[Curve], Settle]]]:
    """Ways of stopping by name: how the scheduler is made, and what it is fed with."""
    longest = max(sum(curve["caps"]) for curve in curves)
    switch = max(curve["caps"][0] for curve in curves)

    def asha(first: float) -> ASHAScheduler:
        return ASHAScheduler(
            time_attr="progress", metric="elbo", mode="max", grace_period=first, max_t=longest + 1, reduction_factor=2
        )

    ways: dict[str, tuple[Callable[[], Scheduler], Callable[[Curve], Settle]]] = {
        "asha at equal images, first rung past the latest switch": (lambda: asha(switch + longest / 20), equal_images),
        "asha at equal images, rungs from 1 %": (lambda: asha(longest / 100), equal_images),
    }
    for name, stopping in {
        "asha": StoppingConfig(),
        "asha, min_images 0": StoppingConfig(min_images=0),
        "asha, reduction_factor 3": StoppingConfig(reduction_factor=3),
        "hyperband": StoppingConfig(scheduler="hyperband"),
        "median": StoppingConfig(scheduler="median"),
    }.items():
        ways[name] = (lambda stopping=stopping: scheduler(stopping), own_budget(curves, stopping))
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path, nargs="?", default=Path("results/sweep/curves.json"))
    curves = json.loads(parser.parse_args().curves.read_text())
    rows = []
    for name, (make, settle) in compared(curves).items():
        found = []
        for seed in range(ORDERS):
            order = list(range(len(curves)))
            random.Random(seed).shuffle(order)
            found.append(replay(curves, order, make(), settle))
        rows.append(
            (
                name,
                " / ".join(f"{one.saved:.0f} %" for one in found),
                " / ".join(f"{one.regret:.1f} %" for one in found),
                " / ".join(str(len(curves) - len(one.stopped)) for one in found),
                " / ".join(str(one.stopped[0]) if one.stopped else "-" for one in found),
                f"{statistics.fmean(rank for one in found for rank in one.stopped):.0f}",
            )
        )
    head = ("Scheduler", "Images saved", "Regret", "Trained to the end", "Best rank stopped", "Mean rank stopped")
    print(Table(head=head, rows=rows).to_markdown())


if __name__ == "__main__":
    main()
