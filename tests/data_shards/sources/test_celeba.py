"""CelebA as it is found: other layouts, other encodings of its texts, archives of all kinds."""

import json
import os
import re
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
from support.celeba_tree import CELEBA_SPLITS
from support.image_kinds import PHOTO, saved

from data_shards.decoding.bad_image import BadImage
from data_shards.io.errors import InputError
from data_shards.sources.celeba import OTHER_EXTENSION, SAME_NAME, CelebASource
from data_shards.sources.celeba_tables import read_attributes, read_partition

PARTITION, ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"


@pytest.fixture
def tree(celeba, tmp_path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(celeba, tmp_path / "tree")


def counts(folder: Path) -> dict[str, int]:
    return {split: len(keys) for split, keys in CelebASource(folder).keys.items()}


def contents(folder: Path) -> list:
    """Every image with its attributes."""
    source = CelebASource(folder)
    samples = [source.read(split, place) for split, keys in source.keys.items() for place in range(len(keys))]
    return [(sample.image, sample.extras) for sample in samples]


def zipped(folder: Path, archive: Path, prefix: str = "img_align_celeba/") -> None:
    """The images of `folder` as an archive, with one in the place of the folder."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.iterdir()):
            file.write(path, prefix + path.name)


def test_kaggles_layout_gives_the_same_samples(celeba, tree):
    (tree / "img_align_celeba").rename(tree / "inner")
    (tree / "img_align_celeba").mkdir()
    (tree / "inner").rename(tree / "img_align_celeba" / "img_align_celeba")
    rows = [line.split() for line in (tree / PARTITION).read_text().splitlines()]
    (tree / "list_eval_partition.csv").write_text(
        "image_id,partition\r\n" + "".join(f"{name},{split}\r\n" for name, split in rows)
    )
    _, names, *rows = [line.split() for line in (tree / ATTRIBUTES).read_text().splitlines()]
    lines = [",".join(["image_id", *names]), *(",".join(row) for row in rows)]
    (tree / "list_attr_celeba.csv").write_text("\n".join(lines))
    (tree / PARTITION).unlink()
    (tree / ATTRIBUTES).unlink()
    assert contents(tree) == contents(celeba)


@pytest.mark.parametrize("place", ["celeba", "CelebA/Anno", "Eval"])
def test_the_files_may_lie_in_folders_below(celeba, tree, place):
    (tree / place).mkdir(parents=True)
    for name in (PARTITION, ATTRIBUTES):
        (tree / name).rename(tree / place / name)
    assert contents(tree) == contents(celeba)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_texts_in_any_unicode_are_read(celeba, tree, encoding, line_end):
    for name in (PARTITION, ATTRIBUTES):
        text = (tree / name).read_text().replace("\n", line_end)
        (tree / name).write_bytes(text.encode(encoding))
    assert read_partition(tree / PARTITION) == read_partition(celeba / PARTITION)
    assert read_attributes(tree / ATTRIBUTES) == read_attributes(celeba / ATTRIBUTES)


def test_a_text_in_no_unicode_is_refused(tree):
    (tree / PARTITION).write_bytes(b"000001.jpg 0\n\xff\xfe\xfd\n")
    with pytest.raises(InputError, match=r"list_eval_partition.txt: not a text in UTF-8 or UTF-16"):
        CelebASource(tree)


@pytest.mark.parametrize("prefix", ["img_align_celeba/", "", "a/b/", "img_align_celeba\\", "/abs/", "../up/"])
def test_an_archive_is_read_whatever_its_folders_are(celeba, tree, prefix):
    zipped(tree / "img_align_celeba", tree / "img_align_celeba.zip", prefix)
    shutil.rmtree(tree / "img_align_celeba")
    assert contents(tree) == contents(celeba)


@pytest.mark.parametrize("kept", [0, 5])
def test_an_empty_or_half_unpacked_folder_beside_a_good_archive_is_passed_over(celeba, tree, kept):
    zipped(tree / "img_align_celeba", tree / "img_align_celeba.zip")
    for path in sorted((tree / "img_align_celeba").iterdir())[kept:]:
        path.unlink()
    assert contents(tree) == contents(celeba)
    assert CelebASource(tree).notes() == [f"{tree / 'img_align_celeba'}: holds {kept} of 300 images, and is not used"]


def test_a_damaged_archive_beside_a_whole_folder_is_said(celeba, tree):
    shutil.copytree(tree / "img_align_celeba", tree / "img_align_celeba_2")
    (tree / "img_align_celeba" / "000001.jpg").unlink()
    (tree / "img_align_celeba.zip").write_bytes(b"PK cut short")
    assert counts(tree) == CELEBA_SPLITS


def test_a_damaged_archive_alone_is_refused(tree):
    shutil.rmtree(tree / "img_align_celeba")
    (tree / "img_align_celeba.zip").write_bytes(b"PK cut short")
    with pytest.raises(InputError, match=r"img_align_celeba.zip: not a zip archive, or cut short"):
        CelebASource(tree)


def test_an_encrypted_archive_is_refused(tree):
    archive = tree / "img_align_celeba.zip"
    zipped(tree / "img_align_celeba", archive)
    shutil.rmtree(tree / "img_align_celeba")
    data = bytearray(archive.read_bytes())
    place = -1
    while (place := data.find(b"PK\x01\x02", place + 1)) >= 0:
        struct.pack_into("<H", data, place + 8, 1)  # the flag that a member is encrypted
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"img_align_celeba.zip: encrypted; unpack it"):
        CelebASource(tree)


def test_images_that_the_partition_file_does_not_name_are_unusable(tree):
    lines = (tree / PARTITION).read_text().splitlines()
    (tree / PARTITION).write_text("\n".join(lines[:250]))
    source = CelebASource(tree)
    assert len(source.keys["train"]) == 240 + 50
    assert len(source.keys["valid"]) == 10
    with pytest.raises(BadImage, match=r"not in list_eval_partition.txt"):
        source.read("train", 240)


def test_images_that_are_missing_are_unusable(tree):
    (tree / "img_align_celeba" / "000007.jpg").unlink()
    with pytest.raises(BadImage, match="missing"):
        CelebASource(tree).read("train", 6)


def test_attributes_that_were_cut_short_are_refused(tree):
    lines = (tree / ATTRIBUTES).read_text().splitlines()
    (tree / ATTRIBUTES).write_text("\n".join(lines[:100]))
    with pytest.raises(InputError, match="attributes of 98 files where its first line says 300"):
        CelebASource(tree)


def test_two_images_of_one_name_are_refused_where_it_is_not_told_which_is_meant(tree):
    with zipfile.ZipFile(tree / "img_align_celeba.zip", "w") as file:
        for path in sorted((tree / "img_align_celeba").iterdir()):
            file.write(path, f"a/{path.name}")
        file.writestr("b/000003.jpg", saved(PHOTO, "JPEG"))
    shutil.rmtree(tree / "img_align_celeba")
    with pytest.raises(InputError, match=r"a/000003.jpg and b/000003.jpg are different images of one name"):
        CelebASource(tree)


def test_the_aligned_images_are_taken_where_an_archive_holds_others_of_their_names(celeba, tree):
    with zipfile.ZipFile(tree / "all.zip", "w") as file:
        for path in sorted((tree / "img_align_celeba").iterdir()):
            file.writestr(f"CelebA/img_celeba/{path.name}", saved(PHOTO, "JPEG"))
            file.write(path, f"CelebA/img_align_celeba/{path.name}")
            file.writestr(f"__MACOSX/img_align_celeba/._{path.name}", b"mac")
    shutil.rmtree(tree / "img_align_celeba")
    assert contents(tree) == contents(celeba)
    assert CelebASource(tree).left_out() == {SAME_NAME: 300}


def test_the_same_image_twice_is_one_image(celeba, tree):
    shutil.copytree(tree / "img_align_celeba", tree / "img_align_celeba" / "copy")
    assert contents(tree) == contents(celeba)


def test_images_of_another_format_are_found_by_their_names(tree):
    for path in (tree / "img_align_celeba").iterdir():
        path.rename(path.with_suffix(".png"))
    source = CelebASource(tree)
    assert {split: len(keys) for split, keys in source.keys.items()} == CELEBA_SPLITS
    sample = source.read("valid", 0)
    assert sample.extension == "png"
    assert len(json.loads(sample.extras["json"])) == 40


@pytest.mark.parametrize("name", [PARTITION, ATTRIBUTES, "img_align_celeba.zip"])
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(tree, name):
    (tree / name).unlink(missing_ok=True)
    os.mkfifo(tree / name)
    if name.endswith(".zip"):
        shutil.rmtree(tree / "img_align_celeba")
    with pytest.raises(InputError, match=rf"{name}: is a pipe"):
        CelebASource(tree)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_image_of_an_archive_is_unusable_however_it_is_compressed(tree, compression):
    with zipfile.ZipFile(tree / "img_align_celeba.zip", "w", compression) as file:
        for path in sorted((tree / "img_align_celeba").iterdir()):
            file.write(path, path.name)
    shutil.rmtree(tree / "img_align_celeba")
    with (tree / "img_align_celeba.zip").open("r+b") as file:
        file.seek(200)  # in the first image
        file.write(bytes(60))
    source = CelebASource(tree)
    with pytest.raises(BadImage, match="unreadable in the archive"):
        source.read("train", 0)
    assert source.read("train", 1).image


def test_members_without_a_name_are_passed_over(celeba, tree):
    zipped(tree / "img_align_celeba", tree / "img_align_celeba.zip")
    with zipfile.ZipFile(tree / "img_align_celeba.zip", "a") as file:
        file.writestr(".", b"")
    shutil.rmtree(tree / "img_align_celeba")
    assert contents(tree) == contents(celeba)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_holds_a_name_twice_is_read_where_both_are_the_same_image(celeba, tree):
    zipped(tree / "img_align_celeba", tree / "img_align_celeba.zip")
    with zipfile.ZipFile(tree / "img_align_celeba.zip", "a") as file:
        file.write(tree / "img_align_celeba/000001.jpg")
    shutil.rmtree(tree / "img_align_celeba")
    assert contents(tree) == contents(celeba)
    with zipfile.ZipFile(tree / "img_align_celeba.zip", "a") as file:
        file.writestr("img_align_celeba/000001.jpg", saved(PHOTO, "JPEG"))
    with pytest.raises(InputError, match=r"holds two images of the name img_align_celeba/000001\.jpg"):
        CelebASource(tree)


def test_files_that_differ_by_their_extension_are_left_out_where_the_listed_one_is_there(celeba, tree):
    (tree / "img_align_celeba/000001.png").write_bytes(saved(PHOTO, "PNG"))
    assert contents(tree) == contents(celeba)
    assert CelebASource(tree).left_out() == {OTHER_EXTENSION: 1}


def test_files_that_differ_by_their_extension_are_refused_where_none_of_them_is_listed(tree):
    image = tree / "img_align_celeba/000001.jpg"
    image.unlink()
    for kind in ("PNG", "BMP"):
        image.with_suffix(f".{kind.lower()}").write_bytes(saved(PHOTO, kind))
    with pytest.raises(InputError, match=r"000001\.bmp and 000001\.png are different images of one name"):
        CelebASource(tree)


def test_a_partition_of_names_that_differ_by_their_extension_is_refused(tree):
    with (tree / PARTITION).open("a") as file:
        file.write("000001.png 0\n")
    with pytest.raises(InputError, match=r"line 301: '000001\.png' differs from '000001\.jpg' by its extension alone"):
        CelebASource(tree)


def test_a_name_that_holds_a_dot_has_a_key_without_one(celeba, tree):
    for name in (f"img_align_celeba/{1:06d}.jpg", PARTITION, ATTRIBUTES):
        path = tree / name
        if path.suffix == ".jpg":
            path.rename(path.with_name("000001.face.v2.jpg"))
        else:
            path.write_text(path.read_text().replace("000001.jpg", "000001.face.v2.jpg"))
    first, *others = CelebASource(tree).keys["train"]
    assert re.fullmatch("000001_face_v2-[0-9a-f]{16}", first)
    assert others == CelebASource(celeba).keys["train"][1:]
    assert contents(tree) == contents(celeba)


def test_attributes_that_name_an_image_twice_are_refused(tree):
    _, names, *rows = (tree / ATTRIBUTES).read_text().splitlines()
    (tree / ATTRIBUTES).write_text("\n".join([names, *rows, rows[4]]))
    with pytest.raises(InputError, match=r"list_attr_celeba\.txt, line 302: '000005\.jpg' is there twice"):
        CelebASource(tree)


def test_a_folder_without_any_of_the_images_is_refused(tree):
    for path in (tree / "img_align_celeba").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(InputError, match="none of the images that list_eval_partition names is in img_align_celeba"):
        CelebASource(tree)


def test_a_folder_of_other_things_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither img_align_celeba/ nor img_align_celeba.zip there"):
        CelebASource(tmp_path)


def test_a_source_is_sent_to_a_worker_with_the_names_of_its_rows_alone(celeba):
    import pickle

    import numpy as np

    read = CelebASource(celeba).reader("train", np.arange(10))
    assert len(pickle.dumps(read)) < 2000


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match=f"source: no folder {tmp_path / 'nowhere'}"):
        CelebASource(tmp_path / "nowhere")
