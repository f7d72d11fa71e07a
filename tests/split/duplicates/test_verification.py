from __future__ import annotations

import dataclasses
import itertools

import cv2
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from medtool.errors import ImageError
from medtool.split.duplicates import verification
from medtool.split.duplicates.alignment import SIDE, Frame, Square, aligned
from medtool.split.duplicates.orientation import N_ORIENTATIONS, NAMES, inverse, turn
from medtool.split.duplicates.pairs import Kind
from medtool.split.duplicates.verification import (
    LEAST_SIMILARITY,
    Picture,
    has_equal_pixels,
    picture_of,
    pixel_digest,
    unclipped,
    verify,
    window_similarities,
)

ONE_OF_EACH = (
    "ham10000/images/ISIC_0024306.jpg",
    "isic2017/images/ISIC_0000000.jpg",
    "isic2017-hires/images/ISIC_0001769.jpg",
    "breakhis/SOB_M_DC-14-17614-400-014.png",
    "nuclei/images/03f583ec5018.png",
)


@pytest.fixture(scope="session", params=ONE_OF_EACH)
def original(request, shared_data):
    return shared_data / request.param


def pixels_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


def saved(pixels, path, quality=75):
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, quality=quality)
    return picture_of(path)


def scaled(pixels, factor):
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=way)


def cropped(pixels, top, bottom, left, right):
    height, width = pixels.shape[:2]
    return pixels[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


def texture(seed, shape=(160, 200)):
    """Return a random picture with coarse and fine structure."""
    noise = np.random.default_rng(seed).normal(size=shape)
    mixed = sum(sigma * gaussian_filter(noise, sigma) for sigma in (1.5, 4, 12))
    return np.clip(128 + 45 * mixed / mixed.std(), 0, 255).astype(np.uint8)


def picture_in_memory(grey, tmp_path):
    return Picture(tmp_path / "none.png", Square.of(grey), *grey.shape, "PNG", 1)


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_a_recompressed_copy_is_the_same_picture(original, tmp_path, quality):
    copy = saved(pixels_of(original), tmp_path / "copy.jpg", quality)
    verdict = verify(picture_of(original), copy)
    assert verdict is not None
    assert verdict.kind is Kind.NEAR
    assert LEAST_SIMILARITY <= verdict.similarity <= 1
    assert verdict.alteration == "small changes of its pixels"


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.5])
def test_a_resized_copy_is_the_same_picture(original, tmp_path, factor):
    copy = saved(scaled(pixels_of(original), factor), tmp_path / "copy.jpg")
    verdict = verify(picture_of(original), copy)
    assert verdict is not None
    assert verdict.alteration in [f"resized ×{found:.2f}" for found in (factor - 0.01, factor, factor + 0.01)]


@pytest.mark.parametrize("orientation", range(1, N_ORIENTATIONS))
def test_a_turned_or_mirrored_copy_is_the_same_picture(original, tmp_path, orientation):
    copy = saved(turn(pixels_of(original), inverse(orientation)), tmp_path / "copy.jpg")
    verdict = verify(picture_of(original), copy, orientation)
    assert verdict is not None
    words = ("mirrored", "flipped upside down", "turned by 180°", "transposed")
    words += ("turned by 90° to the left", "turned by 90° to the right", "transposed about the other diagonal")
    assert verdict.alteration == words[orientation - 1]


@pytest.mark.parametrize("cut", [(0.1, 0, 0.1, 0), (0.1, 0, 0, 0.1), (0, 0.1, 0.1, 0), (0, 0.1, 0, 0.1), (0.05,) * 4])
@pytest.mark.parametrize("is_second_larger", [False, True])
def test_a_copy_cropped_at_any_corner_is_the_same_picture(original, tmp_path, cut, is_second_larger):
    copy = saved(cropped(pixels_of(original), *cut), tmp_path / "copy.jpg", 50)
    pair = (copy, picture_of(original)) if is_second_larger else (picture_of(original), copy)
    verdict = verify(*pair, cut=cut, is_second_larger=is_second_larger)
    assert verdict is not None
    whose = "first cropped" if is_second_larger else "cropped"
    assert verdict.alteration in [f"{whose} to {share}% of the area" for share in (80, 81, 82)]


