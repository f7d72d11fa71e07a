from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from medtool.images.image import upright
from medtool.split.duplicates.fingerprint import fingerprint, hashes_of, spectrum_of
from medtool.split.duplicates.orientation import (
    N_ORIENTATIONS,
    NAMES,
    inverse,
    of_exif,
    turn,
    turn_spectra,
)

EVERY = range(N_ORIENTATIONS)
PICTURE = np.random.default_rng(5).integers(0, 256, (37, 52, 3), np.uint8)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40).map(lambda s: (*s, 3))),
    st.sampled_from(EVERY),
)
def test_turning_a_spectrum_gives_the_spectrum_of_the_turned_picture(rgb, orientation):
    spectrum, colours = spectrum_of(rgb)
    of_turned, colours_of_turned = spectrum_of(turn(rgb, orientation))
    assert np.allclose(turn_spectra(spectrum, orientation), of_turned, atol=1e-3)
    assert np.abs(turn(colours, orientation).astype(int) - colours_of_turned).max() <= 1


@pytest.mark.parametrize("orientation", EVERY)
def test_the_hash_of_a_turned_file_follows_from_the_spectrum(tmp_path, orientation):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    Image.fromarray(turn(PICTURE, orientation)).save(tmp_path / "b.png")
    first, second = (fingerprint(tmp_path / name).spectrum[None] for name in ("a.png", "b.png"))
    assert np.array_equal(turn_spectra(first, orientation), second)
    assert np.array_equal(hashes_of(turn_spectra(first, orientation)), hashes_of(second))


@pytest.mark.parametrize("orientation", EVERY)
def test_what_undoes_an_orientation_gives_the_picture_back(orientation):
    assert np.array_equal(turn(turn(PICTURE, orientation), inverse(orientation)), PICTURE)


@pytest.mark.parametrize("exif", range(1, 9))
def test_exif_orientations_are_made_upright_as_the_reader_makes_them(exif):
    assert np.array_equal(turn(PICTURE, of_exif(exif)), upright(PICTURE, exif))


def test_orientations_do_what_their_names_say():
    done = {name: turn(PICTURE, orientation) for orientation, name in enumerate(NAMES)}
    assert np.array_equal(done[""], PICTURE)
    assert np.array_equal(done["mirrored"], np.fliplr(PICTURE))
    assert np.array_equal(done["flipped upside down"], np.flipud(PICTURE))
    assert np.array_equal(done["turned by 180°"], np.rot90(PICTURE, 2))
    assert np.array_equal(done["turned by 90° to the right"], np.rot90(PICTURE, -1))
    assert np.array_equal(done["turned by 90° to the left"], np.rot90(PICTURE))
    assert np.array_equal(done["transposed"], PICTURE.swapaxes(0, 1))
    assert np.array_equal(done["transposed about the other diagonal"], np.rot90(PICTURE.swapaxes(0, 1), 2))
