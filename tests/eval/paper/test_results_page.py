"""RESULTS.md: the paper's decided claims in one table above the chapters, each claim in one place."""

from support.evidence_cases import LABEL, distance, evidence, plan

from eval.commands.reproduce import BY_WEIGHT
from eval.paper.pages import Chapter, write_results
from eval.report.printed_results import DATASETS

Q_HAT, PRIOR = f"fid q_hat {LABEL} final", "fid prior final"


def written(tmp_path, **seeds):
    """RESULTS.md of data sets whose methods were measured with so many seeds."""
    chapters = []
    for dataset, count in seeds.items():
        made = plan(dataset=dataset.replace("_", "-"))
        values = {"ours": 500.0, "VAE": 700.0, "WAE": 900.0}
        known = {
            (method, seed): {Q_HAT: distance(value + seed), PRIOR: distance(value + 300 + seed, "prior")}
            for method, value in values.items()
            for seed in range(count)
        }
        pictures = tmp_path / "measured" / dataset
        chapters.append(Chapter(evidence=evidence(made, known), exhibits={}, missing=[], pictures=pictures))
    write_results(tmp_path / "RESULTS.md", chapters, "python -m eval reproduce all", "1234")
    return (tmp_path / "RESULTS.md").read_text()


def test_one_table_of_the_papers_claims_stands_above_the_chapters(tmp_path):
    text = written(tmp_path, fashion_mnist=3, mnist=1)
    head, first, *_ = text.split("\n## ")[1:]
    assert head.startswith("The paper's claims\n\nFashion-MNIST: 4 claims of the paper are decided, of which 4 agree.")
    assert "| claim | data set | paper | ours | agrees | seeds |" in head
    assert head.count("| Fashion-MNIST |") == 4
    assert "| MNIST |" not in head
    assert "4 further claims rest on fewer than three seeds" in head
    assert first.startswith("Fashion-MNIST\n")


def test_a_claim_that_is_not_decided_stands_in_its_chapter_and_only_there(tmp_path):
    _, fashion, mnist = written(tmp_path, fashion_mnist=3, mnist=1).split("\n## ")[1:]
    assert "smallest distance of all methods" not in fashion
    assert "| one seed | 1 |" in mnist
    assert "smallest distance of all methods" in mnist


def test_every_data_set_has_a_chapter_and_that_of_few_digits_is_the_last():
    assert set(BY_WEIGHT) == set(DATASETS)
    assert (BY_WEIGHT[0], BY_WEIGHT[-1]) == ("fashion-mnist", "mnist")
