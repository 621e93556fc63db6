"""Pictures of trained weights, from the run folder or from what was kept of it."""

from dataclasses import dataclass
from pathlib import Path

from eval.reproduction.drawings import picture_path
from eval.reproduction.exhibits import Picture
from eval.reproduction.jobs import Training


@dataclass(frozen=True, kw_only=True)
class KeptPictures:
    """Where pictures may lie."""

    runs: Path
    """Folder of the run folders."""
    kept: Path
    """Folder of the pictures of former runs."""

    def of(self, training: Training, name: str, caption: str, *, pixels: bool = True) -> list[Picture]:
        """The picture of that name of a training; empty where it was not drawn."""
        drawn = picture_path(self.runs / training.name, name)
        for path in (drawn, self.kept / drawn.name):
            if path.exists():
                return [Picture(name=path.stem, caption=caption, data=path.read_bytes(), pixels=pixels)]
        return []
