"""Batches of images, read and augmented ahead of the network by a few threads, the same on every run of a seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medtool.errors import UsageError
from medtool.parallel import cpu_count
from medtool.train.augment import augmented, generator_for
from medtool.train.augment_options import AugmentOptions
from medtool.train.pictures import Pictures

_AHEAD = 3  # batches that are read before they are asked for


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images and what is known of them.

    Attributes
    ----------
    places
        Where they are in the list of images.
    images
        Shape ``(n, 3, height, width)``, uint8.
    targets
        Shape ``(n, classes)``, float32.
    metadata
        Shape ``(n, d)``, float32; None where the network takes none.
    """

    places: tuple[int, ...]
    images: Tensor
    targets: Tensor
    metadata: Tensor | None


@dataclass(frozen=True, slots=True)
class Variation:
    """How images are varied in an epoch; what is drawn depends on seed, epoch and position in the epoch alone."""

    options: AugmentOptions
    seed: int
    epoch: int


class Batches:
    """Images with their targets, in any order that is asked for.

    Parameters
    ----------
    targets
        Shape ``(n, classes)``, float32.
    metadata
        Shape ``(n, d)``, float32, or None.
    threads
        That read and augment; 0 is one a processor, at most 16.
    """

    def __init__(
        self,
        pictures: Pictures,
        targets: npt.NDArray[np.float32],
        metadata: npt.NDArray[np.float32] | None,
        *,
        batch_size: int,
        threads: int = 0,
    ) -> None:
        self.pictures = pictures
        self.targets = torch.from_numpy(targets)
        self.metadata = None if metadata is None else torch.from_numpy(metadata)
        self.batch_size = batch_size
        self.threads = threads or min(16, cpu_count())

    def shares(self, n_images: int, *, rank: int = 0, of: int = 1) -> list[range]:
        """Return the positions in each batch of an epoch that are the share of one of several processes.

        A last batch of fewer than two images a process is left out: batch normalisation needs two.

        Raises
        ------
        UsageError
            If there is a batch with fewer images than processes.
        """
        starts = range(0, n_images, self.batch_size)
        batches = [range(start, min(start + self.batch_size, n_images)) for start in starts]
        if len(batches) > 1 and len(batches[-1]) < 2 * of:
            batches.pop()
        if batches and len(batches[-1]) < of:
            raise UsageError(f"{of} processes are too many for a batch of {len(batches[-1])} images")
        return [batch[rank::of] for batch in batches]

    def in_order(
        self,
        order: Sequence[int] | npt.NDArray[np.int64],
        variation: Variation | None = None,
        *,
        shares: Sequence[range] | None = None,
    ) -> Generator[Batch]:
        """Yield images in an order, a batch at a time.

        Parameters
        ----------
        order
            Places of images; one may come several times.
        variation
            None leaves the images as they are.
        shares
            Which positions of the order make each batch; None takes all, ``batch_size`` at a time.

        Raises
        ------
        MedtoolError
            If an image cannot be read.
        """
        places = [int(place) for place in order]
        if shares is None:
            starts = range(0, len(places), self.batch_size)
            shares = [range(start, min(start + self.batch_size, len(places))) for start in starts]

        def one(position: int) -> Tensor:
            image = torch.from_numpy(self.pictures.get(places[position]))
            if variation is None:
                return image
            return augmented(image, generator_for(variation.seed, variation.epoch, position), variation.options)

        coming = deque(shares)
        waiting: deque[tuple[range, list[Future[Tensor]]]] = deque()
        with ThreadPoolExecutor(
            self.threads, thread_name_prefix="medtool-images", initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            try:
                while coming or waiting:
                    while coming and len(waiting) < _AHEAD:
                        share = coming.popleft()
                        waiting.append((share, [pool.submit(one, position) for position in share]))
                    share, futures = waiting.popleft()
                    some = [places[position] for position in share]
                    yield Batch(
                        tuple(some),
                        torch.stack([future.result() for future in futures]),
                        self.targets[some],
                        None if self.metadata is None else self.metadata[some],
                    )
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
