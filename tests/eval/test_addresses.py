"""A number knows what it was measured on: where any one input changes, it is renewed or refused, never taken over.

Results lie side by side, so that what was measured of an earlier state is still there when that state comes back.
"""

import dataclasses
import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from support.changed_run import change_weights
from support.running import write_idx
from torch import nn

from data_shards import build_shards
from data_shards.io.errors import InputError
from eval.distance.comparison import measure_distance
from eval.distance.measures import FURTHER
from eval.images.encoding import encode_split
from eval.images.stored_transport import make_transport
from eval.measurements.likelihood import measure_likelihood
from eval.measurements.memorisation import measure_memorisation
from eval.measurements.uncertainty import measure_uncertainty
from eval.protocol import (
    CompletionProtocol,
    DistanceProtocol,
    LikelihoodProtocol,
    MemorisationProtocol,
    ResidualsProtocol,
    UncertaintyProtocol,
    VarianceProtocol,
)
from eval.questions import DistanceQuestion, LikelihoodQuestion, MemorisationQuestion, UncertaintyQuestion
from eval.report.known import Subject
from eval.report.number_sections import RunFacts, distance_section
from eval.results import DistanceResult
from eval.run import load_run
from trainer.flow.fit import FlowSettings
from trainer.flow.run_flow import fit_run_flow
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import single

pytestmark = pytest.mark.usefixtures("own_cache")

ALONE = single()
EXTRACTOR = """
import os
from pathlib import Path

import torch
from torch import nn


def make(device):
    convolution = nn.Conv2d(3, 12, 8, stride=8)
    convolution.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    gain = float(os.environ.get("GAIN", "1"))
    return lambda images: gain * torch.relu(convolution(images))
"""
DISTANCE = {"n": 64, "mixture": 4, "extractor": "probed_extractor:make", "extractor_size": 32}


def write_weights(folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = {"weight": torch.randn(12, 3, 8, 8, generator=generator), "bias": torch.zeros(12)}
    torch.save({name: 0.1 * value for name, value in state.items()}, folder / "weights.pt")


@pytest.fixture
def place(tmp_path, digits_run, digits_shards, monkeypatch):
    """A folder with a run, its shards and the user's extractor, all of which a test may change."""
    shutil.copytree(digits_run, tmp_path / "run")
    shutil.copytree(digits_shards, tmp_path / "shards")
    config = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["data"]["shards"] = str(tmp_path / "shards")
    config.write_text(yaml.safe_dump(content))
    (tmp_path / "probed_extractor.py").write_text(EXTRACTOR)
    write_weights(tmp_path, seed=0)
    monkeypatch.syspath_prepend(str(tmp_path))
    make_transport(load_run(tmp_path / "run"), 4, "full", ALONE)
    fit_run_flow(tmp_path / "run", FlowSettings(epochs=1))
    return tmp_path


def measure(place: Path, kind: str, **other):
    """Measures as a new process would."""
    sys.modules.pop("probed_extractor", None)
    importlib.invalidate_caches()
    run, few = load_run(place / "run"), {"images": 10, **other}
    if kind == "likelihood":
        return measure_likelihood(run, LikelihoodQuestion(samples=2, mixture=4, **few), ALONE)
    if kind == "uncertainty":
        return measure_uncertainty(run, UncertaintyQuestion(**few), ALONE)
    if kind.endswith("memorisation"):
        source = "transported" if kind.startswith("transported") else "q_hat"
        return measure_memorisation(run, MemorisationQuestion(source=source, mixture=4, **few), ALONE)
    return measure_distance(run, DistanceQuestion(source=kind, **DISTANCE | other), ALONE)


DISTANCES = ("q_hat", "transported", "flow", "prior")
KINDS = (*DISTANCES, "likelihood", "uncertainty", "memorisation", "transported memorisation")
OF_MIXTURE = {"q_hat", "transported", "likelihood", "memorisation", "transported memorisation"}


def other_mixture(place):
    fit_run_mixture(place / "run", Settings(n_components=4, random_state=3, kmeans_iter=1, max_iter=1), ranks=ALONE)


def other_images(place):
    shutil.rmtree(place / "shards")
    images = 255 - np.round(load_digits().images * (255 / 16)).astype(np.uint8).repeat(3, 1).repeat(3, 2)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    (place / "idx").mkdir()
    for name, part in (("train", slice(0, 1597)), ("t10k", slice(1597, None))):
        write_idx(place / "idx" / f"{name}-images-idx3-ubyte.gz", images[part])
        write_idx(place / "idx" / f"{name}-labels-idx1-ubyte.gz", load_digits().target[part])
    build_shards("mnist", place / "shards", source=place / "idx", valid=200)


def more_training(place):
    change_weights(place / "run")


def more_training_and_new_codes(place):
    change_weights(place / "run")
    for split in ("train", "valid"):
        encode_split(load_run(place / "run"), split, ALONE)


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "weights": (more_training, set(KINDS)),
    "weights and codes": (more_training_and_new_codes, set(KINDS)),
    "mixture": (other_mixture, OF_MIXTURE),
    "transport": (
        lambda place: make_transport(load_run(place / "run"), 4, "full", ALONE, seed=1),
        {"transported", "transported memorisation"},
    ),
    "flow": (lambda place: fit_run_flow(place / "run", FlowSettings(epochs=1, seed=1)), {"flow"}),
    "images of the same names": (other_images, set(KINDS)),
    "weight file of the extractor": (lambda place: write_weights(place, seed=1), set(DISTANCES)),
    "source of the extractor": (
        lambda place: (place / "probed_extractor.py").write_text(EXTRACTOR.replace("relu", "tanh")),
        set(DISTANCES),
    ),
}
"""By name: what is changed, and what depends on it."""


