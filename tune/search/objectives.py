"""What a sweep can optimise and rank by."""

from dataclasses import dataclass

from tune.sweep_config import ObjectiveName


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One measured number of a trial."""

    field: str
    """The field of `tune.trial.record.TrialRecord` that holds it."""
    sign: int
    """1 where more is better, -1 where less is."""
    title: str
    """Its name and unit in the report."""


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "elbo": Objective(field="final_elbo", sign=1, title="held-out ELBO at the closed-form sigma, nats per image"),
    "fd": Objective(field="fd_final", sign=-1, title="held-out FD of samples"),
    "cost": Objective(field="seconds", sign=-1, title="seconds of training"),
}
