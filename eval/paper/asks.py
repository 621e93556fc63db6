"""What can be asked of a trained run: each question has a key, and a command of the project that answers it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.io.errors import InputError
from eval.paper.plan import Measurements, MixtureForm
from eval.results import read_record

BEST = "best"
"""Label of the mixture whose number of components held-out codes chose among `Measurements.candidates`."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question to one set of weights of a run."""

    kind: str
    """fid, likelihood, uncertainty, memorisation, or mixture (the fit's own summary)."""
    weights: str = "final"
    """final or stage1."""
    source: str = ""
    """For fid, and for memorisation of other images than g(z): what `--from` of the command is given."""
    mixture: str = ""
    """Label of a `MixtureForm`, or BEST; empty where no mixture is needed."""

    @property
    def key(self) -> str:
        """One name for each question, such as `fid q_hat 32-full-posterior final`."""
        return " ".join(word for word in (self.kind, self.source, self.mixture, self.weights) if word)


def form_of(label: str) -> MixtureForm:
    """The mixture that a label names."""
    components, _, encodings = label.split("-")
    return MixtureForm(components=int(components), encodings=encodings)


def words_of(ask: Ask, run: str, form: MixtureForm | None, measure: Measurements, device: str) -> list[str]:
    """The command that answers, as the words after `python -m`. form: the mixture, where one is needed."""
    words = ["eval", ask.kind, "--run", run, "--weights", ask.weights, "--device", device, "--seed", str(measure.seed)]
    if form is not None:
        words += ["--mixture", str(form.components)]
    if ask.kind == "fid":
        words += ["--from", ask.source, "--extractor", measure.extractor]
        if measure.extractor_weights:
            words += ["--extractor-weights", measure.extractor_weights]
        return [*words, "--n", str(measure.distance_images), "--split", measure.distance_split]
    if ask.kind == "likelihood":
        if form is None:
            words += ["--mixture", "0"]
        return [*words, "--images", str(measure.likelihood_images), "--samples", str(measure.importance_samples)]
    if ask.kind == "memorisation":
        words += ["--from", ask.source] if ask.source else []
        return [*words, "--images", str(measure.memorisation_images)]
    return [*words, "--images", str(measure.likelihood_images)]


def fit_words(run: str, form: MixtureForm, weights: str, device: str) -> list[str]:
    """The command that fits a mixture."""
    words = ["trainer.mixture", "--run", run, "--components", str(form.components), "--encodings", form.encodings]
    return [*words, "--weights", weights, "--device", device]


def answer(ask: Ask, run: Path, form: MixtureForm | None, measure: Measurements) -> dict[str, Any]:
    """The result that the command wrote. Raises InputError where none is there by this protocol."""
    suffix = "" if ask.weights == "final" else f"-{ask.weights}"
    if ask.kind != "fid":
        name = "-".join(word for word in (ask.source, ask.kind) if word)
        return read_record(run / "eval" / f"{name}{suffix}.json")
    wanted = {
        "source": ask.source,
        "weights": ask.weights,
        "mixture": f"{form.components}-full" if form else "",
    }
    written = sorted((run / "eval").glob("fid-*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in written:
        result = read_record(path)
        if measured_as("fid", result, measure) and all(result["protocol"][k] == v for k, v in wanted.items()):
            return result
    raise InputError(f"{run / 'eval'}: no result answers {ask.key!r}; delete the folder and measure again")


def measured_as(kind: str, result: Mapping[str, Any], measure: Measurements) -> bool:
    """Whether a result was measured as the plan says now: as many images, by the same extractor, with the same seed."""
    if kind == "pythae":
        same = (result["extractor"]["name"], result["samples"]) == (measure.extractor, measure.distance_images)
        return same and result["reference"] == measure.distance_split
    if kind == "mixture":
        return True
    protocol = result["protocol"]
    wanted: dict[str, Any] = {"n": measure.likelihood_images, "seed": measure.seed}
    if kind == "fid":
        if protocol["extractor"]["name"] != measure.extractor:
            return False
        n = protocol["n"] if protocol["source"] == "half" else measure.distance_images
        wanted |= {"n": n, "split": measure.distance_split}
    elif kind == "likelihood":
        wanted |= {"importance_samples": measure.importance_samples}
    elif kind == "memorisation":
        wanted |= {"n": measure.memorisation_images}
    return all(protocol[name] == value for name, value in wanted.items())


def weights_of(two_stages: bool) -> tuple[str, ...]:
    """The sets of weights that a run is measured at."""
    return ("stage1", "final") if two_stages else ("final",)


def unique(asks: Iterable[Ask]) -> tuple[Ask, ...]:
    """The questions without repetition, in order."""
    return tuple(dict.fromkeys(asks))
