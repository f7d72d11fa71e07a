from __future__ import annotations

import subprocess
import sys

import pytest

from medtool.errors import UsageError
from medtool.images.options import ReadOptions


@pytest.mark.parametrize("wrong", [{"page": -1}, {"axis": 3}, {"slice_index": -2}, {"max_pixels": 0}, {"max_bytes": 0}])
def test_impossible_options_are_usage_errors_that_name_the_option(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ReadOptions(**wrong)


def test_importing_the_package_loads_no_numpy_and_no_decoder():
    code = (
        "import sys, medtool.images, medtool.images.options, medtool.images.formats\n"
        "heavy = {'numpy', 'PIL', 'tifffile', 'pydicom', 'nibabel', 'imagecodecs'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_a_png_loads_no_decoder_of_other_formats(tmp_path):
    from PIL import Image

    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path; from medtool.images import read_image\n"
        f"read_image(Path({str(tmp_path / 'a.png')!r}))\n"
        "heavy = {'tifffile', 'pydicom', 'nibabel', 'imagecodecs', 'scipy', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
