from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from medtool.errors import ImageError
from medtool.images import read_image, read_labels


def encoded(pixels, kind, mode=None, **options):
    picture = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, *, depth, colour, extra=()):
    """Write a PNG by hand: ``pixels`` (h, w[, channels]) integers of ``depth`` bits."""
    height, width = pixels.shape[:2]
    if depth == 16:
        rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        flat = pixels.reshape(height, -1)
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "WEBP"])
def test_lossless_colour_comes_back_as_it_was(read, colours, kind):
    image = read(encoded(colours, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(image.pixels, colours)
    assert image.rgb is image.pixels
    assert (image.window, image.notes, image.is_grey, image.size) == (None, (), False, (40, 56))


def test_grey_comes_back_as_one_value_a_pixel(read, greys):
    image = read(encoded(greys, "PNG"))
    assert image.is_grey
    assert np.array_equal(image.pixels, greys)
    assert np.array_equal(image.rgb, np.stack([greys] * 3, axis=-1))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_jpeg_is_what_pillow_reads(read, colours, options):
    data = encoded(colours, "JPEG", **options)
    assert np.array_equal(read(data).rgb, np.asarray(Pillow.open(io.BytesIO(data))))


def test_16_bit_png_keeps_all_bits_of_every_kind_of_pixel(read):
    values = np.random.default_rng(0).integers(0, 4096, (20, 30, 3))
    grey = read(png(values[..., 0], depth=16, colour=0))
    assert np.array_equal(grey.pixels, values[..., 0])
    assert grey.window == (0, 4095)
    colour = read(png(values, depth=16, colour=2))
    assert np.array_equal(colour.pixels, values)
    assert colour.rgb.max() > 240


def test_interlaced_16_bit_png_is_whole(read):
    values = np.random.default_rng(0).integers(0, 65536, (11, 13, 3))
    rows = b""
    for left, top, right, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)):
        rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in values[top::down, left::right])
    rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in values[1::2])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 13, 11, 16, 2, 0, 0, 1))
    for data in (rows, rows + b"surplus"):
        whole = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
        assert np.array_equal(read(whole).pixels, values)
    short = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows[:-1])) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="cut short"):
        read(short)


def test_12_bit_jpeg_is_shown_from_black_to_white(read, greys):
    image = read(imagecodecs.jpeg8_encode(greys.astype(np.uint16) * 16, bitspersample=12))
    assert image.pixels.dtype == np.uint16
    assert image.window == (0, 4095)
    assert np.abs(image.rgb[..., 0].astype(int) - greys).mean() < 2


