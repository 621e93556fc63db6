"""The scores of a set's images, measured or read from the table that was written for the same question."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eval.export.output_file import OutputFile
from eval.export.own_images import names_of
from eval.export.scores import COLUMNS, Scoring, from_csv, score_question, scores, to_csv
from eval.image_sets.image_set import ImageSet
from eval.image_sets.remarks import remarks_of
from eval.measured_once import held_result
from eval.protocol import fingerprint
from eval.run import MeasuredRun
from trainer.process_group import Ranks


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The scores of a set."""

    table: Tensor
    """See `eval.export.scores.scores`; without rows on other processes than the first where it was read."""
    remarks: list[str]
    """What was decided about the images."""
    address: str
    """Of everything that the scores depend on."""
    made_before: bool
    """Whether they were read."""


def score_table(
    run: MeasuredRun,
    images: ImageSet,
    scoring: Scoring,
    ranks: Ranks,
    *,
    skip_bad: int,
    out: Path | None,
    steal: bool = False,
) -> ScoreTable:
    """The scores of a set made by the run's recipe. Every process calls it.

    skip_bad: unreadable images that are left out before the set is refused; out: the table, which is written, or read
    where it is of the same question; steal: takes it from another job. Raises InputError where it is of another one.
    """
    question = score_question(run, images, scoring)
    address = fingerprint(question)

    def measured() -> ScoreTable:
        table = scores(run, images, scoring, ranks)
        remarks = remarks_of(images, ranks, skip_bad=skip_bad)
        return ScoreTable(table=table, remarks=remarks, address=address, made_before=False)

    if out is None:
        return measured()
    file = OutputFile(path=out, question=question)

    def before() -> ScoreTable | None:
        known = ranks.agree(lambda: file.made_before() if ranks.is_main else None)
        if not ranks.any(known is not None and known["left_out"] <= skip_bad):
            return None
        table = torch.zeros(0, len(COLUMNS)) if known is None else from_csv(out.read_text(encoding="utf-8"))
        remarks = [] if known is None else known["remarks"]
        return ScoreTable(table=table, remarks=remarks, address=address, made_before=True)

    with held_result(out, ranks, before, question=question, steal=steal) as place:
        if place.found is not None:
            return place.found
        found = measured()

        def write() -> None:
            if place.lease is not None:
                place.lease.check()
                left_out = int(found.table[:, 0].isnan().sum())
                file.write(to_csv(names_of(images), found.table), {"left_out": left_out, "remarks": found.remarks})

        ranks.agree(write)
    return found
