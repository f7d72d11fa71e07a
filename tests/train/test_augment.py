from __future__ import annotations

import colorsys
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as run
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats
from skimage import color, data
from torchvision.transforms.v2 import functional as peer

from medtool.errors import InputError, UsageError
from medtool.train.augment import (
    PRESETS,
    AugmentOptions,
    AugmentPreset,
    augmented,
    blurred,
    generator_for,
    recoloured,
)
from medtool.train.augment_options import varied as changed_preset

GOLDEN = [0.35172024714088634, 0.4417909272547703, 0.26312885857031365]

EVERYTHING = AugmentOptions(
    flips=True,
    upside_down=True,
    quarter_turns=True,
    rotate_deg=40,
    translate=0.1,
    scale=0.3,
    shear_deg=8,
    elastic=0.03,
    brightness=0.3,
    contrast=0.3,
    saturation=0.4,
    hue=0.1,
    stain_jitter=0.2,
    blur=1.5,
    cutout=0.3,
)


@pytest.fixture(scope="module")
def tissue() -> torch.Tensor:
    """Return a stained slide, (3, 64, 64) uint8."""
    return torch.from_numpy(data.immunohistochemistry()[::8, ::8].transpose(2, 0, 1).copy())


def middling(tissue: torch.Tensor) -> torch.Tensor:
    """Return grey values far enough from 0 and 255 that nothing is clipped."""
    return (tissue.float() * 0.5 + 60).round()


def draw(
    image: torch.Tensor, options: AugmentOptions, *, index: int = 0, epoch: int = 1, seed: int = 905
) -> torch.Tensor:
    return augmented(image, generator_for(seed, epoch, index), options)


def test_seed_epoch_and_image_alone_decide_what_is_drawn(tissue):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    forwards = [draw(tissue, EVERYTHING, index=index) for index in range(6)]
    torch.manual_seed(2)
    backwards = [draw(tissue, EVERYTHING, index=index) for index in reversed(range(6))]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    torch.manual_seed(1)
    draw(tissue, EVERYTHING)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_epoch_or_image_draws_something_else(tissue):
    first = draw(tissue, EVERYTHING)
    for other in ({"index": 1}, {"epoch": 2}, {"seed": 906}):
        assert not torch.equal(first, draw(tissue, EVERYTHING, **other))


def test_the_draws_of_a_place_in_the_training_are_the_same_on_every_machine():
    numbers = torch.rand(3, generator=generator_for(905, 3, 1234), dtype=torch.float64)
    assert numbers.tolist() == pytest.approx(GOLDEN, abs=1e-15)


def test_one_kind_of_variation_does_not_move_the_draws_of_another(tissue):
    turned = AugmentOptions(flips=True, quarter_turns=True)
    also_cut = dataclasses.replace(turned, cutout=0.2)
    for index in range(8):
        a, b = draw(tissue, turned, index=index), draw(tissue, also_cut, index=index)
        assert (a == b).float().mean() > 0.9


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    index=st.integers(0, 10**9),
    preset=st.sampled_from([*PRESETS.values(), EVERYTHING]),
)
@run(max_examples=60)
def test_any_image_keeps_its_shape_and_is_not_changed_in_place(height, width, index, preset):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    kept = image.clone()
    varied = augmented(image, generator_for(0, 0, index), preset)
    assert varied.shape == image.shape
    assert varied.dtype == torch.uint8
    assert torch.equal(image, kept)


@given(index=st.integers(0, 10**6))
@run(max_examples=25)
def test_a_grey_image_stays_grey(index):
    grey = torch.from_numpy(data.cell()[::10, ::10].copy())[None].expand(3, -1, -1)
    varied = augmented(grey, generator_for(0, 1, index), dataclasses.replace(EVERYTHING, stain_jitter=0.0)).int()
    assert int((varied.amax(dim=0) - varied.amin(dim=0)).max()) <= 1


def test_no_variation_gives_the_very_image_back(tissue):
    assert draw(tissue, PRESETS[AugmentPreset.NONE]) is tissue


def test_every_option_varies_something(tissue):
    defaults = AugmentOptions()
    for field in dataclasses.fields(AugmentOptions):
        amount = getattr(EVERYTHING, field.name)
        alone = dataclasses.replace(defaults, **{field.name: amount})
        assert any(not torch.equal(tissue, draw(tissue, alone, index=index)) for index in range(12)), field.name


def test_flips_and_quarter_turns_give_the_eight_poses_of_a_square_equally_often(tissue):
    small = tissue[:, :9, :9].contiguous()
    poses = [np.rot90(p, turn, (1, 2)) for p in (small.numpy(), small.numpy()[:, :, ::-1]) for turn in range(4)]
    counts = np.zeros(8)
    for index in range(800):
        varied = draw(small, AugmentOptions(flips=True, quarter_turns=True), index=index).numpy()
        counts[[np.array_equal(varied, pose) for pose in poses].index(True)] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_an_oblong_image_is_turned_by_half_turns_only(tissue):
    oblong = tissue[:, :20]
    seen = {tuple(draw(oblong, AugmentOptions(quarter_turns=True), index=i).flatten().tolist()) for i in range(20)}
    assert seen == {tuple(p.flatten().tolist()) for p in (oblong, torch.rot90(oblong, 2, (1, 2)))}


@given(brightness=st.floats(0.85, 1.15), contrast=st.floats(0.7, 1.3), saturation=st.floats(0, 1.5))
@run(max_examples=30)
def test_colours_change_as_in_torchvision_one_step_after_the_other(brightness, contrast, saturation):
    pixels = middling(torch.from_numpy(data.immunohistochemistry()[::8, ::8].transpose(2, 0, 1).copy())) / 255
    theirs = peer.adjust_brightness(pixels, brightness)
    theirs = peer.adjust_contrast(theirs, contrast)
    theirs = peer.adjust_saturation(theirs, saturation)
    ours = recoloured(pixels * 255, brightness=brightness, contrast=contrast, saturation=saturation, hue=0.0)
    assert torch.allclose(ours, theirs * 255, atol=0.1)  # of 255: torchvision's weights of grey add up to 0.9999


