"""Numbers over seeds, and the verdicts that follow from them."""

import dataclasses
import math
from pathlib import Path

import pytest
from support.evidence_cases import LABEL, distance, evidence, likelihood, plan

from eval.paper.evidence import Mean, mean_of
from eval.paper.pages import Chapter
from eval.paper.plan import LEARNED, Aims, Variances, Variant, variance_trainings
from eval.paper.tables import effect, exhibits
from eval.paper.verdicts import AGREES, CANNOT, DISAGREES, OPEN, aims, all_below, reaches, verdict_table

Q_HAT = f"fid q_hat {LABEL} final"


def verdicts(known):
    """The rows of the table of verdicts."""
    return verdict_table(known).rows


def verdict(found, words: str) -> str:
    """The verdict on the one claim that has these words."""
    (one,) = [one for one in found if words in one.claim]
    return one.agrees


def table(known, key):
    """The table of an exhibit, filled with what is known."""
    chapter = Chapter(evidence=known, exhibits=exhibits(known.plan, [key]), missing=[], pictures=Path("nowhere"))
    (made,) = chapter.section(key).tables
    return made


def test_the_error_is_the_standard_error_over_seeds():
    number = mean_of([1.0, 2.0, 6.0])
    assert number.value == pytest.approx(3.0)
    assert number.standard_error == pytest.approx(math.sqrt(7.0 / 3))  # sample variance 7, three seeds
    assert number.text(2) == "3.00 ± 1.53 (3)"


def test_a_single_training_is_marked_and_its_error_is_its_own():
    assert mean_of([5.0]).text(1) == "5.0 (1)"
    assert mean_of([5.0], within=0.2).text(1) == "5.0 ± 0.2 (1)"
    assert mean_of([]) is None


def three_seeds(ours, vae):
    methods = {("ours", seed): {Q_HAT: distance(value)} for seed, value in enumerate(ours)}
    methods |= {("VAE", seed): {Q_HAT: distance(value)} for seed, value in enumerate(vae)}
    return methods | {("WAE", seed): {Q_HAT: distance(900.0 + seed)} for seed in range(3)}


@pytest.mark.parametrize(
    ("ours", "vae", "expected"),
    [
        ((500, 502, 504), (700, 702, 704), AGREES),
        ((700, 702, 704), (500, 502, 504), DISAGREES),
        ((500, 560, 620), (540, 600, 660), OPEN),
    ],
)
def test_the_best_distance_follows_from_the_numbers_and_their_errors(ours, vae, expected):
    found = verdicts(evidence(plan(), three_seeds(ours, vae)))
    assert verdict(found, "(per pixel, final) has the smallest distance") == expected


def test_a_method_that_was_not_measured_leaves_the_claim_open():
    results = three_seeds((500, 502, 504), (900, 902, 904))
    found = verdicts(evidence(plan(), {key: known for key, known in results.items() if key[0] != "WAE"}))
    assert verdict(found, "has the smallest distance") == OPEN


def test_what_was_not_measured_is_never_printed_as_a_number():
    made = evidence(plan(), {})
    assert verdicts(made) == []
    for key in ("table2", "table3"):
        assert all(cell in ("not measured", "") for row in table(made, key).rows for cell in _ours(key, row))


def _ours(key, row):
    """The cells of a row that hold our numbers, not the paper's."""
    return row[1:-1] if key == "table2" else (row[1], row[3], *row[5:])


def test_the_papers_numbers_stand_beside_ours():
    known = evidence(plan(), {("VAE", 0): {Q_HAT: distance(412.3)}})
    rows = {row[0]: row for row in table(known, "table2").rows}
    assert rows["VAE"][1] == "412.3 (1)"
    assert rows["VAE"][-1] == "123.8"
    assert rows["real training images"][-1] == "0.7"


def test_a_likelihood_above_the_cap_cannot_be_reached_and_one_below_can():
    key = f"likelihood {LABEL} final"
    high = evidence(plan(seeds=(0,)), {("ours", 0): {key: likelihood(900, 890, cap=1361)}})
    assert verdict(verdicts(high), "a variance a pixel reaches") == CANNOT
    low = evidence(plan(), {("ours", seed): {key: likelihood(900 + seed, 890, cap=6000)} for seed in range(3)})
    assert verdict(verdicts(low), "a variance a pixel reaches") == DISAGREES


def test_the_error_that_a_likelihood_needs_is_that_of_the_best_gaussian():
    key = f"likelihood {LABEL} stage1"
    made = evidence(plan(seeds=(0,)), {("ours", 0): {key: likelihood(700, 690, cap=1200)}})
    (found,) = [one for one in verdicts(made) if "one variance reaches" in one.claim]
    needed = 0.0031
    nats = -784 / 2 * (math.log(2 * math.pi * needed) + 1)
    assert nats == pytest.approx(1157, abs=10)
    assert found.paper == f"1,157 nats, which need a square error of {needed:.4f} or less"


