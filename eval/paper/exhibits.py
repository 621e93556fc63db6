"""What a table or figure of the paper becomes: text, tables and pictures, whatever page shows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_shards.io.tables import Table
from eval.printed_results import Remark
from eval.report.document import Picture


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One table or figure."""

    key: str
    """As on the command line."""
    title: str
    text: Sequence[str] = ()
    """What must be known to read it."""
    shared: Sequence[str] = ()
    """The same for several exhibits; a page that shows them together says it once."""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    remarks: Sequence[Remark] = ()