@pytest.mark.parametrize("orientation", [0, 1, 5, 6])
@pytest.mark.parametrize("is_second_larger", [False, True])
def test_a_copy_cropped_turned_brightened_shrunk_and_compressed_is_the_same_picture(
    original, tmp_path, orientation, is_second_larger
):
    pixels = cropped(pixels_of(original), 0, 0.1, 0.04, 0)
    pixels = scaled(np.clip(pixels * 0.85 + 20, 0, 255).astype(np.uint8), 0.6)
    way = orientation if is_second_larger else inverse(orientation)
    copy = saved(turn(pixels, way), tmp_path / "copy.jpg", 50)
    pair = (copy, picture_of(original)) if is_second_larger else (picture_of(original), copy)
    verdict = verify(*pair, orientation, cut=(0.01, 0.09, 0.03, 0.01), is_second_larger=is_second_larger)
    assert verdict is not None
    assert "brightness or contrast changed" in verdict.alteration
    words = verdict.alteration.split(", ")
    factors = (1.64, 1.65, 1.66, 1.67, 1.68, 1.69) if is_second_larger else (0.59, 0.6, 0.61)
    assert {f"resized ×{factor:.2f}" for factor in factors} & set(words)
    assert any(word.startswith("first cropped to" if is_second_larger else "cropped to") for word in words)
    # In either role, turning the second by the orientation shows what the first shows.
    assert words[0] == NAMES[inverse(orientation)] or orientation == 0


@pytest.mark.parametrize("is_second_larger", [False, True])
def test_the_words_say_what_makes_the_second_of_the_first(tmp_path, is_second_larger):
    whole = saved(texture(9, (256, 256)), tmp_path / "whole.png")
    half = saved(scaled(texture(9, (256, 256)), 0.5), tmp_path / "half.png")
    narrow = saved(turn(cv2.resize(texture(9, (256, 256)), (128, 192)), 5), tmp_path / "narrow.png")
    # Where nothing is cut, which of the two is called the larger says nothing.
    options = {"is_second_larger": is_second_larger}
    assert verify(whole, half, **options).alteration == "resized ×0.50"
    assert verify(half, whole, **options).alteration == "resized ×2.00"
    assert verify(whole, narrow, inverse(5), **options).alteration == (
        "turned by 90° to the right, resized ×0.75 across and ×0.50 down"
    )
    assert verify(narrow, whole, 5, **options).alteration == (
        "turned by 90° to the left, resized ×2.00 across and ×1.33 down"
    )


@pytest.mark.parametrize("orientation", [0, 1, 5, 6])
@pytest.mark.parametrize("is_second_larger", [False, True])
def test_the_way_back_is_what_is_said_of_the_pair_the_other_way_round(tmp_path, orientation, is_second_larger):
    whole = texture(3)
    part = turn(scaled(cropped(whole, 0.1, 0, 0, 0.05), 0.8), inverse(orientation))
    one, other = saved(whole, tmp_path / "a.png"), saved(part, tmp_path / "b.png")
    cut = (0.1, 0, 0, 0.05)
    if is_second_larger:
        one, other, orientation = other, one, inverse(orientation)
    there = verify(one, other, orientation, cut=cut, is_second_larger=is_second_larger)
    back = verify(other, one, inverse(orientation), cut=cut, is_second_larger=not is_second_larger)
    assert there is not None
    assert back is not None
    assert (there.alteration, there.back) == (back.back, back.alteration)
    assert there.alteration != there.back
    assert there.similarity == back.similarity


def test_two_views_that_each_show_what_the_other_lacks_are_both_cropped(tmp_path):
    pixels = texture(10, (300, 300))
    first, second = (saved(cut, tmp_path / f"{place}.png") for place, cut in enumerate((pixels[15:], pixels[:-15])))
    words = verify(first, second).alteration
    assert words == "cropped to 95% of the area, first cropped to 95% of the area"


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("quality", [15, 20])
def test_a_copy_that_compression_left_coarse_is_the_same_picture(shared_data, tmp_path, name, quality):
    path = shared_data / name
    assert verify(picture_of(path), saved(pixels_of(path), tmp_path / "copy.jpg", quality)) is not None