def addresses(place, **other):
    """The address of each kind's result, or the line that refuses it."""
    found = {}
    for kind in KINDS:
        try:
            found[kind] = measure(place, kind, **other).protocol.address()
        except InputError as error:
            found[kind] = f"refused: {error}"
    return found


def shown(place):
    """The kinds of results that the report would show."""
    try:
        found = Subject(load_run(place / "run")).results()
    except InputError:  # the shards are not those that were trained on
        return set()
    kinds = {result.protocol.source for result in found.distances}
    kinds |= {"likelihood"} if found.likelihoods else set()
    kinds |= {"uncertainty"} if found.uncertainties else set()
    transported = {result.protocol.source == "transported" for result in found.memorisations}
    return kinds | {"transported memorisation" if each else "memorisation" for each in transported}


def files(place):
    return {path: path.stat().st_mtime_ns for path in (place / "run" / "eval").glob("*.json")}


@pytest.mark.parametrize("change", CHANGES)
def test_what_depends_on_a_changed_input_is_renewed_or_refused_and_nothing_else_is(place, change):
    before, kept = addresses(place), files(place)
    assert not any(address.startswith("refused") for address in before.values())
    assert shown(place) == set(KINDS)
    make, depends = CHANGES[change]
    make(place)
    # A page loads no extractor of the user's: what that reads is not compared, see the report's tests.
    assert shown(place) == (set(KINDS) if change == "weight file of the extractor" else set(KINDS) - depends)
    after = addresses(place)
    assert {kind for kind in KINDS if before[kind] != after[kind]} == depends
    # What was there before lies beside what is new, untouched.
    assert {path: time for path, time in files(place).items() if path in kept} == kept


def test_what_was_measured_counts_again_when_what_it_was_measured_on_comes_back(place):
    before, kept = addresses(place), files(place)
    write_weights(place, seed=1)
    assert addresses(place) != before
    write_weights(place, seed=0)
    assert addresses(place) == before
    assert {path: time for path, time in files(place).items() if path in kept} == kept


def test_another_environment_that_changes_features_or_precision_is_another_address(place, monkeypatch):
    before = addresses(place)
    monkeypatch.setenv("GAIN", "1.01")
    assert {kind for kind, address in addresses(place).items() if address != before[kind]} == set(DISTANCES)
    monkeypatch.delenv("GAIN")
    torch.set_float32_matmul_precision("high")
    try:
        assert all(address != before[kind] for kind, address in addresses(place).items())
    finally:
        torch.set_float32_matmul_precision("highest")


def test_seed_number_of_images_split_and_mode_are_of_the_address(place):
    kinds = ("q_hat", "likelihood", "memorisation", "uncertainty")
    for kind in kinds:
        number = "n" if kind == "q_hat" else "images"
        settings = [{}, {"seed": 1}, {"split": "valid"}, {number: 20}]
        settings += [{"extractor_size": 40}] if kind == "q_hat" else []
        settings += [{"annealing": 2}, {"annealing": 3}, {"annealing": 2, "chains": 2}] if kind == "likelihood" else []
        found = [measure(place, kind, **other).protocol.address() for other in settings]
        assert len(set(found)) == len(settings)


