from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import scipy.fft
import tifffile
from PIL import Image

from medtool.errors import ImageError
from medtool.images import ReadOptions, read_image
from medtool.split.duplicates.candidates import part_hashes
from medtool.split.duplicates.fingerprint import (
    HASHED,
    completed,
    decoded,
    draft_of,
    encoded,
    fingerprint,
    fingerprint_of,
    hashes_of,
    spectrum_of,
)
from medtool.split.duplicates.orientation import turn_spectra
from tests.split.duplicates.conftest import CROPPED, PLAIN

CHANCE = np.random.default_rng(3)
PICTURE = np.asarray(
    Image.fromarray(CHANCE.integers(0, 256, (12, 16, 3), np.uint8)).resize((800, 600), Image.Resampling.BICUBIC)
)


def test_a_hash_has_64_bits_and_exchanging_rows_and_columns_stays_among_them():
    assert len(set(HASHED)) == 64
    assert {(v, u) for u, v in HASHED} == set(HASHED)


def jpeg(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def hash_of(path):
    return hashes_of(fingerprint(path).spectrum[None])[0]


def outcome(function, path):
    try:
        function(path)
    except ImageError as error:
        return error.message
    return "read"


def test_it_tells_the_content_the_size_the_format_and_the_colours(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(PICTURE, quality=95))
    made = fingerprint(path)
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (made.width, made.height, made.format, made.is_blank, made.note) == (800, 600, "JPEG", False, "")
    wanted = PICTURE.reshape(8, 75, 8, 100, 3).mean((1, 3))
    assert np.abs(made.colours - wanted).max() < 4


def test_the_spectrum_is_the_lowest_part_of_a_cosine_transform():
    fine = np.asarray(Image.fromarray(PICTURE).resize((1600, 1200)))
    wanted = scipy.fft.dctn(fine @ [0.299, 0.587, 0.114], norm="ortho")[:16, :16] / np.sqrt(1600 * 1200)
    assert np.allclose(spectrum_of(fine)[0], wanted, atol=0.02)


def test_eight_bits_hold_a_coefficient_to_a_few_hundredths():
    values = np.concatenate([[0.0], np.geomspace(0.05, 140, 500)])
    values = np.concatenate([values, -values])
    back = decoded(encoded(values))
    assert np.allclose(back, values, rtol=0.07, atol=0.004)
    assert np.array_equal(np.sign(back), np.sign(values))


@pytest.mark.parametrize("size", [(800, 600), (1022, 767), (641, 519), (515, 4099)])
def test_reduced_decoding_gives_the_spectrum_of_the_whole_picture(tmp_path, size):
    pixels = np.asarray(Image.fromarray(PICTURE).resize(size))
    (tmp_path / "a.jpg").write_bytes(jpeg(pixels, quality=92))
    made = decoded(fingerprint(tmp_path / "a.jpg").spectrum)
    wanted, _ = spectrum_of(read_image(tmp_path / "a.jpg").rgb)
    wanted[0, 0] = made[0, 0]  # the mean does not fit into eight bits, and nothing needs it
    assert np.allclose(made, wanted, rtol=0.08, atol=0.15)


@pytest.mark.parametrize("exif", range(1, 9))
def test_a_picture_stored_in_any_orientation_has_the_fingerprint_of_the_upright_one(tmp_path, exif):
    tags = Image.Exif()
    tags[0x0112] = exif
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(PICTURE, quality=95, exif=tags))
    Image.fromarray(read_image(path).rgb).save(tmp_path / "upright.png")
    made, wanted = fingerprint(path), fingerprint(tmp_path / "upright.png")
    assert (made.width, made.height) == (wanted.width, wanted.height)
    assert np.bitwise_count(hashes_of(made.spectrum[None]) ^ hashes_of(wanted.spectrum[None])).max() <= 1
    assert np.abs(made.colours.astype(int) - wanted.colours).max() <= 3


def test_a_picture_is_the_same_in_every_format_and_depth(tmp_path):
    grey = np.ascontiguousarray(PICTURE[..., 1])
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "a.bmp")
    Image.fromarray(grey).convert("RGB").save(tmp_path / "a.webp", lossless=True)
    tifffile.imwrite(tmp_path / "a.tif", grey.astype(np.uint16) * 257)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=95)
    Image.fromarray(grey).convert("CMYK").save(tmp_path / "inks.jpg", quality=95)
    Image.fromarray(grey).save(tmp_path / "progressive.jpg", quality=95, progressive=True)
    hashes = np.array([hash_of(path) for path in sorted(tmp_path.iterdir())])
    assert len(hashes) == 8
    assert np.bitwise_count(hashes ^ hashes[0]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 2), (3000, 2), (64, 64), (127, 129)])
def test_pictures_of_any_shape_have_a_fingerprint(tmp_path, shape):
    Image.fromarray(CHANCE.integers(0, 256, (*shape, 3), np.uint8)).save(tmp_path / "a.png")
    made = fingerprint(tmp_path / "a.png")
    assert (made.height, made.width) == shape
    assert made.is_blank == (shape == (1, 1))


