"""The synthetic cases are what they say, at every size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medtool.testing.synthetic import make_case, prompt_at, write_class_folders, write_image_mask_pairs

sizes = st.integers(1, 40)


@given(height=sizes, width=sizes, points=st.integers(1, 5), negatives=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_case_holds_an_object_and_points_that_lie_right(
    height: int, width: int, points: int, negatives: int, seed: int
) -> None:
    case = make_case(height, width, points=points, negatives=negatives, seed=seed)

    assert case.image.shape == (height, width, 3)
    assert case.image.dtype == np.uint8
    assert case.mask.any()
    xs, ys = case.prompt.points.astype(int).T
    assert (case.mask[ys, xs] == (case.prompt.point_labels == 1)).all()
    assert (case.prompt.point_labels == 1).any()
    assert case.prompt.heatmap.shape == (height, width)
    assert case.prompt.heatmap.dtype == np.float32
    assert case.prompt.heatmap.max() > 0


def test_the_same_arguments_give_the_same_case_and_another_seed_another() -> None:
    first, second, other = make_case(), make_case(), make_case(seed=1)

    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.prompt.points, second.prompt.points)
    assert not np.array_equal(first.image, other.image)


def test_a_prompt_is_hottest_at_its_points() -> None:
    prompt = prompt_at([(0, 0), (9, 4)], height=5, width=10)

    assert prompt.heatmap[0, 0] == prompt.heatmap[4, 9] == prompt.heatmap.max()


def test_folders_hold_what_they_promise(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "classes", ("a", "b", "c"), images=2)
    write_image_mask_pairs(tmp_path / "pairs", images=2)

    assert len(list((tmp_path / "classes").glob("*/*.png"))) == 6
    for path in sorted((tmp_path / "pairs" / "images").iterdir()):
        with Image.open(path) as image, Image.open(tmp_path / "pairs" / "masks" / path.name) as mask:
            assert image.size == mask.size
            assert set(np.unique(np.asarray(mask))) == {0, 255}
