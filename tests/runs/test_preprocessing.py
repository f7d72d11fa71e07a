"""One way from a file to a network's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from medtool.errors import InputError
from medtool.runs.choices import StainNormalisation
from medtool.runs.forward import Normaliser
from medtool.runs.preprocessing import Preprocessing, prepared, read_picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = Preprocessing(64, 96, MEAN, STD)


def test_it_is_what_torchvision_makes_of_the_same_picture(shared_data: Path) -> None:
    path = next((shared_data / "ham10000/images").glob("*.jpg"))
    pixels, _ = read_picture(path, SMALL)
    found = Normaliser(SMALL, torch.device("cpu"), is_channels_last=True)(torch.from_numpy(pixels)[None])[0]
    steps = [v2.Resize((64, 96)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    with Image.open(path) as image:
        peer = v2.Compose(steps)(image.convert("RGB"))
    torch.testing.assert_close(found, peer, atol=1e-5, rtol=0)


def test_the_whole_image_is_kept_and_height_stays_height() -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:8], picture[:, -8:] = 100, 200
    found = prepared(picture, Preprocessing(20, 40, MEAN, STD))
    assert found.shape == (3, 20, 40)
    assert (found[:, :2, :34] == 100).all()
    assert (found[:, :, -2:] == 200).all()
    assert (found[:, 6:, :34] == 0).all()


def test_stains_are_normalised_after_resizing_and_named_in_the_key() -> None:
    rng = np.random.default_rng(1)
    picture = np.clip(rng.normal((180, 110, 170), 25, (64, 64, 3)), 0, 255).astype(np.uint8)
    plain = Preprocessing(64, 64, MEAN, STD)
    stained = Preprocessing(64, 64, MEAN, STD, StainNormalisation.REINHARD)
    assert not np.array_equal(prepared(picture, plain), prepared(picture, stained))
    assert plain.key != stained.key


def test_it_comes_back_from_json_and_another_version_is_refused() -> None:
    stained = Preprocessing(64, 96, MEAN, STD, StainNormalisation.MACENKO)
    assert Preprocessing.of(stained.document()) == stained
    with pytest.raises(InputError, match="prepared in way 99"):
        Preprocessing.of({**stained.document(), "version": 99})
