"""A small training: pictures whose class is a red square, and networks of timm made for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = 32
MODEL = "timm/test_resnet"


def write_pictures(folder: Path, *, n_patients: int = 30, folds: int = 0, seed: int = 1) -> Path:
    """Write two pictures of each patient and a manifest of them; return the manifest."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    part = "fold,val_fold" if folds else "split"
    rows = [f"image,image_id,patient,label,{part},age,sex"]
    for index in range(2 * n_patients):
        patient = index // 2
        label = ("benign", "malignant")[patient % 2]
        pixels = rng.integers(60, 120, (24, 24, 3)).astype(np.uint8)
        if label == "malignant":
            pixels[6:18, 6:18, 0] = 200
        Image.fromarray(pixels).resize((48, 40)).save(folder / f"images/{index:02}.png")
        where = ("train", "train", "train", "val", "test")[patient // 2 % 5]
        if folds:
            own = patient // 2 % folds
            where = f"{own},{(own + 1) % folds if patient // 2 // folds % 2 else ''}"
        age, sex = ("", 40 + patient)[patient % 7 > 0], ("female", "male", "")[patient % 3]
        rows.append(f"images/{index:02}.png,i{index:02},P{patient:02},{label},{where},{age},{sex}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest of 60 pictures of 30 patients with a split."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest of 60 pictures of 30 patients in three folds."""
    return write_pictures(tmp_path_factory.mktemp("folded"), folds=3)
