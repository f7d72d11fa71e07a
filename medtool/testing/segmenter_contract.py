"""What every segmenter must hold to."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from medtool import weights as published
from medtool.errors import InputError
from medtool.protocols import Candidates, Prompt, Segmenter
from medtool.testing.checks import Contract, expect, skip
from medtool.testing.synthetic import make_case, prompt_at

if TYPE_CHECKING:
    from medtool.protocols import RGB8

TINY_SIZES = ((1, 1), (2, 3), (7, 5))
SCALES = (2.0**-10, 2.0**10)  # powers of two change no digit of a float


class SegmenterContract(Contract):
    """Tests for a segmenter; subclass it with ``name`` (installed) or ``plugin`` (the class).

    Attributes
    ----------
    weights_path
        A file of weights to test with; None takes what ``medtool weights`` has on this machine, and skips the checks
        that need an instance where it has none.
    """

    kind: ClassVar[str] = "segmenter"
    weights_path: ClassVar[Path | None] = None

    def _segmenter(self) -> Segmenter:
        cls = self._load()
        path = type(self).weights_path
        if path is None and cls.weights is not None:
            path = published.find(cls.weights)
            if path is None:
                skip(f"weights {cls.weights!r} are not on this machine: medtool weights get {cls.weights}")
        return _instance(cls, path)

    def test_class_attributes_have_the_right_types(self) -> None:
        cls = self._load()
        expect(isinstance(cls.version, str) and cls.version, f"version must be a text, not {cls.version!r}")
        expect(isinstance(cls.needs_torch, bool), f"needs_torch must be True or False, not {cls.needs_torch!r}")
        names = [each.name for each in published.known()]
        is_known = cls.weights is None or cls.weights in names
        expect(is_known, f"weights must be None or one of {', '.join(names)}, not {cls.weights!r}")

    def test_it_is_built_from_weights_device_and_precision(self) -> None:
        _expect_keywords(self._load(), "weights", "device", "precision")

    def test_it_answers_with_masks_and_scores(self) -> None:
        self._answer(make_case(48, 64, negatives=2))

    def test_odd_sizes_are_segmented(self) -> None:
        for height, width in ((61, 47), (33, 101)):
            self._answer(make_case(height, width))

    def test_tiny_images_are_segmented_or_refused(self) -> None:
        for height, width in TINY_SIZES:
            case = make_case(height, width)
            self._candidates_or_refusal(case.image, case.prompt)

    def test_an_image_of_one_colour_is_segmented_or_refused(self) -> None:
        case = make_case()
        self._candidates_or_refusal(np.full_like(case.image, 128), case.prompt)

    def test_points_on_the_border_are_taken(self) -> None:
        segmenter, case = self._segmenter(), make_case()
        height, width = case.mask.shape
        embedding = segmenter.embed(case.image)
        for corner in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
            prompt = prompt_at([corner], height=height, width=width)
            _expect_candidates(segmenter.segment(embedding, prompt), (height, width))

    def test_a_box_is_taken_or_ignored(self) -> None:
        case = make_case()
        prompt = case.prompt
        boxed = Prompt(prompt.points, prompt.point_labels, prompt.heatmap, box=(8.0, 8.0, 55.0, 39.0))
        self._candidates(case.image, boxed)

    def test_the_same_image_and_prompt_give_the_same_masks(self) -> None:
        segmenter, case = self._segmenter(), make_case()
        first = segmenter.segment(segmenter.embed(case.image), case.prompt)
        second = segmenter.segment(segmenter.embed(case.image), case.prompt)
        _expect_same(first, second, "a second run on the same image and prompt")

    def test_an_embedding_serves_many_prompts(self) -> None:
        segmenter, case = self._segmenter(), make_case()
        embedding = segmenter.embed(case.image)
        first = segmenter.segment(embedding, case.prompt)
        segmenter.segment(embedding, prompt_at([(3, 4), (60, 40)], height=48, width=64))
        again = segmenter.segment(embedding, case.prompt)
        _expect_same(first, again, "another prompt on the same embedding in between")

    def test_another_image_in_between_changes_nothing(self) -> None:
        segmenter, case = self._segmenter(), make_case()
        embedding = segmenter.embed(case.image)
        first = segmenter.segment(embedding, case.prompt)
        segmenter.embed(make_case(52, 40, seed=7).image)
        again = segmenter.segment(embedding, case.prompt)
        _expect_same(first, again, "another image embedded in between")

    def test_the_scale_of_the_heatmap_does_not_matter(self) -> None:
        segmenter, case = self._segmenter(), make_case()
        noise = np.random.default_rng(905).integers(0, 256, size=case.image.shape, dtype=np.uint8)
        prompt = case.prompt
        for image in (case.image, noise):  # an object that is plain to see hides what the heatmap does
            embedding = segmenter.embed(image.copy())
            first = segmenter.segment(embedding, prompt)
            for factor in SCALES:
                scaled = Prompt(prompt.points, prompt.point_labels, prompt.heatmap * np.float32(factor))
                _expect_same(first, segmenter.segment(embedding, scaled), f"a heatmap times {factor:g}")

    def test_its_inputs_are_left_as_they_were(self) -> None:
        segmenter, case = self._segmenter(), make_case(negatives=2)
        prompt = case.prompt
        given: dict[str, Any] = {
            "image": case.image,
            "points": prompt.points,
            "point_labels": prompt.point_labels,
            "heatmap": prompt.heatmap,
        }
        before = {name: array.copy() for name, array in given.items()}
        segmenter.segment(segmenter.embed(case.image), prompt)
        for name, array in given.items():
            expect(np.array_equal(array, before[name]), f"{name} was changed")

    def _answer(self, case: Any) -> Candidates:
        return self._candidates(case.image, case.prompt)

    def _candidates_or_refusal(self, image: RGB8, prompt: Prompt) -> None:
        """Expect candidates, or the error that makes of one image one bad row."""
        self._segmenter()
        try:
            self._candidates(image, prompt)
        except InputError as error:
            expect("\n" not in error.message, "the message of the refusal has more than one line")

    def _candidates(self, image: RGB8, prompt: Prompt) -> Candidates:
        segmenter = self._segmenter()
        candidates = segmenter.segment(segmenter.embed(image.copy()), prompt)
        _expect_candidates(candidates, (image.shape[0], image.shape[1]))
        return candidates


@functools.lru_cache(maxsize=1)
def _instance(cls: type[Segmenter], path: Path | None) -> Segmenter:
    return cls(weights=path, device="cpu", precision="fp32")


def _expect_keywords(function: Any, *names: str) -> None:
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
    except TypeError as error:
        expect(False, f"it must take {', '.join(names)} by keyword and need nothing else: {error}")


def _expect_candidates(candidates: Candidates, size: tuple[int, int]) -> None:
    masks, scores = np.asarray(candidates.masks), np.asarray(candidates.scores)
    where = f"for an image of {size[0]}×{size[1]}"
    expect(masks.dtype == np.bool_, f"masks must be bool, not {masks.dtype}, {where}")
    is_right = masks.ndim == 3 and len(masks) >= 1 and masks.shape[1:] == size
    expect(is_right, f"masks must be (k, {size[0]}, {size[1]}) with k ≥ 1, not {masks.shape}")
    is_right = scores.shape == (len(masks),) and np.issubdtype(scores.dtype, np.floating)
    expect(is_right, f"scores must be ({len(masks)},) floats, not {scores.shape} {scores.dtype}, {where}")
    expect(np.isfinite(scores).all(), f"scores must be finite, not {scores.tolist()}, {where}")


def _expect_same(first: Candidates, second: Candidates, what: str) -> None:
    is_same = np.array_equal(first.masks, second.masks) and np.allclose(first.scores, second.scores, atol=1e-5)
    expect(is_same, f"{what} gives other masks or scores")
