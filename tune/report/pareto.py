"""The cost-quality front: trials that no other beats in quality at the same or a lower cost."""

from collections.abc import Sequence

from tune.report.ranking import OBJECTIVES, Record, values


def front(records: Sequence[Record], objective: str, phase: str = "search") -> list[Record]:
    """The finished trials on the front, cheapest first; cost is seconds of training."""
    field, sign = OBJECTIVES[objective]
    known = [
        r
        for r in records
        if r["phase"] == phase and r["status"] == "finished" and values([r], field) and values([r], "seconds")
    ]
    found: list[Record] = []
    for record in sorted(known, key=lambda r: (r["seconds"], -sign * r[field], r["trial"])):
        if not found or sign * record[field] > sign * found[-1][field]:
            found.append(record)
    return found
