from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage import color, data

from medtool.errors import InputError
from medtool.runs.choices import StainNormalisation
from medtool.runs.stain import (
    REFERENCE_COLOURS,
    REFERENCE_STAINS,
    find_colours,
    find_stains,
    hed_jittered,
    macenko,
    normalised,
    reinhard,
)

NAMES = ("SOB_M_DC-14-17614-400-014.png", "SOB_B_F-14-14134E-400-001.png", "SOB_B_TA-14-16184CD-400-024.png")


def slide(
    haematoxylin: tuple[float, float, float] = (0.6, 0.7, 0.38),
    eosin: tuple[float, float, float] = (0.12, 0.95, 0.28),
    *,
    strength: tuple[float, float] = (1.2, 0.8),
    glass: float = 0.3,
) -> np.ndarray:
    """Return an image mixed of two stains exactly as Lambert and Beer have it: most pixels hold mainly one."""
    rng = np.random.default_rng(905)
    n = 128 * 128
    share = rng.beta(0.25, 0.25, n)
    amounts = np.stack([share, 1 - share], axis=1) * rng.uniform(0.3, 1, (n, 1)) * strength
    amounts[: int(glass * n)] = 0
    vectors = np.array([haematoxylin, eosin])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.rint(240 * np.exp(-amounts @ vectors)).clip(0, 255).astype(np.uint8).reshape(128, 128, 3)


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


@pytest.fixture(params=NAMES)
def breakhis(request: pytest.FixtureRequest, shared_data: Path) -> np.ndarray:
    return np.asarray(Image.open(shared_data / "breakhis" / request.param).convert("RGB").resize((233, 153)))


@pytest.mark.parametrize(
    ("haematoxylin", "eosin"),
    [
        ((0.6, 0.7, 0.38), (0.12, 0.95, 0.28)),
        ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),
        ((0.5, 0.65, 0.57), (0.2, 0.85, 0.49)),
    ],
)
def test_the_stains_that_an_image_was_mixed_from_are_found(haematoxylin, eosin):
    stains = find_stains(slide(haematoxylin, eosin))
    assert stains is not None
    assert degrees(stains.vectors[0], np.array(haematoxylin)) < 3
    assert degrees(stains.vectors[1], np.array(eosin)) < 3
    assert stains.strongest == pytest.approx((1.2, 0.8), rel=0.1)


def test_macenko_brings_two_scanners_to_one_appearance():
    one = slide()
    other = slide((0.5, 0.65, 0.57), (0.2, 0.85, 0.49), strength=(0.7, 1.1))  # the same tissue in other colours
    before = np.abs(one.astype(int) - other).mean()
    after = np.abs(macenko(one).astype(int) - macenko(other)).mean()
    assert after < before / 4


def test_an_image_that_macenko_normalised_has_the_stains_of_the_reference():
    stains = find_stains(macenko(slide()))
    assert stains is not None
    assert degrees(stains.vectors[0], REFERENCE_STAINS.vectors[0]) < 4
    assert degrees(stains.vectors[1], REFERENCE_STAINS.vectors[1]) < 4
    assert stains.strongest == pytest.approx(REFERENCE_STAINS.strongest, rel=0.1)


def test_glass_stays_white_with_macenko():
    white = np.full((30, 128, 3), 240, dtype=np.uint8)
    assert macenko(np.concatenate([white, slide()]))[:30].min() >= 238


def test_macenko_changes_nothing_when_an_image_is_its_own_reference():
    image = slide()
    stains = find_stains(image)
    assert stains is not None
    assert np.abs(macenko(image, reference=stains).astype(int) - image).mean() < 1


def test_reinhard_gives_tissue_the_mean_and_deviation_of_the_reference():
    image = slide(strength=(0.9, 0.6), glass=0.0)
    target = find_colours(slide(strength=(0.6, 0.7), glass=0.0))
    assert target is not None
    result = find_colours(reinhard(image, reference=target))
    assert result is not None
    assert result.mean == pytest.approx(target.mean, abs=0.03)
    assert result.deviation == pytest.approx(target.deviation, rel=0.15)


def test_reinhard_changes_nothing_when_an_image_is_its_own_reference():
    image = slide()
    colours = find_colours(image)
    assert colours is not None
    assert np.abs(reinhard(image, reference=colours).astype(int) - image).max() <= 1


def test_the_reference_of_reinhard_is_a_pink_of_middling_brightness():
    grey = np.full((1, 3), REFERENCE_COLOURS.mean[0] / np.sqrt(3))
    assert 130 < np.exp(grey).mean() < 180


def test_a_normalisation_goes_by_its_text_too_and_an_unknown_one_is_no_silence():
    image = slide()
    assert np.array_equal(normalised(image, "macenko"), macenko(image))
    assert np.array_equal(normalised(image, "reinhard"), reinhard(image))
    with pytest.raises(ValueError, match="vahadane"):
        normalised(image, "vahadane")


