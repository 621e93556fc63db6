"""What a distance between feature distributions depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.protocol import Protocol

SUFFICIENT = 10_000
"""Images on the smaller side below which a Frechet distance is marked: it falls as n grows, so it is not comparable."""


@dataclass(frozen=True, kw_only=True)
class DistanceProtocol(Protocol):
    """`split` is the reference's split; `n` is the number of images that are compared with it."""

    source: str
    """Where those n come from: q_hat, prior, reconstruction, train, or half of the reference."""
    latents: str
    """How each was generated, in words; empty for real images."""
    mixture: str = ""
    """The density sampled, as COMPONENTS-COVARIANCE; empty where none is."""
    mixture_sha256: str = ""
    """Digest of its parameters."""
    n_reference: int
    """Number of real images on the other side."""
    extractor: Mapping[str, Any]
    """The description of the extractor: name, mode, input size, resizer, digest of the weights."""
    channels: str
    """How images of C channels became the three that extractors take."""
    quantisation: str = "rounded to 8 bits"
    """What generated pixels went through, as real ones did."""
