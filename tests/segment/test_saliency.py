from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage import data
from threadpoolctl import threadpool_limits

from medtool.errors import InputError
from medtool.segment.clean import clean_mask
from medtool.segment.heatmap import otsu_threshold
from medtool.segment.options import CleanOptions, PromptOptions
from medtool.segment.prompts import choose_points
from medtool.segment.saliency import CITATION, METHOD, VERSION, saliency_map

SIZE = (240, 320)
SKIN, LESION = (214.0, 172.0, 150.0), (112.0, 66.0, 58.0)
MIDDLE, RADIUS = (175.0, 110.0), 40.0


def lesion(size: tuple[int, int] = SIZE) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.hypot(x - MIDDLE[0], y - MIDDLE[1]) <= RADIUS


def skin(mask: np.ndarray | None = None, *, noise: float = 4.0) -> np.ndarray:
    mask = lesion() if mask is None else mask
    pixels = np.where(mask[..., None], LESION, SKIN) + np.random.default_rng(905).normal(0, noise, (*mask.shape, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def with_corners(pixels: np.ndarray) -> np.ndarray:
    """Darken softly towards the corners, as a dermatoscope's tube does."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    off = np.hypot(x - SIZE[1] / 2, y - SIZE[0] / 2)
    light = np.clip((175 - off) / 25, 0, 1)
    return (pixels * light[..., None]).astype(np.uint8)


def with_circle(pixels: np.ndarray) -> np.ndarray:
    """Keep a round field of view on black."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.where((np.hypot(x - 160, y - 120) < 110)[..., None], pixels, 3).astype(np.uint8)


def with_frame(pixels: np.ndarray) -> np.ndarray:
    framed = np.zeros_like(pixels)
    framed[18:-18, 25:-25] = pixels[18:-18, 25:-25]
    return framed


def with_sticker(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).ellipse((-50, 130, 60, 240), fill=colour)
    return np.array(picture)


def with_hairs(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    drawn = ImageDraw.Draw(picture)
    for shift in range(-200, 320, 23):
        drawn.line((shift, 0, shift + 190, 240), fill=(40, 30, 28), width=2)
    return np.array(picture)


def with_ruler(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    drawn = ImageDraw.Draw(picture)
    drawn.line((20, 220, 300, 220), fill=(30, 30, 30), width=2)
    for x in range(20, 301, 8):
        drawn.line((x, 208, x, 220), fill=(30, 30, 30), width=1)
    return np.array(picture)


def with_ink(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    drawn = ImageDraw.Draw(picture)
    for x, y in ((80, 60), (260, 190), (90, 180)):
        drawn.ellipse((x - 10, y - 10, x + 10, y + 10), fill=(95, 50, 150))
    return np.array(picture)


def with_uneven_light(pixels: np.ndarray) -> np.ndarray:
    return (pixels * np.linspace(0.65, 1.0, SIZE[1])[np.newaxis, :, np.newaxis]).astype(np.uint8)


ARTEFACTS = {
    "nothing": lambda pixels: pixels,
    "dark corners": with_corners,
    "a round field of view": with_circle,
    "a black frame": with_frame,
    "a blue sticker": lambda pixels: with_sticker(pixels, (30, 140, 220)),
    "a green sticker": lambda pixels: with_sticker(pixels, (60, 160, 70)),
    "a yellow sticker": lambda pixels: with_sticker(pixels, (225, 205, 40)),
    "an orange sticker": lambda pixels: with_sticker(pixels, (240, 130, 20)),
    "hairs": with_hairs,
    "a ruler": with_ruler,
    "ink": with_ink,
    "uneven light": with_uneven_light,
}


def overlap(heatmap: np.ndarray, mask: np.ndarray) -> float:
    found = clean_mask(heatmap >= otsu_threshold(heatmap)[0], np.empty((0, 2)), CleanOptions())
    return float((found & mask).sum() / (found | mask).sum())


@pytest.mark.parametrize("name", ARTEFACTS)
def test_the_lesion_stands_out_beside(name):
    heatmap = saliency_map(ARTEFACTS[name](skin()))
    points, _ = choose_points(heatmap, PromptOptions(), seed_text=name)
    x, y = points.astype(int).T
    assert lesion()[y, x].all()
    assert overlap(heatmap, lesion()) > 0.75


@pytest.mark.parametrize(("ground", "thing"), [(200, 90), (40, 150), (0, 255), (110, 140)])
def test_a_grey_object_stands_out_brighter_or_darker(ground, thing):
    grey = np.where(lesion(), thing, ground) + np.random.default_rng(905).normal(0, 3, SIZE)
    pixels = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    assert overlap(saliency_map(pixels), lesion()) > 0.85


def test_a_grey_body_on_black_is_not_taken_for_a_frame():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    body = ((x - 160) / 120) ** 2 + ((y - 120) / 90) ** 2 < 1
    pixels = np.repeat((body * 120)[..., None], 3, axis=2).astype(np.uint8)
    assert overlap(saliency_map(pixels), body) > 0.85


def test_thin_dark_lines_of_a_grey_image_are_not_taken_for_hairs():
    grey = np.full(SIZE, 170, dtype=np.uint8)
    grey[118:123] = 60
    heatmap = saliency_map(np.repeat(grey[..., None], 3, axis=2))
    assert heatmap[120].mean() > 10 * heatmap[60].mean()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 150, 130), (0, 0, 255)])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (40, 30), (300, 500)])