def test_noise_of_strong_compression_is_not_allowed_for_where_the_views_differ(shared_data, tmp_path):
    path = shared_data / "ham10000" / "images" / "ISIC_0024306.jpg"
    coarse = saved(pixels_of(path), tmp_path / "coarse.jpg", 10)
    part = saved(cropped(pixels_of(path), 0.05, 0.05, 0.05, 0.05), tmp_path / "part.jpg", 10)
    assert verify(picture_of(path), coarse) is not None
    assert verify(picture_of(path), part, cut=(0.05,) * 4) is None


def test_noise_of_strong_compression_is_not_allowed_for_where_no_file_was_compressed_so(shared_data, tmp_path):
    path = shared_data / "ham10000" / "images" / "ISIC_0024306.jpg"
    coarse = saved(pixels_of(path), tmp_path / "coarse.jpg", 10)
    assert verify(picture_of(path), coarse) is not None
    assert verify(picture_of(path), dataclasses.replace(coarse, step=60.0)) is None


@pytest.mark.parametrize("upscaling", [2, 3])
@pytest.mark.parametrize("step", [0.0, 150.0])
def test_neighbouring_slices_of_a_small_volume_are_different_pictures(shared_data, upscaling, step):
    volume = shared_data / "nifti-hippocampus" / "hippocampus_001_image.nii.gz"
    slices = np.moveaxis(np.asarray(nibabel.load(volume).dataobj, np.float32), 2, 0)
    white = np.percentile(slices, 99.5)
    greys = [cv2.resize(np.minimum(cut * 255 / white, 255), None, fx=upscaling, fy=upscaling) for cut in slices]
    pictures = [Picture(volume, Square.of(grey), *grey.shape, "JPEG", 1, step) for grey in greys]
    assert len(pictures) > 20
    assert not [pair for pair in itertools.pairwise(pictures) if verify(*pair)]


@pytest.mark.parametrize("gain", [1.3, 1.5])
def test_a_copy_brightened_until_its_light_parts_are_white_is_the_same_picture(original, tmp_path, gain):
    pixels = np.clip(pixels_of(original) * gain, 0, 255).astype(np.uint8)
    verdict = verify(picture_of(original), saved(pixels, tmp_path / "copy.jpg", 90))
    assert verdict is not None


def test_what_is_white_in_one_counts_where_the_other_shows_something_dark_there():
    grey = texture(11, (SIDE, SIDE)).astype(np.float32)
    labelled, brightened = grey.copy(), np.minimum(grey * 1.4, 255)
    labelled[20:60, 20:60] = np.where(grey[20:60, 20:60] < 128, 255, grey[20:60, 20:60])
    assert unclipped(grey, grey) is None
    assert unclipped(grey, labelled) is None or unclipped(grey, labelled).mean() > 0.99
    seen = unclipped(grey, brightened)
    assert 0 < seen.mean() < 1
    assert (seen[(brightened >= 255) & (grey < 250)] == 0).all()
    assert np.percentile(window_similarities(grey, brightened, noise=0.1, seen=seen), 5) > 0.99
    assert np.percentile(window_similarities(grey, brightened, noise=0.1), 5) < 0.95


def test_a_label_burnt_into_a_corner_does_not_make_another_picture(original, tmp_path):
    pixels = pixels_of(original).copy()
    height, width = pixels.shape[:2]
    cv2.putText(pixels, "L 12", (4, height - 6), cv2.FONT_HERSHEY_SIMPLEX, width / 700, (255, 255, 255), 1)
    verdict = verify(picture_of(original), saved(pixels, tmp_path / "copy.jpg"))
    assert verdict is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0000283", "0000071"),
        ("0010571", "0000423"),
        ("0000065", "0000073"),
        ("0009967", "0000423"),
        ("0009929", "0009889"),
    ],
)
def test_two_lesions_of_like_shape_are_two_pictures(shared_data, one, other):
    folder = shared_data / "isic2017" / "images"
    first, second = (picture_of(folder / f"ISIC_{name}.jpg") for name in (one, other))
    assert [verify(first, second, orientation) for orientation in range(N_ORIENTATIONS)] == [None] * N_ORIENTATIONS


@pytest.mark.parametrize(("one", "other"), [("24658", "28957"), ("29248", "30442"), ("33391", "34186")])
def test_two_photographs_of_one_lesion_taken_one_after_the_other_are_two_pictures(shared_data, one, other):
    folder = shared_data / "ham10000" / "images"
    assert verify(*(picture_of(folder / f"ISIC_00{name}.jpg") for name in (one, other))) is None


