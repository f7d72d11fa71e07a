"""Which format a file is in, from its first bytes alone; its name says nothing. Imports no numpy."""

from __future__ import annotations

import enum
import struct
import zlib

from medtool.errors import ImageError

#: So many first bytes suffice to tell the format.
HEAD_BYTES = 1024


class Format(enum.Enum):
    """A format that medtool reads; the value is its name in messages."""

    PNG = "PNG"
    JPEG = "JPEG"
    GIF = "GIF"
    BMP = "BMP"
    WEBP = "WebP"
    PNM = "PNM"
    TIFF = "TIFF"
    DICOM = "DICOM"
    NIFTI = "NIfTI"


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"\xff\xd8\xff", Format.JPEG),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"II*\0", Format.TIFF),
    (b"MM\0*", Format.TIFF),
    (b"II+\0", Format.TIFF),
    (b"MM\0+", Format.TIFF),
)

_NOT_READ = (
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file", "convert it to PNG or TIFF"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 code stream", "convert it to PNG or TIFF"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file", "convert it to PNG or TIFF"),
    (b"\xff\x0a", "a JPEG XL code stream", "convert it to PNG or TIFF"),
    (b"%PDF", "a PDF document", "extract its images first"),
    (b"8BPS", "a Photoshop document", "export it as PNG or TIFF"),
    (b"NRRD", "an NRRD volume", "convert it to NIfTI"),
    (b"ObjectType", "a MetaImage header", "convert it to NIfTI"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", None),
    (b"\x93NUMPY", "a NumPy array", "save it as PNG or TIFF"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it first"),
    (b"BZh", "a bzip2 archive", "unpack it first"),
)

_VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


def identify(data: bytes | memoryview) -> Format:  # noqa: PLR0911 - one line a format reads best
    """Return the format of a file that starts with ``data`` (:data:`HEAD_BYTES` or all of it).

    Raises
    ------
    ImageError
        If it is no image, or one of a format that medtool does not read.
    """
    head = bytes(data[:HEAD_BYTES])
    if not head:
        raise ImageError("the file is empty")
    if head[128:132] == b"DICM":
        return Format.DICOM
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Format.WEBP
    if head[:2] == b"BM" and len(head) >= 26 and _is_bmp(head):
        return Format.BMP
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#" and len(head) > 2:
        return Format.PNM
    if head[:2] == b"\x1f\x8b":
        if is_nifti(_gunzipped_head(head)):
            return Format.NIFTI
        raise ImageError("a gzip archive that holds no NIfTI volume", hint="unpack it first")
    if is_nifti(head):
        return Format.NIFTI
    if _is_bare_dicom(head):
        return Format.DICOM
    raise _not_an_image(head)


def is_nifti(head: bytes) -> bool:
    """Return whether unpacked bytes start a single-file NIfTI-1 or NIfTI-2 volume."""
    if head[4:12] == b"n+2\0\r\n\x1a\n":
        return True
    return head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and head[344:348] == b"n+1\0"


def _is_bmp(head: bytes) -> bool:
    (header_size,) = struct.unpack_from("<I", head, 14)
    return header_size in (12, 16, 40, 52, 56, 64, 108, 124)


def _gunzipped_head(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, HEAD_BYTES)
    except zlib.error as error:
        raise ImageError(f"a damaged gzip file: {error}") from error


def _is_bare_dicom(head: bytes) -> bool:
    """Return whether this looks like DICOM without its 128-byte preamble: a first element of group 2 or 8."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack_from(f"{order}HH", head)
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if head[4:6] in _VALUE_REPRESENTATIONS:
            return True
        (length,) = struct.unpack_from("<I", head, 4)
        if order == "<" and length % 2 == 0 and length <= 256:
            return True
    return False


def _not_an_image(head: bytes) -> ImageError:
    for magic, name, hint in _NOT_READ:
        if head.startswith(magic):
            return ImageError(f"{name}, which is not read", hint=hint)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"avif", b"avis"):
        return ImageError("a HEIF or AVIF file, which is not read", hint="convert it to PNG or TIFF")
    if head[344:348] == b"ni1\0":
        return ImageError("one half of a NIfTI pair (.hdr and .img)", hint="convert it to a single .nii file")
    return ImageError(f"not an image: it starts with {head[:12]!r}")
