from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from medtool.errors import ImageError
from medtool.images import ReadOptions, read_image, read_labels
from medtool.images.messages import heard
from medtool.images.reader import read_bytes, reduced


def test_the_hash_is_of_the_files_bytes(tmp_path, colours):
    path = tmp_path / "a.png"
    Pillow.fromarray(colours).save(path)
    assert read_image(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_name_says_nothing_about_the_format(tmp_path, colours):
    path = tmp_path / "really.dcm"
    Pillow.fromarray(colours).save(path, "PNG")
    assert np.array_equal(read_image(path).rgb, colours)


def test_folders_missing_and_empty_files_are_named(tmp_path):
    (tmp_path / "empty.png").touch()
    for path, reason in ((tmp_path, "a folder"), (tmp_path / "no", "no such file"), (tmp_path / "empty.png", "empty")):
        with pytest.raises(ImageError, match=reason):
            read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")


def test_a_path_that_cannot_be_is_an_image_error():
    with pytest.raises(ImageError, match="not a usable path"):
        read_image(Path("a\0b.png"))


def test_large_files_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(3 << 30)
    with pytest.raises(ImageError, match=r"3,221,225,472 bytes; the limit is 1,073,741,824") as error:
        read_image(path)
    assert error.value.hint == "--max-bytes 3221225472"


def test_running_out_of_memory_is_one_bad_image(tmp_path, colours, monkeypatch):
    from medtool.images import png_jpeg

    def no_memory(*_: object) -> None:
        raise MemoryError

    Pillow.fromarray(colours).save(tmp_path / "a.png")
    monkeypatch.setattr(png_jpeg, "_raster", no_memory)
    with pytest.raises(ImageError, match="not enough memory"):
        read_image(tmp_path / "a.png")


def test_what_decoders_say_reaches_nobody(tmp_path, capfd, greys):
    file = io.BytesIO()
    tifffile.imwrite(file, greys, extratags=[(42113, "s", 0, "not a number", True)])
    (tmp_path / "a.tif").write_bytes(file.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(tmp_path / "a.tif").pixels, greys)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_other_threads_are_left_to_them():
    caught = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest, **named: caught.append(str(message))
        with heard() as said:
            other = threading.Thread(target=warnings.warn, args=("from elsewhere",))
            other.start()
            other.join()
            warnings.warn("from here", stacklevel=1)
            logging.getLogger("tifffile").error("and %s", "here")
    assert caught == ["from elsewhere"]
    assert [message.text for message in said] == ["from here", "and here"]


def test_many_threads_read_what_one_reads(tmp_path, colours):
    paths = []
    for number, suffix in enumerate(["png", "jpg", "tif", "gif"] * 6):
        paths.append(tmp_path / f"{number}.{suffix}")
        Pillow.fromarray(np.roll(colours, number, axis=1)).save(paths[-1])
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(read_image, paths))
    for path, image in zip(paths, threaded, strict=True):
        assert np.array_equal(image.rgb, read_image(path).rgb)
    assert warnings.filters == filters


SMALL = (
    "dicom/MR_small_RLE.dcm",
    "dicom/JPEG2000.dcm",
    "dicom/SC_rgb_small_odd.dcm",
    "nifti-hippocampus/hippocampus_001_label.nii.gz",
    "slides/test_orient6.tif",
    "slides/boxes.tiff",
    "slides/small.svs",
    "isic2017/masks/ISIC_0000000_segmentation.png",
    "isic2017/images/ISIC_0000000.jpg",
)


@pytest.fixture(scope="module")
def small_files(shared_data):
    """Return small real files of every format, and some of the rest made here."""
    files = {name: (shared_data / name).read_bytes() for name in SMALL}
    picture = Pillow.open(shared_data / SMALL[-1]).resize((40, 30))
    for kind in ("PNG", "GIF", "BMP", "WEBP", "PPM"):
        file = io.BytesIO()
        picture.save(file, kind)
        files[kind] = file.getvalue()
    return files


