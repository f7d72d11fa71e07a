"""Several networks, scales and mirror images: laid on one another without a shift, and how far they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medtool.cam.choices import Method
from medtool.cam.ensemble import HeatmapEnsemble, Made
from medtool.cam.options import CamOptions
from medtool.errors import UsageError
from medtool.images.reader import read_image
from medtool.runs.choices import Task
from medtool.runs.folder import run_at
from medtool.runs.preprocessing import prepared

pytestmark = pytest.mark.usefixtures("one_thread")


def ensemble(*folders: Path, **options: object) -> HeatmapEnsemble:
    said: list[str] = []
    return HeatmapEnsemble([run_at(folder) for folder in folders], CamOptions(**options), say=said.append)  # type: ignore[arg-type]


def shown(made: HeatmapEnsemble, manifest: Path, *, n: int = 4, is_mirrored: bool = False) -> dict[str, Tensor]:
    paths = sorted((manifest.parent / "images").glob("*.png"))[:n]
    pictures = [read_image(path).rgb for path in paths]
    pictures = [np.ascontiguousarray(each[:, ::-1]) if is_mirrored else each for each in pictures]
    return {
        key: torch.from_numpy(np.stack([prepared(each, way) for each in pictures]))
        for key, way in made.preprocessings.items()
    }


def maps(manifest: Path, *folders: Path, is_mirrored: bool = False, **options: object) -> Made:
    found = ensemble(*folders, **options)
    return found.make(shown(found, manifest, is_mirrored=is_mirrored), [None] * len(folders))


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_mirror_image_of_a_picture_has_the_mirror_image_of_the_map(one: Path, manifest: Path) -> None:
    plain = maps(manifest, one, flip=True, target="malignant")
    mirrored = maps(manifest, one, flip=True, target="malignant", is_mirrored=True)
    close(mirrored.raw, plain.raw[..., ::-1])


def test_a_map_with_its_mirror_image_is_the_mean_of_both(one: Path, manifest: Path) -> None:
    both = maps(manifest, one, flip=True, uncertainty=True, target="malignant")
    plain = maps(manifest, one, target="malignant").raw
    mirrored = maps(manifest, one, target="malignant", is_mirrored=True).raw[..., ::-1]
    close(both.raw, (plain + mirrored) / 2)
    assert both.spread is not None
    close(both.spread, np.std([plain, mirrored], axis=0))


@pytest.mark.parametrize("method", [Method.GRADCAM, Method.LAYERCAM, Method.HIRESCAM])
def test_maps_of_other_scales_are_of_the_same_size_and_unit(one: Path, manifest: Path, method: Method) -> None:
    single = maps(manifest, one, target="malignant", method=method)
    larger = maps(manifest, one, target="malignant", method=method, scales=(2.0,))
    together = maps(manifest, one, target="malignant", method=method, scales=(1.0, 2.0))
    assert single.raw.shape[2:] == (3, 3)
    assert larger.raw.shape[2:] == together.raw.shape[2:] == (6, 6)
    ratio = np.abs(together.raw).max() / np.abs(single.raw).max()
    assert 0.2 < ratio < 5
    np.testing.assert_array_equal(together.targets, single.targets)
    np.testing.assert_array_equal(together.scores, single.scores)


def test_several_networks_count_alike_whatever_the_size_of_their_logits(one: Path, two: Path, manifest: Path) -> None:
    both = maps(manifest, one, two, target="benign", uncertainty=True)
    alone = [maps(manifest, folder, target="benign").raw for folder in (one, two)]
    laid = [
        torch.nn.functional.interpolate(torch.from_numpy(each), (4, 4), mode="bilinear", antialias=True)
        for each in alone
    ]
    units = [each / each.abs().amax((2, 3), keepdim=True) for each in laid]
    close(both.raw, torch.stack(units).mean(0).numpy())
    assert both.spread is not None
    close(both.spread, torch.stack(units).std(0, correction=0).numpy())
    scores = [maps(manifest, folder, target="benign").scores for folder in (one, two)]
    np.testing.assert_allclose(both.scores, np.mean(scores, axis=0))


def test_several_networks_speak_for_the_class_of_their_mean_probability(one: Path, two: Path, manifest: Path) -> None:
    predicted = maps(manifest, one, two)
    every = [maps(manifest, one, two, target=name).scores[:, 0] for name in ("benign", "malignant")]
    np.testing.assert_array_equal(predicted.targets[:, 0], np.argmax(every, axis=0))
    np.testing.assert_allclose(predicted.scores[:, 0], np.max(every, axis=0))


def test_a_transformer_made_for_one_size_takes_others(transformer: Path, manifest: Path) -> None:
    made = maps(manifest, transformer, scales=(1.0, 1.5), method=Method.LAYERCAM, target="benign")
    alone = maps(manifest, transformer, scales=(1.5,), method=Method.LAYERCAM, target="benign")
    assert made.raw.shape == alone.raw.shape
    assert made.raw.shape[2:] == (144 // 16, 144 // 16)
    assert np.isfinite(made.raw).all()


def test_rollout_is_of_all_blocks_and_of_no_class(transformer: Path, manifest: Path) -> None:
    found = ensemble(transformer, method=Method.ROLLOUT)
    made = found.make(shown(found, manifest), [None])
    assert found.layers == [()]
    assert (made.raw >= 0).all()
    np.testing.assert_array_less(made.raw.sum((2, 3)), 1.0001)


def test_a_batch_that_memory_does_not_suffice_for_is_divided(
    one: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtool.cam.maker import HeatmapMaker

    whole = maps(manifest, one, target="benign")
    compute, sizes = HeatmapMaker.maps, []

    def small(self: HeatmapMaker, images: Tensor, *rest: object, **named: object) -> object:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, images, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(HeatmapMaker, "maps", small)
    said: list[str] = []
    found = HeatmapEnsemble([run_at(one)], CamOptions(target="benign"), say=said.append)
    made = found.make(shown(found, manifest), [None])
    assert said[-1] == "memory does not suffice for 2 images at once; going on with 1"
    close(made.raw, whole.raw)


def test_the_one_logit_of_a_single_label_speaks_for_it(
    one: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second(torch.nn.Module):
        """A network of two classes, of which the second one's logit alone is given."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images)[:, 1:]

    from medtool.cam import ensemble as module

    second = maps(manifest, one, target="malignant", layers=("layer4",))
    load = module.load_network
    run = run_at(one)
    monkeypatch.setattr(module, "load_network", lambda path, _card: Second(load(path, run.card)).eval())
    label = replace(run, card=replace(run.card, task=Task.MULTI, classes=("malignant",)))
    for target in ("predicted", "malignant", "all"):
        options = CamOptions(target=target, layers=("network.layer4",))
        monkeypatch.setattr(module, "layers_of", lambda *_: ("network.layer4",))
        found = HeatmapEnsemble([label], options, say=print)
        made = found.make(shown(found, manifest), [None])
        close(made.raw, second.raw)
        assert (made.targets == 0).all()
        assert found.asked_classes == ()
        assert ((made.scores > 0) & (made.scores < 1)).all()


def test_runs_that_do_not_fit_together_are_refused(one: Path) -> None:
    with pytest.raises(UsageError, match="is given twice"):
        ensemble(one, one)