def test_lossless_16_bit_jpeg_is_exact(read, greys):
    values = greys.astype(np.uint16) * 257
    assert np.array_equal(read(imagecodecs.ljpeg_encode(values, bitspersample=16)).pixels, values)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_narrow_greys_span_black_to_white(read, depth):
    values = np.arange(1 << depth).repeat(8).reshape(1 << depth, 8)
    image = read(png(values, depth=depth, colour=0))
    assert np.array_equal(image.rgb[..., 0], values * 255 // ((1 << depth) - 1))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_are_looked_up(read, depth):
    values = np.arange(16).reshape(4, 4) % (1 << depth)
    palette = np.random.default_rng(1).integers(0, 256, (1 << depth, 3)).astype(np.uint8)
    image = read(png(values, depth=depth, colour=3, extra=[chunk(b"PLTE", palette.tobytes())]))
    assert np.array_equal(image.pixels, palette[values])


def test_a_palette_of_greys_gives_a_grey_image(read, greys):
    image = read(encoded(Pillow.fromarray(greys), "GIF"))
    assert image.is_grey
    assert np.array_equal(image.pixels, greys)


def test_an_index_beyond_the_palette_is_an_error(read):
    data = png(np.full((2, 2), 3), depth=4, colour=3, extra=[chunk(b"PLTE", bytes(6))])
    with pytest.raises(ImageError, match="palette index 3 in a palette of 2 colours"):
        read(data)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white_as_pillow_does(read, colours, mode):
    picture = Pillow.fromarray(colours).convert(mode)
    picture.putalpha(Pillow.fromarray(colours[..., 1]))
    white = Pillow.new("RGBA", picture.size, "white")
    wanted = np.asarray(Pillow.alpha_composite(white, picture.convert("RGBA")).convert("RGB")).astype(int)
    assert np.abs(read(encoded(picture, "PNG")).rgb - wanted).max() <= 1


def test_16_bit_transparency_is_laid_over_the_brightest_visible_value(read):
    values = np.full((4, 4, 4), 1000)
    values[..., 3] = 65535
    values[0, 0] = 3000, 2000, 1000, 65535
    values[1, 1] = 65535, 65535, 65535, 0
    image = read(png(values, depth=16, colour=6))
    assert image.pixels[1, 1].tolist() == [3000, 3000, 3000]
    assert image.pixels[2, 2].tolist() == [1000, 1000, 1000]


@pytest.mark.parametrize(("depth", "key"), [(1, 0), (2, 1), (4, 9), (8, 77), (16, 400)])
def test_a_transparent_grey_value_becomes_white(read, depth, key):
    values = np.array([[key, 0, 1], [key, 1, 0]])
    image = read(png(values, depth=depth, colour=0, extra=[chunk(b"tRNS", struct.pack(">H", key))]))
    assert (image.rgb[:, 0] == 255).all()


def test_a_transparent_colour_becomes_white(read, colours):
    key = struct.pack(">HHH", *colours[3, 4].tolist())
    image = read(png(colours, depth=8, colour=2, extra=[chunk(b"tRNS", key)]))
    assert image.rgb[3, 4].tolist() == [255, 255, 255]
    assert np.array_equal(image.rgb[10:], colours[10:])


def test_an_image_that_is_wholly_transparent_is_shown_and_noted(read, colours):
    picture = Pillow.fromarray(colours)
    picture.putalpha(0)
    image = read(encoded(picture, "PNG"))
    assert np.array_equal(image.rgb, colours)
    assert "transparent" in image.notes[0]


def test_cmyk_jpeg_is_not_inverted(read, colours):
    image = read(encoded(colours, "JPEG", mode="CMYK", quality=98))
    assert np.abs(image.rgb.astype(int) - colours).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientations_are_undone_as_pillow_does(read, colours, orientation, kind):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = encoded(colours, kind, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))))
    assert np.array_equal(read(data).rgb, wanted)


def test_damaged_exif_data_is_noted_and_spoils_no_pixel(read, colours):
    data = png(colours, depth=8, colour=2, extra=[chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")])
    image = read(data)
    assert np.array_equal(image.rgb, colours)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "MPO"])
def test_several_pictures_need_a_choice(read, colours, kind):
    other = np.ascontiguousarray(colours[::-1])
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(colours, kind, save_all=True, append_images=[Pillow.fromarray(other)], **options)
    with pytest.raises(ImageError, match="2 pages, and one image is wanted") as error:
        read(data)
    assert error.value.hint == "--page N (0 to 1)"
    for page, wanted in enumerate((colours, other)):
        assert np.abs(read(data, page=page).rgb.astype(int) - wanted).mean() < 10
    with pytest.raises(ImageError, match="no page 2: the file has 2 pages"):
        read(data, page=2)


