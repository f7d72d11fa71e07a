"""The contracts pass what keeps them and catch what does not, with pytest and without."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from medtool.errors import InputError
from medtool.manifest import Manifest
from medtool.protocols import Candidates, InputSpec, Prompt
from medtool.testing.checks import Check, Contract, Outcome, run_checks
from medtool.testing.contracts import ArchitectureContract, DatasetContract, SegmenterContract
from medtool.testing.synthetic import write_class_folders


def failures(contract: type[Contract], plugin: Any, **given: object) -> dict[str, str]:
    """Return the reason of each check that did not pass."""
    bound = type("Bound", (contract,), {"plugin": plugin})
    return {
        check.name: check.reason for check in run_checks(bound(), given=given) if check.outcome is not Outcome.PASSED
    }


class GoodSegmenter:
    version = "1"
    licence = "MIT"
    citation = "nobody"
    weights: str | None = None
    needs_torch = False

    def __init__(self, *, weights: Path | None, device: str, precision: str) -> None: ...

    def embed(self, image: np.ndarray) -> Any:
        return image.mean(axis=-1)

    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return Candidates(masks=(embedding <= threshold_otsu(embedding))[None], scores=np.array([0.5]))


class TestGoodSegmenter(SegmenterContract):
    plugin = GoodSegmenter


class WrongTypes(GoodSegmenter):
    version = 3  # type: ignore[assignment]


class UnknownWeights(GoodSegmenter):
    weights = "none-such"


class NoPrecision(GoodSegmenter):
    def __init__(self, *, weights: Path | None, device: str) -> None: ...


class ScoresTooMany(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return Candidates(super().segment(embedding, prompt).masks, np.array([0.5, 0.5]))


class ScoresNan(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return Candidates(super().segment(embedding, prompt).masks, np.array([np.nan]))


class MasksOfNumbers(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return Candidates(super().segment(embedding, prompt).masks.astype(np.uint8), np.array([0.5]))


class EvenSizesOnly(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        height, width = embedding.shape
        return Candidates(np.ones((1, height // 2 * 2, width // 2 * 2), bool), np.array([0.5]))


class BreaksOnTiny(GoodSegmenter):
    def embed(self, image: np.ndarray) -> Any:
        if min(image.shape[:2]) < 5:
            raise IndexError("pyramid too deep")
        return super().embed(image)


class RefusesTiny(GoodSegmenter):
    def embed(self, image: np.ndarray) -> Any:
        if min(image.shape[:2]) < 8:
            raise InputError("the image is smaller than 8 pixels")
        return super().embed(image)


class BreaksOnBorder(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        for x, y in prompt.points.astype(int):
            embedding[y + 1, x + 1]
        return super().segment(embedding, prompt)


class Random(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return Candidates(np.random.random((1, *embedding.shape)) > 0.5, np.array([0.5]))


class EatsEmbedding(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        embedding[:] = np.roll(embedding, 5, axis=0)
        return super().segment(embedding, prompt)


class RemembersImage(GoodSegmenter):
    def embed(self, image: np.ndarray) -> Any:
        self.image = super().embed(image)
        return None

    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return super().segment(self.image, prompt)


class FixedThreshold(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return Candidates((prompt.heatmap > 0.5)[None], np.array([0.5]))


class AddsHeatmapAsItIs(GoodSegmenter):
    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        return super().segment(embedding - 40 * prompt.heatmap, prompt)


class ChangesImage(GoodSegmenter):
    def embed(self, image: np.ndarray) -> Any:
        image[0] = 0
        return super().embed(image)


@pytest.mark.parametrize(
    ("plugin", "check", "reason"),
    [
        (WrongTypes, "class attributes have the right types", "version must be a text, not 3"),
        (UnknownWeights, "class attributes have the right types", "not 'none-such'"),
        (NoPrecision, "it is built from weights device and precision", "unexpected keyword argument 'precision'"),
        (ScoresTooMany, "it answers with masks and scores", r"scores must be \(1,\) floats, not \(2,\)"),
        (ScoresNan, "it answers with masks and scores", "scores must be finite"),
        (MasksOfNumbers, "it answers with masks and scores", "masks must be bool, not uint8"),
        (EvenSizesOnly, "odd sizes are segmented", r"masks must be \(k, 61, 47\)"),
        (BreaksOnTiny, "tiny images are segmented or refused", "IndexError: pyramid too deep"),
        (BreaksOnBorder, "points on the border are taken", "IndexError"),
        (Random, "the same image and prompt give the same masks", "other masks"),
        (EatsEmbedding, "an embedding serves many prompts", "other masks"),
        (RemembersImage, "another image in between changes nothing", "other masks"),
        (FixedThreshold, "the scale of the heatmap does not matter", "other masks"),
        (AddsHeatmapAsItIs, "the scale of the heatmap does not matter", "heatmap times 0.000976562 gives other masks"),
        (ChangesImage, "its inputs are left as they were", "image was changed"),
    ],
)
def test_a_segmenter_that_breaks_the_contract_fails_the_check_that_names_it(
    plugin: Any, check: str, reason: str
) -> None:
    found = failures(SegmenterContract, plugin)

    assert check in found
    assert re.search(reason, found[check])
    assert "\n" not in found[check]


def test_a_segmenter_may_refuse_what_is_too_small() -> None:
    assert failures(SegmenterContract, RefusesTiny) == {}


def test_a_segmenter_without_its_weights_is_skipped_not_passed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path))
    bound = type(
        "Bound", (SegmenterContract,), {"plugin": type("Wanting", (GoodSegmenter,), {"weights": "mobile-sam"})}
    )

    checks = {check.name: check for check in run_checks(bound())}

    assert checks["it answers with masks and scores"] == Check(
        "it answers with masks and scores",
        Outcome.SKIPPED,
        "weights 'mobile-sam' are not on this machine: medtool weights get mobile-sam",
    )


class GoodDataset:
    classes = ("benign", "malignant")
    licence = "CC0-1.0"
    citation = "nobody"
    options: ClassVar[dict[str, str]] = {"suffix": "How names end."}

    def manifest(self, root: Path, *, suffix: str = ".png") -> Manifest:
        paths = sorted(root.glob(f"*/*{suffix}"))
        return Manifest.from_rows(self.rows(root, paths), root)

    def rows(self, root: Path, paths: list[Path]) -> Iterator[dict[str, str]]:
        for path in paths:
            yield {"image": path.relative_to(root).as_posix(), "label": path.parent.name}


class TestGoodDataset(DatasetContract):
    plugin = GoodDataset

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return write_class_folders(tmp_path)


class OneClassUndeclared(GoodDataset):
    classes = ("benign",)


class ClassesText(GoodDataset):
    classes = "benign"  # type: ignore[assignment]


class OptionUndeclared(GoodDataset):
    options: ClassVar[dict[str, str]] = {"suffix": "How names end.", "colour": "Not taken."}


class NoCitation(GoodDataset):
    citation = " "


class FilesMissing(GoodDataset):
    def rows(self, root: Path, paths: list[Path]) -> Iterator[dict[str, str]]:
        yield from super().rows(root, paths)
        if paths:
            yield {"image": "benign/none.png"}


class MaskOfOtherSize(GoodDataset):
    def rows(self, root: Path, paths: list[Path]) -> Iterator[dict[str, str]]:
        for row in super().rows(root, paths):
            yield {**row, "mask": "small.png"}


class Empty(GoodDataset):
    def manifest(self, root: Path, *, suffix: str = ".png") -> Manifest:
        return Manifest.from_rows([{"image": "a.png"}], root)


class Restless(GoodDataset):
    calls = 0

    def rows(self, root: Path, paths: list[Path]) -> Iterator[dict[str, str]]:
        type(self).calls += 1
        for row in super().rows(root, paths):
            yield {**row, "site": str(self.calls)}


class Writes(GoodDataset):
    def manifest(self, root: Path, *, suffix: str = ".png") -> Manifest:
        (root / "cache.txt").write_text("x", encoding="utf-8")
        return super().manifest(root, suffix=suffix)


class Elsewhere(GoodDataset):
    def manifest(self, root: Path, *, suffix: str = ".png") -> Manifest:
        return super().manifest(root / "benign" / "..", suffix=suffix).seen_from(root.parent)


@pytest.mark.parametrize(
    ("plugin", "check", "reason"),
    [
        (OneClassUndeclared, "labels are among the classes", "labels ['malignant'] are not among"),
        (ClassesText, "classes and options have the right types", "classes must be a sequence"),
        (OptionUndeclared, "manifest takes the options that it declares", "unexpected keyword argument 'colour'"),
        (NoCitation, "licence and citation are given", "citation must be a text that is not empty"),
        (FilesMissing, "images and masks exist inside the root", "image 'benign/none.png'"),
        (MaskOfOtherSize, "the first images can be read and fit their masks", "have other sizes"),
        (Empty, "a folder that is something else is refused in one line", "an empty folder must be an InputError"),
        (Restless, "the same folder gives the same manifest", "gives another manifest"),
        (Writes, "the folder is left as it was", "changed ['cache.txt']"),
        (Elsewhere, "there is a manifest of text", "paths must be relative to root"),
    ],
)
def test_a_data_set_that_breaks_the_contract_fails_the_check_that_names_it(
    tmp_path: Path, plugin: Any, check: str, reason: str
) -> None:
    from PIL import Image

    root = write_class_folders(tmp_path / "root")
    Image.new("L", (3, 2)).save(root / "small.png")

    found = failures(DatasetContract, plugin, root=root)

    assert check in found
    assert reason in found[check]
    assert "\n" not in found[check]


@pytest.mark.slow
class TestArchitectures:
    """The checks on networks, of a size that costs nothing."""

    def build_with(self, **changes: Any) -> Any:
        from torch import nn

        class Tiny:
            licence = "MIT"
            citation = "nobody"
            input = InputSpec(size=(16, 16))
            cam_layer = "features"

            def build(self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None) -> nn.Module:
                network = nn.Sequential()
                network.add_module("features", nn.Conv2d(in_channels, 4, 3, stride=2))
                network.add_module("pool", nn.AdaptiveAvgPool2d(1))
                network.add_module("flat", nn.Flatten())
                network.add_module("head", nn.Linear(4, num_classes))
                if pretrained is not None:
                    from medtool.models import load_state_dict

                    state = load_state_dict(pretrained)
                    kept = {name: value for name, value in state.items() if not name.startswith("head")}
                    network.load_state_dict(kept, strict=False)
                return network

        return type("Changed", (Tiny,), changes)

    def test_a_good_architecture_passes(self) -> None:
        assert failures(ArchitectureContract, self.build_with()) == {}

    def test_a_missing_cam_layer_is_named_with_those_that_are_like_it(self) -> None:
        found = failures(ArchitectureContract, self.build_with(cam_layer="body.features"))
        assert found == {
            "the cam layer is there and gives a map": "the network has no module called 'body.features', its cam_layer;"
            " there is features"
        }

    @pytest.mark.parametrize(("layer", "shape"), [("pool", "(2, 4, 1, 1)"), ("flat", "(2, 4)")])
    def test_a_cam_layer_that_gives_no_map_is_caught(self, layer: str, shape: str) -> None:
        (reason,) = failures(ArchitectureContract, self.build_with(cam_layer=layer)).values()
        assert shape in reason

    def test_an_architecture_that_ignores_what_it_is_asked_for_is_caught(self) -> None:
        good = self.build_with()()

        def two_classes(_self: Any, *, num_classes: int, in_channels: int = 3, pretrained: Any = None) -> Any:
            return good.build(num_classes=2, in_channels=in_channels, pretrained=pretrained)

        def three_channels(_self: Any, *, num_classes: int, in_channels: int = 3, pretrained: Any = None) -> Any:
            return good.build(num_classes=num_classes, pretrained=pretrained)

        def no_weights(_self: Any, *, num_classes: int, in_channels: int = 3, pretrained: Any = None) -> Any:
            return good.build(num_classes=num_classes, in_channels=in_channels)

        found = failures(ArchitectureContract, self.build_with(build=two_classes))
        assert found["it builds a network with the classes asked for"] == "logits must be (2, 1), not (2, 2)"
        assert "it takes the channels asked for" in failures(
            ArchitectureContract, self.build_with(build=three_channels)
        )
        found = failures(ArchitectureContract, self.build_with(build=no_weights))
        assert list(found) == ["pretrained weights are taken from the file given"]

    def test_an_architecture_that_downloads_is_caught(self) -> None:
        good = self.build_with()()

        def download(_self: Any, **options: Any) -> Any:
            socket.create_connection(("192.0.2.1", 9), timeout=0.1)
            return good.build(**options)

        found = failures(ArchitectureContract, self.build_with(build=download))
        assert "network connection" in found["building touches no network"]

    def test_networks_that_differ_from_call_to_call_are_caught(self) -> None:
        import torch

        good = self.build_with()()

        def unseeded(_self: Any, **options: Any) -> Any:
            with torch.random.fork_rng(devices=[]):
                torch.seed()
                return good.build(**options)

        found = failures(ArchitectureContract, self.build_with(build=unseeded))
        assert found["the same seed gives the same network"] == "two networks built after torch.manual_seed(905) differ"

    def test_a_network_of_several_views_is_skipped_with_the_reason(self) -> None:
        views = self.build_with(input=InputSpec(size=(16, 16), views=("40", "400")))
        assert "not part of the contract yet" in failures(ArchitectureContract, views)["it can be trained"]


def test_a_skipped_check_is_a_skipped_test_in_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from medtool.testing.contracts import SegmenterContract\n"
        "class TestIt(SegmenterContract):\n    name = 'mobile-sam'\n"
        "    def _load(self):\n"
        "        return type('P', (), {'weights': 'mobile-sam'})\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "odd_sizes", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MEDTOOL_WEIGHTS": str(tmp_path)},
    )
    assert "1 skipped" in done.stdout


def test_the_contracts_need_no_pytest_and_no_torch_to_be_imported() -> None:
    code = (
        "import sys; import medtool.testing.contracts, medtool.testing.checks, medtool.testing.synthetic;"
        "print([m for m in ('pytest', 'torch', 'timm', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
