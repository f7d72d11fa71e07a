from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from medtool.errors import ImageError
from medtool.images import ReadOptions, read_image, read_labels

nibabel = pytest.importorskip("nibabel")

AFFINES = {
    "RAS": np.diag([1.0, 1, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1, 1]),
    "PIR": np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]),
    "oblique": np.array([[0.9, 0.2, 0.1, 5], [-0.2, 0.95, 0.1, 3], [-0.1, -0.1, 1, 2], [0, 0, 0, 1]]),
}


def nifti(values, affine=AFFINES["RAS"], kind=nibabel.Nifti1Image):
    return kind(values, affine).to_bytes()


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 1000, (5, 7, 9)).astype(np.int16)


def hung(volume, affine, axis, index):
    """Cut and hang a slice by nibabel's own reorientation."""
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine))
    return np.flip(np.take(np.asarray(canonical.dataobj), index, axis=axis)).T


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", AFFINES)
def test_slices_hang_as_radiologists_hang_them_however_they_are_stored(read, volume, name, axis):
    image = read(nifti(volume, AFFINES[name]), axis=axis, slice_index=2)
    assert np.array_equal(image.pixels, hung(volume, AFFINES[name], axis, 2))


def test_the_middle_axial_slice_is_taken_unless_told(read, volume):
    assert np.array_equal(read(nifti(volume)).pixels, np.flip(volume[:, :, 4]).T)


def test_the_patients_right_and_front_come_first(read):
    volume = np.zeros((4, 5, 6), np.int16)
    volume[3, 4, 3] = 9  # the rightmost, foremost voxel of an axial slice
    assert read(nifti(volume)).pixels[0, 0] == 9


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_both_versions_are_read_packed_and_plain(read, volume, kind, pack):
    assert np.array_equal(read(pack(nifti(volume, kind=kind))).pixels, np.flip(volume[:, :, 4]).T)


def test_values_are_scaled_by_slope_and_intercept(read, volume):
    image = nibabel.Nifti1Image(volume, AFFINES["RAS"])
    data = bytearray(image.to_bytes())
    struct.pack_into("<ff", data, 112, 0.5, -3.0)
    assert np.array_equal(read(bytes(data)).pixels, np.flip(volume[:, :, 4]).T * 0.5 - 3)


def test_8_bit_voxels_are_windowed_like_others(read):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:3] = 2
    image = read(nifti(labels))
    assert image.window == (0, 2)
    assert image.rgb.max() == 255


def test_the_files_own_display_range_is_used(read, volume):
    image = nibabel.Nifti1Image(volume, AFFINES["RAS"])
    image.header["cal_min"], image.header["cal_max"] = 100, 600
    assert read(image.to_bytes()).window == (100, 600)


def test_colour_voxels_are_colours(read):
    voxels = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    voxels["R"] = 200
    assert read(nifti(voxels)).rgb[0, 0].tolist() == [200, 0, 0]


def test_series_of_volumes_need_a_choice(read, volume):
    series = np.stack([volume, volume + 1], axis=-1)
    with pytest.raises(ImageError, match="2 volumes, and one image is wanted"):
        read(nifti(series))
    assert np.array_equal(read(nifti(series), page=1).pixels, np.flip(volume[:, :, 4]).T + 1)


def test_flat_files_have_one_slice(read, volume):
    assert np.array_equal(read(nifti(volume[:, :, 0])).pixels, np.flip(volume[:, :, 0]).T)


def test_slices_beyond_the_volume_are_errors(read, volume):
    with pytest.raises(ImageError, match="slice 9 of 9 axial slices"):
        read(nifti(volume), slice_index=9)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_cut_files_are_errors(read, volume, pack, share):
    data = pack(nifti(volume))
    with pytest.raises(ImageError):
        read(data[: int(len(data) * share)])


def test_bombs_are_refused_by_their_header(read, volume):
    data = bytearray(nifti(volume))
    struct.pack_into("<hhhh", data, 40, 3, 30_000, 30_000, 30_000)
    for packed in (bytes(data), gzip.compress(bytes(data))):
        with pytest.raises(ImageError, match=r"decodes to 54,000,000,000,352 bytes"):
            read(packed)


def test_a_gzip_file_of_more_than_its_header_says_is_refused(read, volume):
    with pytest.raises(ImageError, match="unpacks to more"):
        read(gzip.compress(nifti(volume) + bytes(20_000_000)))


def test_float_labels_of_whole_numbers_are_integers(labels):
    values = np.arange(120).reshape(4, 5, 6).astype(np.float32)
    found = labels(nifti(values))
    assert found.dtype.kind == "i"
    assert np.array_equal(found, np.flip(values[:, :, 3]).T)
    with pytest.raises(ImageError, match="whole numbers"):
        labels(nifti(values + np.float32(0.5)))


def test_real_labels_fit_their_volumes(shared_data):
    folder = shared_data / "nifti-hippocampus"
    for path in sorted(folder.glob("*_image.nii.gz")):
        for axis in (0, 1, 2):
            image = read_image(path, ReadOptions(axis=axis))
            label = read_labels(path.with_name(path.name.replace("image", "label")), ReadOptions(axis=axis))
            assert image.size == label.shape
            assert set(np.unique(label)) <= {0, 1, 2}
            assert image.rgb.std() > 10


def test_without_nibabel_the_error_names_the_extra(read, volume, monkeypatch):
    import sys

    from medtool.errors import MissingExtraError

    monkeypatch.delitem(sys.modules, "medtool.images.nifti", raising=False)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match="'nifti'") as error:
        read(nifti(volume))
    assert error.value.hint == "pip install 'medtool[nifti]'"
