from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medtool.split.duplicates.compression import jpeg_step


def jpeg(quality=75, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, (24, 16), 90).save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("quality", [1, 5, 15, 30, 50, 75, 95, 100])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_mean_step_is_that_of_the_table_that_pillow_reads(quality, mode):
    data = jpeg(quality, mode, progressive=quality == 30, exif=b"Exif\0\0" + bytes(40), comment=b"\xff\xdb\0\x43" * 9)
    with Image.open(io.BytesIO(data)) as opened:
        assert jpeg_step(data) == np.mean(opened.quantization[0])


def test_tables_of_16_bit_in_any_order_are_read():
    segment = b"\x01" + bytes([9] * 64) + b"\x10" + (300).to_bytes(2, "big") * 64
    assert jpeg_step(b"\xff\xd8\xff\xff\xdb" + (len(segment) + 2).to_bytes(2, "big") + segment) == 300


def test_files_of_other_formats_and_files_without_a_table_have_no_step():
    assert jpeg_step(b"") == jpeg_step(b"\x89PNG\r\n") == jpeg_step(b"\xff\xd8") == 0
    assert jpeg_step(b"\xff\xd8\xff\xdb\x00\x43\x00\x01") == 0


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_damage_makes_it_fail(noise, place):
    data = jpeg()
    assert jpeg_step(data[:place] + noise + data[place + len(noise) :]) >= 0
    assert jpeg_step(b"\xff\xd8" + noise) >= 0
