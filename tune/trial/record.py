"""The record of one trial for the report, read from its run folder in whatever state the trial is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from eval.distance.measures import numbers_of
from eval.results import DistanceResult, LikelihoodResult, stored
from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.run_folder.log import Event, read_events
from trainer.run_folder.tensor_file import count_numbers
from tune.search.trials import Phase
from tune.space import Fields
from tune.sweep_config import MeasureConfig
from tune.trial.folder import Status, load_attempts, load_outcome, load_trial
from tune.trial.questions import (
    answer_of_distance,
    answer_of_likelihood,
    likelihood,
    reconstruction_distance,
    sample_distance,
)
from tune.trial.takeover import Takeover, present_fields, takeovers


class Check(NamedTuple):
    """A held-out check."""

    images: int
    """Images seen by then."""
    elbo: float | None
    """Held-out ELBO at the closed-form sigma, nats per image."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """How a stage went; all but the seconds as logged at its end."""

    reason: str | None = None
    """Why it ended."""
    end_images: int | None = None
    """Images seen in all at its end."""
    images: int | None = None
    """Images seen in the stage."""
    sigma2: float | None = None
    kl: float | None = None
    """KL divergence of the posterior from the prior, nats per image."""
    active_dimensions: int | None = None
    elbo: float | None = None
    """Held-out ELBO at the closed-form sigma, nats per image."""
    seconds: float | None = None
    """Seconds in the stage so far, held-out checks included."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial. None stands for what is not known (yet).

    Seconds and images a second include the held-out checks, and leave out the start and the measuring at the end. FD:
    Frechet distance to held-out images; IWAE: importance-weighted log-likelihood of held-out images, nats per image.
    """

    trial: str
    """Name of the trial and of its run folder."""
    phase: Phase
    number: int
    """Of the configuration within its phase, from 0."""
    seed: int
    """The trainer's seed."""
    fields: Fields
    """What was drawn for the configuration, by dotted name; in a population, what the trial has taken over last."""
    status: Status
    reason: str
    """Why it was stopped or failed; else empty."""
    again: bool
    """Whether it failed by a fault of the machine, and is tried again at the next start."""
    parameters: int | None
    """Learnt numbers, counted in the newest checkpoint; buffers of a few numbers are counted with them."""
    images: int
    """Images seen."""
    stage: int | None
    """The stage that it is in, or ended in."""
    seconds: float | None
    """Seconds of training."""
    peak_memory_mib: float | None
    retries: int
    """Times that its processes were started again."""
    checks: tuple[Check, ...]
    """All held-out checks so far, by images seen."""
    final_elbo: float | None
    """Held-out ELBO of the last check, nats per image."""
    images_per_second: float | None
    stage1: StageRecord
    stage2: StageRecord
    fd_stage1: float | None
    """FD of samples of the weights at the end of stage 1."""
    fd_final: float | None
    """FD of samples of the final weights."""
    fd_reconstruction: float | None
    """FD of reconstructions by the final weights."""
    iwae_stage1: float | None
    iwae_final: float | None
    takeovers: tuple[Takeover, ...] = ()
    """In a population, what the trial has taken over from others, oldest first."""
    further: Mapping[str, float] = field(default_factory=dict)
    """What further measures gave for samples of the final weights, by the name of the number."""

    def elbo_at(self, images: int) -> float | None:
        """The held-out ELBO at the first check at or after `images`; None where the trial ended before."""
        return next((check.elbo for check in self.checks if check.images >= images and check.elbo is not None), None)


