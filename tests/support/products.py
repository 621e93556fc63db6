"""The products of matrices that a piece of work makes, with the precision that the process has during each."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What torch.matmul, cdist and einsum become; in inference mode the first two come as they are.
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv", "dot"}
PRODUCTS |= {"matmul", "cdist", "_cdist_forward", "_euclidean_dist"}


class Products(TorchDispatchMode):
    """Within it, counts products by number format, and keeps those that are not in full precision."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[torch.dtype, int] = {}
        self.lowered: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in PRODUCTS:
            dtype = next(value.dtype for value in args if isinstance(value, torch.Tensor))
            self.counts[dtype] = self.counts.get(dtype, 0) + 1
            backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
            full = {backend.fp32_precision for backend in backends} <= {"none", "ieee"}
            if dtype != torch.float64 and not (dtype == torch.float32 and full):
                self.lowered.append(f"{name} of {dtype}")
        return func(*args, **(kwargs or {}))
