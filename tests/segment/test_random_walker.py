from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from threadpoolctl import threadpool_limits

from medtool.errors import InputError
from medtool.protocols import Candidates, Prompt, Segmenter
from medtool.segment.heatmap import HeatmapThreshold
from medtool.segment.options import PromptOptions
from medtool.segment.prompts import choose_points
from medtool.segment.random_walker import RandomWalker

SKIN, LESION = (214.0, 172.0, 150.0), (112.0, 66.0, 58.0)


def picture(mask: np.ndarray, *, noise: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(905)
    pixels = np.where(mask[..., None], LESION, SKIN) + rng.normal(0, noise, (*mask.shape, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def disc(size: tuple[int, int], middle: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.hypot(x - middle[0], y - middle[1]) <= radius


def blob(size: tuple[int, int], middle: tuple[float, float], sigma: float) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (2 * sigma**2)).astype(np.float32)


def ask(heatmap: np.ndarray, **options: float) -> Prompt:
    points, labels = choose_points(heatmap, replace(PromptOptions(), **options), seed_text="image")
    return Prompt(points, labels, heatmap)


def answer(image: np.ndarray, prompt: Prompt) -> Candidates:
    walker = RandomWalker()
    return walker.segment(walker.embed(image), prompt)


def best(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    candidates = answer(image, prompt)
    return candidates.masks[candidates.scores.argmax()]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_it_is_a_segmenter_that_needs_no_torch_and_no_weights():
    assert isinstance(RandomWalker(), Segmenter)
    assert RandomWalker.weights is None
    assert not RandomWalker.needs_torch


@pytest.mark.parametrize("size", [(512, 512), (512, 768), (333, 257), (1001, 701), (161, 320), (90, 120)])
def test_the_mask_lies_where_the_disc_lies_to_half_a_pixel(size):
    middle = (size[1] * 0.45, size[0] * 0.55)
    truth = disc(size, middle, min(size) * 0.28)
    mask = best(picture(truth), ask(blob(size, middle, min(size) * 0.2)))
    off = np.array(ndimage.center_of_mass(mask)) - np.array(ndimage.center_of_mass(truth))
    assert np.abs(off).max() < 0.5
    assert iou(mask, truth) > 0.95


def test_it_follows_the_image_where_the_heatmap_is_coarse_and_off():
    size, middle = (240, 320), (150.0, 120.0)
    truth = disc(size, middle, 55)
    heatmap = blob(size, (138, 128), 60)
    prompt = ask(heatmap)
    baseline = HeatmapThreshold().segment(size, prompt).masks[0]
    assert iou(best(picture(truth), prompt), truth) > 0.9 > iou(baseline, truth)


def test_a_small_object_does_not_drown_in_a_noisy_heatmap():
    size, middle = (256, 256), (120.0, 130.0)
    truth = disc(size, middle, 12)
    floor = ndimage.gaussian_filter(np.random.default_rng(905).random(size), 4)
    floor = 0.3 * (floor - floor.min()) / np.ptp(floor)
    heatmap = np.maximum(floor, blob(size, middle, 9)).astype(np.float32)
    assert iou(best(picture(truth), ask(heatmap)), truth) > 0.8


def test_a_negative_point_takes_its_pixel_and_the_unclear_ones_around_it_out():
    size, middle = (160, 240), (120.0, 80.0)
    bar = np.zeros(size, dtype=bool)
    bar[55:105, 40:200] = True
    prompt = ask(blob(size, middle, 40))
    free = answer(picture(bar), prompt).masks
    assert free[0, 80, 190]
    points, labels = np.vstack([prompt.points, [[190.0, 80.0]]]), np.append(prompt.point_labels, 0)
    bound = answer(picture(bar), Prompt(points, labels, prompt.heatmap)).masks
    assert not bound[:, 80, 190].any()
    assert bound[0].sum() < free[0].sum()


def test_scores_are_shares_and_the_true_border_scores_best():
    size, middle = (256, 256), (128.0, 128.0)
    truth = disc(size, middle, 60)
    candidates = answer(picture(truth), ask(blob(size, middle, 45)))
    assert ((candidates.scores >= 0) & (candidates.scores <= 1)).all()
    overlaps = [iou(mask, truth) for mask in candidates.masks]
    assert overlaps[int(candidates.scores.argmax())] > max(overlaps) - 0.02


@pytest.mark.parametrize("size", [(3, 3), (2, 2), (1, 7), (10, 2000), (2000, 10), (1, 300), (159, 161)])
def test_odd_and_thin_images_are_segmented(size):
    middle = (size[1] / 2, size[0] / 2)
    heatmap = blob(size, middle, max(size) / 5)
    image = picture(disc(size, middle, max(size) / 4))
    candidates = answer(image, Prompt(np.floor([middle]), np.ones(1, dtype=np.int64), heatmap))
    assert candidates.masks.shape[1:] == size
    assert candidates.masks.any()
    assert np.isfinite(candidates.scores).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_follows_the_heatmap(value):
    size = (120, 90)
    heatmap = blob(size, (40, 60), 15)
    mask = best(np.full((*size, 3), value, dtype=np.uint8), ask(heatmap))
    levels = [iou(mask, heatmap > level) for level in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert max(levels) > 0.9


def test_a_prompt_without_positive_points_still_has_an_answer():
    size = (60, 80)
    heatmap = blob(size, (40, 30), 12)
    nothing = Prompt(np.empty((0, 2)), np.empty(0, dtype=np.int64), heatmap)
    assert best(picture(heatmap > 0.4), nothing)[30, 40]


def test_the_same_masks_whatever_the_number_of_threads():
    size = (300, 400)
    heatmap = blob(size, (180, 140), 50)
    image, prompt = picture(disc(size, (180, 140), 70), noise=25), ask(heatmap)
    with threadpool_limits(1):
        alone = answer(image, prompt)
    with threadpool_limits(4):
        together = answer(image, prompt)
    np.testing.assert_array_equal(alone.masks, together.masks)


def test_a_constant_heatmap_is_refused():
    size = (20, 30)
    prompt = Prompt(np.array([[3.0, 4.0]]), np.ones(1, dtype=np.int64), np.ones(size, dtype=np.float32))
    with pytest.raises(InputError, match="constant"):
        answer(np.zeros((*size, 3), dtype=np.uint8), prompt)


def test_a_heatmap_of_another_size_is_refused():
    with pytest.raises(InputError, match="the image"):
        answer(np.zeros((20, 30, 3), dtype=np.uint8), ask(blob((30, 20), (9, 9), 4)))
