"""The class of an image, where its folder names one, is kept in the index of its shard."""

import json

from support.folder_builds import build, write_image

from data_shards import Manifest
from data_shards.build.split import split_shards
from data_shards.shard_index import ShardIndex, parse_index
from data_shards.sources.folder import label_of
from data_shards.sources.portion import Portion


def labels(folder, split):
    """Label by key."""
    found = {}
    for shard in Manifest.load(folder).shards_of(split):
        index = parse_index((folder / shard.index_name).read_bytes(), shard=shard.name, sha256=shard.index_sha256)
        found.update(zip(index.keys, index.labels, strict=True))
    return found


def test_the_class_folder_of_each_image_is_in_the_index_and_stays_when_shards_are_divided(tmp_path):
    for number in range(40):
        write_image(tmp_path / "source" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    build(tmp_path / "source", tmp_path / "out", valid=0, test=0)
    before = labels(tmp_path / "out", "train")
    assert before == {key: key.split("/")[0] for key in before}
    split_shards(tmp_path / "out", {"valid": Portion(images=8)})
    assert labels(tmp_path / "out", "train") | labels(tmp_path / "out", "valid") == before


def test_folders_of_splits_are_no_part_of_a_label():
    names = ["train/cat/1.png", "cat/train/1.png", "a/b/1.png", "1.png", "train/1.png", "bad\udcff/1.png"]
    assert [label_of(name) for name in names] == ["cat", "cat", "a/b", "", "", "bad\\xff"]


def test_images_without_folders_have_no_labels_in_the_index(tmp_path):
    for number in range(5):
        write_image(tmp_path / "source" / f"{number}.png", number)
    manifest = build(tmp_path / "source", tmp_path / "out")
    record = json.loads((tmp_path / "out" / manifest.shards[0].index_name).read_text())
    assert "label" not in record["members"]
    assert ShardIndex.from_json(record, shard="x").labels is None
