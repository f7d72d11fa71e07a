"""The plugin keeps medtool's contracts, and does a little more."""

import numpy as np

from medtool import registry
from medtool.testing.contracts import ArchitectureContract, SegmenterContract
from medtool.testing.synthetic import make_case


class TestExampleNet(ArchitectureContract):
    name = "example-net"


class TestExampleSegmenter(SegmenterContract):
    name = "example-segmenter"


def test_the_segmenter_finds_a_dark_object_on_light_ground():
    case = make_case(96, 128)
    segmenter = registry.load("segmenter", "example-segmenter")(weights=None, device="cpu", precision="fp32")

    candidates = segmenter.segment(segmenter.embed(case.image), case.prompt)

    best = candidates.masks[np.argmax(candidates.scores)]
    assert (best & case.mask).sum() / (best | case.mask).sum() > 0.9
