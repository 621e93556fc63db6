"""Which files below a folder are images, and what is said of the others."""

import os

import pytest
from support.image_kinds import PHOTO, saved

from data_shards.decoding import formats
from data_shards.sources import listing
from data_shards.sources.listing import list_images

PNG, JPEG = saved(PHOTO, "PNG"), saved(PHOTO, "JPEG")


def put(folder, *names, data=PNG):
    for name in names:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "a.JPG",
        "a.jpe",
        "a.jfif",
        "a.avif",
        "a.ppm",
        "a.pgm",
        "a.jp2",
        "a.tga",
        "a.webp",
        "a.TIFF",
        "a.bmp",
        "a.gif",
        "a.qoi",
        "a.psd",
        "a.ico",
        "b.c.png",
        "ä/ö.png",
        "日本.png",
    ],
)
def test_every_extension_that_pillow_decodes_is_an_image(tmp_path, name):
    put(tmp_path, name)
    assert list_images(tmp_path).names == (name,)


@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "0123abcd", "photo.jpg?w=300"])
def test_files_without_a_known_extension_are_known_by_their_content(tmp_path, name):
    put(tmp_path, name, data=JPEG)
    put(tmp_path, "notes", "data.bin", data=b"no image at all")
    found = list_images(tmp_path)
    assert found.names == (name,)
    assert found.left_out == {"not images (.bin)": 1, "not images (no extension)": 1}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".hidden.png", listing.HIDDEN),
        (".git/a.png", listing.HIDDEN),
        (".ipynb_checkpoints/a-checkpoint.png", listing.HIDDEN),
        (".thumbnails/a.png", listing.HIDDEN),
        ("x/.DS_Store", listing.HIDDEN),
        ("x/._a.png", listing.MAC),
        ("__MACOSX/x/a.png", listing.MAC),
        ("Thumbs.db", listing.THUMBNAILS),
        ("thumbnails/a.png", listing.THUMBNAILS),
        ("x/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", listing.THUMBNAILS),
        ("#recycle/a.png", listing.REMOVED),
        ("$RECYCLE.BIN/a.png", listing.REMOVED),
        ("a.png~", listing.UNFINISHED),
        ("a.jpg.part", listing.UNFINISHED),
        ("a.txt", "not images (.txt)"),
        ("a.mp4", "not images (.mp4)"),
        ("a.pdf", "not images (.pdf)"),
        ("a.eps", "not images (.eps)"),
        ("a.h5", "not images (.h5)"),
        ("README", "not images (no extension)"),
    ],
)
def test_what_is_left_out_is_counted_with_its_reason(tmp_path, name, reason):
    put(tmp_path, "kept.png")
    put(tmp_path, name, data=PNG if name.endswith((".png", ".jpg")) else b"text")
    found = list_images(tmp_path)
    assert found.names == ("kept.png",)
    assert found.left_out == {reason: 1}


def test_a_folder_that_is_given_is_read_whatever_its_name(tmp_path):
    put(tmp_path / ".thumbnails", "a.png")
    assert list_images(tmp_path / ".thumbnails").names == ("a.png",)


@pytest.mark.skipif("heic" in formats.extensions(), reason="pillow-heif is installed")
def test_a_missing_plugin_is_named_with_the_number_of_its_files(tmp_path):
    put(tmp_path, "a.png", "b.heic", "c.HEIC", "d.heif")
    assert list_images(tmp_path).left_out == {
        ".heic, which needs the package pillow-heif": 2,
        ".heif, which needs the package pillow-heif": 1,
    }


def test_names_of_any_bytes_are_listed(tmp_path):
    put(tmp_path, b"caf\xe9/\xff\xfe.png", b"new\nline.png")
    names = list_images(tmp_path).names
    assert sorted(map(os.fsencode, names)) == [b"caf\xe9/\xff\xfe.png", b"new\nline.png"]


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    put(tmp_path / "elsewhere", "b.png")
    put(tmp_path / "images", "a.png")
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "images").names == ("a.png", "more/b.png")


def test_a_linked_folder_is_listed_once_and_by_its_own_name(tmp_path):
    put(tmp_path, "real/a.png")
    (tmp_path / "before").symlink_to(tmp_path / "real")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "real" / "itself").symlink_to(tmp_path / "real")
    found = list_images(tmp_path)
    assert found.names == ("real/a.png",)
    assert found.left_out == {listing.REACHED_BEFORE: 3}


def test_links_to_one_another_end(tmp_path):
    put(tmp_path / "one", "a.png")
    put(tmp_path / "two", "b.png")
    (tmp_path / "one" / "next").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "back").symlink_to(tmp_path / "one")
    found = list_images(tmp_path / "one")
    assert found.names == ("a.png", "next/b.png")
    assert found.left_out == {listing.REACHED_BEFORE: 1}


def test_a_link_to_a_folder_around_the_source_is_not_followed(tmp_path):
    put(tmp_path, "other.png", "images/a.png")
    (tmp_path / "images" / "up").symlink_to(tmp_path)
    found = list_images(tmp_path / "images")
    assert found.names == ("a.png",)
    assert found.left_out == {listing.AROUND: 1}


def test_links_to_files_are_images_and_broken_ones_are_counted(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "gone.png")
    found = list_images(tmp_path)
    assert found.names == ("a.png", "b.png")
    assert found.left_out == {listing.BROKEN_LINK: 1}


def test_a_pipe_with_the_name_of_an_image_is_not_waited_for(tmp_path):
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert list_images(tmp_path).left_out == {listing.NO_FILE: 1}


def test_texts_beside_the_images_are_not_opened(tmp_path, monkeypatch):
    put(tmp_path, "a.png")
    put(tmp_path, "a.txt", "a.json", "a.csv", "a.xml", data=b"caption")
    monkeypatch.setattr(listing, "extension_by_content", lambda data: pytest.fail("a text was opened"))
    assert sum(list_images(tmp_path).left_out.values()) == 4


@pytest.mark.parametrize("name", ["one.png", "folder"])
def test_links_in_a_circle_are_broken_links(tmp_path, name):
    put(tmp_path, "a.png")
    (tmp_path / name).symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / name)
    found = list_images(tmp_path)
    assert found.names == ("a.png",)
    assert found.left_out == {listing.BROKEN_LINK: 2}