def test_a_gain_map_is_no_page(read, colours):
    picture = Pillow.fromarray(colours)
    gain = encoded(colours, "JPEG", xmp=b"<x hdrgm:Version='1.0'/>")
    both = encoded(picture, "MPO", save_all=True, append_images=[Pillow.open(io.BytesIO(gain))])
    second = both.rindex(b"\xff\xd8\xff")
    assert second > 0
    # Pillow drops the XMP packet of later pictures; put the whole gain map in the second one's place.
    assert read(both[:second] + gain).size == (40, 56)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_cut_files_are_errors(read, colours, kind, share):
    data = encoded(colours, kind)
    with pytest.raises(ImageError):
        read(data[: int(len(data) * share)])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_jpeg_that_was_closed_again_is_an_error(read, colours, options, share):
    big = np.random.default_rng(0).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    data = encoded(big, "JPEG", **options)
    with pytest.raises(ImageError, match="cut short"):
        read(data[: int(len(data) * share)] + b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_whole_jpeg_with_a_mid_grey_corner_is_read(read, options):
    grey = np.full((64, 64, 3), 128, np.uint8)
    grey[:20] = 30
    assert read(encoded(grey, "JPEG", **options)).rgb[-1, -1].tolist() == [128, 128, 128]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM"])
def test_bytes_after_the_end_change_nothing(read, colours, kind):
    data = encoded(colours, kind)
    assert np.array_equal(read(data + b"trailing garbage" * 9).rgb, read(data).rgb)


def test_every_flipped_bit_of_a_png_is_noticed(read, greys):
    data = encoded(greys, "PNG")
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(ImageError):
            read(bytes(damaged))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_and_profiles_are_never_unpacked(read, greys, kind):
    bomb = zlib.compress(bytes(50_000_000))
    body = {b"zTXt": b"a\0\0" + bomb, b"iTXt": b"a\0\1\0\0\0" + bomb, b"iCCP": b"a\0\0" + bomb}[kind]
    assert np.array_equal(read(png(greys, depth=8, colour=0, extra=[chunk(kind, body)])).pixels, greys)


@pytest.mark.parametrize(
    "bomb",
    [
        png(np.zeros((1, 1), int), depth=8, colour=0).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)),
        ),
        b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0;",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"P6 60000 60000 255\n",
        b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0",
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9",
    ],
    ids=["png", "gif", "bmp", "ppm", "webp", "jpeg"],
)
def test_bombs_are_refused_by_their_header(read, bomb):
    with pytest.raises(ImageError, match=r"pixels; the limit is 100,000,000"):
        read(bomb)


def test_labels_of_every_depth_are_the_stored_integers(labels):
    for depth in (1, 2, 4, 8, 16):
        values = np.arange(64).reshape(8, 8) % (1 << depth)
        assert np.array_equal(labels(png(values, depth=depth, colour=0)), values)


def test_label_palettes_stay_indices(labels):
    values = np.arange(16).reshape(4, 4)
    palette = np.random.default_rng(0).integers(0, 256, 48).astype(np.uint8)
    assert np.array_equal(labels(png(values, depth=4, colour=3, extra=[chunk(b"PLTE", palette.tobytes())])), values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_coloured_labels_are_refused_with_their_channels(labels, colours, mode):
    with pytest.raises(ImageError, match=r"[234] channels, and a label image has one integer a pixel"):
        labels(encoded(colours, "PNG", mode=mode))


def test_jpeg_labels_are_refused(labels, greys):
    with pytest.raises(ImageError, match="JPEG"):
        labels(encoded(greys, "JPEG"))


def test_real_masks_of_1_bit_hold_0_and_1(shared_data):
    for path in sorted((shared_data / "isic2017" / "masks").iterdir())[:5]:
        assert set(np.unique(read_labels(path))) == {0, 1}
        assert set(np.unique(read_image(path).rgb)) == {0, 255}


def test_real_16_bit_instance_labels_are_kept(shared_data):
    path = min((shared_data / "monuseg" / "labels").iterdir())
    assert np.array_equal(read_labels(path), np.asarray(Pillow.open(path)))


def test_real_photographs_are_what_pillow_reads(shared_data):
    for path in sorted((shared_data / "isic2017" / "images").iterdir())[:5]:
        assert np.array_equal(read_image(path).rgb, np.asarray(Pillow.open(path).convert("RGB")))