def test_in_an_image_of_one_colour_nothing_stands_out(colour, size):
    heatmap = saliency_map(np.full((*size, 3), colour, dtype=np.uint8))
    assert heatmap.shape == size
    assert heatmap.dtype == np.float32
    assert not heatmap.any()


@run(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_any_image_has_a_map_of_its_size_from_0_to_1(pixels):
    before = pixels.copy()
    heatmap = saliency_map(pixels)
    assert heatmap.shape == pixels.shape[:2]
    assert heatmap.dtype == np.float32
    assert np.isfinite(heatmap).all()
    assert heatmap.min() >= 0
    assert heatmap.max() in (0, 1)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("size", [(10, 2000), (2000, 10), (1, 50), (255, 511), (3, 4)])
def test_thin_and_odd_images_have_a_map(size):
    pixels = np.random.default_rng(905).integers(0, 256, (*size, 3), dtype=np.uint8)
    heatmap = saliency_map(pixels)
    assert heatmap.shape == size
    assert heatmap.max() == 1


@pytest.mark.parametrize("size", [(480, 640), (481, 641), (1001, 777)])
def test_the_map_is_not_shifted(size):
    y, x = np.mgrid[: size[0], : size[1]]
    middle = (size[1] - 1) / 2, (size[0] - 1) / 2
    truth = np.hypot(x - middle[0], y - middle[1]) < 0.2 * min(size)
    centre = ndimage.center_of_mass(saliency_map(skin(truth, noise=0)))
    assert np.abs(np.array(centre) - (middle[1], middle[0])).max() < 0.5


def test_the_map_is_the_same_whatever_the_number_of_threads():
    pixels = with_hairs(with_corners(skin()))
    with threadpool_limits(1):
        alone = saliency_map(pixels)
    with threadpool_limits(4):
        together = saliency_map(pixels)
    np.testing.assert_array_equal(alone, together)


def test_a_view_that_is_not_contiguous_has_the_same_map():
    wide = np.repeat(skin(), 2, axis=1)
    np.testing.assert_array_equal(saliency_map(wide[:, ::2]), saliency_map(skin()))


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), dtype=np.uint8), np.zeros((4, 4, 4), dtype=np.uint8), np.zeros((4, 4, 3))]
)
def test_what_is_no_rgb_image_is_refused(pixels):
    with pytest.raises(InputError, match="wanted uint8"):
        saliency_map(pixels)


def test_the_method_is_named_with_its_papers():
    assert "CIELAB" in METHOD
    assert "Wei" in CITATION
    assert VERSION


def test_the_cell_of_a_phase_contrast_picture_stands_out():
    grey = data.cell()
    heatmap = saliency_map(np.repeat(grey[..., None], 3, axis=2))
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert 210 < y < 420
    assert 350 < x < 540


def test_points_on_real_dermoscopy_lie_in_the_lesion(shared_data):
    folder = shared_data / "isic2017"
    shares = []
    for path in sorted((folder / "images").glob("*.jpg"))[7::90]:
        truth = np.array(Image.open(folder / "masks" / f"{path.stem}_segmentation.png")) > 0
        heatmap = saliency_map(np.array(Image.open(path).convert("RGB")))
        x, y = choose_points(heatmap, PromptOptions(), seed_text=path.stem)[0].astype(int).T
        shares.append(truth[y, x].mean())
    assert len(shares) > 20
    assert np.mean(shares) > 0.85
