"""Mixup: a batch in which every image is blended with another, and its target likewise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from medtool.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """How one batch is blended with itself.

    Attributes
    ----------
    partners
        Shape ``(n,)``, int64: a permutation of the batch; an image may be its own partner.
    weight
        Of the image itself, 0.5 to 1; its partner has the rest.
    """

    partners: Tensor
    weight: float

    def of(self, batch: Tensor) -> Tensor:
        """Return a floating tensor ``(n, ...)`` on any device, blended; images, targets and metadata alike."""
        return torch.lerp(batch[self.partners.to(batch.device)], batch, self.weight)


def draw_mix(n: int, generator: torch.Generator, *, alpha: float) -> Mix:
    """Draw how a batch of n images is blended.

    Parameters
    ----------
    generator
        On the CPU; the same one gives the same mix on every device.
    alpha
        Of Beta(alpha, alpha), above 0. The larger of the weight drawn and its opposite goes to the image itself, which
        is the same distribution of pairs with the names of partners exchanged.

    Raises
    ------
    UsageError
        If alpha is not above 0.
    """
    if not 0 < alpha < float("inf"):
        raise UsageError(f"mixup's alpha is {alpha:g}; it must be above 0")
    from scipy.special import betaincinv

    share = float(torch.rand((), generator=generator, dtype=torch.float64))
    weight = float(betaincinv(alpha, alpha, share))
    return Mix(torch.randperm(n, generator=generator), max(weight, 1 - weight))


def mixup(images: Tensor, targets: Tensor, generator: torch.Generator, *, alpha: float) -> tuple[Tensor, Tensor]:
    """Return a batch blended with itself; as it is for an alpha of 0.

    Parameters
    ----------
    images
        Shape ``(n, channels, height, width)``, floating.
    targets
        Shape ``(n, k)``, floating.
    generator
        On the CPU, for this batch alone.
    alpha
        Of Beta(alpha, alpha), 0 or more; 0.2 is usual.

    Returns
    -------
    images, targets
        New tensors of the same shapes; targets keep their sums where all sums are equal.

    References
    ----------
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    if alpha == 0:
        return images, targets
    mix = draw_mix(len(images), generator, alpha=alpha)
    return mix.of(images), mix.of(targets)
