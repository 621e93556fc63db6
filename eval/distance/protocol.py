"""What a distance between feature distributions depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.protocol import Protocol


def sufficient(split: str) -> int:
    """Images on each side that a distance from `split` should have: 50,000 for the training split, 10,000 for others.

    A Frechet distance falls as n grows, so one of fewer images is not comparable and is marked.
    """
    return 50_000 if split == "train" else 10_000


@dataclass(frozen=True, kw_only=True)
class DistanceProtocol(Protocol):
    """`split` is the reference's split; `n` is the number of images that are compared with it."""

    source: str
    """Where those n come from: q_hat, transported, prior, flow, reconstruction, train, or half of the reference."""
    latents: str
    """How each was generated, in words; empty for real images."""
    mixture: str = ""
    """The density sampled, as COMPONENTS-COVARIANCE; empty where none is."""
    mixture_digest: str = ""
    """Digest of its parameters; of the transport's too for transported."""
    n_reference: int
    """Number of real images on the other side."""
    extractor: Mapping[str, Any]
    """The description of the extractor: name, mode, input size, resizer, digest of the weights."""
    channels: str
    """How images of C channels became the three that extractors take."""
    quantisation: str = "rounded to 8 bits"
    """What generated pixels went through, as real ones did."""
