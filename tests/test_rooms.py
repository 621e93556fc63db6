"""Imports run one way: between the packages, and between the rooms of each package (CONTRIBUTING.md, "The rooms")."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.running import ROOT

PACKAGES = ("tune", "eval", "trainer", "data_shards")
# From the top: a room imports only from itself and from rooms of the lines below its own.
ROOMS = {
    "data_shards": [
        {"__init__", "__main__"},
        {"inspect"},
        {"build"},
        {"stream"},
        {"storage", "sources"},
        {"shard_index"},
        {"manifest", "checksum"},
        {"pixels"},
        {"decoding"},
        {"io"},
    ],
    "trainer": [
        {"__init__", "__main__"},
        {"loop"},
        {"mixture", "flow"},
        {"dry_run", "launch"},
        {"updates"},
        {"engines"},
        {"run_folder"},
        {"roofline"},
        {"trial_batch"},
        {"objectives"},
        {"networks"},
        {"config"},
        {"group_command"},
        {"waiting"},
        {"preemption"},
        {"process_group", "noise", "stop_signals"},
        {"peers"},
        {"device", "full_precision"},
    ],
    "eval": [
        {"__init__", "__main__"},
        {"commands"},
        {"trained_run", "paper", "export"},
        {"report"},
        {"distance", "measurements"},
        {"image_sets"},
        {"residuals"},
        {"images"},
        {"run"},
        {"measured_once"},
        {"results", "questions"},
        {"calibration"},
        {"protocol"},
    ],
    "tune": [
        {"__init__", "__main__"},
        {"sweep"},
        {"report", "terminal"},
        {"history", "settings", "checks", "resources", "ray_cluster"},
        {"trial"},
        {"search"},
        {"sweep_config"},
        {"space"},
    ],
}
SOURCES = {path: ast.parse(path.read_text()) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(tree: ast.Module) -> Iterator[tuple[str, ...]]:
    """The dotted names that a module imports, as parts; those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(name.name.split(".")) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((*node.module.split("."), name.name) for name in node.names)


def room(path: Path) -> str:
    """The folder, or the file, directly below the package."""
    inside = path.relative_to(ROOT).parts[1]
    return inside.removesuffix(".py")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_downwards(package):
    below = PACKAGES[PACKAGES.index(package) :]
    level = {name: place for place, names in enumerate(ROOMS[package]) for name in names}
    wrong = []
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != package:
            continue
        assert room(path) in level, f"{room(path)} has no place in the order of {package}'s rooms"
        for parts in imported(SOURCES[path]):
            up = parts[0] in PACKAGES and parts[0] not in below
            if parts[0] == package and len(parts) > 1 and parts[1] in level and parts[1] != room(path):
                up = level[parts[1]] <= level[room(path)]
            if up:
                wrong.append(f"{path.relative_to(ROOT)} imports {'.'.join(parts)}")
    assert wrong == []


def test_no_module_is_longer_than_400_lines():
    assert [path for path in SOURCES if len(path.read_text().splitlines()) > 400] == []
