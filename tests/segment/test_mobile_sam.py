"""MobileSAM's tensors, by name and shape, and its numbers, against records of the original's.

No published checkpoint is used, and the original's code is not here. What is known of it are facts, recorded once with
the original network (github.com/ChaoningZhang/MobileSAM, commit 34bbbfd) in torch 2.15:

- the names and shapes of its state dict, written down in :func:`published_shapes`, whose hash was taken from it;
- its image encoder's output for the weights of :func:`seeded` and the pixels of :func:`seeded_pixels`.

Both networks differed by at most 1.1e-5 there (features of standard deviation 1), and SamPredictor on the original gave
the same masks as :class:`MobileSam`, pixel by pixel.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from medtool.errors import InputError
from medtool.protocols import Prompt
from medtool.segment.mobile_sam import MobileSam, timm_name

ORIGINAL_NAMES_SHA256 = "3192239f365949778e60550eb19024ce0d4e0dd99e5da96e430e2ba5aa10e83e"
ORIGINAL_MEAN, ORIGINAL_STD = -0.005914162836, 1.010924037
# features[0, ::64, ::21, ::21], in that order
ORIGINAL_FEATURES = """
-0.82666 -0.58298 -0.51135 0.68822 -1.11402 -0.73043 -0.48342 0.70201 -0.76709 -0.78819 -0.45829 0.7063 -0.90132
-1.41476 -1.47483 -0.93978 -2.78177 -0.76263 -0.98695 2.02455 -0.63881 0.47971 0.52297 2.02653 -0.77023 0.28788
0.72464 2.1648 1.18519 1.06159 0.9909 1.56718 -0.23082 -0.1998 -0.38878 -0.44173 -0.30066 -1.17918 -1.27792 -1.3667
-0.53 -1.14144 -1.04981 -1.12996 1.32084 0.20975 0.26128 0.04621 -0.25855 0.31693 0.30022 0.61739 -0.44332 0.2122
0.33944 0.57186 -0.13643 0.17261 0.42433 0.68574 0.786 0.42808 0.38004 -0.08282
"""

CHANNELS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)

Shapes = dict[str, tuple[int, ...]]


def affine(name: str, outputs: int, *inputs: int) -> Shapes:
    """Return a layer with weight and bias; without inputs a normalisation."""
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def convolution(name: str, outputs: int, inputs: int, side: int) -> Shapes:
    """Return a convolution without bias, followed by a batch norm."""
    running = {f"{name}.bn.running_mean": (outputs,), f"{name}.bn.running_var": (outputs,)}
    counter: Shapes = {f"{name}.bn.num_batches_tracked": ()}
    return {f"{name}.c.weight": (outputs, inputs, side, side), **affine(f"{name}.bn", outputs), **running, **counter}


def published_encoder() -> Shapes:
    shapes = convolution("patch_embed.seq.0", 32, 3, 3) | convolution("patch_embed.seq.2", 64, 32, 3)
    for stage, (width, depth) in enumerate(zip(CHANNELS, DEPTHS, strict=True)):
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}"
            if stage == 0:
                shapes |= convolution(f"{block}.conv1", 256, 64, 1) | convolution(f"{block}.conv2", 256, 1, 3)
                shapes |= convolution(f"{block}.conv3", 64, 256, 1)
                continue
            shapes[f"{block}.attn.attention_biases"] = (HEADS[stage], WINDOWS[stage] ** 2)
            shapes |= affine(f"{block}.attn.norm", width) | affine(f"{block}.attn.qkv", 3 * width, width)
            shapes |= affine(f"{block}.attn.proj", width, width) | affine(f"{block}.mlp.norm", width)
            shapes |= affine(f"{block}.mlp.fc1", 4 * width, width) | affine(f"{block}.mlp.fc2", width, 4 * width)
            shapes |= convolution(f"{block}.local_conv", width, 1, 3)
        if stage < 3:
            wider, halving = CHANNELS[stage + 1], f"layers.{stage}.downsample"
            shapes |= convolution(f"{halving}.conv1", wider, width, 1) | convolution(f"{halving}.conv2", wider, 1, 3)
            shapes |= convolution(f"{halving}.conv3", wider, wider, 1)
    shapes |= affine("norm_head", 320) | affine("head", 1000, 320)
    shapes |= {"neck.0.weight": (256, 320, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    return shapes | affine("neck.1", 256) | affine("neck.3", 256)


def published_prompt_encoder() -> Shapes:
    shapes: Shapes = {"pe_layer.positional_encoding_gaussian_matrix": (2, 128)}
    for name in ("not_a_point_embed", "no_mask_embed", *(f"point_embeddings.{number}" for number in range(4))):
        shapes[f"{name}.weight"] = (1, 256)
    shapes |= affine("mask_downscaling.0", 4, 1, 2, 2) | affine("mask_downscaling.1", 4)
    shapes |= affine("mask_downscaling.3", 16, 4, 2, 2) | affine("mask_downscaling.4", 16)
    return shapes | affine("mask_downscaling.6", 256, 16, 1, 1)


def published_attention(name: str, inner: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("q_proj", "k_proj", "v_proj"):
        shapes |= affine(f"{name}.{part}", inner, 256)
    return shapes | affine(f"{name}.out_proj", 256, inner)


def published_decoder() -> Shapes:
    shapes: Shapes = {"iou_token.weight": (1, 256), "mask_tokens.weight": (4, 256)}
    for number in range(2):
        layer = f"transformer.layers.{number}"
        shapes |= published_attention(f"{layer}.self_attn", 256)
        shapes |= published_attention(f"{layer}.cross_attn_token_to_image", 128)
        shapes |= published_attention(f"{layer}.cross_attn_image_to_token", 128)
        shapes |= affine(f"{layer}.mlp.lin1", 2048, 256) | affine(f"{layer}.mlp.lin2", 256, 2048)
        for norm in range(1, 5):
            shapes |= affine(f"{layer}.norm{norm}", 256)
    shapes |= published_attention("transformer.final_attn_token_to_image", 128)
    shapes |= affine("transformer.norm_final_attn", 256)
    # Transposed convolutions: inputs come first, and the bias has as many values as there are outputs.
    shapes |= {"output_upscaling.0.weight": (256, 64, 2, 2), "output_upscaling.0.bias": (64,)}
    shapes |= {"output_upscaling.3.weight": (64, 32, 2, 2), "output_upscaling.3.bias": (32,)}
    shapes |= affine("output_upscaling.1", 64)
    for head, outputs in [
        *((f"output_hypernetworks_mlps.{number}", 32) for number in range(4)),
        ("iou_prediction_head", 4),
    ]:
        for layer_number, width in enumerate((256, 256, outputs)):
            shapes |= affine(f"{head}.layers.{layer_number}", width, 256)
    return shapes


def published_shapes() -> Shapes:
    """Return every tensor of ``mobile_sam.pt`` by its published name."""
    parts = {
        "image_encoder": published_encoder(),
        "prompt_encoder": published_prompt_encoder(),
        "mask_decoder": published_decoder(),
    }
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


def seeded(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor that depends on its name alone, of a size that keeps activations near 1."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        values = 1 + 0.2 * np.tanh(values)
    elif name.endswith("attention_biases"):
        values = 0.5 * values
    elif len(shape) == 1:
        values = 0.1 * values + (1 if name.endswith("weight") else 0)
    elif "gaussian" not in name and ("embed" not in name or "patch" in name):
        values = values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def seeded_pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(905).standard_normal((1, 3, 1024, 1024)).astype(np.float32))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {name: seeded(name, shape) for name, shape in published_shapes().items()}


@pytest.fixture(scope="module")
def checkpoint(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mobile") / "mobile_sam_random.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def segmenter(checkpoint: Path) -> MobileSam:
    return MobileSam(weights=checkpoint, device="cpu", precision="fp32")


def test_the_names_and_shapes_are_those_of_the_original(state):
    lines = [f"{name} {','.join(map(str, tensor.shape))} {tensor.dtype}" for name, tensor in sorted(state.items())]
    assert len(lines) == 439
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == ORIGINAL_NAMES_SHA256


def test_every_published_tensor_has_its_place_of_the_same_shape(state):
    network = {name: tuple(tensor.shape) for name, tensor in MobileSam.build().state_dict().items()}
    published = {name: tuple(tensor.shape) for name, tensor in MobileSam.rename(state).items()}
    assert published == network
    unused = {name for name in state if timm_name(name) not in network}
    assert unused == {f"image_encoder.{part}.{kind}" for part in ("head", "norm_head") for kind in ("weight", "bias")}


def test_names_are_translated_one_to_one(state):
    assert len({timm_name(name) for name in state}) == len(state)


@pytest.mark.parametrize(
    ("published", "timm"),
    [
        ("image_encoder.patch_embed.seq.2.bn.running_var", "image_encoder.patch_embed.conv2.bn.running_var"),
        ("image_encoder.layers.0.blocks.1.conv3.c.weight", "image_encoder.stages.0.blocks.1.conv3.conv.weight"),
        ("image_encoder.layers.0.downsample.conv1.c.weight", "image_encoder.stages.1.downsample.conv1.conv.weight"),
        (
            "image_encoder.layers.3.blocks.0.attn.attention_biases",
            "image_encoder.stages.3.blocks.0.attn.attention_biases",
        ),
        ("image_encoder.neck.1.bias", "image_encoder.neck.1.bias"),
        ("mask_decoder.transformer.layers.0.norm1.bias", "mask_decoder.transformer.layers.0.norm1.bias"),
    ],
)
def test_a_stage_begins_with_what_ended_the_published_one_before(published, timm):
    assert timm_name(published) == timm


def test_features_equal_those_recorded_of_the_original(segmenter):
    with torch.inference_mode():
        features = segmenter.encoder(seeded_pixels())
    assert features.shape == (1, 256, 64, 64)
    assert features.mean().item() == pytest.approx(ORIGINAL_MEAN, abs=1e-5)
    assert features.std().item() == pytest.approx(ORIGINAL_STD, abs=1e-4)
    recorded = np.array(ORIGINAL_FEATURES.split(), dtype=np.float64)
    assert np.abs(features[0, ::64, ::21, ::21].numpy().ravel() - recorded).max() < 1e-4


def test_bf16_features_are_close_and_give_nearly_the_same_masks(segmenter, checkpoint):
    half = MobileSam(weights=checkpoint, device="cpu", precision="bf16")
    image = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    prompt = Prompt(np.array([[100.0, 50.0], [200.0, 120.0]]), np.array([1, 0]), np.zeros(image.shape[:2], np.float32))
    wanted, found = (one.segment(one.embed(image), prompt) for one in (segmenter, half))
    for one, other in zip(found.masks, wanted.masks, strict=True):
        assert 0.02 < other.mean() < 0.98
        assert (one & other).sum() / (one | other).sum() > 0.97
    assert np.abs(found.scores - wanted.scores).max() < 0.05


def test_a_checkpoint_with_a_tensor_missing_is_refused_by_name(state, tmp_path):
    path = tmp_path / "mobile_sam.pt"
    torch.save({name: tensor for name, tensor in state.items() if name != "image_encoder.neck.3.bias"}, path)
    with pytest.raises(InputError, match=r"mobile_sam.pt .* of mobile-sam: missing: image_encoder.neck.3.bias$"):
        MobileSam(weights=path, device="cpu", precision="fp32")
