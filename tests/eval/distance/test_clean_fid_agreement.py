"""The same images and the same weights through clean-fid's own functions and through ours."""

import numpy as np
import pytest
import torch
from cleanfid import fid, inception_pytorch
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from support.standin_inception import write_standin

from eval.distance.extractors.by_name import extractor_by_name
from eval.distance.measures.frechet import frechet_distance
from eval.distance.statistics import FeatureStatistics

CPU = torch.device("cpu")
N = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of colour images of 32 x 40, and the weights under the name that clean-fid looks for."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, top in (("a", 256), ("b", 180)):
        (root / name).mkdir()
        for number in range(N):
            # Neighbouring pixels alike, as in photographs.
            small = rng.integers(0, top, (8, 10, 3), dtype=np.uint8)
            Image.fromarray(small).resize((40, 32)).save(root / name / f"{number:03d}.png")
    write_standin(root / "inception-2015-12-05.pt")
    return root


def read(folder):
    files = sorted(folder.glob("*.png"))
    return torch.stack([torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) for file in files])


def our_statistics(extractor, images):
    made = FeatureStatistics(extractor.dim)
    made.update(extractor(images), torch.arange(len(images)))
    return made


def clean_fids_network(folders, mode):
    return InceptionV3W(str(folders), download=False, resize_inside=mode == "legacy_tensorflow").eval()


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_features_are_clean_fids(folders, mode):
    extractor = extractor_by_name("inception", CPU, mode=mode, weights=str(folders / "inception-2015-12-05.pt"))
    theirs = clean_fids_network(folders, mode)
    features = fid.get_folder_features(str(folders / "a"), theirs, mode=mode, num_workers=0, device=CPU, verbose=False)
    np.testing.assert_allclose(extractor(read(folders / "a")).numpy(), features, atol=1e-5, rtol=1e-5)


def test_the_distance_is_that_of_clean_fids_compute_fid(folders):
    extractor = extractor_by_name("inception", CPU, weights=str(folders / "inception-2015-12-05.pt"))
    a, b = (our_statistics(extractor, read(folders / name)) for name in "ab")
    expected = fid.compute_fid(
        str(folders / "a"),
        str(folders / "b"),
        custom_feat_extractor=clean_fids_network(folders, "clean"),
        mode="clean",
        num_workers=0,
        device=CPU,
        verbose=False,
    )
    got = frechet_distance(a.mean(), a.covariance(), b.mean(), b.covariance())
    assert got == pytest.approx(float(expected), rel=1e-4)


def test_legacy_pytorch_features_are_clean_fids(folders, tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda url, progress: random_weights())
    theirs = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False).eval()
    torch.save(random_weights(), tmp_path / "port.pth")
    monkeypatch.undo()
    extractor = extractor_by_name("inception", CPU, mode="legacy_pytorch", weights=str(tmp_path / "port.pth"))
    features = fid.get_folder_features(
        str(folders / "a"),
        lambda x: theirs(x / 255)[0].squeeze(-1).squeeze(-1),
        mode="legacy_pytorch",
        num=3,
        num_workers=0,
        device=CPU,
        verbose=False,
    )
    np.testing.assert_allclose(extractor(read(folders / "a")[:3]).numpy(), features, atol=1e-5, rtol=1e-4)


def random_weights():
    """Weights of pytorch-fid's network, seeded, scaled so that signals neither die nor explode."""
    network = inception_pytorch._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for name, kind in (("5b", (192, 32)), ("5c", (256, 64)), ("5d", (288, 64))):
        setattr(network, f"Mixed_{name}", inception_pytorch.FIDInceptionA(kind[0], pool_features=kind[1]))
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(network, f"Mixed_{name}", inception_pytorch.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b, network.Mixed_7c = (
        inception_pytorch.FIDInceptionE_1(1280),
        inception_pytorch.FIDInceptionE_2(2048),
    )
    generator = torch.Generator().manual_seed(1)
    state = network.state_dict()
    for value in state.values():
        if value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    return state
