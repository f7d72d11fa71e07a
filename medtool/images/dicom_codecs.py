"""JPEG, JPEG-LS and JPEG 2000 frames of DICOM, decoded by imagecodecs as a plugin of pydicom.

pydicom asks a plugin for ``is_available``, ``DECODER_DEPENDENCIES`` and a function from a frame's bytes to pixels. Each
transfer syntax has this one decoder; pydicom's others are not asked, whether they are installed or not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import imagecodecs
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation as Colours
from pydicom.pixels.decoders.base import Decoder

from medtool.errors import ImageError
from medtool.images import jpeg2000_stream, jpeg_stream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydicom.pixels.decoders.base import DecodeRunner

LABEL = "medtool"
_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_JPEG_LS, *_JPEG_2000), ("imagecodecs",))


def is_available(syntax: str) -> bool:
    """Return whether frames of a transfer syntax are decoded here."""
    return syntax in DECODER_DEPENDENCIES


@functools.cache
def decoder_of(syntax: uid.UID) -> Decoder:
    """Return a decoder of ours alone, which knows this plugin; pydicom's own decoders are left as they are."""
    if not is_available(syntax):
        raise ImageError(f"transfer syntax {syntax.name} is not read")
    decoder = Decoder(syntax)
    decoder.add_plugin(LABEL, (__name__, decode_frame.__name__))
    return decoder


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Return a frame's decoded bytes, channels interleaved; called by pydicom."""
    syntax = runner.transfer_syntax
    if syntax in _JPEG_2000:
        size: Any = jpeg2000_stream.read_size(source)
    else:
        size = jpeg_stream.read_frame(source)
    wanted = (runner.columns, runner.rows, runner.samples_per_pixel)
    if (size.width, size.height, size.components) != wanted:
        raise ImageError(
            f"a frame of {size.width} × {size.height} × {size.components} where the header says "
            f"{' × '.join(map(str, wanted))}"
        )
    if syntax in _JPEG:
        decode = _jpeg_decoder(source, runner)
        pixels = decode(source)
        jpeg_stream.check_whole(source, size, pixels, decode)
    elif syntax in _JPEG_LS:
        pixels = imagecodecs.jpegls_decode(source)
    else:
        pixels = imagecodecs.jpeg2k_decode(source)
        if runner.photometric_interpretation in (Colours.YBR_ICT, Colours.YBR_RCT):
            # The colour transform is part of the code stream, and undone with it.
            runner.set_option("photometric_interpretation", Colours.RGB)
    if pixels.shape[:2] != (runner.rows, runner.columns):
        raise ImageError(f"a frame decodes to {pixels.shape}")
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return pixels.tobytes()


def _jpeg_decoder(source: bytes, runner: DecodeRunner) -> Callable[[bytes], npt.NDArray[np.generic]]:
    """Return the decoder for a frame's colours, and tell pydicom that they come out as RGB."""
    if runner.samples_per_pixel == 1:
        return imagecodecs.jpeg8_decode
    adobe, _ = jpeg_stream.application_data(source, code=0xEE, prefix=b"Adobe")
    # The stream's own word on its colour transform goes before the data set's.
    is_transformed = adobe[6] == 1 if len(adobe) > 6 else runner.photometric_interpretation != Colours.RGB
    runner.set_option("photometric_interpretation", Colours.RGB)
    return functools.partial(
        imagecodecs.jpeg8_decode, colorspace="YCBCR" if is_transformed else "RGB", outcolorspace="RGB"
    )