def test_a_page_shows_distances_by_the_users_networks_and_says_what_was_not_compared(place):
    of_source = measure(place, "prior")
    script, other = (torch.jit.script(nn.Sequential(nn.Conv2d(3, 12, 8, stride=s), nn.ReLU())) for s in (8, 16))
    script.save(str(place / "mine.pt"))
    of_file = measure(place, "prior", extractor=str(place / "mine.pt"))
    found, run = Subject(load_run(place / "run")).results(), str(place / "run")
    facts = RunFacts(
        folder=Path(run), dataset=None, mixture="--mixture 4", objective="sigma_vae", two_stages=True, latent_dim=3
    )
    text = "\n".join(distance_section(found, facts).text)
    assert "does not load `probed_extractor:make`: its source is as it was; its weights, and what else it reads" in text
    assert f"does not load `mine.pt`: {place / 'mine.pt'} is the file that it was" in text
    for result in (of_source, of_file):
        assert f"address `{result.protocol.address()}`: `{result.command(run, draws=False)}`" in text
    assert f"--extractor {place / 'mine.pt'}" in of_file.command(run, draws=False)
    other.save(str(place / "mine.pt"))
    found = Subject(load_run(place / "run")).results()
    assert [result.protocol.address() for result in found.distances] == [of_source.protocol.address()]
    assert [(one.command, one.reason) for one in found.earlier] == [
        (of_file.command(run, draws=False), "the extractor mine.pt has changed since")
    ]


def test_a_further_measure_of_an_earlier_definition_is_left_out_and_its_command_is_named(place, monkeypatch):
    measure(place, "prior", also=("kernel",))
    command = f"python -m eval fid --run {place / 'run'} --from prior --n 64 --extractor probed_extractor:make "
    command += "--extractor-size 32"
    monkeypatch.setitem(FURTHER, "kernel", dataclasses.replace(FURTHER["kernel"], version=99))
    found = Subject(load_run(place / "run")).results()
    assert [list(result.values) for result in found.distances] == [["frechet_distance"]]
    assert [(one.command, one.reason) for one in found.earlier] == [
        (f"{command} --also kernel", "the definition of kernel has changed since")
    ]
    measure(place, "prior", also=("kernel",))
    assert Subject(load_run(place / "run")).results().earlier == []
    # Of other weights, all that was measured of them is named.
    more_training(place)
    (earlier,) = Subject(load_run(place / "run")).results().earlier
    assert earlier.command == f"{command} --also kernel"
    measure(place, "prior")
    assert [one.command for one in Subject(load_run(place / "run")).results().earlier] == [f"{command} --also kernel"]
    measure(place, "prior", also=("kernel", "cmmd"))
    assert Subject(load_run(place / "run")).results().earlier == []


def test_the_command_that_measures_again_names_the_weights_of_the_extractor(place):
    found = dataclasses.replace(measure(place, "prior"), extractor_weights="my weights/dinov2.pth")
    assert found.command("RUN", draws=False).endswith(" --extractor-weights 'my weights/dinov2.pth'")
    assert DistanceResult.from_json(found.to_json()) == found
    assert "extractor_weights" not in measure(place, "prior").to_json()


@pytest.mark.parametrize(
    "kind",
    [
        DistanceProtocol,
        VarianceProtocol,
        LikelihoodProtocol,
        UncertaintyProtocol,
        ResidualsProtocol,
        CompletionProtocol,
        MemorisationProtocol,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_field_of_a_protocol_but_the_runs_name_and_its_convolutions_is_of_the_address(kind):
    """Whatever a later field is, a change of it is another address."""

    def example(annotation, version):
        values = {"int": 3, "float": 0.25, "str": "a", "tuple[int, int, int]": (1, 8, 8)}
        changed = {"int": 4, "float": 0.5, "str": "b", "tuple[int, int, int]": (3, 8, 8)}
        name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        fields = (values, changed)[version]
        return fields.get(name, fields.get(str(annotation), {"name": ("x", "y")[version]}))

    fields = dataclasses.fields(kind)
    made = kind(**{field.name: example(field.type, 0) for field in fields})
    for field in fields:
        other = dataclasses.replace(made, **{field.name: example(field.type, 1)})
        assert (other.address() == made.address()) == (field.name in ("run", "convolutions")), field.name


def test_images_saved_after_a_new_mixture_are_those_of_the_new_mixture(place):
    def save(where):
        run = load_run(where / "run")
        measure_distance(run, DistanceQuestion(source="q_hat", **DISTANCE), ALONE, save_images="png")

    save(place)
    (first,) = (place / "run" / "samples").glob("fid-*-png")
    content = (first / "00000000.png").read_bytes()
    other_mixture(place)
    save(place)
    (second,) = set((place / "run" / "samples").glob("fid-*-png")) - {first}
    assert (first / "00000000.png").read_bytes() == content
    assert (second / "00000000.png").read_bytes() != content
