"""When a trial is stopped early: asynchronous successive halving on images seen (Li et al. 2020)."""

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tune.sweep_config import SweepConfig

JUDGED_BY = "elbo"
"""Held out, at the closed-form sigma: comparable between the stages and between updates of sigma."""


def rungs(sweep: SweepConfig) -> tuple[int, ...]:
    """Images at which a trial is compared with the others; the first lies past any trial's latest switch to stage 2."""
    if not sweep.asha.enabled:
        return ()
    switch, end = sweep.latest_images()
    images, found = float(switch + sweep.asha.grace_images), []
    while images <= end:
        found.append(round(images))
        images *= sweep.asha.reduction_factor
    return tuple(found)


def scheduler(sweep: SweepConfig) -> TrialScheduler:
    """ASHA with those rungs, or one that stops nothing where no rung lies before the end of the longest trial."""
    found = rungs(sweep)
    if not found:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="images",
        metric=JUDGED_BY,
        mode="max",
        grace_period=found[0],
        # Past the end of any trial: ASHA would stop a trial at max_t, and its end has still to be measured.
        max_t=sweep.latest_images()[1] + 1,
        reduction_factor=sweep.asha.reduction_factor,
    )