def test_a_gain_in_likelihood_that_rounds_to_nothing_decides_nothing():
    key = f"likelihood {LABEL} final"
    for gain, expected in ((1.0, AGREES), (0.04, OPEN), (-0.04, OPEN), (-1.0, DISAGREES)):
        known = {("VAE", seed): {key: likelihood(-470 - seed + gain, -470 - seed, cap=-449)} for seed in range(3)}
        made = evidence(plan(), known)
        assert verdict(verdicts(made), "raises the likelihood") == expected


def test_single_trainings_of_figure_1_decide_nothing():
    made = plan(sweep=Variances(variances=(0.01, LEARNED), seeds=(0,)))
    known = evidence(
        made, {("ours", seed): {f"fid q_hat {LABEL} stage1": distance(500.0 + 2 * seed)} for seed in range(3)}
    )
    for variance, value in ((0.01, 585.7), (LEARNED, 596.1)):
        record = dataclasses.replace(known.records["ours-seed0"], results={Q_HAT: distance(value)})
        known.records[variance_trainings(made, "sweep", variance)[0].name] = record
    assert verdict(verdicts(known), "smallest distance of all") == "one seed"


@pytest.mark.parametrize(("seeds", "expected"), [(1, "one seed"), (2, "two seeds"), (3, AGREES)])
def test_a_claim_needs_the_error_of_three_seeds(seeds, expected):
    results = {key: known for key, known in three_seeds((500, 502, 504), (700, 702, 704)).items() if key[1] < seeds}
    found = verdicts(evidence(plan(), results))
    assert verdict(found, "(per pixel, final) has the smallest distance") == expected


def test_a_difference_without_a_known_error_is_not_settled():
    known = [Mean(value=value, standard_error=None, unit="", seeds=3) for value in (585.7, 596.1)]
    assert all_below([(known[0], known[1])]) == OPEN
    assert reaches(known[1], 1.0) == OPEN


def number(value, error, seeds):
    return Mean(value=value, standard_error=error, unit="", seeds=seeds)


def test_a_variant_helps_only_beyond_twice_its_error():
    assert effect(number(-10, 4, 3)) == "helps"
    assert effect(number(10, 4, 3)) == "harms"
    assert effect(number(-10, 6, 3)) == "no difference beyond twice its error"
    assert effect(number(-10, None, 1)) == "one seed: no error is known"
    assert effect(number(-10, 1, 2)) == "two seeds: no error is known"


def test_an_aim_is_compared_with_the_best_sampler_of_the_other_library():
    peers = {
        f"pythae VAE {count} seed{seed}": {"model": "VAE", "components": count, "frechet_distance": value + seed}
        for count, value in ((10, 1000.0), (32, 1200.0))
        for seed in range(3)
    }
    made = plan(aims=Aims(distance_of_peers={"VAE": 0.45}))
    for value, expected in ((440.0, AGREES), (460.0, DISAGREES)):
        known = evidence(made, {("ours", seed): {Q_HAT: distance(value + seed)} | peers for seed in range(3)})
        assert verdict(aims(known), "pythae's VAE") == expected


def test_transported_samples_are_also_compared_with_those_of_the_other_library_transported():
    peer = {"model": "VAE", "components": 10, "frechet_distance": 1000.0, "carried_frechet_distance": 500.0}
    variant = Variant(name="moved", meaning="transported", density="transported")
    made = plan(aims=Aims(distance_of_peers={"VAE": 0.45}), variants=(variant,), variant_seeds=(0, 1, 2))
    moved = {f"fid transported {LABEL} final": distance(300.0)}
    peers = {f"pythae VAE 10 seed{seed}": peer for seed in range(3)}
    known = evidence(made, {("ours", seed): {Q_HAT: distance(600.0)} | moved | peers for seed in range(3)})
    plain, other = aims(known)
    assert (plain.agrees, other.agrees) == (DISAGREES, AGREES)
    assert plain.ours.endswith("0.60 times")
    assert other.ours.endswith("0.30 times; against its own, transported, 500.0 ± 0.0: 0.60 times")


def test_a_verdict_names_the_fewest_trainings_behind_its_numbers():
    known = evidence(plan(), {("ours", 0): {Q_HAT: distance(500.0)}, **three_seeds((), (700, 702, 704))})
    made = verdict_table(known)
    (row,) = [row for row in made.rows if "(per pixel, final) has the smallest distance" in row[0]]
    assert dict(zip(made.head, row, strict=True)) == {
        "claim": row[0],
        "paper": "10.6; next 123.8 (VAE)",
        "ours": "500.0; next 702.0 ± 1.2 (VAE)",
        "agrees": "one seed",
        "seeds": "1",
    }