def try_to_read(path: Path) -> None:
    for page in (None, 0):
        for function in (read_image, read_labels):
            reason = "none"
            try:
                function(path, ReadOptions(page=page, max_pixels=4_000_000, max_bytes=40_000_000))
            except ImageError as error:
                reason = str(error)
            assert reason
            assert "\n" not in reason


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_damaged_bytes_give_an_image_or_an_image_error(small_files, tmp_path, capfd, seed):
    choice = random.Random(seed)
    data = bytearray(choice.choice(list(small_files.values())))
    if choice.random() < 0.3:
        del data[choice.randrange(1, len(data)) :]
    reach = len(data) if choice.random() < 0.4 else min(len(data), 1000)
    for _ in range(choice.choice((0, 1, 1, 2, 8))):
        data[choice.randrange(min(reach, len(data)))] = choice.randrange(256)
    path = tmp_path / "damaged.bin"
    path.write_bytes(data)
    try_to_read(path)
    assert capfd.readouterr() == ("", "")


def test_a_cut_file_never_gives_other_pixels(small_files, tmp_path):
    choice = random.Random(0)
    path = tmp_path / "cut.bin"
    for name, data in small_files.items():
        path.write_bytes(data)
        whole = read_image(path, ReadOptions(page=0)).rgb
        for _ in range(12):
            path.write_bytes(data[: choice.randrange(1, len(data))])
            try:
                cut = read_image(path, ReadOptions(page=0)).rgb
            except ImageError:
                continue
            assert np.array_equal(cut, whole), name


def smooth(height, width):
    rows, columns = np.mgrid[:height, :width]
    blue = (rows + columns) * 200 // (height + width)
    return np.stack([rows * 200 // height, columns * 200 // width, blue], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("size", "step"), [((600, 800), 8), ((599, 803), 8), ((300, 400), 4), ((127, 129), 1)])
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 97, "subsampling": 0}), ("PNG", {})])
def test_a_reduced_picture_has_the_means_of_the_pixels(tmp_path, size, step, kind, options):
    pixels = smooth(*size)
    Pillow.fromarray(pixels).save(tmp_path / "a", kind, **options)
    small = reduced(read_bytes(tmp_path / "a"), least_px=64)
    assert small.size == size
    assert small.format == kind
    if kind == "JPEG":
        assert small.step == step
    assert small.rgb.shape[:2] == (-(-size[0] // small.step), -(-size[1] // small.step))
    whole = (size[0] // small.step, size[1] // small.step)
    means = pixels[: whole[0] * small.step, : whole[1] * small.step].reshape(whole[0], small.step, whole[1], -1, 3)
    assert np.abs(small.rgb[: whole[0], : whole[1]] - means.mean((1, 3))).max() <= 3


def test_a_reduced_picture_is_as_it_is_stored_and_tells_its_orientation(tmp_path):
    tags = Pillow.Exif()
    tags[0x0112] = 6
    Pillow.fromarray(smooth(600, 800)).save(tmp_path / "a.jpg", exif=tags, quality=95)
    small = reduced(read_bytes(tmp_path / "a.jpg"), least_px=64)
    assert (small.size, small.orientation) == ((600, 800), 6)
    assert read_image(tmp_path / "a.jpg").size == (800, 600)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end_or_refused(tmp_path, colours, monkeypatch):
    path = tmp_path / "a.png"
    Pillow.fromarray(colours).save(path)
    data = path.read_bytes()
    real = Path.stat

    def shorter(self, **options):
        status = list(real(self, **options))
        status[6] -= 100 if self == path else 0
        return os.stat_result(status)

    monkeypatch.setattr(Path, "stat", shorter)
    assert read_bytes(path) == data
    with pytest.raises(ImageError, match="grew beyond the limit"):
        read_bytes(path, ReadOptions(max_bytes=len(data) - 50))