def blank_tiles() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(905)
    speck = np.full((128, 128, 3), 240, dtype=np.uint8)
    speck[:12, :12] = slide()[60:72, 60:72]
    return {
        "white": np.full((64, 64, 3), 255, dtype=np.uint8),
        "glass with noise": rng.normal(235, 3, (64, 64, 3)).clip(0, 255).astype(np.uint8),
        "a speck of tissue": speck,
        "one pixel": np.full((1, 1, 3), 90, dtype=np.uint8),
    }


@pytest.mark.parametrize("name", blank_tiles())
@pytest.mark.parametrize("how", StainNormalisation)
def test_a_blank_tile_comes_back_as_it_is(name: str, how: StainNormalisation):
    tile = blank_tiles()[name]
    assert normalised(tile, how) is tile


@pytest.mark.parametrize("grey", [0, 60, 130])
def test_an_image_without_two_stains_comes_back_from_macenko_as_it_is(grey: int):
    flat = np.full((40, 40, 3), grey, dtype=np.uint8)
    shaded = np.repeat(data.camera()[::8, ::8, None], 3, axis=2)
    assert macenko(flat) is flat
    assert macenko(shaded) is shaded


@given(
    image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3))),
    how=st.sampled_from(list(StainNormalisation)),
)
@run(max_examples=60)
def test_no_image_breaks_a_normalisation(image, how):
    result = normalised(image, how)
    assert result.shape == image.shape
    assert result.dtype == np.uint8


@pytest.mark.parametrize("how", [StainNormalisation.MACENKO, StainNormalisation.REINHARD])
def test_what_is_no_rgb_image_is_refused(how: StainNormalisation):
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="wanted uint8 of shape"):
            normalised(wrong, how)


def test_real_slides_have_a_blue_and_a_pink_stain_and_keep_their_structure(breakhis: np.ndarray):
    stains = find_stains(breakhis)
    assert stains is not None
    assert stains.haematoxylin[0] > stains.eosin[0]
    assert degrees(stains.vectors[0], REFERENCE_STAINS.vectors[0]) < 30
    assert degrees(stains.vectors[1], REFERENCE_STAINS.vectors[1]) < 30
    for how in (StainNormalisation.MACENKO, StainNormalisation.REINHARD):
        result = normalised(breakhis, how)
        assert np.abs(result.astype(int) - breakhis).mean() > 2
        assert np.corrcoef(color.rgb2gray(result).ravel(), color.rgb2gray(breakhis).ravel())[0, 1] > 0.85


def test_real_slides_come_closer_to_each_other(shared_data: Path):
    images = [np.asarray(Image.open(shared_data / "breakhis" / name).resize((233, 153))) for name in NAMES]

    def spread(how: StainNormalisation) -> float:
        colours = [find_colours(normalised(image, how)) for image in images]
        return float(np.std([colour.mean for colour in colours if colour is not None], axis=0).sum())

    assert spread(StainNormalisation.MACENKO) < spread(StainNormalisation.NONE)
    assert spread(StainNormalisation.REINHARD) < 0.5 * spread(StainNormalisation.NONE)


@given(
    factors=st.tuples(*[st.floats(0.7, 1.3)] * 3),
    added=st.tuples(*[st.floats(0, 0.1)] * 3),
)
@run(max_examples=25)
def test_stains_vary_as_by_the_hed_space_of_scikit_image(factors, added):
    # scikit-image counts densities in units of -log(1e-6), and clips negative amounts, where there is no oracle
    unit = -np.log(1e-6)
    amounts = np.random.default_rng(905).uniform(0.05, 0.9, (32, 32, 3))
    pixels = np.rint(color.hed2rgb(amounts / unit) * 255).astype(np.uint8)
    hed = color.rgb2hed(pixels)
    expected = color.hed2rgb(hed * factors + np.array(added) / unit) * 255
    is_fair = (hed > 0).all(axis=-1) & (pixels > 0).all(axis=-1) & (expected < 254.9).all(axis=-1)
    assert is_fair.mean() > 0.7
    ours = hed_jittered(torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float(), factors=factors, added=added)
    assert np.allclose(ours.permute(1, 2, 0).numpy()[is_fair], expected[is_fair], atol=0.05)


def test_unvaried_stains_give_the_image_back(breakhis: np.ndarray):
    pixels = torch.from_numpy(breakhis.transpose(2, 0, 1).copy()).float()
    same = hed_jittered(pixels, factors=(1, 1, 1), added=(0, 0, 0))
    assert torch.allclose(same, pixels.clamp(min=1), atol=0.01)
