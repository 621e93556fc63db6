"""Where commands store their results: RUN/eval/NAME-ADDRESS.json, side by side."""

from pathlib import Path


def result_files(run: Path, name: str) -> list[Path]:
    """The files of a name, the newest last."""
    found = (run / "eval").glob(f"{name}-{'[0-9a-f]' * 16}.json")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def result_file(run: Path, name: str) -> Path:
    """The newest file of a name."""
    return result_files(run, name)[-1]
