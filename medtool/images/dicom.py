"""DICOM, read by pydicom; compressed frames are decoded by :mod:`medtool.images.dicom_codecs`, RLE by pydicom."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medtool.errors import ImageError
from medtool.images import dicom_codecs
from medtool.images.image import Raster, ValueTable, Window, check_bytes, check_limits, choose_page

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydicom.dataset import Dataset

    from medtool.images.formats import Format
    from medtool.images.options import ReadOptions

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def decode(data: bytes, found: Format, options: ReadOptions) -> Raster:
    """Return one frame: modality values (such as Hounsfield units) or RGB, with the file's own window."""
    dataset = _dataset(data, options)
    frame = _frame(dataset, options)
    stored, kind = _stored(dataset, frame)
    if kind == "PALETTE COLOR":
        return _palette_raster(dataset, stored)
    if kind == "RGB":
        bits = int(dataset.get("BitsStored", 8))
        return Raster(stored, full_range=None if stored.dtype == np.uint8 and bits == 8 else (0, (1 << bits) - 1))
    return _grey_raster(dataset, stored, frame, is_inverted=kind == "MONOCHROME1")


def decode_labels(data: bytes, found: Format, options: ReadOptions) -> tuple[npt.NDArray[np.integer[Any]], int]:
    """Return the stored integers of one grey frame, without rescale or window."""
    dataset = _dataset(data, options)
    stored, kind = _stored(dataset, _frame(dataset, options))
    if kind not in (*_GREY, "PALETTE COLOR"):
        raise ImageError(f"colours ({kind}), and a label image has one integer a pixel")
    if stored.dtype.kind not in "iu":
        raise ImageError(f"labels stored as {stored.dtype}, and they must be integers")
    return stored, 1


def _dataset(data: bytes, options: ReadOptions) -> Dataset:
    """Return the parsed file with a transfer syntax, its pixel data still encoded."""
    has_preamble = data[128:132] == b"DICM"
    if has_preamble:
        _check_deflated(data, options)
    dataset = pydicom.dcmread(io.BytesIO(data), force=not has_preamble)
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, is_little = dataset.original_encoding
        bare = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = bare if is_little else ExplicitVRBigEndian
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        what = dataset.get("Modality") or getattr(dataset.get("SOPClassUID"), "name", None) or "no modality"
        raise ImageError(f"a DICOM file without pixels, or cut short before them ({what})")
    return dataset


def _check_deflated(data: bytes, options: ReadOptions) -> None:
    """Unpack a deflated data set within the byte limit before pydicom does so without any."""
    file = io.BytesIO(data)
    meta = pydicom.filereader.read_partial(file, stop_when=lambda tag, vr, length: True).file_meta
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    end = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    size = len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[end:], options.max_bytes + 1))
    check_bytes(size, options=options)


def _frame(dataset: Dataset, options: ReadOptions) -> int:
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        if dataset.get(keyword) is None:
            raise ImageError(f"a DICOM file with pixels but without {keyword}")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    samples = int(dataset.get("SamplesPerPixel", 1))
    bits = int(dataset.BitsAllocated)
    if samples not in (1, 3):
        raise ImageError(f"{samples} samples a pixel, and 1 or 3 are wanted")
    check_limits(rows, columns, bytes_per_pixel=samples * math.ceil(bits / 8), options=options)
    return choose_page(max(1, int(dataset.get("NumberOfFrames") or 1)), options=options, noun="frames")


def _stored(dataset: Dataset, frame: int) -> tuple[npt.NDArray[Any], str]:
    """Return one frame as stored, ``(height, width)`` or RGB ``(height, width, 3)``, and what its values are."""
    kind = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if kind not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise ImageError(f"colours stored as {kind!r}, which is not read")
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    plugin = ""
    if syntax == RLELossless:
        decoder, plugin = get_decoder(syntax), "pydicom"
    elif syntax.is_encapsulated:
        decoder, plugin = dicom_codecs.decoder_of(syntax), dicom_codecs.LABEL
    elif syntax in _NATIVE:
        decoder = get_decoder(syntax)
    else:
        raise ImageError(f"transfer syntax {syntax.name} is not read")
    try:
        stored, properties = decoder.as_array(
            dataset,
            index=frame,
            decoding_plugin=plugin,
            allow_excess_frames=False,  # type: ignore[arg-type]
        )
    except RuntimeError as error:
        # pydicom reports a plugin's error as "... by all available plugins: NAME: the error".
        raise ImageError(f"a damaged DICOM frame: {str(error).partition(f'{plugin}: ')[2] or error}") from error
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    kind = str(properties["photometric_interpretation"])
    if stored.ndim == 3 and kind != "RGB":
        raise ImageError(f"colours stored as {kind!r}, which is not read")
    return stored, kind


def _palette_raster(dataset: Dataset, stored: npt.NDArray[Any]) -> Raster:
    colours = apply_color_lut(stored, dataset)[..., :3]
    if colours.dtype == np.uint8:
        return Raster(colours)
    # Tables said to be of 16 bits sometimes hold 8-bit entries.
    table = max(
        int(np.frombuffer(dataset[f"{name}PaletteColorLookupTableData"].value, "<u2").max(initial=0))
        for name in ("Red", "Green", "Blue")
        if f"{name}PaletteColorLookupTableData" in dataset
    )
    return Raster(colours, full_range=(0, 255 if table < 256 else 65535))


