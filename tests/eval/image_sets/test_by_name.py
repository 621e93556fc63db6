"""Which set of images a word of the command line names."""

import torch
from support.picture_folders import pictures, write_pictures

from data_shards import build_shards
from eval.image_sets.by_name import open_set
from trainer.process_group import single


def test_the_home_folder_is_meant_after_shards_too(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "images", pictures(4, 0))
    build_shards("folder", tmp_path / "shards", source=folder, size=8, valid=1, test=0)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_set("shards:~/shards/train", single(torch.device("cpu"))).n == 3
