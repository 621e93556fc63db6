"""How the held-out ELBO goes through the switch to stage 2, of runs that were trained with different settings.

    python tests/benchmarks/stage_switch.py --out FIGURE.png --runs "emoji: before" RUN RUN --runs "emoji: after" RUN

Prints for each group of runs, as mean and range over them, the gain of stage 2, the farthest that the held-out ELBO
falls below the best of the stage so far, in nats and in percent of the gain, and where it ends. Groups whose name has
the same word before the colon are drawn in one panel. For many points train with a small stage2.check_images.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from eval.report.charts import BLUE, MUTED, ORANGE, STYLE, png  # noqa: E402
from trainer.run_folder.log import read_events  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Passage:
    """The held-out ELBO of one run around its switch."""

    images: np.ndarray
    """(N,), counted from the switch; below 0 in stage 1."""
    elbo: np.ndarray
    """(N,), nats per image."""

    @property
    def stage2(self) -> np.ndarray:
        """The ELBOs from the switch on."""
        return self.elbo[self.images >= 0]

    @property
    def gain(self) -> float:
        """The largest of stage 2 less that of its start, in nats per image."""
        return float(self.stage2.max() - self.stage2[0])

    @property
    def fall(self) -> float:
        """The farthest below the largest so far in stage 2, in nats per image."""
        return float((np.maximum.accumulate(self.stage2) - self.stage2).max())


def passage(run: Path) -> Passage:
    """Reads a run's metrics.jsonl."""
    events = read_events(run)
    start = next(event for event in events if event["event"] == "stage_start")
    found = [event for event in events if event["event"] == "valid"]
    first = [(event["images"], event["elbo"]) for event in found if event["stage"] == 1]
    second = [(event["images"], event["elbo"]) for event in found if event["stage"] == 2]
    table = np.array([*first, (start["images"], start["elbo"]), *second])
    inner = np.arange(len(table)) >= len(first)
    # Stage 1 may end with the weights of an earlier image than its last.
    images = np.where(inner, table[:, 0] - start["images"], np.minimum(table[:, 0] - start["images"], -1))
    return Passage(images=images, elbo=table[:, 1])


def report(name: str, runs: list[Passage]) -> None:
    """A line for a group."""

    def spread(values: list[float], digits: int) -> str:
        return f"{np.mean(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"

    gain, fall = spread([run.gain for run in runs], 0), spread([run.fall for run in runs], 1)
    percent = spread([100 * run.fall / run.gain for run in runs], 1)
    end = spread([float(run.elbo[-1]) for run in runs], 1)
    print(f"{name}: stage 2 gains {gain} nats; falls by {fall}, {percent} % of the gain; ends at {end}")


def draw(groups: dict[str, list[Passage]], out: Path) -> None:
    """One panel for each first word, one colour for each second."""
    panels: dict[str, list[str]] = {}
    for name in groups:
        panels.setdefault(name.partition(":")[0], []).append(name)
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(4.4 * len(panels), 3.2), layout="constrained")
        for panel, (title, names) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for name, colour in zip(names, (ORANGE, BLUE), strict=False):
                for number, run in enumerate(groups[name]):
                    seen = run.images > -0.5 * run.images.max()
                    label = name.partition(":")[2].strip() if number == 0 else None
                    panel.plot(run.images[seen], run.elbo[seen], color=colour, linewidth=1.2, alpha=0.8, label=label)
            panel.axvline(0, color=MUTED, linewidth=0.8)
            panel.set(title=title, xlabel="images after the switch", ylabel="held-out ELBO, nats per image")
            panel.legend(loc="lower right")
        out.write_bytes(png(drawn))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the figure, a PNG")
    parser.add_argument("--runs", nargs="+", action="append", required=True, help="PANEL: GROUP and its run folders")
    arguments = parser.parse_args()
    groups = {name: [passage(Path(run)) for run in runs] for name, *runs in arguments.runs}
    for name, runs in groups.items():
        report(name, runs)
    draw(groups, arguments.out)


if __name__ == "__main__":
    main()
