"""Pages in headless Chromium: what axe-core finds in them, how wide they are, and what they are in print."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

AXE = "axe-core@4.10.3"
_SCHEMES = {"dark": 0, "light": 1}
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# The page lies in frames, as a window of Chromium is never narrower than 500 pixels.
_FRAME = '<iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe>'
_COLLECT = """<script>
const look = setInterval(() => {
  const found = Array.from(frames, frame => frame.document.documentElement?.dataset.found)
  if (found.every(one => one)) {
    document.documentElement.dataset.found = JSON.stringify(found.map(one => JSON.parse(one)))
    clearInterval(look)
  }
}, 100)
</script>"""
_RUN = """<script>
axe.run(document, {runOnly: {type: 'tag', values: RULES}}).then(found => {
  document.documentElement.dataset.found = JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth,
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    violations: found.violations.map(one => `${one.id}: ${one.nodes[0].html} ${one.nodes[0].failureSummary}`)
  })
})
</script>"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A page as a browser shows it."""

    width: int
    """Of the window, in CSS pixels."""
    scroll: int
    """Of the content; more than the window where the page scrolls sideways."""
    dark: bool
    violations: list[str]
    """What axe-core finds wrong, a line a rule."""


class Browser:
    """Chromium with axe-core. folder: where files may be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for program in ("chromium", "npm"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        packed = subprocess.run(["npm", "pack", AXE], cwd=folder, capture_output=True, text=True, check=False)
        if packed.returncode != 0:
            pytest.skip(f"npm does not give {AXE}")
        subprocess.run(["tar", "xzf", packed.stdout.split()[-1]], cwd=folder, check=True)
        # The first closing tag in the source would end the element that it is put into.
        self._axe = (folder / "package" / "axe.min.js").read_text().replace("</script", "<\\/script")

    def see(self, page: str, *, widths: Sequence[int], scheme: str) -> list[Seen]:
        """A page in windows of these widths in CSS pixels. scheme: light or dark."""
        script = f"<script>{self._axe}</script>{_RUN.replace('RULES', json.dumps(_RULES))}</body>"
        (self._folder / "page.html").write_text(page.replace("</body>", script))
        frames = "".join(_FRAME.format(width=width) for width in widths)
        (self._folder / "frame.html").write_text(f"<body>{frames}{_COLLECT}</body>")
        options = ("--allow-file-access-from-files", "--window-size=1400,1000", "--virtual-time-budget=60000")
        scheme_option = f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}"
        shown = self._chromium(*options, scheme_option, "--dump-dom", name="frame.html")
        found = re.search(r'data-found="([^"]*)"', shown)
        assert found is not None, shown[:2000]
        return [Seen(**one) for one in json.loads(html.unescape(found[1]))]

    def print(self, page: str) -> bytes:
        """The page as a PDF file."""
        (self._folder / "page.html").write_text(page)
        self._chromium("--no-pdf-header-footer", f"--print-to-pdf={self._folder / 'page.pdf'}", name="page.html")
        return (self._folder / "page.pdf").read_bytes()

    def _chromium(self, *options: str, name: str) -> str:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *options, f"file://{self._folder / name}"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
