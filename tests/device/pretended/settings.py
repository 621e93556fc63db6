"""Settings of the process under which a real GPU refuses some of its work: waits, and kernels without an order."""

import functools
import os

import torch
from device.pretended.counts import place

_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"}
# Of the operations for which torch has no deterministic kernel on CUDA, those that networks or mixtures might use.
_WITHOUT_ORDER = {
    "cumsum",
    "histc",
    "kthvalue",
    "put_",
    "_adaptive_avg_pool2d_backward",
    "avg_pool3d_backward",
    "max_pool3d_with_indices_backward",
    "grid_sampler_2d_backward",
    "reflection_pad1d_backward",
    "replication_pad2d_backward",
    "upsample_bicubic2d_backward",
}
_FIXED = (":4096:8", ":16:8")
_mode = ["default"]


def set_sync_debug_mode(mode: str) -> None:
    """torch.cuda.set_sync_debug_mode."""
    _mode[0] = mode


def refuse_wait(reason: str) -> None:
    """Raises where torch was told to raise at each wait."""
    if _mode[0] == "error":
        raise RuntimeError(f"called a synchronizing CUDA operation ({reason}, at {place()})")


def refuse_without_order(name: str) -> None:
    """Raises where deterministic kernels are wanted, and the operation of this name has none."""
    if name in _PRODUCTS:
        fixed = _products_are_fixed()
        if torch.are_deterministic_algorithms_enabled() and not fixed:
            raise RuntimeError(f"deterministic behavior was enabled, but CuBLAS's workspace is not set, at {place()}")
    if name in _WITHOUT_ORDER and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f"{name} does not have a deterministic implementation, at {place()}")


@functools.cache
def _products_are_fixed() -> bool:
    """As torch looks at the environment: once, at the first product, whether or not it matters then."""
    return os.environ.get("CUBLAS_WORKSPACE_CONFIG") in _FIXED
