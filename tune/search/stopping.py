"""When a trial is stopped early: asynchronous successive halving on images seen (Li et al. 2020)."""

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tune.sweep_config import SweepConfig


def scheduler(sweep: SweepConfig) -> TrialScheduler:
    """ASHA with the sweep's rungs, or one that stops nothing where no rung lies before the end of the longest trial."""
    rungs = sweep.rungs()
    if not rungs:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="images",
        # Held out, at the closed-form sigma: comparable between the stages and between updates of sigma.
        metric="elbo",
        mode="max",
        grace_period=rungs[0],
        # Past the end of any trial: ASHA would stop a trial at max_t, before it is measured.
        max_t=sweep.latest_images()[1] + 1,
        reduction_factor=sweep.asha.reduction_factor,
    )
