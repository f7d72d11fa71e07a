"""The real pictures come from the installed scikit-image, byte for byte."""

from __future__ import annotations

import hashlib

import pytest
import skimage.data
from PIL import Image

from medtool.demo import real


def test_all_pictures_are_there_and_are_what_scikit_image_loads() -> None:
    found = real.find_pictures()
    assert set(found) == set(real.PICTURES)
    for picture, path in found.items():
        assert path.read_bytes()
        with Image.open(path) as image:
            assert min(image.size) > 90
        assert picture.licence
        assert picture.source


def test_the_retina_is_scikit_images_own() -> None:
    places = {picture.name: path for picture, path in real.find_pictures().items()}
    with Image.open(places["retina.jpg"]) as image:
        assert (image.size[1], image.size[0], 3) == skimage.data.retina().shape
    registry = skimage.data._registry.registry
    for picture, path in real.find_pictures().items():
        expected = registry[f"data/{picture.file_name}"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected


def test_what_is_not_shipped_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = real.RealPicture("no-such.png", "no-such.png", "nothing", "CC0-1.0", "nowhere")
    monkeypatch.setattr(real, "PICTURES", (*real.PICTURES, odd))
    assert odd not in real.find_pictures()
    assert len(real.find_pictures()) == len(real.PICTURES) - 1
