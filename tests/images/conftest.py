"""Pictures that the tests of all formats share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtool.images import Image, ReadOptions, read_image, read_labels


@pytest.fixture
def colours() -> np.ndarray:
    """Return (40, 56, 3) uint8: smooth, with all values, different in every corner."""
    rows, columns = np.mgrid[:40, :56]
    return np.stack([rows * 6, columns * 4, (rows + columns) * 2], axis=-1).astype(np.uint8)


@pytest.fixture
def greys(colours: np.ndarray) -> np.ndarray:
    """Return (40, 56) uint8, different in every corner."""
    return np.ascontiguousarray(colours[..., 0] // 2 + colours[..., 1] // 2)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Image]:
    """Return a function that writes bytes to a file whose name says nothing, and reads them as an image."""

    def call(data: bytes, **options: Any) -> Image:
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        return read_image(path, ReadOptions(**options))

    return call


@pytest.fixture
def labels(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Return a function that writes bytes to a file whose name says nothing, and reads them as labels."""

    def call(data: bytes, **options: Any) -> np.ndarray:
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        return read_labels(path, ReadOptions(**options))

    return call
