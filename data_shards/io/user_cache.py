"""Where re-downloadable and recomputable files are kept, shared by all runs of a user."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Folder `name` of the user's cache, made where it is missing.

    The cache is $SIGMA_VAE_CACHE, else sigma-vae under $XDG_CACHE_HOME or ~/.cache.
    """
    root = os.environ.get("SIGMA_VAE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sigma-vae"
    folder = Path(root).expanduser() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