@pytest.mark.parametrize(("one", "other"), [("0012290", "0013594"), ("0000223", "0014818"), ("0000222", "0014846")])
def test_a_slide_that_was_scanned_twice_is_one_picture(shared_data, one, other):
    folder = shared_data / "isic2017" / "images"
    verdict = verify(*(picture_of(folder / f"ISIC_{name}.jpg") for name in (one, other)))
    assert verdict is not None
    assert verdict.kind is Kind.NEAR


def test_neighbouring_slices_of_a_volume_are_different_pictures(shared_data):
    slices = [picture_of(path) for path in sorted((shared_data / "dicom" / "mr_series").iterdir())]
    assert not [pair for pair in itertools.combinations(slices, 2) if verify(*pair)]


def test_the_same_pixels_in_two_formats_are_the_same_pixels(shared_data, tmp_path):
    path = shared_data / "breakhis" / "SOB_M_DC-14-17614-400-014.png"
    pixels = pixels_of(path)
    tiff = saved(pixels, tmp_path / "copy.tif")
    assert verify(picture_of(path), tiff) is not None
    assert verify(picture_of(path), tiff).kind is Kind.PIXELS
    assert verify(picture_of(path), tiff).alteration == ""


def test_a_jpeg_file_and_the_png_file_made_from_it_have_the_same_pixels(shared_data, tmp_path):
    path = shared_data / "isic2017-hires" / "images" / "ISIC_0001769.jpg"
    verdict = verify(picture_of(path), saved(pixels_of(path), tmp_path / "copy.png"))
    assert verdict is not None
    assert verdict.kind is Kind.PIXELS


@pytest.mark.parametrize("exif", range(2, 9))
def test_a_copy_turned_by_its_exif_orientation_has_the_same_upright_pixels(tmp_path, exif):
    stored = np.repeat(texture(4)[..., None], 3, 2)
    tag = Image.Exif()
    tag[0x0112] = exif
    Image.fromarray(stored).save(tmp_path / "stored.png", exif=tag)
    with Image.open(tmp_path / "stored.png") as opened:
        ImageOps.exif_transpose(opened).save(tmp_path / "upright.png", exif=b"")
    verdict = verify(picture_of(tmp_path / "stored.png"), picture_of(tmp_path / "upright.png"))
    assert verdict is not None
    assert verdict.kind is Kind.PIXELS


def test_the_16_bit_version_of_an_8_bit_image_is_the_same_picture_but_has_other_pixels(tmp_path):
    pixels = texture(5)
    Image.fromarray(pixels).save(tmp_path / "eight.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    verdict = verify(picture_of(tmp_path / "eight.png"), picture_of(tmp_path / "sixteen.png"))
    assert verdict is not None
    assert verdict.kind is Kind.NEAR


def test_grey_and_colour_files_of_the_same_grey_have_the_same_pixels_and_one_pixel_makes_a_difference(tmp_path):
    pixels = texture(6)
    paths = [tmp_path / name for name in ("grey.png", "colour.png", "other.png")]
    Image.fromarray(pixels).save(paths[0])
    Image.fromarray(np.repeat(pixels[..., None], 3, 2)).save(paths[1])
    pixels[40, 50] ^= 1
    Image.fromarray(pixels).save(paths[2])
    assert has_equal_pixels(paths[0], paths[1])
    assert not has_equal_pixels(paths[0], paths[2])
    assert len({pixel_digest(path) for path in paths}) == 2


def test_one_changed_pixel_leaves_the_same_picture_with_other_pixels(tmp_path):
    pixels = texture(7)
    first = saved(pixels, tmp_path / "a.png")
    pixels[40, 50] ^= 1
    verdict = verify(first, saved(pixels, tmp_path / "b.png"))
    assert verdict is not None
    assert (verdict.kind, verdict.alteration) == (Kind.NEAR, "small changes of its pixels")


def test_pixels_that_are_known_to_differ_are_not_decoded_to_be_compared(tmp_path, monkeypatch):
    pixels = texture(7)
    pair = saved(pixels, tmp_path / "a.png"), saved(pixels, tmp_path / "b.png")
    monkeypatch.setattr(verification, "has_equal_pixels", lambda one, other: pytest.fail("they were decoded"))
    verdict = verify(*pair, may_be_equal=False)
    assert verdict is not None
    assert verdict.kind is Kind.NEAR


@pytest.mark.parametrize("orientation", [0, 5])
def test_a_copy_that_is_not_cropped_is_known_without_being_aligned(original, tmp_path, monkeypatch, orientation):
    pixels = pixels_of(original)
    first = picture_of(original)
    copy = saved(turn(pixels, inverse(orientation)), tmp_path / "copy.jpg", quality=90)
    after = verify(first, copy, orientation, cut=(0.01, 0, 0, 0))
    monkeypatch.setattr(verification, "aligned", lambda *_: pytest.fail("they were aligned"))
    at_once = verify(first, copy, orientation)
    assert at_once is not None
    assert after is not None
    assert at_once.alteration == after.alteration
    assert at_once.similarity == pytest.approx(after.similarity, abs=0.01)


def test_blank_and_smooth_pictures_have_too_little_detail_to_be_called_the_same(tmp_path):
    y, x = np.mgrid[:200, :300]
    smooth = (x / 3 + y / 4).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.7, smooth.shape)
    blank = saved(np.full((200, 300), 128, np.uint8), tmp_path / "blank.png")
    white = saved(np.full((200, 300), 255, np.uint8), tmp_path / "white.png")
    one = saved((smooth + noise).clip(0, 255).astype(np.uint8), tmp_path / "one.png")
    other = saved((smooth + noise[::-1]).clip(0, 255).astype(np.uint8), tmp_path / "other.png")
    assert verify(blank, white) is None
    assert verify(one, other) is None


