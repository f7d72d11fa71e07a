"""SAM and MedSAM against segment-anything's own code.

No published checkpoint is used: the tests write randomly initialised ones in the published format. That is enough to
show that the same numbers come out, which is what they are about; the masks mean nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam
from skimage import data, transform
from torch import nn
from torch.nn import functional

from medtool.errors import InputError, MissingWeightsError
from medtool.protocols import Candidates, Prompt
from medtool.segment.sam import MedSamVitB, SamEmbedding, SamVitB, SamVitH, SamVitL, box_around
from medtool.segment.sam_encoder import ImageEncoder

POINTS = np.array([[60.0, 40.0], [75.0, 55.0], [10.0, 80.0]])
LABELS = np.array([1, 1, 0])
BOX = (30.0, 20.0, 110.0, 90.0)


def randomised(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give a network random weights; the position terms, which start at zero, are made to matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.2, generator=generator)
        elif "pos_embed" in name:
            nn.init.normal_(parameter, std=0.02, generator=generator)
    return network.eval().requires_grad_(False)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@dataclass(frozen=True)
class Lab:
    """One random ViT-B as segment-anything has it and as its checkpoint, and one encoded image."""

    peer: Sam
    checkpoint: Path
    image: np.ndarray
    predictor: SamPredictor

    def prompt(self, *, points: bool = True, box: bool = False) -> Prompt:
        heatmap = np.zeros(self.image.shape[:2], np.float32)
        places, labels = (POINTS, LABELS) if points else (np.empty((0, 2)), np.empty(0, np.int64))
        return Prompt(places, labels, heatmap, BOX if box else None)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer = randomised(sam_model_registry["vit_b"]())
    checkpoint = tmp_path_factory.mktemp("sam") / "sam_vit_b_random.pth"
    torch.save(peer.state_dict(), checkpoint)
    image = np.ascontiguousarray(data.retina()[200:1000:6, 100:1300:8])
    predictor = SamPredictor(peer)
    predictor.set_image(image)
    return Lab(peer, checkpoint, image, predictor)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def segmenter(request: pytest.FixtureRequest, lab: Lab) -> tuple[str, SamVitB, SamEmbedding]:
    segmenter = SamVitB(weights=lab.checkpoint, device="cpu", precision=request.param)
    return request.param, segmenter, segmenter.embed(lab.image)


@pytest.mark.parametrize(("points", "box"), [(True, False), (True, True), (False, True)])
def test_masks_equal_those_of_sampredictor(lab, segmenter, points, box):
    precision, sam, embedding = segmenter
    found = sam.segment(embedding, lab.prompt(points=points, box=box))
    masks, scores, _ = lab.predictor.predict(
        POINTS if points else None, LABELS if points else None, np.array(BOX) if box else None
    )
    assert found.masks.shape == (3, *lab.image.shape[:2])
    assert found.masks.dtype == np.bool_
    least, tolerance = (0.999, 1e-4) if precision == "fp32" else (0.99, 2e-2)
    for one, other in zip(found.masks, masks, strict=True):
        assert 0.02 < other.mean() < 0.98, "an empty or full mask would show nothing"
        assert iou(one, other) >= least
    assert np.abs(found.scores - scores).max() < tolerance


def test_features_are_float32_whatever_the_encoder_computes_in(lab, segmenter):
    precision, _, embedding = segmenter
    assert embedding.features.dtype == torch.float32
    assert embedding.original_size == lab.image.shape[:2]
    off = (embedding.features - lab.predictor.features).abs()
    assert off.max() < (1e-4 if precision == "fp32" else 0.1)


def test_the_heatmap_is_not_looked_at(lab, segmenter):
    _, sam, embedding = segmenter
    prompt = lab.prompt()
    hot = Prompt(prompt.points, prompt.point_labels, prompt.heatmap + 1.0)
    assert np.array_equal(sam.segment(embedding, prompt).masks, sam.segment(embedding, hot).masks)


def test_a_prompt_of_neither_point_nor_box_is_refused(lab, segmenter):
    _, sam, embedding = segmenter
    with pytest.raises(InputError, match="needs a point or a box"):
        sam.segment(embedding, lab.prompt(points=False))


@pytest.mark.parametrize("size", [(37, 90), (90, 37), (64, 64), (1200, 400), (1024, 1024), (1, 50), (500, 3)])
def test_pixels_equal_those_that_sampredictor_hands_its_encoder(lab, segmenter, size):
    _, sam, _ = segmenter
    image = np.random.default_rng(905).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels, input_size = sam.prepare(image)
    resized = lab.predictor.transform.apply_image(image)
    wanted = lab.peer.preprocess(torch.from_numpy(resized).permute(2, 0, 1)[None])[0]
    assert input_size == resized.shape[:2]
    assert torch.equal(pixels, wanted)


@pytest.fixture(scope="module")
def med(lab: Lab) -> MedSamVitB:
    return MedSamVitB(weights=lab.checkpoint, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def features(lab: Lab) -> SamEmbedding:
    """Features of SAM's own encoder: what is compared here is what happens before and after it."""
    return SamEmbedding(lab.predictor.features, lab.image.shape[:2], (1024, 1024))


