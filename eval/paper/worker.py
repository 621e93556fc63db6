"""python -m eval.paper.worker JOB.json: trains one run and answers every question about it, within one process.

Each step is a command of the project, run as `python -m` would run it but without starting Python again. The record
RUN/reproduction.json is written after each step, so the same command again goes on where it was.
"""

import dataclasses
import json
import runpy
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_shards.io.atomic import write_bytes
from data_shards.io.errors import InputError, command
from data_shards.manifest import Manifest
from eval.paper.asks import BEST, Ask, answer, fit_words, form_of, words_of
from eval.paper.drawings import DRAWINGS, picture_path
from eval.paper.plan import Measurements, MixtureForm
from eval.paper.record import Record, commit, read_record
from eval.report.run_results import Result
from eval.run import load_run
from trainer.config.config import load_config
from trainer.mixture.fitted import mixture_folder
from trainer.run_folder import latents
from trainer.run_folder.checkpoint import read_state
from trainer.run_folder.log import read_events
from trainer.run_folder.restore import checkpoint_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A job with all that a process needs to carry it out."""

    run: str
    """The run folder."""
    configuration: str
    """Hash of its configuration."""
    train: list[str]
    """The training command, as the words after `python -m`."""
    shards: str
    """Where the shards lie."""
    asks: tuple[Ask, ...]
    """What is measured."""
    pictures: tuple[str, ...]
    """What is drawn."""
    measure: Measurements
    """How."""
    device: str
    """cpu or cuda."""

    def save(self, path: Path) -> None:
        """Writes the job for a worker."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1))


def load_work(path: Path) -> Work:
    """Reads what `Work.save` wrote."""
    content = json.loads(path.read_text())
    measure = content.pop("measure")
    measure |= {"mixture": MixtureForm(**measure["mixture"]), "candidates": tuple(measure["candidates"])}
    asks = tuple(Ask(**ask) for ask in content.pop("asks"))
    return Work(**content | {"pictures": tuple(content["pictures"])}, asks=asks, measure=Measurements(**measure))


class Worker:
    """Carries out one job."""

    def __init__(self, work: Work) -> None:
        self.work, self.run = work, Path(work.run)
        data = Manifest.load(work.shards).hash
        found = read_record(self.run)
        fresh = Record(configuration=work.configuration, data=data, commit=commit())
        same = found is not None and (found.configuration, found.data) == (fresh.configuration, fresh.data)
        self.record: Record = found.measured_as(work.measure) if found is not None and same else fresh

    def carry_out(self) -> None:
        """Trains, measures and draws whatever is missing."""
        self._train()
        unanswered = []
        for ask in self.record.missing(self.work.asks):
            try:
                self.record.results[ask.key] = self._result(ask)
            except SystemExit:  # the command has said in one line what is wrong; the other questions can be answered
                unanswered.append(ask.key)
            self.record.save(self.run)
        for name in self.work.pictures:
            self._draw(name)
        if unanswered:
            raise InputError(f"{self.run}: {len(unanswered)} questions have no answer, the first: {unanswered[0]}")

    def _train(self) -> None:
        before, began = len(read_events(self.run)), time.monotonic()
        self._command(self.work.train)
        events = read_events(self.run)
        seconds = self.record.training.get("seconds", 0.0)
        if len(events) != before:
            seconds += time.monotonic() - began
        ends = [event for event in events if event["event"] == "stage_end"]
        self.record.training = {"images": events[-1]["images"], "seconds": round(seconds, 1), "stages": ends}
        self.record.save(self.run)
        if not _complete(self.run):
            raise InputError(f"{self.run}: training was stopped before its end; start the same command again")

    def _result(self, ask: Ask) -> Result:
        form = None
        if ask.mixture == BEST:
            form = self._best(ask.weights)
        elif ask.mixture:
            form = form_of(ask.mixture)
        if form is not None:
            summary = self.fit(form, ask.weights)
            if ask.kind == "mixture":
                return summary
        if ask.kind == "memorisation" or ask.source == "flow":
            self._encode(ask.weights)
        if ask.source == "flow":
            self._command(["trainer.flow", "--run", self.work.run, "--weights", ask.weights])
        if ask.source == "transported" and form is not None:
            self._carry(form, ask.weights)
        self._command(words_of(ask, self.work.run, form, self.work.measure, self.work.device))
        return answer(ask, self.run, form, self.work.measure)

    def _draw(self, name: str) -> None:
        path = picture_path(self.run, name)
        if not path.exists():
            form = self.work.measure.mixture
            self.fit(form, "final")
            if name == "transported":
                self._carry(form, "final")
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, DRAWINGS[name](load_run(self.run, "final", self.work.device), form.components))
        print(f"written to {path}", flush=True)

    def _encode(self, weights: str) -> None:
        words = ["eval", "encode", "--run", self.work.run, "--weights", weights, "--device", self.work.device]
        self._command(words)

    def _carry(self, form: MixtureForm, weights: str) -> None:
        words = ["eval", "transport", "--run", self.work.run, "--weights", weights, "--mixture", str(form.components)]
        self._command([*words, "--device", self.work.device])

    def fit(self, form: MixtureForm, weights: str) -> Result:
        """Makes the mixture of that size in the run folder the one that is asked for."""
        if not latents.exists(self.run, "train", weights=weights):
            self._encode(weights)
        self._command(fit_words(self.work.run, form, weights, self.work.device))
        folder = mixture_folder(self.run, form.components, "full", weights)
        summary: Result = json.loads((folder / "summary.json").read_text())
        return summary

    def _best(self, weights: str) -> MixtureForm:
        """The form whose mixture gives held-out codes the highest likelihood."""
        encodings = self.work.measure.mixture.encodings
        scored: dict[float, MixtureForm] = {}
        for components in self.work.measure.candidates:
            form = MixtureForm(components=components, encodings=encodings)
            scored[self.fit(form, weights)["held_out"]["nats"]] = form
        return scored[max(scored)]

    def _command(self, words: Sequence[str]) -> None:
        """Runs `python -m WORDS` in this process. Raises InputError where it ends with another code than 0."""
        line = shlex.join(["python", "-m", *words])
        print(f"$ {line}", flush=True)
        former, sys.argv = sys.argv, list(words)
        code: Any = 0
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.argv = former
        if code not in (0, None):
            sys.exit(code)  # the command has said in one line what is wrong
        if line not in self.record.commands:
            self.record.commands.append(line)


def _complete(run: Path) -> bool:
    """True where the newest checkpoint ends the last stage."""
    stages = read_state(checkpoint_of(run)).stages
    return bool(stages.ended) and stages.stage == (2 if load_config(run).two_stages else 1)


def main() -> None:
    Worker(load_work(Path(sys.argv[1]))).carry_out()


if __name__ == "__main__":
    sys.exit(command(main))
