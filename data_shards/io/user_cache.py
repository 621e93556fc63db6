"""Where files that can be had again are kept on this machine."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$SIGMA_VAE_CACHE, else sigma-vae under $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("SIGMA_VAE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sigma-vae"
