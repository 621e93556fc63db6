"""Images on disk: what cannot be written is told by its own name."""

import resource

import pytest
import torch

from data_shards.io.errors import MachineFault
from eval.images.files import write_pngs, write_tars


@pytest.mark.parametrize("write", [write_pngs, write_tars])
def test_a_file_of_images_that_cannot_be_written_is_named(tmp_path, write):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(MachineFault, match=rf"^{tmp_path}/00000007\.(png|tar): the file would be larger"):
            list(write(iter([(torch.tensor([7]), images)]), tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
