"""SAM and MedSAM on segment-anything's network, prompted by points and boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from medtool.devices import DTYPES, clear_memory_errors
from medtool.errors import InputError, MissingWeightsError
from medtool.models import fill, load_state_dict
from medtool.protocols import Candidates, Prompt
from medtool.segment.heatmap import otsu_threshold
from medtool.segment.sam_encoder import ImageEncoder

if TYPE_CHECKING:
    import numpy.typing as npt

    from medtool.protocols import RGB8

    Box = tuple[float, float, float, float]

INPUT_SIDE = 1024
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True, eq=False)
class SamEmbedding:
    """What SAM's encoder makes of an image; any number of prompts can be asked of it.

    Attributes
    ----------
    features
        Shape ``(1, 256, 64, 64)``, float32, on the segmenter's device.
    original_size
        (height, width) of the image.
    input_size
        (height, width) that the image has within the 1024 × 1024 input; the rest of it is padding at the right and
        bottom.
    """

    features: Tensor
    original_size: tuple[int, int]
    input_size: tuple[int, int]


class SamSegmenter:
    """What all networks of SAM's design share: load, embed, decode. Sub-classes name the network and its weights.

    The encoder computes in the precision asked for; prompt encoder, mask decoder and the scaling of masks always
    compute in float32. Three masks are answered for each prompt, with the network's own estimate of their IoU.
    """

    version: ClassVar[str] = "1"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = "Kirillov et al., Segment Anything, ICCV 2023"
    weights: ClassVar[str | None] = None
    needs_torch: ClassVar[bool] = True

    def __init__(self, *, weights: Path | None, device: str, precision: str) -> None:
        """Load the weights.

        Raises
        ------
        MissingWeightsError
            If no file is given, or there is none at that path.
        InputError
            If the file is not what it should be; see :func:`medtool.models.load_state_dict` and
            :func:`medtool.models.fill`.
        """
        name = str(self.weights)
        if weights is None or not weights.exists():
            where = "are not on this machine" if weights is None else f"are not at {weights}"
            raise MissingWeightsError(f"the weights of {name} {where}", hint=f"medtool weights get {name}")
        self.device = device
        network = self.build()
        fill(network, self.rename(load_state_dict(weights)), path=weights, what=name)
        with clear_memory_errors(device, task=f"the weights of {name}"):
            self.encoder = self.encoder_of(network, DTYPES[precision]).eval().to(device)
            self.prompt_encoder = network.prompt_encoder.eval().to(device)
            self.decoder = network.mask_decoder.eval().to(device)
            with torch.inference_mode():
                self.positions = self.prompt_encoder.get_dense_pe()
            self.mean = torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
            self.std = torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)

    @staticmethod
    def build() -> Any:
        """Return the network without weights: a ``segment_anything`` ``Sam``, on the meta device."""
        raise NotImplementedError

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the published tensors by the names that :meth:`build`'s network has for them."""
        return state

    @staticmethod
    def encoder_of(network: Any, dtype: torch.dtype) -> nn.Module:
        """Return what turns pixels ``(1, 3, 1024, 1024)`` into features ``(1, 256, 64, 64)``."""
        return ImageEncoder(network.image_encoder, dtype=dtype)

    @torch.inference_mode()
    def embed(self, image: RGB8) -> SamEmbedding:
        """Encode an image ``(height, width, 3)`` uint8; nearly all of the work.

        Raises
        ------
        MedtoolError
            If the device's memory does not suffice.
        """
        with clear_memory_errors(self.device, task=f"{self.weights}'s image encoder"):
            pixels, input_size = self.prepare(image)
            features = self.encoder(pixels[None]).float()
        return SamEmbedding(features, (image.shape[0], image.shape[1]), input_size)

    def prepare(self, image: RGB8) -> tuple[Tensor, tuple[int, int]]:
        """Return pixels ``(3, 1024, 1024)`` float32 as the network was trained on, and the image's size in them.

        The longest side becomes 1024 (Pillow's bilinear filter, as SamPredictor does it); colours are standardised and
        the rest is filled with zeros.
        """
        scale = INPUT_SIDE / max(image.shape[:2])
        height, width = (max(1, int(side * scale + 0.5)) for side in image.shape[:2])
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1)
        pixels = (pixels - self.mean) / self.std
        return functional.pad(pixels, (0, INPUT_SIDE - width, 0, INPUT_SIDE - height)), (height, width)

    @torch.inference_mode()
    def segment(self, embedding: SamEmbedding, prompt: Prompt) -> Candidates:
        """Return three masks of the image's size with the network's estimate of each one's IoU.

        Points with their labels and the box are used; the heatmap is not.

        Raises
        ------
        InputError
            If the prompt has neither points nor a box.
        """
        if len(prompt.points) == 0 and prompt.box is None:
            raise InputError(f"{self.weights} needs a point or a box, and the prompt has neither")
        logits, scores = self.decode(
            embedding, points=prompt.points, labels=prompt.point_labels, box=prompt.box, multimask=True
        )
        height, width = embedding.input_size
        masks = []
        for mask in logits:  # one by one: three float masks of a large image are much memory
            whole = functional.interpolate(mask[None, None], (INPUT_SIDE, INPUT_SIDE), mode="bilinear")
            shown = functional.interpolate(whole[..., :height, :width], embedding.original_size, mode="bilinear")
            masks.append((shown[0, 0] > 0).cpu().numpy())
        return Candidates(masks=np.stack(masks), scores=scores)

    def decode(
        self,
        embedding: SamEmbedding,
        *,
        points: npt.NDArray[np.floating[Any]],
        labels: npt.NDArray[np.integer[Any]],
        box: Box | None,
        multimask: bool,
    ) -> tuple[Tensor, npt.NDArray[np.float32]]:
        """Return mask logits ``(k, 256, 256)`` over the padded input, and k estimates of IoU; k is 3 or 1."""
        sides = zip(embedding.input_size[::-1], embedding.original_size[::-1], strict=True)
        scale = np.array([now / before for now, before in sides])
        asked = None
        if len(points):
            places = torch.as_tensor(points * scale, dtype=torch.float32, device=self.device)
            asked = (places[None], torch.as_tensor(labels, dtype=torch.int32, device=self.device)[None])
        corners = None
        if box is not None:
            scaled = (np.array(box, dtype=np.float64).reshape(2, 2) * scale).reshape(1, 4)
            corners = torch.as_tensor(scaled, dtype=torch.float32, device=self.device)
        sparse, dense = self.prompt_encoder(points=asked, boxes=corners, masks=None)
        logits, scores = self.decoder(
            image_embeddings=embedding.features,
            image_pe=self.positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits[0], scores[0].cpu().numpy()


def build_sam(kind: str) -> Any:
    """Return segment-anything's network ``vit_b``, ``vit_l`` or ``vit_h`` on the meta device, in no time."""
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        return sam_model_registry[kind]()


class SamVitB(SamSegmenter):
    """SAM with the ViT-B encoder: 94 M parameters, the fastest of the three."""

    weights: ClassVar[str | None] = "sam-vit-b"

    @staticmethod
    def build() -> Any:
        """Return the network on the meta device."""
        return build_sam("vit_b")


class SamVitL(SamSegmenter):
    """SAM with the ViT-L encoder: 312 M parameters."""

    weights: ClassVar[str | None] = "sam-vit-l"

    @staticmethod
    def build() -> Any:
        """Return the network on the meta device."""
        return build_sam("vit_l")


class SamVitH(SamSegmenter):
    """SAM with the ViT-H encoder: 641 M parameters, SAM's own default."""

    weights: ClassVar[str | None] = "sam-vit-h"

    @staticmethod
    def build() -> Any:
        """Return the network on the meta device."""
        return build_sam("vit_h")


class MedSamVitB(SamVitB):
    """MedSAM: SAM ViT-B trained further on medical images, with boxes as its only prompts.

    Pixels, box and mask are treated as in MedSAM's own inference, which differs from SAM's: the image is squeezed to
    1024 × 1024 without keeping its aspect, its values are stretched to 0–1 and not standardised, one mask is answered,
    and it is the probability that is scaled to the image, not the logit. The score is the network's estimate of IoU,
    which MedSAM's training left alone: with one mask there is nothing to choose, and it should not be read as quality.
    """

    licence: ClassVar[str] = "Apache-2.0 (code), CC-BY-4.0 (weights)"
    citation: ClassVar[str] = "Ma et al., Segment anything in medical images, Nature Communications 15:654, 2024"
    weights: ClassVar[str | None] = "medsam-vit-b"

    def prepare(self, image: RGB8) -> tuple[Tensor, tuple[int, int]]:
        """Return pixels ``(3, 1024, 1024)``, 0–1: resized bicubically with smoothing, then stretched."""
        from skimage import transform

        side = (INPUT_SIDE, INPUT_SIDE)
        resized = transform.resize(  # type: ignore[no-untyped-call]
            image, side, order=3, preserve_range=True, anti_aliasing=True
        ).astype(np.uint8)
        low, high = int(resized.min()), int(resized.max())
        pixels = torch.from_numpy(resized).to(self.device).permute(2, 0, 1).float()
        return (pixels - low) / max(high - low, 1e-8), side

    @torch.inference_mode()
    def segment(self, embedding: SamEmbedding, prompt: Prompt) -> Candidates:
        """Return one mask of what fills the box: the prompt's own, else :func:`box_around` its positive points.

        Raises
        ------
        InputError
            If there is no box and none can be made from the heatmap.
        """
        box = prompt.box or box_around(prompt)
        nowhere = np.empty((0, 2))
        logits, scores = self.decode(
            embedding, points=nowhere, labels=np.empty(0, dtype=np.int64), box=box, multimask=False
        )
        belief = functional.interpolate(torch.sigmoid(logits[None]), embedding.original_size, mode="bilinear")
        return Candidates(masks=(belief[0] > 0.5).cpu().numpy(), scores=scores)


def box_around(prompt: Prompt) -> Box:
    """Return the box of the heatmap's hot regions that hold a positive point, for networks that take boxes only.

    Hot is what lies above Otsu's threshold of the heatmap; regions are 8-connected. The region of the maximum is taken
    when no region holds a positive point. The positive points themselves are always inside the box; negative points
    have no part in it.

    Returns
    -------
    box
        ``(x0, y0, x1, y1)`` of the outermost pixels.

    Raises
    ------
    InputError
        If the heatmap is constant or not finite.
    """
    threshold, _ = otsu_threshold(prompt.heatmap)
    regions, _ = ndimage.label(prompt.heatmap > threshold, structure=np.ones((3, 3)))
    positive = prompt.points[prompt.point_labels == 1]
    height, width = prompt.heatmap.shape
    columns, rows = np.clip(np.rint(positive).astype(np.intp), 0, (width - 1, height - 1)).T
    held = set(regions[rows, columns].tolist()) - {0}
    if not held:
        held = {int(regions.flat[int(np.argmax(prompt.heatmap))])}
    inside_rows, inside_columns = np.nonzero(np.isin(regions, list(held)))
    xs, ys = np.concatenate([inside_columns, positive[:, 0]]), np.concatenate([inside_rows, positive[:, 1]])
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
