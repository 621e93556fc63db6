"""Pages in headless Chromium: wide and narrow, light, dark and in print, without a fault that axe-core knows.

Skipped with one line where Chromium or npm is not installed.
"""

import re
import zlib

import pytest
import torch
from support.browser import Browser

from data_shards.io.tables import Table
from eval.commands.reproduce import known_chapter
from eval.paper.plan import read_plan
from eval.paper.record import KEPT
from eval.paper.tables import EXHIBITS
from eval.report.charts import figure, svg
from eval.report.document import Answer, Card, Details, Mark, Missing, Page, Picture, Scale, Section
from eval.report.gallery import grid, png
from eval.report.printed_results import REMARKS


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("browser"))


def everything() -> Page:
    """A page that has all that a page may have."""
    with figure() as (made, axes):
        axes.plot([0, 1], [0, 1], label="a line")
        axes.legend()
        drawn = svg(made)
    images = png(grid([torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8)], enlarge=4))
    long = "a sentence of some length that stands in a cell of a table and has `a command` in it, as claims do"
    wide = Table(
        head=("claim", "paper", "ours", "agrees", "seeds"),
        rows=[(long, "8.9; next 74.9 (VAE)", f"{long}, {long}", "not settled", "3")] * 3,
        caption="Claims",
    )
    numbers = Table(head=("", *(f"column {i}" for i in range(14))), rows=[("a row", *["1,234.5 ± 6.7"] * 14)])
    return Page(
        title="everything: a page",
        answer=Answer(
            number="FD 408.9",
            meaning="is the best distance reached.",
            scale=[
                Mark(title="real images", value="34.1", part=0.03),
                Mark(title="samples", value="408.9", part=0.3, best=True),
            ],
            caption="FD; lower is better",
            text=["One training."],
        ),
        lead=["Written by `python -m eval reproduce` from <measurements>."],
        cards=[Card(value="95.5%", title="of pixels")],
        sections=[
            Section(key="tables", title="Tables", text=["Words.", "More words."], tables=[wide, numbers]),
            Section(
                key="pictures",
                title="Pictures",
                pictures=[
                    Picture(data=drawn, caption="A chart. It has a line."),
                    Picture(data=images, caption="Maps.", pixels=True, scale=Scale(0.0, 0.4)),
                ],
                remarks=list(REMARKS.values()),
                missing=[Missing(what="Not measured.", command="python -m eval fid --run " + "a/long/path/" * 12)],
                details=[Details(title="How it was measured", text='split: test\nextractor: {"name": "x"}')],
            ),
        ],
    )


def the_paper() -> Page:
    """The paper's tables on Fashion-MNIST, from what is kept."""
    return known_chapter(read_plan("fashion-mnist"), EXHIBITS, KEPT, {}).page("python -m eval reproduce all")


@pytest.fixture(scope="module")
def pages():
    return {"everything": everything().html(), "the paper": the_paper().html()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["everything", "the paper"])
def test_a_page_fits_its_window_and_axe_finds_nothing_wrong(browser, pages, name, scheme):
    narrow, wide = browser.see(pages[name], widths=(390, 1280), scheme=scheme)
    assert narrow.violations == wide.violations == []
    assert narrow.dark == wide.dark == (scheme == "dark")
    assert (narrow.width, wide.width) == (390, 1280)
    assert narrow.scroll <= 390
    assert wide.scroll <= 1280


def test_no_table_is_wider_than_a_wide_page(browser, pages):
    # A table lies in a box that scrolls; a table of words should not need it.
    page = pages["the paper"].replace(".scroll { overflow-x: auto;", ".scroll { overflow-x: visible;")
    assert page != pages["the paper"]
    (wide,) = browser.see(page, widths=(1280,), scheme="light")
    assert wide.scroll <= 1280


def test_print_opens_what_is_closed_on_the_screen(browser, pages):
    closed = pages["everything"]
    without = re.sub(r"<details>.*?</details>", "", closed, flags=re.DOTALL)
    # Fonts are embedded as used, so the drawn text is compared by its size.
    assert drawn(browser.print(closed)) > drawn(browser.print(without)) + 100


def drawn(pdf: bytes) -> int:
    """Bytes of all that is drawn on the pages of a PDF file."""
    streams = re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    total = 0
    for stream in streams:
        try:
            content = zlib.decompress(stream)
        except zlib.error:
            continue
        total += len(content) if b" Tf" in content else 0
    return total


def test_words_in_backticks_are_code_and_markup_is_text(pages):
    assert "Written by <code>python -m eval reproduce</code> from &lt;measurements&gt;." in pages["everything"]
    for page in pages.values():
        assert "`" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_every_table_has_a_name_and_its_header_cells_a_scope(pages):
    for page in pages.values():
        assert not re.search(r"<th(?! scope=)[ >]", page)
        assert 'aria-label=""' not in page
        named = re.findall(r'aria-label="[^"]+"><table>|(?<!">)<table>\n<caption>', page)
        assert len(named) == page.count("<table>") > 0