def test_something_that_only_one_of_two_pictures_shows_is_no_agreement():
    plain, full = np.full((SIDE, SIDE), 100, np.float32), texture(8, (SIDE, SIDE)).astype(np.float32)
    half = full.copy()
    half[:, SIDE // 2 :] = 100
    assert np.percentile(window_similarities(full, half, noise=0.5), 40) < 0.5
    assert window_similarities(plain, plain, noise=0.5) is None
    assert window_similarities(plain, full, noise=0.5).max() == 0
    assert window_similarities(full, full, noise=0.5).min() == 1


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    orientation=st.integers(0, N_ORIENTATIONS - 1),
    cut=st.tuples(*[st.floats(0.01, 0.07)] * 4),
    miss=st.tuples(*[st.floats(-0.012, 0.012)] * 4),
)
def test_any_part_of_any_texture_in_any_orientation_is_found_and_no_other_texture(
    tmp_path_factory, seed, orientation, cut, miss
):
    folder = tmp_path_factory.getbasetemp()
    whole = texture(seed)
    part = turn(cropped(whole, *cut), inverse(orientation))
    guess = tuple(share + error for share, error in zip(cut, miss, strict=True))
    larger, smaller = picture_in_memory(whole, folder), picture_in_memory(part, folder)
    other = picture_in_memory(texture(seed + 1), folder)
    assert verify(larger, smaller, orientation, cut=guess) is not None
    assert verify(smaller, larger, inverse(orientation), cut=guess, is_second_larger=True) is not None
    assert verify(other, smaller, orientation, cut=guess) is None


@settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    left=st.floats(0, 0.08),
    top=st.floats(0, 0.08),
    width=st.floats(0.88, 0.92),
    slant=st.floats(-0.03, 0.03),
)
def test_the_frame_is_found_to_a_third_of_a_pixel(seed, left, top, width, slant):
    whole = texture(seed, (320, 320))
    matrix = np.array([[width, slant], [-slant, 0.9]])
    centre = np.array([left + width / 2, top + 0.45])
    size = 256
    offset = centre * 320 - 0.5 - matrix @ np.full(2, (size - 1) / 2) * 320 / size
    part = cv2.warpAffine(
        whole,
        np.column_stack((matrix * 320 / size, offset)),
        (size, size),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    found = aligned(Square.of(part), Square.of(whole), Frame.cutting(top, 0.1 - top, left, 1 - width - left))
    assert found is not None
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    moved = corners @ (found.matrix - matrix).T + found.centre - centre
    assert np.abs(moved).max() * SIDE < 1 / 3


def test_a_file_that_cannot_be_read_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(ImageError) as caught:
        picture_of(path)
    assert "\n" not in caught.value.message