def trial_record(folder: Path, measure: MeasureConfig) -> TrialRecord:
    """The record of the trial with this run folder.

    measure: of the sweep as it is now. What was measured otherwise, before the sweep's file was changed or by a person,
    cannot be compared with what is measured of other trials, and is left out.
    """
    trial, outcome, events = load_trial(folder), load_outcome(folder), read_events(folder)
    distances = stored(DistanceResult, folder / "eval", "fid-*.json")
    likelihoods = stored(LikelihoodResult, folder / "eval", "likelihood*.json")
    of_samples = {w: answer_of_distance(sample_distance(measure, w), w, distances) for w in ("stage1", "final")}
    of_reconstructions = answer_of_distance(reconstruction_distance(measure), "final", distances)
    asked = likelihood(measure)
    train = [event for event in events if event["event"] == "train"]
    checks = tuple(Check(e["images"], e["elbo_at_closed_form"]) for e in events if e["event"] == "valid")
    images = max((event["images"] for event in events), default=0)
    seconds = _seconds(train)
    return TrialRecord(
        trial=trial.name,
        phase=trial.phase,
        number=trial.number,
        seed=trial.seed,
        fields=present_fields(folder),
        status=outcome.status,
        reason=outcome.reason,
        again=outcome.again,
        parameters=outcome.parameters or parameters_in_checkpoint(folder),
        images=images,
        stage=next((event["stage"] for event in reversed(events) if "stage" in event), None),
        seconds=seconds,
        peak_memory_mib=max((event["peak_memory_mib"] for event in train), default=None),
        takeovers=takeovers(folder),
        retries=max(0, len(load_attempts(folder)) - 1),
        checks=checks,
        final_elbo=checks[-1].elbo if checks else None,
        images_per_second=images / seconds if seconds else None,
        stage1=_stage(1, train, events),
        stage2=_stage(2, train, events),
        fd_stage1=_value(of_samples["stage1"]),
        fd_final=_value(of_samples["final"]),
        fd_reconstruction=_value(of_reconstructions),
        iwae_stage1=_iwae(answer_of_likelihood(asked, "stage1", likelihoods)),
        iwae_final=_iwae(answer_of_likelihood(asked, "final", likelihoods)),
        further=_further(of_samples["final"]),
    )


def _seconds(train: Sequence[Event]) -> float | None:
    return sum(event["seconds"] for event in train) if train else None


def _stage(stage: int, train: Sequence[Event], events: Sequence[Event]) -> StageRecord:
    end = next((e for e in events if e["event"] == "stage_end" and e["stage"] == stage), {})
    return StageRecord(
        reason=end.get("reason"),
        end_images=end.get("images"),
        images=end.get("stage_images"),
        sigma2=end.get("sigma2"),
        kl=end.get("kl"),
        active_dimensions=end.get("active_dimensions"),
        elbo=end.get("elbo_at_closed_form"),
        seconds=_seconds([event for event in train if event["stage"] == stage]),
    )


def parameters_in_checkpoint(folder: Path) -> int | None:
    """Learnt numbers in the newest checkpoint; None without one that can be read."""
    checkpoints = complete_checkpoints(folder)
    if not checkpoints:
        return None
    try:
        return count_numbers(checkpoints[-1] / "model.safetensors")
    except (FileNotFoundError, ValueError):
        return None  # a trial that trains has deleted it meanwhile; or it is damaged, which the trial's next start says


def _value(found: DistanceResult | None) -> float | None:
    return None if found is None else found.value


def _further(found: DistanceResult | None) -> dict[str, float]:
    """The numbers of further measures beside a distance."""
    values = {} if found is None else found.values
    return {number.name: values[number.name].value for number in numbers_of() if number.name in values}


def _iwae(found: LikelihoodResult | None) -> float | None:
    if found is None:
        return None
    return found.values["iwae_q_hat" if "iwae_q_hat" in found.values else "iwae_prior"].value


def reported_metrics(folder: Path, measure: MeasureConfig) -> dict[str, float]:
    """What Ray and the search learn of a trial at its end; what was not measured is left out.

    images: seen in all; elbo: held out, at the closed-form sigma, nats per image; fd: of samples of the final weights;
    cost: seconds of training; stage.
    """
    record = trial_record(folder, measure)
    metrics = {
        "images": record.images,
        "elbo": record.final_elbo,
        "fd": record.fd_final,
        "cost": record.seconds,
        "stage": record.stage,
    }
    return {name: value for name, value in metrics.items() if value is not None}
