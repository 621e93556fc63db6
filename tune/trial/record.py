"""The record of one trial for the report, read from its run folder in whatever state the trial is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from eval.distance.measures import numbers_of
from eval.results import DistanceResult, LikelihoodResult, stored
from trainer.run_folder.checkpoint import complete_checkpoints
from trainer.run_folder.log import Event, read_events
from tune.search.trials import Phase
from tune.space import Fields
from tune.trial.folder import Status, load_attempts, load_outcome, load_trial
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


def trial_record(folder: Path) -> TrialRecord:
    """The record of the trial with this run folder."""
    trial, outcome, events = load_trial(folder), load_outcome(folder), read_events(folder)
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
        fd_stage1=_distance(folder, "stage1", ("q_hat", "prior")),
        fd_final=_distance(folder, "final", ("q_hat", "prior")),
        fd_reconstruction=_distance(folder, "final", ("reconstruction",)),
        iwae_stage1=_likelihood(folder, "stage1"),
        iwae_final=_likelihood(folder, "final"),
        further=_further(folder),
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
    """Learnt numbers in the newest checkpoint; None without one."""
    checkpoints = complete_checkpoints(folder)
    if not checkpoints:
        return None
    total = 0
    with safe_open(checkpoints[-1] / "model.safetensors", framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            count = 1
            for side in file.get_slice(name).get_shape():
                count *= side
            total += count
    return total


def _distance(folder: Path, weights: str, sources: tuple[str, ...]) -> float | None:
    """The newest distance of the first of `sources` of which there is one."""
    found = _distance_result(folder, weights, sources)
    return found.value if found else None


def _further(folder: Path) -> dict[str, float]:
    """The numbers of further measures beside `fd_final`."""
    found = _distance_result(folder, "final", ("q_hat", "prior"))
    if found is None:
        return {}
    return {number.name: found.values[number.name].value for number in numbers_of() if number.name in found.values}


def _distance_result(folder: Path, weights: str, sources: tuple[str, ...]) -> DistanceResult | None:
    results = [one for one in stored(DistanceResult, folder / "eval", "fid-*.json") if one.protocol.weights == weights]
    found = [one for source in sources for one in reversed(results) if one.protocol.source == source]
    return found[0] if found else None


def _likelihood(folder: Path, weights: str) -> float | None:
    """The newest likelihood."""
    results = stored(LikelihoodResult, folder / "eval", "likelihood*.json")
    found = [one.values for one in results if (one.protocol.weights, one.protocol.noise) == (weights, "independent")]
    return found[-1]["iwae_q_hat" if "iwae_q_hat" in found[-1] else "iwae_prior"].value if found else None


def reported_metrics(folder: Path) -> dict[str, float]:
    """What Ray and the search learn of a trial at its end; what was not measured is left out.

    images: seen in all; elbo: held out, at the closed-form sigma, nats per image; fd: of samples of the final weights;
    cost: seconds of training; stage.
    """
    record = trial_record(folder)
    metrics = {
        "images": record.images,
        "elbo": record.final_elbo,
        "fd": record.fd_final,
        "cost": record.seconds,
        "stage": record.stage,
    }
    return {name: value for name, value in metrics.items() if value is not None}
