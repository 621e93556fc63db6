"""A script on the pretended GPU, in a process that is there for it."""

import runpy

from device.pretended.install import install


def run_script(path: str) -> None:
    """Carries out the script of that file."""
    install()
    runpy.run_path(path)
