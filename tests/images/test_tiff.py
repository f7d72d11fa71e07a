from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageOps

from medtool.errors import ImageError
from medtool.images import ReadOptions, read_image


def tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def pages(*pictures, **options):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, more in pictures:
            writer.write(pixels, **options, **more)
    return file.getvalue()


def patched(data, tag, value):
    """Overwrite one tag's value in the first directory."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        entry = file.pages[0].tags[tag]
    kind = {3: "H", 4: "I"}[int(entry.dtype)]
    changed = bytearray(data)
    struct.pack_into(f"<{kind}", changed, entry.valueoffset, value)
    return bytes(changed)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "adobe_deflate", "packbits", "lzma", "zstd", "jpeg2000"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 7}])
def test_lossless_compressions_give_the_same_pixels(read, colours, compression, layout):
    assert np.array_equal(read(tiff(colours, compression=compression, photometric="rgb", **layout)).rgb, colours)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}])
def test_jpeg_compression_is_decoded_to_rgb(read, colours, layout):
    image = read(tiff(colours, compression="jpeg", photometric="rgb", **layout))
    assert np.abs(image.rgb.astype(int) - colours).mean() < 8


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
)
def test_numbers_of_every_type_keep_their_values(read, dtype, bigtiff, byteorder):
    values = (np.arange(600).reshape(20, 30) % 120).astype(dtype)
    image = read(tiff(values, bigtiff=bigtiff, byteorder=byteorder))
    assert image.pixels.dtype == np.dtype(dtype)
    assert np.array_equal(image.pixels, values)
    assert len(np.unique(image.rgb)) == 120


def test_planes_are_put_together(read, colours):
    planes = np.ascontiguousarray(np.moveaxis(colours, -1, 0))
    assert np.array_equal(read(tiff(planes, photometric="rgb", planarconfig="separate")).rgb, colours)


def test_white_is_zero_is_turned_round(read, greys):
    assert np.array_equal(read(tiff(greys, photometric="miniswhite")).pixels, 255 - greys)
    values = greys.astype(np.float32)
    image = read(tiff(values, photometric="miniswhite"))
    assert np.array_equal(image.pixels, values)
    assert image.rgb[..., 0][values == values.min()].min() == 255


@pytest.mark.parametrize("compression", [None, "group3", "group4", "tiff_lzw"])
def test_bilevel_pages_are_black_and_white(read, greys, compression):
    file = io.BytesIO()
    Pillow.fromarray(greys > 128).save(file, "TIFF", compression=compression)
    image = read(file.getvalue())
    assert image.pixels.dtype == np.bool_
    assert np.array_equal(image.rgb[..., 2], (greys > 128) * 255)


def test_cmyk_becomes_the_rgb_that_pillow_makes(read):
    inks = np.random.default_rng(0).integers(0, 256, (20, 30, 4)).astype(np.uint8)
    wanted = np.asarray(Pillow.frombytes("CMYK", (30, 20), inks.tobytes()).convert("RGB")).astype(int)
    assert np.abs(read(tiff(inks, photometric="separated")).rgb - wanted).max() <= 1
    deep = read(tiff(inks.astype(np.uint16) * 257, photometric="separated"))
    assert np.abs(deep.rgb - wanted).max() <= 1


@pytest.mark.parametrize("scale", [1, 257])
def test_palettes_of_16_and_of_mistaken_8_bits_are_looked_up(read, greys, scale):
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    image = read(tiff(greys, photometric="palette", colormap=palette * np.uint16(scale)))
    assert np.array_equal(image.pixels, palette.T[greys])


def test_alpha_is_composited_as_the_file_says(read):
    pixels = np.full((4, 4, 4), (100, 50, 0, 128), np.uint8)
    straight = read(tiff(pixels, photometric="rgb", extrasamples=["unassalpha"]))
    assert straight.rgb[0, 0].tolist() == [177, 152, 127]
    multiplied = read(tiff(pixels, photometric="rgb", extrasamples=["assocalpha"]))
    assert multiplied.rgb[0, 0].tolist() == [227, 177, 127]
    unknown = read(tiff(pixels, photometric="rgb", extrasamples=["unspecified"]))
    assert unknown.rgb[0, 0].tolist() == [100, 50, 0]
    assert "ignored" in unknown.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_undone_as_pillow_does(read, colours, orientation):
    data = tiff(colours, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    wanted = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))))
    assert np.array_equal(read(data).rgb, wanted)


def test_real_orientation_files_are_the_eight_turns_of_one_letter(shared_data):
    letter = read_image(shared_data / "slides" / "test_orient1.tif").pixels
    turned = {
        1: letter,
        2: np.fliplr(letter),
        3: np.rot90(letter, 2),
        4: np.flipud(letter),
        5: letter.T,
        6: np.rot90(letter, -1),
        7: np.rot90(letter, 2).T,
        8: np.rot90(letter),
    }
    for number, wanted in turned.items():
        assert np.array_equal(read_image(shared_data / "slides" / f"test_orient{number}.tif").pixels, wanted)


def test_real_pyramids_and_slides_are_one_page_at_full_size(shared_data):
    sizes = {"boxes.tiff": (250, 300), "small.svs": (16, 16), "yb10kx5k.zstd.tiff": (5000, 10000)}
    for name, size in sizes.items():
        assert read_image(shared_data / "slides" / name).size == size


def test_reduced_copies_and_masks_are_no_pages(read, colours):
    data = pages(
        (colours, {"photometric": "rgb"}),
        (colours[::2, ::2], {"photometric": "rgb", "subfiletype": 1}),
        (colours[..., 0] > 50, {"photometric": "minisblack", "subfiletype": 4}),
    )
    assert np.array_equal(read(data).rgb, colours)


def test_several_pages_need_a_choice(read, greys):
    data = pages((greys, {}), (255 - greys, {}), (greys // 2, {}), photometric="minisblack")
    with pytest.raises(ImageError, match="3 pages, and one image is wanted") as error:
        read(data)
    assert error.value.hint == "--page N (0 to 2)"
    assert np.array_equal(read(data, page=1).pixels, 255 - greys)
    with pytest.raises(ImageError, match="no page 3"):
        read(data, page=3)


def test_imagej_stacks_count_their_images(read, greys):
    data = tiff(np.stack([greys] * 5), imagej=True)
    with pytest.raises(ImageError, match="5 pages"):
        read(data)
    assert np.array_equal(read(data, page=4).pixels, greys)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
def test_cut_files_are_errors(read, colours, share, compression):
    data = tiff(colours, compression=compression, photometric="rgb")
    with pytest.raises(ImageError):
        read(data[: int(len(data) * share)])


def test_a_strip_that_was_never_written_is_an_error(read, greys):
    data = tiff(greys, rowsperstrip=10)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        counts = file.pages[0].tags["StripByteCounts"]
    changed = bytearray(data)
    changed[counts.valueoffset + 2 : counts.valueoffset + 4] = b"\0\0"
    with pytest.raises(ImageError, match="missing"):
        read(bytes(changed))


def test_directories_in_a_circle_are_an_error(read, greys):
    data = bytearray(pages((greys, {}), (greys, {}), photometric="minisblack"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        second = file.pages[1].offset
        first = file.pages[0].offset
    (entries,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * entries, first)
    with pytest.raises(ImageError, match="circle"):
        read(bytes(data))


def test_bombs_are_refused_by_their_header(read, greys):
    tall = patched(tiff(greys[:1]), "ImageLength", 0x7FFFFFFF)
    with pytest.raises(ImageError):
        read(tall)
    tiles = tiff(greys, tile=(16, 16), compression="zlib")
    for tag, value in (("ImageWidth", 60_000), ("ImageLength", 60_000)):
        tiles = patched(tiles, tag, value)
    with pytest.raises(ImageError, match=r"60000 × 60000 is 3,600,000,000 pixels; the limit is 100,000,000"):
        read(tiles)
    huge_tile = patched(
        patched(tiff(greys, tile=(16, 16), compression="zlib"), "TileWidth", 65520), "TileLength", 65520
    )
    with pytest.raises(ImageError, match=r"decodes to 4,292,870,400 bytes"):
        read(huge_tile)


def test_what_cannot_be_shown_is_refused_by_name(read, greys):
    with pytest.raises(ImageError, match="5 channels"):
        read(tiff(np.stack([greys] * 5, axis=-1), photometric="minisblack", planarconfig="contig"))
    with pytest.raises(ImageError, match="complex64"):
        read(tiff(greys.astype(np.complex64)))
    with pytest.raises(ImageError, match="CIELAB"):
        read(tiff(np.stack([greys] * 3, axis=-1), photometric="cielab"))
    with pytest.raises(ImageError, match="JPEGXL"):
        read(tiff(greys, compression="jpegxl"))


def test_labels_are_the_stored_integers(labels, greys):
    for dtype in ("uint8", "uint16", "int32"):
        assert np.array_equal(labels(tiff(greys.astype(dtype))), greys)
    palette = np.zeros((3, 256), np.uint16)
    assert np.array_equal(labels(tiff(greys, photometric="palette", colormap=palette)), greys)


def test_bilevel_labels_are_0_and_1(labels, greys):
    file = io.BytesIO()
    Pillow.fromarray(greys > 128).save(file, "TIFF", compression="group4")
    assert np.array_equal(labels(file.getvalue()), greys > 128)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"photometric": "rgb"}, "3 channels"), ({"compression": "jpeg", "photometric": "minisblack"}, "JPEG")],
)
def test_labels_that_are_none_are_refused(labels, colours, options, reason):
    pixels = colours if options["photometric"] == "rgb" else colours[..., 0]
    with pytest.raises(ImageError, match=reason):
        labels(tiff(pixels, **options))


def test_float_labels_are_refused(labels, greys):
    with pytest.raises(ImageError, match="float32"):
        labels(tiff(greys.astype(np.float32)))


def test_the_pixel_limit_is_an_option(read, greys):
    with pytest.raises(ImageError, match="the limit is 100") as error:
        read(tiff(greys), max_pixels=100)
    assert error.value.hint == f"--max-pixels {greys.size}"
    assert ReadOptions().max_pixels == 100_000_000
