"""Exact search for nearest vectors, the only place that knows faiss."""

import faiss
import torch
from torch import Tensor


class NearestIndex:
    """Vectors (K, D) to search among by Euclidean distance, in float32; on the GPU where the vectors are there."""

    def __init__(self, vectors: Tensor) -> None:
        self._index: faiss.Index = faiss.IndexFlatL2(vectors.shape[1])
        if vectors.is_cuda and faiss.get_num_gpus() > 0:
            device = vectors.device.index or 0
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device, self._index)
        self._index.add(vectors.to("cpu", torch.float32).contiguous().numpy())

    def search(self, x: Tensor, count: int) -> Tensor:
        """Numbers of the `count` vectors nearest to each point x (n, D), nearest first. Returns (n, count) int64."""
        found = self._index.search(x.to("cpu", torch.float32).contiguous().numpy(), count)[1]
        return torch.from_numpy(found).to(x.device)
