from __future__ import annotations

import io
import warnings
import zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from medtool.errors import ImageError
from medtool.images import ReadOptions, read_image, read_labels


def dataset(pixels, *, syntax=ExplicitVRLittleEndian, frames=None, **elements):
    """Build a file in memory: ``pixels`` (h, w) or (h, w, 3), or (n, h, w) with ``frames``."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = CTImageStorage, "1.2.3", "OT"
    is_colour = pixels.ndim == 3 and not frames
    made.Rows, made.Columns = pixels.shape[-3:-1] if is_colour else pixels.shape[-2:]
    made.SamplesPerPixel = 3 if is_colour else 1
    made.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    if frames:
        made.NumberOfFrames = frames
    made.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    made["PixelData"].VR = "OW" if made.BitsAllocated > 8 else "OB"
    return made


def saved(made, **options):
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True, **options)
    return file.getvalue()


def compressed(pixels, syntax, frame, **elements):
    made = dataset(pixels, syntax=syntax, **elements)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return saved(made)


@pytest.fixture
def ct():
    return np.arange(-1000, 1000, dtype=np.int16).reshape(40, 50)


def test_rescaled_values_are_what_they_measure(read, ct):
    made = dataset((ct + 1024).astype(np.uint16), RescaleSlope="1", RescaleIntercept="-1024")
    image = read(saved(made))
    assert np.array_equal(image.pixels, ct)
    assert image.pixels.dtype == np.int32


def test_fractional_rescale_gives_floats(read, ct):
    image = read(saved(dataset(ct, RescaleSlope="0.5", RescaleIntercept="2.25")))
    assert np.array_equal(image.pixels, ct * 0.5 + 2.25)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (-600.5, 1500), (0, 2), (100, 1)])
def test_windows_are_applied_as_pydicom_applies_them(read, ct, function, centre, width):
    made = dataset(ct, RescaleSlope="1", RescaleIntercept="0", WindowCenter=centre, WindowWidth=width)
    if function:
        made.VOILUTFunction = function
    image = read(saved(made))
    with np.errstate(over="ignore"):
        wanted = apply_voi_lut(apply_modality_lut(ct, made), made)
    wanted = (wanted - -32768.0) / 65535 * 255  # pydicom spreads over the range of the stored type
    assert np.abs(image.rgb[..., 0] - wanted).max() <= 0.51
    assert image.window[0] < image.window[1]


def test_the_first_of_several_windows_is_used(read, ct):
    made = dataset(ct, WindowCenter=[40, 300], WindowWidth=[400, 1500], VOILUTFunction="LINEAR_EXACT")
    assert read(saved(made)).window == (-160, 240)


def test_monochrome1_is_shown_inverted_and_keeps_its_values(read, ct):
    options = {"WindowCenter": 0, "WindowWidth": 2000}
    plain = read(saved(dataset(ct, **options)))
    turned = read(saved(dataset(ct, PhotometricInterpretation="MONOCHROME1", **options)))
    assert np.array_equal(turned.pixels, plain.pixels)
    assert np.array_equal(turned.rgb, 255 - plain.rgb)


def test_a_voi_table_is_applied_as_pydicom_applies_it(read):
    stored = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    table = Dataset()
    table.LUTDescriptor = [1024, 300, 16]
    table.LUTData = (np.linspace(0, 1, 1024) ** 2 * 65535).astype(np.uint16).tolist()
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    made = dataset(stored, VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    image = read(saved(made))
    wanted = apply_voi_lut(stored, made) / 65535 * 255
    assert np.abs(image.rgb[..., 0] - wanted).max() <= 0.51
    assert image.window == (300, 1323)


def test_without_a_window_12_bit_data_span_black_to_white(read):
    stored = np.linspace(0, 4095, 2000).astype(np.uint16).reshape(40, 50)
    image = read(saved(dataset(stored, BitsStored=12, HighBit=11)))
    assert image.window == (0, 4095)
    assert (image.rgb.min(), image.rgb.max()) == (0, 255)


def test_padding_does_not_shift_the_window_and_is_black(read, ct):
    padded = ct.copy()
    padded[:5] = -2000
    made = dataset(padded, PixelPaddingValue=-2000)
    made["PixelPaddingValue"].VR = "SS"
    image = read(saved(made))
    assert image.window[0] >= -1000
    assert (image.rgb[:5] == 0).all()


def test_an_unusable_window_gives_way_to_the_data(read, ct):
    image = read(saved(dataset(ct, WindowCenter=0, WindowWidth=-5)))
    assert image.window == (-1000, 999)
    assert "cannot be used" in image.notes[0]


def test_frames_need_a_choice_and_have_their_own_values(read, ct):
    stored = np.stack([ct, ct + 1, ct + 2])
    groups = []
    for number in range(3):
        group, values, window = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2, 10 * number, "HU"
        window.WindowCenter, window.WindowWidth = 100 * number, 50
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [values], [window]
        groups.append(group)
    data = saved(dataset(stored, frames=3, PerFrameFunctionalGroupsSequence=groups))
    with pytest.raises(ImageError, match="3 frames, and one image is wanted") as error:
        read(data)
    assert error.value.hint == "--page N (0 to 2)"
    image = read(data, page=2)
    assert np.array_equal(image.pixels, (ct.astype(int) + 2) * 2 + 20)
    assert image.window == (175, 224)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEGLosslessSV1, lambda pixels: imagecodecs.ljpeg_encode(pixels, bitspersample=16)),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
        (JPEG2000Lossless, lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True)),
        (HTJ2KLossless, lambda pixels: imagecodecs.htj2k_encode(pixels, reversible=True)),
    ],
    ids=["jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k"],
)
def test_lossless_frames_come_back_exactly(read, syntax, encode):
    stored = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)
    assert np.array_equal(read(compressed(stored, syntax, encode(stored))).pixels, stored)


@pytest.mark.parametrize("interpretation", ["YBR_FULL_422", "RGB"])
def test_jpeg_colours_are_rgb(read, colours, interpretation):
    is_rgb = interpretation == "RGB"
    frame = imagecodecs.jpeg8_encode(
        colours, level=98, colorspace="RGB", outcolorspace="RGB" if is_rgb else "YCBCR", subsampling="444"
    )
    image = read(compressed(colours, JPEGBaseline8Bit, frame, PhotometricInterpretation=interpretation))
    assert np.abs(image.rgb.astype(int) - colours).mean() < 3


def test_a_stream_of_another_size_than_the_header_says_is_an_error(read, greys):
    frame = imagecodecs.jpeg2k_encode(np.zeros((400, 400), np.uint8), codecformat="j2k")
    with pytest.raises(ImageError, match="400 × 400 × 1 where the header says 56 × 40 × 1"):
        read(compressed(greys, JPEG2000Lossless, frame))


@pytest.mark.parametrize("is_lossless", [False, True])
def test_a_jpeg_frame_that_is_cut_short_is_an_error(read, is_lossless):
    stored = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    frame = imagecodecs.ljpeg_encode(stored) if is_lossless else imagecodecs.jpeg8_encode(stored)
    syntax = JPEGLosslessSV1 if is_lossless else JPEGBaseline8Bit
    read(compressed(stored, syntax, frame))
    half = frame[: len(frame) // 2]
    for cut in (half, half + b"\xff\xd9"):
        with pytest.raises(ImageError, match="cut short"):
            read(compressed(stored, syntax, cut))


def test_files_without_preamble_are_read(read, ct):
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        data = saved(dataset(ct, syntax=syntax))
        assert np.array_equal(read(data[132:]).pixels, ct)
        file = io.BytesIO()
        bare = dataset(ct, syntax=syntax)
        pydicom.dcmwrite(file, Dataset(bare), implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
        assert np.array_equal(read(file.getvalue()).pixels, ct)


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(read, greys):
    data = saved(dataset(greys, syntax=DeflatedExplicitVRLittleEndian))
    assert np.array_equal(read(data).pixels, greys)
    start = 132 + 12 + int(pydicom.dcmread(io.BytesIO(data)).file_meta.FileMetaInformationGroupLength)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = data[:start] + packer.compress(bytes(60_000_000)) + packer.flush()
    with pytest.raises(ImageError, match="the limit is 50,000,000"):
        read(bomb, max_bytes=50_000_000)


def test_bombs_are_refused_by_their_header(read, greys):
    with pytest.raises(ImageError, match="60000 × 60000"):
        read(saved(dataset(greys, Rows=60000, Columns=60000)))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_cut_files_are_errors(read, ct, share):
    data = saved(dataset(ct))
    with pytest.raises(ImageError):
        read(data[: int(len(data) * share)])


def test_files_without_pixels_say_so(read, ct):
    made = dataset(ct, Modality="SR")
    del made.PixelData
    with pytest.raises(ImageError, match=r"without pixels.*\(SR\)"):
        read(saved(made))


def test_labels_are_stored_integers_without_rescale(labels, ct):
    assert np.array_equal(labels(saved(dataset(ct, RescaleSlope="2", RescaleIntercept="5"))), ct)


def test_pydicoms_own_decoders_are_left_as_they_are(read, greys):
    read(compressed(greys, JPEG2000Lossless, imagecodecs.jpeg2k_encode(greys, codecformat="j2k", reversible=True)))
    assert "medtool" not in pydicom.pixels.get_decoder(JPEG2000Lossless).available_plugins


def pydicom_values(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = pydicom.dcmread(path)
        stored = made.pixel_array
        if made.PhotometricInterpretation == "PALETTE COLOR":
            return made, apply_color_lut(stored, made)
        return made, apply_modality_lut(stored, made) if stored.ndim == 2 else stored


def test_real_files_have_the_values_that_pydicom_gives(shared_data):
    paths = [
        *sorted((shared_data / "dicom").glob("*.dcm")),
        *sorted((shared_data / "dicom" / "mr_series").iterdir())[:4],
    ]
    for path in paths:
        _, wanted = pydicom_values(path)
        assert np.array_equal(read_image(path).pixels, wanted), path.name


def test_real_windows_show_what_pydicom_shows(shared_data):
    paths = [*(shared_data / "dicom" / "mr_series").iterdir(), shared_data / "dicom" / "MR_small.dcm"]
    for path in paths:
        made, values = pydicom_values(path)
        shown = apply_voi_lut(values, made)
        low, high = (-32768, 32767) if made.PixelRepresentation else (0, (1 << made.BitsStored) - 1)
        wanted = (shown - low) / (high - low) * 255
        assert np.abs(read_image(path).rgb[..., 0] - wanted).max() <= 0.51, path.name


def test_the_real_monochrome1_radiograph_is_inverted(shared_data):
    path = shared_data / "dicom" / "seg" / "dx_image.dcm"
    _, values = pydicom_values(path)
    assert np.array_equal(read_image(path).rgb[..., 0], 255 - values.astype(np.uint8))


def test_real_segmentation_frames_are_masks(shared_data):
    mask = read_labels(shared_data / "dicom" / "seg" / "seg_image_ct_binary.dcm", ReadOptions(page=1))
    assert mask.shape == (16, 16)
    assert set(np.unique(mask)) <= {0, 1}
