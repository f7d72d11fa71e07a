from __future__ import annotations

import gzip

import pytest

from medtool.errors import ImageError
from medtool.images.formats import Format, identify


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(20), Format.PNG),
        (b"\xff\xd8\xff\xe0" + bytes(20), Format.JPEG),
        (b"GIF89a" + bytes(20), Format.GIF),
        (b"RIFF\x10\0\0\0WEBPVP8 ", Format.WEBP),
        (b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(20), Format.BMP),
        (b"P5\n3 3\n255\n" + bytes(9), Format.PNM),
        (b"II*\0\x08\0\0\0", Format.TIFF),
        (b"MM\0+\0\x08\0\0", Format.TIFF),
        (bytes(128) + b"DICM" + bytes(20), Format.DICOM),
        (b"II*\0" + bytes(124) + b"DICM" + bytes(20), Format.DICOM),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(20), Format.DICOM),
        (b"\x08\0\0\0\x04\0\0\0\x9c\0\0\0" + bytes(20), Format.DICOM),
        (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0", Format.NIFTI),
        (b"\0\0\x01\x5c" + bytes(340) + b"n+1\0", Format.NIFTI),
        (gzip.compress(b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(40)), Format.NIFTI),
    ],
)
def test_the_first_bytes_tell_the_format(data, found):
    assert identify(data) is found


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>", r"not an image: it starts with b'<!DOCTYPE ht'"),
        (b"BMW is a car, not a bitmap, and so on", "not an image"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04rest", "zip"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "HEIF"),
        (gzip.compress(b"just text"), "gzip archive that holds no NIfTI"),
        (b"\x1f\x8bnonsense", "damaged gzip"),
        (b"\x5c\x01\0\0" + bytes(340) + b"ni1\0", "pair"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ],
)
def test_what_is_no_image_is_named(data, reason):
    with pytest.raises(ImageError, match=reason):
        identify(data)
