"""python -m eval.paper.worker JOB.json: trains one run and answers every question about it, within one process.

The record RUN/reproduction.json is written after each answer, so that the same command again continues where it was.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_bytes
from data_shards.io.errors import InputError, command
from data_shards.io.lease import LeaseHeld
from data_shards.manifest import Manifest
from eval.distance.comparison import measure_distance
from eval.images.encoding import encode_split
from eval.images.stored_transport import make_transport
from eval.measurements.likelihood import measure_likelihood
from eval.measurements.memorisation import measure_memorisation
from eval.measurements.uncertainty import measure_uncertainty
from eval.paper.figures import draw, picture_path
from eval.paper.plan import MixtureForm, configuration_hash, training_command
from eval.paper.record import BEST, Question, Record, commit, picture_key, read_record, weights_of
from eval.paper.schedule import Work
from eval.questions import DistanceQuestion, LikelihoodQuestion, MemorisationQuestion, UncertaintyQuestion
from eval.run import load_run
from trainer.config.config import load_config
from trainer.flow.run_flow import fit_run_flow
from trainer.loop import train
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import single
from trainer.run_folder.checkpoint import read_state
from trainer.run_folder.holding import held_by_main
from trainer.run_folder.log import read_events
from trainer.run_folder.restore import checkpoint_of


class Worker:
    """Does one job."""

    def __init__(self, work: Work) -> None:
        self.work, self.folder, self.ranks = work, Path(work.run), single(work.device)
        fields = {"runs": str(self.folder.parent), "name": self.folder.name, "device": work.device}
        self.config = load_config(work.config, dict(work.fields) | fields)

    def run(self) -> None:
        """Trains, measures and draws whatever is missing.

        Raises InputError where a question has no answer, or where another job works on the same run: each would write
        its record over the other's.
        """
        with self.held():
            self.record = self.known()
            self.train()
            self.forget_other_weights()
            failures = []
            for question in self.record.missing(self.work.questions):
                print(f"measuring {question.key}", flush=True)
                try:
                    self.record.results[question.key] = self.answer(question)
                except InputError as error:  # the other questions may have answers
                    print(f"error: {error}", flush=True)
                    failures.append(f"{question.key}: {error}")
                self.record.save(self.folder)
            for name in self.work.pictures:
                self.draw(name)
        if failures:
            raise InputError(f"{self.folder}: {len(failures)} questions have no answer, the first: {failures[0]}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the run for this job."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held_by_main(self.folder.parent, self.ranks, f"{self.folder.name}-reproduction"))
            except LeaseHeld as error:
                raise InputError(
                    f"{self.folder}: another command of python -m eval reproduce works on it; start this one again "
                    "when that has ended"
                ) from error
            yield

    def known(self) -> Record:
        """The record of this training in its run folder, or a new one."""
        data = Manifest.load(self.config.data.location).hash
        fresh = Record(configuration=configuration_hash(self.config), data=data, commit=commit())
        found = read_record(self.folder)
        same = found is not None and (found.configuration, found.data) == (fresh.configuration, fresh.data)
        return found.measured_as(self.work.measure) if found is not None and same else fresh

    def train(self) -> None:
        """Trains to the end, or resumes."""
        before, began = len(read_events(self.folder)), time.monotonic()
        train(self.config)
        events = read_events(self.folder)
        seconds = self.record.training.get("seconds", 0.0)
        seconds += time.monotonic() - began if len(events) != before else 0.0
        ends = [event for event in events if event["event"] == "stage_end"]
        self.record.training = {"images": events[-1]["images"], "seconds": round(seconds, 1), "stages": ends}
        self.record.commands = [training_command(self.work.config, self.config.name, self.work.fields)]
        self.record.save(self.folder)
        stages = read_state(checkpoint_of(self.folder)).stages
        if not stages.ended or stages.stage != (2 if self.config.two_stages else 1):
            raise InputError(f"{self.folder}: training was stopped before its end; start the same command again")

    def forget_other_weights(self) -> None:
        """Leaves only results of the weights that the run folder holds."""
        found = {key: weights_of(result) for key, result in self.record.results.items()}
        names = {weights[0] for weights in found.values() if weights}
        own = {None, *((name, load_run(self.folder, name).checkpoint) for name in names)}
        self.record.results = {key: result for key, result in self.record.results.items() if found[key] in own}

    def answer(self, question: Question) -> Any:
        """The result of a question's measurement, or the summary of its mixture's fit."""
        measure, weights, source = self.work.measure, question.weights, question.source
        form = None
        if question.mixture:
            form = self.best(weights) if question.mixture == BEST else MixtureForm.of_label(question.mixture)
            summary = self.fit(form, weights)
            if question.kind == "mixture":
                return summary
        if question.kind == "memorisation" or source == "flow":
            self.encode(weights)
        if source == "flow":
            fit_run_flow(self.folder, weights=weights, device=self.work.device)
        run = load_run(self.folder, weights, self.work.device)
        components = form.components if form else 0
        if source == "transported":
            make_transport(run, components, "full", self.ranks)
        seed, images = measure.seed, measure.likelihood_images
        match question.kind:
            case "fid":
                wanted = DistanceQuestion(
                    source=source,
                    n=measure.distance_images,
                    split=measure.distance_split,
                    mixture=max(components, 1),
                    extractor=measure.extractor,
                    seed=seed,
                    also=measure.also if source == "q_hat" else (),
                )
                return measure_distance(run, wanted, self.ranks)
            case "likelihood":
                samples = measure.importance_samples
                values = LikelihoodQuestion(images=images, samples=samples, mixture=components, seed=seed)
                return measure_likelihood(run, values, self.ranks)
            case "uncertainty":
                return measure_uncertainty(run, UncertaintyQuestion(images=images, seed=seed), self.ranks)
        images = measure.memorisation_images
        nearest = MemorisationQuestion(source=source or "q_hat", images=images, mixture=components, seed=seed)
        return measure_memorisation(run, nearest, self.ranks)

    def draw(self, name: str) -> None:
        """Draws a picture unless it is there, of these weights and this mixture."""
        path, form = picture_path(self.folder, name), self.work.measure.mixture
        run = load_run(self.folder, "final", self.work.device)
        drawn_from = {"weights": run.weights, "checkpoint": run.checkpoint, "mixture": form.label}
        if path.exists() and self.record.results.get(picture_key(name)) == drawn_from:
            return
        self.fit(form, "final")
        if name == "transported":
            make_transport(run, form.components, "full", self.ranks)
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, draw(name, run, form.components))
        self.record.results[picture_key(name)] = drawn_from
        self.record.save(self.folder)
        print(f"written to {path}", flush=True)

    def encode(self, weights: str) -> None:
        """Encodes the images, for what is fitted to their codes."""
        run = load_run(self.folder, weights, self.work.device)
        for split in (run.config.data.train_split, run.config.data.valid_split):
            encode_split(run, split, self.ranks)

    def fit(self, form: MixtureForm, weights: str) -> dict[str, Any]:
        """Makes the mixture of that size in the run folder the one that is asked for; returns its summary."""
        self.encode(weights)
        settings = Settings(n_components=form.components)
        fitted = fit_run_mixture(self.folder, settings, weights=weights, form=form.encodings, ranks=self.ranks)
        return dict(fitted.summary)

    def best(self, weights: str) -> MixtureForm:
        """The form whose mixture gives held-out codes the highest likelihood."""
        measure = self.work.measure
        forms = [dataclasses.replace(measure.mixture, components=components) for components in measure.candidates]
        return max(forms, key=lambda form: self.fit(form, weights)["held_out"]["nats"])


def main() -> None:
    """Reads the job and does it."""
    Worker(Work.load(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    sys.exit(command(main))
