"""What a page is made of, and its two writers: one HTML file that contains everything, and Markdown."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from data_shards.io.tables import Table
from eval.report.printed_results import Remark

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One key number."""

    value: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG or SVG file and what it shows."""

    data: bytes
    """The file."""
    caption: str
    name: str = ""
    """File name without its ending, for pages that refer to files; empty where only HTML shows the picture."""
    pixels: bool = False
    """True where every pixel is to stay sharp when enlarged."""

    @property
    def source(self) -> str:
        """The picture as an address that contains it."""
        kind = "png" if self.data.startswith(b"\x89PNG") else "svg+xml"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that has not been measured yet."""

    what: str
    command: str
    """The command that measures it."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """Long text that opens on demand, such as a protocol."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One heading with what stands below it, in the order of the fields."""

    key: str
    """Anchor of the heading."""
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    remarks: Sequence[Remark] = ()
    missing: Sequence[Missing] = ()
    details: Sequence[Details] = ()

    def to_markdown(self, level: int, pictures: str | None) -> str:
        """The section under a heading of `level` (1 is the largest); details are left out.

        pictures: address of the folder of the named pictures, seen from the page; None leaves pictures out.
        """
        parts = [f"{'#' * level} {self.title}", *self.text, *(table.to_markdown() for table in self.tables)]
        for picture in self.pictures if pictures is not None else ():
            parts.append(f"![{picture.caption}]({pictures}/{picture.name}.png)\n\n*{picture.caption}*")
        parts += [f"*{remark.title}.* {remark.text}" for remark in self.remarks]
        parts += [f"- {missing.what}" for missing in self.missing]
        return "\n\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page."""

    title: str
    lead: Sequence[str]
    """Paragraphs above the sections."""
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = ()

    def html(self) -> str:
        """The page as one file without outside references. All text is escaped."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            trim_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        return environment.get_template("report.html").render(vars(self))

    def to_markdown(self, *, level: int = 1, pictures: str | None = None) -> str:
        """The page in Markdown, ending with a newline; see `Section.to_markdown`. Cards are left out."""
        parts = [f"{'#' * level} {self.title}", *self.lead]
        return "\n\n".join([*parts, *(section.to_markdown(level + 1, pictures) for section in self.sections)]) + "\n"
