"""What a table or figure of the paper becomes: text, tables and pictures, whatever page shows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.printed_results import Remark
from eval.report.tables import Table


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG file and what it shows."""

    name: str
    """File name without its ending."""
    caption: str
    """What it shows."""
    data: bytes
    """The file."""
    pixels: bool = False
    """True where every pixel is to stay sharp when enlarged."""


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
