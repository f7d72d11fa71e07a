"""NIfTI-1 and NIfTI-2 single files (.nii, .nii.gz): header read by nibabel, one slice taken out of the volume."""

from __future__ import annotations

import io
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from medtool.errors import ImageError, MissingExtraError
from medtool.images.image import Raster, Window, check_bytes, check_limits, choose_page

try:
    import nibabel
    from nibabel.orientations import io_orientation
except ImportError as error:
    raise MissingExtraError("nifti", needed_for="reading NIfTI volumes") from error

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.images.formats import Format
    from medtool.images.options import ReadOptions

_HEADER_BYTES = 540
_AXIS_NAMES = ("sagittal", "coronal", "axial")
#: Bytes that a gzip file may hold beyond the volume, such as padding.
_SLACK = 1 << 16


def decode(data: bytes, found: Format, options: ReadOptions) -> Raster:
    """Return one slice of the volume, turned as radiologists hang it."""
    header, plane = _plane(data, options)
    alpha = None
    if plane.dtype.names is not None:
        if "A" in plane.dtype.names:
            alpha = plane["A"].astype(np.float32) / np.float32(255)
        return Raster(np.stack([plane[name] for name in "RGB"], axis=-1), alpha=alpha)
    slope, intercept = header.get_slope_inter()
    pixels = _scaled(plane, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
    low, high = float(header["cal_min"]), float(header["cal_max"])
    window = Window(low, high) if math.isfinite(low) and math.isfinite(high) and high > low else None
    return Raster(pixels, window=window, is_measured=True)


def decode_labels(data: bytes, found: Format, options: ReadOptions) -> tuple[npt.NDArray[np.integer[Any]], int]:
    """Return the same slice as integers; labels stored as floats must be whole numbers."""
    header, plane = _plane(data, options)
    if plane.dtype.names is not None:
        raise ImageError("colours, and a label image has one integer a pixel")
    slope, intercept = header.get_slope_inter()
    pixels = _scaled(plane, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
    if pixels.dtype.kind in "iu":
        return pixels, 1
    whole = pixels.astype(np.int64) if np.isfinite(pixels).all() and np.abs(pixels).max() < 2**53 else None
    if whole is None or not bool((whole == pixels).all()):
        raise ImageError("labels that are not whole numbers")
    return whole, 1


def _scaled(plane: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[Any]:
    if plane.dtype.kind not in "iuf":
        raise ImageError(f"voxels of type {plane.dtype} are not read")
    plane = plane.astype(plane.dtype.newbyteorder("="))
    if plane.dtype.itemsize > 8:
        plane = plane.astype(np.float64)
    if slope == 1 and intercept == 0:
        return plane
    return plane.astype(np.float64) * slope + intercept


def _plane(data: bytes, options: ReadOptions) -> tuple[Any, npt.NDArray[Any]]:
    """Return the header and the stored values of the chosen slice, upright."""
    is_packed = data[:2] == b"\x1f\x8b"
    start = _unpacked_head(data) if is_packed else data[:_HEADER_BYTES]
    header = _header(start)
    shape = tuple(int(side) for side in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise ImageError(f"a volume of {' × '.join(map(str, shape)) or 'no'} voxels")
    dtype = header.get_data_dtype()
    offset = int(header.get_data_offset())
    count = math.prod(shape)
    needed = offset + count * dtype.itemsize
    check_bytes(needed, options=options)
    space = (*shape, 1, 1)[:3]
    volumes = math.prod(shape[3:])
    axis, steps = _storage_axis(header, options.axis)
    sides = [space[axes] for axes in steps]
    check_limits(sides[1], sides[0], bytes_per_pixel=dtype.itemsize, options=options)
    volume = choose_page(volumes, options=options, noun="volumes")
    index = space[axis] // 2 if options.slice_index is None else options.slice_index
    if index >= space[axis]:
        name = _AXIS_NAMES[options.axis]
        raise ImageError(f"slice {index} of {space[axis]} {name} slices, counted from 0")
    if is_packed:
        data = _unpacked(data, needed)
    if len(data) < needed:
        raise ImageError(f"a NIfTI file that is cut short: {len(data):,} of {needed:,} bytes are there")
    voxels = np.frombuffer(data, dtype, count, offset).reshape((*space, volumes), order="F")[..., volume]
    return header, _hung(voxels, header, options.axis, index)


def _header(start: bytes) -> Any:
    kind = nibabel.Nifti2Header if start[4:8] == b"n+2\0" else nibabel.Nifti1Header
    return kind.from_fileobj(io.BytesIO(start))  # type: ignore[no-untyped-call]


def _orientation(header: Any) -> npt.NDArray[Any]:
    """Return, for each stored axis, the body axis it runs along (0 right, 1 front, 2 top) and +1 or -1."""
    affine = header.get_best_affine()
    if not np.isfinite(affine).all():
        raise ImageError("an orientation that is not finite")
    orientation: npt.NDArray[Any] = io_orientation(affine)  # type: ignore[no-untyped-call]
    if np.isnan(orientation).any():
        raise ImageError("an orientation that leaves out an axis of the body")
    return orientation


def _storage_axis(header: Any, body_axis: int) -> tuple[int, list[int]]:
    """Return the stored axis of a body axis, and the stored axes of the slice's columns and rows."""
    along = [int(value) for value in _orientation(header)[:, 0]]
    return along.index(body_axis), [along.index(other) for other in range(3) if other != body_axis]


def _hung(voxels: npt.NDArray[Any], header: Any, body_axis: int, index: int) -> npt.NDArray[Any]:
    """Return the slice with rows from front or top down, columns from the patient's right or front on."""
    orientation = _orientation(header)
    axis, (columns, rows) = _storage_axis(header, body_axis)
    place = index if orientation[axis, 1] > 0 else voxels.shape[axis] - 1 - index
    plane = np.take(voxels, place, axis=axis)
    if columns < rows:
        plane = plane.swapaxes(0, 1)
    # Body axes run to the right (of the patient), front and top; pictures run from them.
    if orientation[rows, 1] > 0:
        plane = plane[::-1]
    if orientation[columns, 1] > 0:
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


def _unpacked_head(data: bytes) -> bytes:
    """Return the start of a gzip file's content."""
    return zlib.decompressobj(31).decompress(data, _HEADER_BYTES)


def _unpacked(data: bytes, size: int) -> bytes:
    """Return a gzip file's content of ``size`` bytes or a little more, its checksum verified.

    Nothing beyond the limit is unpacked: what goes on after the volume is not what its header says.
    """
    limit = size + _SLACK
    parts: list[bytes] = []
    got = 0
    while data[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(31)
        part = member.decompress(data, limit + 1 - got)
        parts.append(part)
        got += len(part)
        if got > limit:
            raise ImageError(f"a gzip file that unpacks to more than the {size:,} bytes that its header asks for")
        if not member.eof:
            raise ImageError("a gzip file that is cut short")
        data = member.unused_data
    return b"".join(parts)
