from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from skimage import data
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as peer

from medtool.train.augment_options import MOST_ELASTIC
from medtool.train.warp import NODES, Geometry, _source_grid, displacement, warped


def picture(height: int = 64, width: int = 64) -> torch.Tensor:
    pixels = data.retina()[200 : 200 + 4 * height : 4, 300 : 300 + 4 * width : 4]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


@given(
    mirrored=st.booleans(),
    upended=st.booleans(),
    turns=st.integers(0, 3),
    angle=st.floats(-180, 180),
    zoom=st.floats(0.7, 2),
    shear=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    shift=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    size=st.sampled_from([(48, 48), (40, 56)]),
)
@run(max_examples=40)
def test_one_resampling_equals_flips_quarter_turns_and_torchvisions_affine_of_the_reflected_image(
    mirrored, upended, turns, angle, zoom, shear, shift, size
):
    height, width = size
    turns = turns if height == width else turns // 2 * 2
    image = picture(height, width)
    ours = warped(image, Geometry(mirrored, upended, turns, angle, shift, zoom, shear))

    posed = warped(image, Geometry(mirrored, upended, turns)).float()
    margin = 2 * max(size)
    mirrors = np.pad(posed.numpy(), ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    theirs = peer.affine(
        torch.from_numpy(mirrors),
        angle=angle,
        translate=[shift[0] * width, shift[1] * height],
        scale=zoom,
        shear=list(shear),
        interpolation=InterpolationMode.BILINEAR,
    )[:, margin:-margin, margin:-margin]
    # both sample at float32 places, which are coarser the larger the canvas
    assert float((ours.float() - theirs).abs().max()) < 1.0


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("upended", [False, True])
def test_flips_and_quarter_turns_only_move_pixels_as_numpy_does(turns: int, mirrored: bool, upended: bool):
    image = picture()
    expected = image.numpy()
    expected = expected[:, :, ::-1] if mirrored else expected
    expected = expected[:, ::-1] if upended else expected
    geometry = Geometry(mirrored, upended, turns)
    assert not geometry.needs_resampling
    assert np.array_equal(warped(image, geometry).numpy(), np.rot90(expected, turns, (1, 2)))
    # an elastic deformation by nothing forces the resampling, which must bring every pixel to the same place
    resampled = warped(image, Geometry(mirrored, upended, turns, nodes=torch.zeros(2, NODES, NODES)))
    assert torch.allclose(resampled, warped(image, geometry).float(), atol=0.05)


def test_a_quarter_turn_of_an_oblong_image_is_refused():
    with pytest.raises(ValueError, match="60 by 40 px"):
        warped(picture(40, 60), Geometry(quarter_turns=1))


def test_what_comes_in_from_outside_is_the_image_itself_and_never_black():
    image = torch.full((3, 30, 50), 200, dtype=torch.uint8)
    moved = warped(image, Geometry(angle_deg=45, shift=(0.4, -0.3), zoom=0.5))
    assert torch.allclose(moved, torch.tensor(200.0), atol=1e-3)


def test_a_shift_moves_the_image_right_and_down():
    image = torch.zeros((1, 20, 40), dtype=torch.uint8)
    image[0, 5, 10] = 255
    moved = warped(image, Geometry(shift=(4 / 40, 3 / 20)))
    assert moved[0, 8, 14] == pytest.approx(255, abs=0.1)


@given(
    values=st.lists(st.floats(-MOST_ELASTIC, MOST_ELASTIC), min_size=98, max_size=98),
    size=st.tuples(st.integers(8, 60), st.integers(8, 60)),
)
@run(max_examples=40)
def test_no_deformation_folds_the_image_over_itself_or_goes_beyond_its_limit(values, size):
    nodes = torch.tensor(values, dtype=torch.float32).view(2, NODES, NODES)
    places = _source_grid(Geometry(nodes=nodes), *size).double()
    along, down = places[:, 1:] - places[:, :-1], places[1:] - places[:-1]
    area = along[:-1, :, 0] * down[:, :-1, 1] - along[:-1, :, 1] * down[:, :-1, 0]
    assert float(area.min()) > 0
    assert float(displacement(nodes, *size).abs().max()) <= MOST_ELASTIC * (1 + 1e-5)


def test_a_deformation_follows_the_cubic_spline_of_scipy():
    from scipy.interpolate import BSpline

    nodes = torch.rand((2, NODES, NODES), generator=torch.Generator().manual_seed(3))
    knots = np.arange(-3, NODES + 1)
    y, x = (np.arange(20) + 0.5) * 4 / 20, (np.arange(28) + 0.5) * 4 / 28
    across = BSpline(knots, nodes.numpy().astype(float), 3, axis=2)(x)
    expected = BSpline(knots, across, 3, axis=1)(y)
    assert np.allclose(displacement(nodes, 20, 28).numpy(), expected, atol=1e-5)
