"""Products of matrices in full float32, whatever precision of products the process has set.

TF32 keeps 10 bits of each factor and bfloat16 7. That is enough for networks, but log-densities from packed products
are then off by a nat. Processes turn them on by torch.set_float32_matmul_precision, torch.backends.cuda.matmul,
torch.backends.mkldnn.matmul, TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, or torch.autocast.
"""

import contextlib
import threading
from collections.abc import Iterator

import torch

_SETTINGS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
_FULL = "ieee"


class _Shared:
    """The process's own settings while some of its threads want full precision; they are of all threads."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, list[str]()

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = [setting.fp32_precision for setting in _SETTINGS]
                for setting in _SETTINGS:
                    setting.fp32_precision = _FULL
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for setting, before in zip(_SETTINGS, self._before, strict=True):
                    setting.fp32_precision = "none"
                    # One that follows torch.backends.fp32_precision goes on to follow it.
                    if setting.fp32_precision != before:
                        setting.fp32_precision = before


_SHARED = _Shared()
_WORDS = {"tf32": "high", "bf16": "medium"}


def allowed_precision(device: torch.device) -> tuple[str, str]:
    """(precision of products, of convolutions) that the process allows networks on this device.

    highest: float32; high: TF32; medium: bfloat16; the words of `torch.set_float32_matmul_precision`.
    """
    if device.type == "cuda":
        settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    else:
        settings = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)  # type: ignore[attr-defined]
    products, convolutions = (_WORDS.get(setting.fp32_precision, "highest") for setting in settings)
    return products, convolutions


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Within it, products of float32 matrices are float32 throughout, on CPUs and on GPUs, and autocast is off.

    Also a decorator of functions, though not of generators. The process's settings return at its end, with the last of
    the threads that are in it.
    """
    _SHARED.enter()
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        _SHARED.leave()