def test_for_medsam_the_image_is_squeezed_to_a_square_and_stretched_to_0_1(lab, med):
    pixels, input_size = med.prepare(lab.image)
    side = (1024, 1024)
    square = transform.resize(lab.image, side, order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    wanted = (square - square.min()) / np.clip(square.max() - square.min(), 1e-8, None)
    assert input_size == side
    assert np.allclose(pixels.permute(1, 2, 0).numpy(), wanted, atol=1e-6)
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_for_medsam_an_image_of_one_colour_becomes_zeros(med):
    pixels, _ = med.prepare(np.full((20, 30, 3), 77, np.uint8))
    assert not pixels.any()


def test_medsams_mask_equals_that_of_the_published_steps(lab, med, features):
    found = med.segment(features, lab.prompt(box=True))
    height, width = lab.image.shape[:2]
    box = torch.tensor(np.array([BOX]) / [width, height, width, height] * 1024, dtype=torch.float32)
    sparse, dense = lab.peer.prompt_encoder(points=None, boxes=box[:, None], masks=None)
    positions = lab.peer.prompt_encoder.get_dense_pe()
    logits, _ = lab.peer.mask_decoder(features.features, positions, sparse, dense, multimask_output=False)
    belief = functional.interpolate(torch.sigmoid(logits), (height, width), mode="bilinear", align_corners=False)
    wanted = (belief > 0.5)[0].numpy()
    assert 0.02 < wanted.mean() < 0.98
    assert np.array_equal(found.masks, wanted)
    assert found.scores.shape == (1,)


def test_for_medsam_points_alone_become_the_box_of_the_hot_region_that_holds_them(lab, med, features):
    heatmap = np.zeros(lab.image.shape[:2], np.float32)
    heatmap[20:91, 30:111] = 1.0
    by_points = med.segment(features, Prompt(np.array([[60.0, 40.0]]), np.array([1]), heatmap))
    assert np.array_equal(by_points.masks, med.segment(features, lab.prompt(box=True)).masks)


def heat(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    heatmap = np.zeros((50, 80), np.float32)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        heatmap[y0 : y1 + 1, x0 : x1 + 1] = 1.0 - 0.1 * number
    return heatmap


@pytest.mark.parametrize(
    ("heatmap", "points", "labels", "box"),
    [
        (heat((5, 6, 20, 30)), [[7, 8]], [1], (5, 6, 20, 30)),
        (heat((5, 6, 20, 30), (40, 2, 50, 9)), [[45, 5]], [1], (40, 2, 50, 9)),
        (heat((5, 6, 20, 30), (40, 2, 50, 9)), [[45, 5], [10, 10]], [1, 1], (5, 2, 50, 30)),
        (heat((5, 6, 20, 30), (40, 2, 50, 9)), [[45, 5], [10, 10]], [1, 0], (40, 2, 50, 9)),
        (heat((5, 6, 20, 30)), [[70, 40]], [1], (5, 6, 70, 40)),
        (heat((5, 6, 20, 30), (40, 2, 50, 9)), [], [], (5, 6, 20, 30)),
    ],
)
def test_the_box_holds_the_hot_regions_of_the_positive_points(heatmap, points, labels, box):
    places = np.array(points, dtype=np.float64).reshape(-1, 2)
    assert box_around(Prompt(places, np.array(labels, dtype=np.int64), heatmap)) == box


def test_no_box_is_made_from_a_constant_heatmap():
    with pytest.raises(InputError, match="constant"):
        box_around(Prompt(np.array([[1.0, 1.0]]), np.array([1]), np.ones((9, 9), np.float32)))


@pytest.mark.parametrize("heads", [2, 1], ids=["power-of-two scale", "80 channels a head, as in ViT-H"])
@pytest.mark.parametrize("window", [14, 5])
def test_the_encoder_equals_segment_anythings_at_any_size(heads, window):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        peer = randomised(
            ImageEncoderViT(
                img_size=256,
                embed_dim=128 if heads == 2 else 80,
                depth=3,
                num_heads=heads,
                use_rel_pos=True,
                window_size=window,
                global_attn_indexes=(1,),
            )
        )
        pixels = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        wanted = peer(pixels)
        found = ImageEncoder(copy.deepcopy(peer), dtype=torch.float32)(pixels)
        half = ImageEncoder(copy.deepcopy(peer), dtype=torch.bfloat16)(pixels)
    assert (found - wanted).abs().max() < 1e-4
    assert 0 < (half - wanted).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("segmenter", "parameters"),
    [(SamVitB, 93_735_472), (SamVitL, 312_342_832), (SamVitH, 641_090_608), (MedSamVitB, 93_735_472)],
)
def test_each_segmenter_builds_the_network_of_its_name(segmenter, parameters):
    network = segmenter.build()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    encoder = ImageEncoder(network.image_encoder, dtype=torch.bfloat16)
    assert all(block.mlp.lin1.coarse.dtype == torch.bfloat16 for block in encoder.blocks)


def test_missing_weights_name_the_command_that_gets_them(tmp_path):
    for weights, where in [(None, "are not on this machine"), (tmp_path / "none.pth", "are not at .*none.pth")]:
        with pytest.raises(MissingWeightsError, match=f"the weights of sam-vit-l {where}") as caught:
            SamVitL(weights=weights, device="cpu", precision="fp32")
        assert caught.value.hint == "medtool weights get sam-vit-l"


def test_a_checkpoint_of_another_size_is_refused_with_its_first_differences(lab, tmp_path):
    with pytest.raises(
        InputError, match=r"sam_vit_b_random.pth does not hold the weights of sam-vit-l: missing: "
    ) as found:
        SamVitL(weights=lab.checkpoint, device="cpu", precision="fp32")
    assert "image_encoder.blocks.12." in found.value.message
    assert "image_encoder.pos_embed (1, 64, 64, 768) instead of (1, 64, 64, 1024)" in found.value.message


def test_masks_answer_the_protocol(lab, segmenter):
    _, sam, embedding = segmenter
    found = sam.segment(embedding, lab.prompt())
    assert isinstance(found, Candidates)
    assert found.scores.shape == (3,)
    assert np.isfinite(found.scores).all()
