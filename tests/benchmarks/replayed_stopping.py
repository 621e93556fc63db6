"""Early stopping replayed on full learning curves: images saved, regret of the winner, ranks of the stopped.

    python tests/benchmarks/replayed_stopping.py [results/sweep/curves.json]

Two trials at a time, as fast as each other by images, in three orders of arrival; then over many orders, with all
curves and with some left out. The schedulers are the sweep's own objects, fed with the ELBO at the rungs as in a
sweep. Saved: part of all images that is not trained. Regret: how much
less the best final ELBO of the trials that were trained to their ends is than that of all, in percent of it.
"""

import argparse
import heapq
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler

from data_shards.io.tables import Table
from tune.search.halving import TakingTurns
from tune.search.stopping import AtRungs, TrialBudget, halving, rungs, scheduler
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


@dataclass(eq=False, kw_only=True)
class Stub:
    """What schedulers see of Ray's trials."""

    trial_id: str
    status: str = RayTrial.PENDING


class Controller:
    """What schedulers see of Ray's controller: trials, of which none is left once `waiting` is empty."""

    def __init__(self, waiting: list[int]) -> None:
        self.waiting, self.trials = waiting, list[Stub]()
        self.search_alg = self

    def is_finished(self) -> bool:
        return not self.waiting

    def get_trials(self) -> list[Stub]:
        return self.trials

    def pause_trial(self, trial: Stub, should_checkpoint: bool) -> None:
        trial.status = RayTrial.PAUSED

    def stop_trial(self, trial: Stub) -> None:
        trial.status = RayTrial.TERMINATED


def replay(curves: list[Curve], order: list[int], made: Any, settle: Callable[[Curve], Settle]) -> Replayed:
    """Trains the curves in that order, `AT_ONCE` at a time, and stops them as the scheduler says."""
    controller = Controller(list(order))
    place, settled, used = [0] * len(curves), [settle(curve) for curve in curves], [0] * len(curves)
    running: list[tuple[int, int, Stub]] = []
    ended, time = list[int](), 0

    def run(trial: Stub) -> None:
        number = int(trial.trial_id)
        trial.status = RayTrial.RUNNING
        heapq.heappush(running, (time + curves[number]["checks"][place[number]][1] - used[number], number, trial))

    while True:
        while len(running) < AT_ONCE:
            if controller.waiting and (not isinstance(made, TakingTurns) or made.may_begin()):
                controller.trials.append(Stub(trial_id=str(controller.waiting.pop(0))))
                made.on_trial_add(controller, controller.trials[-1])
            chosen = made.choose_trial_to_run(controller)
            if chosen is None:
                break
            run(chosen)
        if not running:
            break
        time, number, trial = heapq.heappop(running)
        stage, used[number], elbo = curves[number]["checks"][place[number]]
        place[number] += 1
        reached = settled[number](stage, used[number], elbo)
        decision = "CONTINUE"
        for at, value in reached:
            told = {"progress": at, "elbo": value, "last": (at, value) == reached[-1]}
            if decision == "CONTINUE":
                decision = made.on_trial_result(controller, trial, told)
        if decision == "CONTINUE" and place[number] < len(curves[number]["checks"]):
            run(trial)
        elif decision in ("CONTINUE", "STOP"):
            if place[number] == len(curves[number]["checks"]):
                ended.append(number)
                told = {"progress": 100.0, "elbo": elbo, "finished": True}
                made.on_trial_result(controller, trial, told)
            made.on_trial_complete(controller, trial, told)
            trial.status = RayTrial.TERMINATED
    final = [curve["checks"][-1][2] for curve in curves]
    ranked = sorted(range(len(curves)), key=lambda number: -final[number])
    best = max((final[number] for number in ended), default=min(final))
    total = sum(curve["checks"][-1][1] for curve in curves)
    return Replayed(
        saved=100 * (1 - sum(used) / total),
        regret=100 * (max(final) - best) / abs(max(final)),
        stopped=sorted(ranked.index(number) + 1 for number in range(len(curves)) if number not in ended),
    )


def own_budget(curves: list[Curve], stopping: StoppingConfig) -> Callable[[Curve], Settle]:
    """Rungs at parts of each trial's own budget, as a sweep has them."""
    first, second = (max(curve["caps"][stage] for curve in curves) for stage in (0, 1))

    def settle(curve: Curve) -> Settle:
        budget = TrialBudget(caps=tuple(curve["caps"]), first_share=100 * first / (first + second))
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


def made(stopping: StoppingConfig) -> Any:
    """The scheduler of a sweep."""
    return halving(stopping, AT_ONCE) if stopping.scheduler == "halving" else scheduler(stopping)


