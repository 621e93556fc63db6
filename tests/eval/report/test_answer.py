"""A run's page leads with the best number there is, on a scale from real images to samples from the prior."""

import dataclasses

import pytest

from eval.protocol import DistanceProtocol, LikelihoodProtocol
from eval.report.answer import answer
from eval.results import DistanceResult, LikelihoodResult, Measured

SHARED = {"run": "r", "checkpoint": "c", "data": "d", "split": "test", "image_shape": (1, 8, 8)}


def distance(source, value, *, weights="final", n=10_000, extractor="efficientnet-lite0", few=False):
    protocol = DistanceProtocol(
        **SHARED, weights=weights, n=n, source=source, latents="", n_reference=10_000, extractor={"name": extractor},
        channels="",
    )  # fmt: skip
    return DistanceResult(
        label="FD (EfficientNet-Lite0, 64 px)",
        values={"frechet_distance": Measured(value=value, standard_error=None, unit="")},
        also=(),
        below_protocol=few,
        remarks=(),
        protocol=protocol,
    )


MEASURED = [
    distance("prior", 1300.0),
    distance("q_hat", 690.0),
    distance("transported", 400.0),
    distance("transported", 440.0, weights="stage1"),
    distance("train", 100.0),
    distance("q_hat", 3.0, n=500),
    distance("prior", 2.0, extractor="mine:net"),
]


def test_the_smallest_distance_of_what_may_be_compared_is_the_answer_and_lies_on_a_scale():
    found = answer(MEASURED, [])
    assert found.number == "FD 400.0"
    assert [(mark.value, mark.best) for mark in found.scale] == [
        ("100.0", False), ("400.0", True), ("440.0", False), ("690.0", False), ("1,300.0", False)
    ]  # fmt: skip
    assert [mark.part for mark in found.scale] == pytest.approx([100 / 1300, 400 / 1300, 440 / 1300, 690 / 1300, 1])
    assert "75% of the way from the prior to real images" in found.text[0]
    assert "one training" in found.text[-1]


def test_weights_are_named_as_a_reader_says_it():
    titles = [
        mark.title
        for mark in answer([distance("prior", 5.0, weights=w) for w in ("best", "stage1", "final")], []).scale
    ]
    assert [title.split(", ")[1] for title in titles] == ["best on held-out images", "end of stage 1", "final weights"]


def test_few_images_and_a_scale_without_real_images_are_said():
    text = " ".join(answer([distance("q_hat", 5.0, few=True)], []).text)
    assert "What real images have was not measured" in text
    assert "too large" in text


def test_without_distances_the_likelihood_is_the_answer_and_without_anything_that_is_said():
    protocol = LikelihoodProtocol(
        **SHARED, weights="final", n=5, measure="m", variance="one", variance_floor=0.1, importance_samples=2,
        mixture="", mixture_digest="",
    )  # fmt: skip
    likelihood = LikelihoodResult(
        protocol=protocol,
        values={"iwae_prior": Measured(value=12.34, standard_error=0.5, unit="")},
        active_dimensions=2,
        latent_kl=None,
        cap=100.0,
        dataset_variance=0.1,
    )
    assert (
        answer([distance("train", 34.0)], [likelihood]).number.replace("\N{NO-BREAK SPACE}", " ") == "12.3 ± 0.5 nats"
    )
    assert answer([], []).number == "Nothing has been measured yet"


def test_equal_results_of_other_images_are_not_on_the_scale():
    other = dataclasses.replace(MEASURED[0], protocol=dataclasses.replace(MEASURED[0].protocol, split="valid"))
    assert len(answer([*MEASURED, other], []).scale) == 5
