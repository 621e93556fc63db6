"""The report's main sections as Markdown, to be kept beside the code."""

from data_shards.io.tables import Table
from eval.report.document import Page

_KEPT = ("ranking", "confirmation", "early", "stopped")


def to_markdown(page: Page) -> str:
    """Ranking, best against default, early against final, and stopped trials; the rest stays in the page."""
    parts = [f"# {page.title}", *page.lead]
    for section in page.sections:
        if section.key in _KEPT:
            parts += [f"## {section.title}", *section.text, *(_table(table) for table in section.tables)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [table.head, ("---",) * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
