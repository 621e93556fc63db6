"""Fixtures that tests of distances between any two sets of images share."""

import pytest
from support.distance_extractor import FOLDER_SIZE
from support.picture_folders import pictures, write_pictures
from support.standin_inception import write_standin


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two folders of colour images of several sizes and file formats."""
    root = tmp_path_factory.mktemp("sets")
    a = [*pictures(FOLDER_SIZE // 2, 0), *pictures(FOLDER_SIZE - FOLDER_SIZE // 2, 1, side=(50, 30))]
    write_pictures(root / "a", a)
    write_pictures(root / "a" / "more", pictures(6, 2, side=(64, 64)), extension="jpg")
    write_pictures(root / "b", pictures(FOLDER_SIZE, 3, top=180))
    write_standin(root / "inception-2015-12-05.pt")
    return root


@pytest.fixture
def distance(run_eval):
    """The Frechet distance between two sets by the command, with the lines that it printed."""

    def run(*words):
        code, printed = run_eval("fid", *words)
        assert code == 0, printed.err
        line = next(line for line in printed.out.splitlines() if line.startswith("frechet distance "))
        return float(line.split()[2]), printed.out

    return run


@pytest.fixture
def mistake(run_eval):
    """The one line of a command that ends with exit code 2."""

    def run(*words):
        code, printed = run_eval(*words)
        assert code == 2, printed.out
        (line,) = [line for line in printed.err.splitlines() if " of " not in line or line.startswith("error")]
        return line

    return run
