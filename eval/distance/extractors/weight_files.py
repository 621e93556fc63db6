"""Weight files of extractors: from a path that is given, or downloaded once into the shared cache."""

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from data_shards.io import atomic
from data_shards.io.disk import cache_folder
from data_shards.io.errors import InputError
from data_shards.io.locks import locked


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A published weight file."""

    url: str
    """Where it is published."""
    sha256: str
    """Its digest, or the first digits of it where no more is published."""

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rsplit("/", 1)[1]


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def given_or_downloaded(path: str, published: WeightFile) -> Path:
    """The file at `path` where one is given, else the published one from the cache, downloaded if it is not there.

    A given file may hold any weights; a downloaded one has the published digest or is refused. Processes that start
    together download once. Raises InputError where there is no such file or it cannot be downloaded.
    """
    if path:
        if not Path(path).is_file():
            raise InputError(f"{path} is no file; give the path of {published.name}", parameter="extractor_weights")
        return Path(path)
    kept = cache_folder("weights") / published.name
    with locked(kept):
        if not kept.exists():
            _download(published, kept)
    return kept


def _download(published: WeightFile, kept: Path) -> None:
    try:
        with urllib.request.urlopen(published.url, timeout=60) as response:
            content = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"{published.url}: cannot be downloaded ({error}); download {published.name} elsewhere and give its path, "
            f"or put it at {kept}, or use the extractor efficientnet-lite0",
            parameter="extractor_weights",
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(published.sha256):
        raise InputError(f"{published.url}: has SHA-256 {digest} instead of {published.sha256}; it is another file")
    atomic.write_bytes(kept, content)
