from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from medtool.errors import InputError, UsageError
from medtool.train.augment import PRESETS, AugmentPreset, augmented, generator_for
from medtool.train.preview import preview_sheet

OPTIONS = PRESETS[AugmentPreset.STANDARD]


def pictures() -> list[np.ndarray]:
    return [data.retina()[300:1000:20, 300:1100:20], data.immunohistochemistry()[::20, ::20]]


def test_a_sheet_shows_each_image_and_the_very_pictures_that_training_sees():
    images = pictures()
    sheet = preview_sheet(images, OPTIONS, seed=4, indices=[17, 3], epochs=3)
    assert sheet.shape == (2 * 35 + 4, 4 * 40 + 16 + 2 * 4, 3)
    assert sheet.dtype == np.uint8
    assert np.array_equal(sheet[:35, :40], images[0])
    second_epoch = augmented(torch.from_numpy(images[0].transpose(2, 0, 1).copy()), generator_for(4, 2, 17), OPTIONS)
    assert np.array_equal(sheet[:35, 100:140], second_epoch.permute(1, 2, 0).numpy())
    assert np.array_equal(sheet[39 : 39 + 26, :26], images[1])
    assert (sheet[:, 40:56] == 255).all()


def test_a_sheet_is_the_same_each_time_and_another_for_another_seed():
    first = preview_sheet(pictures(), OPTIONS, seed=4)
    assert np.array_equal(first, preview_sheet(pictures(), OPTIONS, seed=4))
    assert not np.array_equal(first, preview_sheet(pictures(), OPTIONS, seed=5))


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(UsageError, match="no image"):
        preview_sheet([], OPTIONS, seed=1)
    with pytest.raises(UsageError, match="0 epochs"):
        preview_sheet(pictures(), OPTIONS, seed=1, epochs=0)
    with pytest.raises(UsageError, match="2 images have 1 indices"):
        preview_sheet(pictures(), OPTIONS, seed=1, indices=[1])
    with pytest.raises(InputError, match="wanted uint8"):
        preview_sheet([np.zeros((4, 4))], OPTIONS, seed=1)
