"""What a report page is made of, and how it becomes one file that carries everything in itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from eval.printed_results import Remark
from eval.report.tables import Table

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One key number."""

    value: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture with what it shows."""

    source: str
    """The picture as an address that carries it, see `eval.report.pictures.inline`."""
    caption: str
    pixels: bool = False
    """True where every pixel is to stay sharp when enlarged."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that has not been measured yet."""

    what: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Details:
    """Long text that opens on demand, such as a protocol."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading with what stands below it."""

    key: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Drawing] = ()
    remarks: Sequence[Remark] = ()
    missing: Sequence[Missing] = ()
    protocols: Sequence[Details] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole report."""

    title: str
    lead: Sequence[str]
    cards: Sequence[Card]
    sections: Sequence[Section] = field(default_factory=tuple)

    def html(self) -> str:
        """The page as one file without outside references. All text is escaped."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            trim_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        return environment.get_template("report.html").render(vars(self))
