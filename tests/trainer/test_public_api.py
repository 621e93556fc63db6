"""What `import trainer` offers, and in which order its rooms import each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.running import ROOT

import trainer

# From the top; each imports only from those below it.
ROOMS = (
    ("__main__",),
    ("loop", "dry_run"),
    ("mixture", "flow"),
    ("updates",),
    ("engines",),
    ("run_folder",),
    ("objectives",),
    ("networks",),
    ("config",),
    ("process_group", "noise", "preemption"),
)


def test_the_public_names_are_functions_and_classes_of_the_rooms():
    from trainer.config.config import Config, load_config
    from trainer.loop import train

    assert trainer.__all__ == ["Config", "load_config", "train"]
    assert (trainer.Config, trainer.load_config, trainer.train) == (Config, load_config, train)
    with pytest.raises(AttributeError, match="nothing"):
        _ = trainer.nothing


def test_importing_the_package_loads_neither_torch_nor_a_room():
    code = "import sys, trainer; print([m for m in sys.modules if m == 'torch' or m.startswith('trainer.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def imported_rooms(path: Path) -> set[str]:
    """The rooms of the trainer that a module imports, at its top or inside a function."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom | ast.Import)]
    names = [node.module or "" for node in found if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in found if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("trainer.")}


def test_no_room_imports_from_one_above_it():
    level = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    upward = [
        (str(path), room)
        for path in sorted((ROOT / "trainer").rglob("*.py"))
        if (own := path.relative_to(ROOT / "trainer").parts[0].removesuffix(".py")) != "__init__"
        for room in imported_rooms(path)
        if room != own and level[room] <= level[own]
    ]
    assert upward == []
