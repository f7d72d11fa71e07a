"""medtool's own plugins keep the contracts that it asks of others, the data sets on real images."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtool.testing.contracts import DatasetContract, SegmenterContract
from medtool.testing.synthetic import write_class_folders, write_image_mask_pairs


class TestRandomWalker(SegmenterContract):
    name = "random-walker"


class TestHeatmapThreshold(SegmenterContract):
    name = "heatmap"


class TestFolder(DatasetContract):
    name = "folder"

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return write_class_folders(tmp_path)


class TestMasks(DatasetContract):
    name = "masks"

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return write_image_mask_pairs(tmp_path)


class TestIsic2017(DatasetContract):
    name = "isic2017"

    @pytest.fixture
    def root(self, shared_data: Path) -> Path:
        return shared_data / "isic2017-hires"


class TestHam10000(DatasetContract):
    name = "ham10000"

    @pytest.fixture
    def root(self, shared_data: Path) -> Path:
        return shared_data / "ham10000"


class TestCsv(DatasetContract):
    name = "csv"
    settings = {"table": "table.csv"}  # noqa: RUF012 - as plugin authors write it

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        write_class_folders(tmp_path, ("a",))
        rows = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.glob("a/*.png"))]
        (tmp_path / "table.csv").write_text("image\n" + "\n".join(rows) + "\n", encoding="utf-8")
        return tmp_path
