"""What a page is made of, and its two writers: one HTML file that contains everything, and Markdown."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup, escape

from data_shards.io.tables import Table
from data_shards.io.text import in_utf8
from eval.report.printed_results import Remark

_TEMPLATES = Path(__file__).parent / "templates"
_LONG, _WORDS = 34, 12


@dataclass(frozen=True, kw_only=True)
class Card:
    """One key number."""

    value: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One number on the scale of an answer, drawn as a bar."""

    title: str
    value: str
    """As text."""
    part: float
    """Length of its bar, 0 to 1."""
    best: bool = False
    """Whether it is the answer."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a page found, above everything else: a number, what it means, and a scale to read it on."""

    number: str
    meaning: str
    """What the number is, beginning in lower case."""
    scale: Sequence[Mark] = ()
    caption: str = ""
    """What the scale shows."""
    text: Sequence[str] = ()
    """How sure it is."""


class Scale(NamedTuple):
    """The values that a map draws darkest and brightest."""

    darkest: float
    brightest: float


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
    scale: Scale | None = None
    """Of the maps in it, drawn below as a colour bar; None where it has none."""

    @property
    def is_svg(self) -> bool:
        """Whether it is a drawing and no photograph."""
        return not self.data.startswith(b"\x89PNG")

    @property
    def kind(self) -> str:
        """How a page treats it: pixels; chart, which is drawn on nothing; or paper, on white."""
        return "pixels" if self.pixels else "chart" if self.is_svg else "paper"

    @property
    def alt(self) -> str:
        """Its first sentence, for readers who do not see it."""
        return re.split(r"(?<=\.) ", self.caption, maxsplit=1)[0]

    @property
    def source(self) -> str:
        """The picture as an address that contains it."""
        kind = "svg+xml" if self.is_svg else "png"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that has not been measured yet."""

    what: str
    command: str
    """The command that measures it."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """Long text that opens on demand, and in print, such as a protocol."""

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
            parts.append(f"![{picture.alt}]({pictures}/{picture.name}.png)\n\n*{picture.caption}*")
        parts += [f"*{remark.title}.* {remark.text}" for remark in self.remarks]
        parts += [f"- {missing.what}" for missing in self.missing]
        return "\n\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page."""

    title: str
    lead: Sequence[str]
    """Paragraphs above the sections; they may have words in backticks, as all text on a page but titles."""
    answer: Answer | None = None
    """What stands above them; left out of Markdown, as cards are."""
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
        environment.filters |= {"marked": _marked, "kind": _kind}
        return in_utf8(environment.get_template("report.html").render(vars(self)))

    def to_markdown(self, *, level: int = 1, pictures: str | None = None) -> str:
        """The page in Markdown, ending with a newline; see `Section.to_markdown`."""
        parts = [f"{'#' * level} {self.title}", *self.lead]
        sections = (section.to_markdown(level + 1, pictures) for section in self.sections)
        return in_utf8("\n\n".join([*parts, *sections]) + "\n")


def _marked(text: str) -> Markup:
    """Text as HTML, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _kind(cell: str) -> str:
    """How a cell of a table is broken into lines: one that is short, as a number is, stays in one, and of several
    numbers (A / B) each is one."""
    parts = cell.split(" / ")
    if len(parts) > 1 and max(map(len, parts)) <= _LONG // 2:
        return "words"
    return "long" if len(cell) > _LONG else "words" if len(cell) > _WORDS else "number"