def thinned(curves: list[Curve], every: int) -> list[Curve]:
    """The curves with a check each so many images, and at the ends of stages."""

    def kept(checks: list[Any]) -> list[Any]:
        last = {stage: images for stage, images, _ in checks}
        crossed = [b[1] // every > a[1] // every for a, b in zip([(1, 0, 0.0), *checks], checks, strict=False)]
        return [one for one, due in zip(checks, crossed, strict=True) if due or one[1] == last[one[0]]]

    return [{**curve, "checks": kept(curve["checks"])} for curve in curves]


# A way of stopping: how the scheduler is made, what it is fed with, and the curves.
Way = tuple[Callable[[], Any], Callable[[list[Curve]], Callable[[Curve], Settle]], list[Curve]]


def compared(curves: list[Curve]) -> dict[str, Way]:
    """Ways of stopping by name."""
    longest = max(sum(curve["caps"]) for curve in curves)
    switch = max(curve["caps"][0] for curve in curves)

    def asha(first: float) -> ASHAScheduler:
        return ASHAScheduler(
            time_attr="progress", metric="elbo", mode="max", grace_period=first, max_t=longest + 1, reduction_factor=2
        )

    shipped = StoppingConfig(scheduler="halving")
    ways: dict[str, Way] = {}
    for name, stopping in {
        "halving (default)": shipped,
        "halving, min_images 0": replace(shipped, min_images=0),
        "halving, first_percent 4": replace(shipped, first_percent=4),
        "halving, reduction_factor 3": replace(shipped, reduction_factor=3),
        "asha": StoppingConfig(scheduler="asha"),
        "asha, reduction_factor 4": StoppingConfig(scheduler="asha", reduction_factor=4),
        "hyperband": StoppingConfig(scheduler="hyperband"),
        "optuna_hyperband": StoppingConfig(scheduler="optuna_hyperband"),
        "median": StoppingConfig(scheduler="median"),
    }.items():
        ways[name] = (partial(made, stopping), partial(own_budget, stopping=stopping), curves)
    rare = thinned(curves, longest // 20)
    ways["halving, checks each 5 %"] = (partial(made, shipped), partial(own_budget, stopping=shipped), rare)
    equal = partial(lambda curves, settle: settle, settle=equal_images)
    ways["asha at equal images, rungs from 1 %"] = (lambda: asha(longest / 100), equal, curves)
    ways["asha at equal images, one rung past the latest switch"] = (lambda: asha(switch + longest / 20), equal, curves)
    return ways


def found(way: Way, orders: int, left_out: int = 0) -> list[Replayed]:
    """What so many orders of arrival came to, each without so many of the curves."""
    make, settle, curves = way
    results = []
    for seed in range(orders):
        numpy.random.seed(seed)  # by which Ray chooses brackets
        order = random.Random(seed).sample(range(len(curves)), len(curves))
        some = [curves[number] for number in order[left_out:]]
        results.append(replay(some, list(range(len(some))), make(), settle(some)))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path, nargs="?", default=Path("results/sweep/curves.json"))
    parser.add_argument("--orders", type=int, default=200, help="of the second table (default 200)")
    parser.add_argument("--left-out", type=int, default=8, help="curves that an order of the third lacks (default 8)")
    args = parser.parse_args()
    ways = compared(json.loads(args.curves.read_text()))
    rows = []
    for name, way in ways.items():
        three = found(way, ORDERS)
        ranks = [rank for one in three for rank in one.stopped]
        rows.append(
            (
                name,
                " / ".join(f"{one.saved:.0f}" for one in three),
                " / ".join(f"{one.regret:.1f}" for one in three),
                " / ".join(str(len(way[2]) - len(one.stopped)) for one in three),
                " / ".join(str(one.stopped[0]) if one.stopped else "-" for one in three),
                f"{statistics.fmean(ranks):.0f}" if ranks else "-",
            )
        )
    head = ("Scheduler", "Saved, %", "Regret, %", "Trained to the end", "Best rank stopped", "Mean rank stopped")
    print(Table(head=head, rows=rows).to_markdown())
    head = (
        "Scheduler",
        "Saved, %: mean, 10th percentile",
        "At least 60 % saved",
        "Regret at most 1 %",
        "Worst regret, %",
    )
    for left_out in (0, args.left_out):
        print(f"\n{args.orders} orders, each without {left_out} of the curves\n")
        rows = [(name, *distribution(found(way, args.orders, left_out))) for name, way in ways.items()]
        print(Table(head=head, rows=rows).to_markdown())


def distribution(results: list[Replayed]) -> tuple[str, str, str, str]:
    """Cells of a row: over orders of arrival."""
    saved, regrets = [one.saved for one in results], [one.regret for one in results]
    return (
        f"{statistics.fmean(saved):.0f}, {statistics.quantiles(saved, n=10)[0]:.0f}",
        f"{100 * statistics.fmean(one >= 60 for one in saved):.0f} %",
        f"{100 * statistics.fmean(one <= 1 for one in regrets):.0f} %",
        f"{max(regrets):.1f}",
    )


if __name__ == "__main__":
    main()