def _grey_raster(dataset: Dataset, stored: npt.NDArray[Any], frame: int, *, is_inverted: bool) -> Raster:
    bits = int(dataset.get("BitsStored", dataset.BitsAllocated))
    if bits == 1 and stored.dtype == np.uint8:
        return Raster(stored.astype(np.bool_), is_inverted=is_inverted)
    pixels = _modality_values(dataset, stored, frame)
    window, table, notes = _own_window(dataset, frame)
    raster = Raster(pixels, is_inverted=is_inverted, padding=_padding(dataset, stored), table=table, notes=notes)
    if window is not None:
        raster.window = window
    elif pixels.dtype == np.uint8 and bits < 8:
        raster.full_range = (0, (1 << bits) - 1)
    return raster


def _groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    """Yield the data sets that may describe a frame: the file's top level, the frame's group, the shared group."""
    yield dataset
    for keyword, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = dataset.get(keyword)
        if groups and place < len(groups):
            for inner in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                described = groups[place].get(inner)
                if described:
                    yield described[0]


def _modality_values(dataset: Dataset, stored: npt.NDArray[Any], frame: int) -> npt.NDArray[Any]:
    """Return slope × stored + intercept (or the modality table's values), as integers where they are whole."""
    if dataset.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset))
    for group in _groups(dataset, frame):
        if group.get("RescaleSlope") is not None or group.get("RescaleIntercept") is not None:
            slope, intercept = _number(group, "RescaleSlope", 1.0), _number(group, "RescaleIntercept", 0.0)
            break
    else:
        return stored
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise ImageError(f"a rescale slope of {slope:g} and intercept of {intercept:g}")
    if (slope, intercept) == (1, 0):
        return stored
    if slope == int(slope) and intercept == int(intercept) and stored.dtype.kind in "iu":
        ends = [int(value) * int(slope) + int(intercept) for value in (stored.min(), stored.max())]
        if min(ends) >= -(2**31) and max(ends) < 2**31:
            return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(np.int32)
    return stored.astype(np.float64) * slope + intercept


def _own_window(dataset: Dataset, frame: int) -> tuple[Window | None, ValueTable | None, tuple[str, ...]]:
    """Return the first window, the first VOI table (it goes first), and notes, from wherever the file has them."""
    for group in _groups(dataset, frame):
        tables = group.get("VOILUTSequence")
        table = _value_table(tables[0], dataset) if tables else None
        if table is not None or (group.get("WindowCenter") is not None and group.get("WindowWidth") is not None):
            break
    else:
        return None, None, ()
    centre, width = _number(group, "WindowCenter", math.nan), _number(group, "WindowWidth", math.nan)
    curve = str(group.get("VOILUTFunction") or "LINEAR").strip()
    if table is not None and not (math.isfinite(centre) and math.isfinite(width)):
        return None, table, ()
    least = 1 if curve == "LINEAR" else 0
    if not (math.isfinite(centre) and math.isfinite(width)) or (
        width <= least and not (curve == "LINEAR" and width == 1)
    ):
        return None, table, (f"the file's own window (centre {centre:g}, width {width:g}) cannot be used",)
    return _window(centre, width, curve), table, ()


def _window(centre: float, width: float, curve: str) -> Window:
    """Return a window by DICOM PS3.3 C.11.2.1.2 (LINEAR), C.11.2.1.3.2 (LINEAR_EXACT), C.11.2.1.3.1 (SIGMOID)."""
    if curve == "SIGMOID":
        return Window(centre - width / 2, centre + width / 2, "sigmoid")
    if curve == "LINEAR_EXACT":
        return Window(centre - width / 2, centre + width / 2)
    if curve != "LINEAR":
        raise ImageError(f"the VOI function {curve!r} is not part of DICOM")
    if width == 1:
        # A step: all below centre - 0.5 is black.
        return Window(np.nextafter(centre - 0.5, -math.inf), centre - 0.5)
    return Window(centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _value_table(item: Dataset, dataset: Dataset) -> ValueTable | None:
    descriptor = item.get("LUTDescriptor")
    if descriptor is None or "LUTData" not in item:
        return None
    count, first, bits = (int(value) for value in descriptor)
    count = count or 65536
    is_signed = int(dataset.get("PixelRepresentation", 0)) == 1
    if is_signed and first > 32767:
        first -= 65536
    value = item["LUTData"].value
    if isinstance(value, bytes):
        entries = np.frombuffer(value, np.uint8 if bits <= 8 and len(value) <= count + 1 else "<u2")
    else:
        entries = np.atleast_1d(np.asarray(value, np.int64)) & 0xFFFF
    if len(entries) < count or not 1 <= bits <= 16:
        raise ImageError(f"a VOI table of {len(entries)} entries of {bits} bits where {count} are announced")
    return ValueTable(first, np.clip(entries[:count] / ((1 << bits) - 1), 0, 1))


def _padding(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    padding = (stored >= ends[0]) & (stored <= ends[1])
    return padding if padding.any() and not padding.all() else None


def _number(group: Dataset, keyword: str, default: float) -> float:
    """Return an element's first value."""
    value = group.get(keyword)
    if value is None or value == "":
        return default
    if isinstance(value, pydicom.multival.MultiValue):
        return float(value[0]) if len(value) else default
    return float(value)
