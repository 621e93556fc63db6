"""What a pretended GPU was asked to do, counted by the function of the project that asked."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_PACKAGES = tuple(f"{ROOT / name}/" for name in ("trainer", "eval", "data_shards", "tune"))


@dataclass
class Counts:
    """Counters by (what, place); `place` is a function of the project, or `backward`."""

    launches: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Kernels that were launched, by operation; one for each operation that computes."""
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Times that the host waited for the GPU, by the reason."""
    pageable: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Copies between the GPU and memory of the host that is not pinned."""
    copies: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Copies between the GPU and pinned memory of the host."""
    collectives: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Sums and broadcasts over the processes."""

    def clear(self) -> None:
        """Counts anew."""
        for counter in vars(self).values():
            counter.clear()

    def table(self) -> dict[str, list[tuple[str, str, int]]]:
        """All counters as lists of (what, place, times)."""
        return {name: [(*key, times) for key, times in sorted(counter.items())] for name, counter in vars(self).items()}


COUNTS = Counts()


def place() -> str:
    """The innermost function of the project that is running, as `trainer/loop.py Training._train`."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PACKAGES):
            return f"{code.co_filename[len(str(ROOT)) + 1 :]} {code.co_qualname}"
        if code.co_name == "_engine_run_backward":
            return "backward"
        frame = frame.f_back  # type: ignore[assignment]
    return "backward"  # a thread of autograd has no caller


def runs_in(files: tuple[str, ...]) -> bool:
    """Whether a function of one of these files of the project is running."""
    paths, frame = {str(ROOT / file) for file in files}, sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename in paths:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