@pytest.mark.parametrize("value", [0, 17, 255])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_of_one_value_is_blank_and_one_with_a_speck_is_not(tmp_path, value, suffix):
    pixels = np.full((700, 700), value, np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"blank{suffix}", quality=100)
    pixels[333, 412] ^= 128
    Image.fromarray(pixels).save(tmp_path / f"speck{suffix}", quality=100)
    assert fingerprint(tmp_path / f"blank{suffix}").is_blank
    assert not fingerprint(tmp_path / f"speck{suffix}").is_blank


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
def test_a_damaged_jpeg_file_is_refused_with_the_words_of_the_reader(tmp_path, options):
    whole = jpeg(PICTURE, **options)
    damaged = [whole[: int(len(whole) * share)] for share in (0.01, 0.3, 0.7, 0.99)]
    damaged += [data + b"\xff\xd9" for data in damaged]
    damaged += [whole[:-1], whole[:-2] + b"\xff\xd9\xff\xd9"]
    for place in np.linspace(30, len(whole) - 3, 12).astype(int):
        damaged.append(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
    refused = 0
    for data in damaged:
        (tmp_path / "a.jpg").write_bytes(data)
        wanted = outcome(read_image, tmp_path / "a.jpg")
        assert outcome(fingerprint, tmp_path / "a.jpg") == wanted
        refused += wanted != "read"
    assert refused >= 8


def test_what_is_no_image_is_refused_with_the_words_of_the_reader(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no image")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    for path in (tmp_path, tmp_path / "empty", tmp_path / "text", tmp_path / "cut.png", tmp_path / "missing"):
        assert outcome(fingerprint, path) == outcome(read_image, path) != "read"


@pytest.mark.parametrize("limit", [{"max_pixels": 479_999}, {"max_bytes": 5000}])
def test_the_limits_of_the_reader_hold(tmp_path, limit):
    (tmp_path / "a.jpg").write_bytes(jpeg(PICTURE))
    with pytest.raises(ImageError, match="the limit is"):
        fingerprint(tmp_path / "a.jpg", ReadOptions(**limit))


def test_of_a_file_of_several_pages_the_content_is_kept_and_the_reason_told(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8), photometric="minisblack")
    made = fingerprint(tmp_path / "a.tif")
    assert made.sha256 == hashlib.sha256((tmp_path / "a.tif").read_bytes()).hexdigest()
    assert "3 pages" in made.note
    assert not made.spectrum.any()


def places_of(copies):
    """Return where the originals are, by their number."""
    return {number: place for place, (number, name, _) in enumerate(copies) if name == "original"}


def test_plain_copies_of_real_pictures_differ_in_few_bits(copies, copies_fingerprints):
    hashes, first = hashes_of(copies_fingerprints.spectra), places_of(copies)
    pairs = [(place, first[number]) for place, (number, name, _) in enumerate(copies) if name in PLAIN]
    bits = np.array([np.bitwise_count(hashes[one] ^ hashes[other]) for one, other in pairs])
    assert (bits <= 4).mean() >= 0.98
    assert bits.max() <= 8


def test_mirrored_and_turned_copies_of_real_pictures_differ_in_few_bits(copies, copies_fingerprints):
    hashes, first = hashes_of(copies_fingerprints.spectra), places_of(copies)
    done = {"mirrored": 1, "upside down": 2, "half turn": 3, "right": 5, "left": 6}
    for place, (number, name, _) in enumerate(copies):
        if name in done:
            of_turned = hashes_of(turn_spectra(copies_fingerprints.spectra[[first[number]]], done[name]))
            assert np.bitwise_count(of_turned[0] ^ hashes[place]) <= 4


def test_a_crop_has_nearly_the_hash_of_a_part_of_the_original(copies, copies_fingerprints):
    parts, first = part_hashes(copies_fingerprints.spectra), places_of(copies)
    pairs = [(place, first[number]) for place, (number, name, _) in enumerate(copies) if name in CROPPED]
    bits = np.array([np.bitwise_count(parts[one, 0] ^ parts[other]).min() for one, other in pairs])
    assert (bits <= 6).mean() >= 0.97
    assert np.array_equal(parts[:, 0], hashes_of(copies_fingerprints.spectra))


def test_fingerprints_made_together_are_those_made_one_by_one():
    chance = np.random.default_rng(3)
    sizes = [(90, 70), (300, 200), (90, 70), (70, 90), (1024, 768), (1024, 768), (4000, 64), (90, 70)]
    data = []
    for number, size in enumerate(sizes):
        tags = Image.Exif()
        tags[0x0112] = 1 + number
        data.append(jpeg(chance.integers(0, 256, (*size[::-1], 3), np.uint8), exif=tags))
    drafts = [draft_of(one, sha256=str(number)) for number, one in enumerate(data)]
    for number, together in enumerate(completed(drafts)):
        alone = fingerprint_of(data[number], sha256=str(number))
        assert (together.sha256, together.width, together.height) == (alone.sha256, alone.width, alone.height)
        assert np.array_equal(together.spectrum, alone.spectrum)
        assert np.array_equal(together.colours, alone.colours)