@given(hue=st.floats(-0.5, 0.5))
@run(max_examples=20)
def test_hues_turn_in_the_yiq_space_of_scikit_image(hue):
    pixels = middling(torch.from_numpy(data.immunohistochemistry()[::8, ::8].transpose(2, 0, 1).copy()))
    ours = recoloured(pixels, brightness=1.0, contrast=1.0, saturation=1.0, hue=hue)
    before, after = (color.rgb2yiq(p.permute(1, 2, 0).double().numpy() / 255) for p in (pixels, ours))
    turned = (before[..., 1] + 1j * before[..., 2]) * np.exp(-2j * np.pi * hue)
    assert np.allclose(after[..., 0], before[..., 0], atol=1e-5)
    assert np.allclose(after[..., 1] + 1j * after[..., 2], turned, atol=1e-5)


@pytest.mark.parametrize("hue", [-0.04, 0.04])
@pytest.mark.parametrize("colour", [(200.0, 90.0, 80.0), (120.0, 80.0, 160.0), (90.0, 140.0, 80.0)])
def test_hues_turn_the_way_and_roughly_as_far_as_torchvision_turns_them(hue, colour):
    patch = torch.tensor(colour)[:, None, None]
    ours = recoloured(patch, brightness=1.0, contrast=1.0, saturation=1.0, hue=hue) / 255
    theirs = peer.adjust_hue(patch / 255, hue)
    start, our_end, their_end = (colorsys.rgb_to_hsv(*map(float, p.flatten()))[0] for p in (patch / 255, ours, theirs))
    assert 0.4 < ((our_end - start + 0.5) % 1 - 0.5) / ((their_end - start + 0.5) % 1 - 0.5) < 2.5


@given(sigma=st.floats(0.3, 3))
@run(max_examples=20)
def test_blur_is_the_gaussian_of_scipy(sigma):
    pixels = torch.from_numpy(data.retina()[300:600:6, 300:700:8].transpose(2, 0, 1).copy()).float()
    reach = int(np.ceil(3 * sigma))
    expected = ndimage.gaussian_filter(
        pixels.double().numpy(), (0, sigma, sigma), mode="mirror", radius=(0, reach, reach)
    )
    assert np.allclose(blurred(pixels, sigma_px=sigma).numpy(), expected, atol=1e-3)


def test_half_of_the_images_are_cut_out_in_their_mean_colour(tissue):
    n_cut = 0
    for index in range(60):
        varied = draw(tissue, AugmentOptions(cutout=0.5), index=index)
        changed = (varied != tissue).any(dim=0)
        if not changed.any():
            continue
        n_cut += 1
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        assert int(rows.max() - rows.min()) < 32
        assert int(columns.max() - columns.min()) < 32
        mean = tissue.flatten(1).float().mean(dim=1).round().to(torch.uint8)
        assert torch.equal(varied[:, changed], mean[:, None].expand(-1, int(changed.sum())))
    assert 18 <= n_cut <= 42


def test_another_kind_of_image_is_refused_with_what_was_wanted(tissue):
    for wrong in (tissue.float(), tissue[:1], tissue[None], tissue[:, :0]):
        with pytest.raises(InputError, match="wanted uint8 of shape"):
            draw(wrong, EVERYTHING)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotate_deg", 181), ("scale", -0.1), ("elastic", 0.07), ("hue", 0.6), ("blur", float("nan"))],
)
def test_an_option_out_of_its_range_is_refused_by_name(name: str, value: float):
    with pytest.raises(UsageError, match=f"{name} is {value:g}"):
        AugmentOptions(**{name: value})


def test_every_preset_has_its_options():
    assert set(PRESETS) == set(AugmentPreset)


def test_amounts_of_a_preset_are_changed_one_by_one():
    standard = PRESETS[AugmentPreset.STANDARD]
    assert changed_preset(AugmentPreset.STANDARD, "") == standard
    changed = changed_preset(AugmentPreset.STANDARD, " cutout=0.3, blur=1,flips=no ")
    assert changed == dataclasses.replace(standard, cutout=0.3, blur=1.0, flips=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("cutuot=0.3", "'cutuot' is none of flips, upside_down"),
        ("cutout=2", "--vary: cutout is 2; it must be 0 to 1"),
        ("blur=nan", "blur is nan"),
        ("blur=strong", "must be a number"),
        ("flips=1", "yes or no"),
        ("flips", "yes or no"),
        ("blur=1,blur=2", "blur twice"),
    ],
)
def test_a_change_of_a_preset_that_is_none_is_refused(changes: str, words: str):
    with pytest.raises(UsageError, match=words):
        changed_preset(AugmentPreset.NONE, changes)


def test_a_real_slide_keeps_its_tissue_under_the_preset_for_histology(shared_data: Path):
    path = shared_data / "breakhis" / "SOB_M_DC-14-17614-400-014.png"
    pixels = np.asarray(Image.open(path).convert("RGB").resize((128, 128)))
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    varied = [draw(image, PRESETS[AugmentPreset.HISTOLOGY], index=index) for index in range(20)]
    brightness = torch.stack([picture.float().mean() for picture in varied])
    assert float((brightness - image.float().mean()).abs().max()) < 60
    assert float(brightness.std()) > 3
    assert all(float(picture.float().std()) > 0.5 * float(image.float().std()) for picture in varied)
