"""The prepared images of a training, read once and kept in memory or on the disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from medtool.errors import MedtoolError, UsageError
from medtool.runs.preprocessing import Pixels, Preprocessing, read_picture
from medtool.storage import make_folder, sha256_of, write_whole
from medtool.train.choices import Cache


class Pictures:
    """Images by their place; safe to read from several threads.

    Parameters
    ----------
    paths
        The files.
    cache
        What is read once is kept there, up to ``limit_bytes``; what does not fit is read again each time.
    folder
        Of the cache on disk: files named by the image's content and how it was prepared, shared by all runs.

    Attributes
    ----------
    sha256s
        Of the bytes of each file once :meth:`look` has seen it, else empty. An image that changes later is refused.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        *,
        cache: Cache,
        limit_bytes: int,
        folder: Path | None = None,
    ) -> None:
        self.paths = list(paths)
        self.sha256s = [""] * len(self.paths)
        self.preprocessing = preprocessing
        self._cache, self._folder = cache, folder
        self._left_bytes = limit_bytes
        self._kept: dict[int, Pixels] = {}
        self._lock = Lock()
        if cache is Cache.DISK:
            if folder is None:
                raise UsageError("the cache on disk needs a folder")
            make_folder(folder)
            self._left_bytes -= sum(file.stat().st_size for file in folder.glob("*.npy"))

    def __len__(self) -> int:
        return len(self.paths)

    def look(self, place: int) -> None:
        """Read an image for the first time: note its hash, and keep it as far as there is room.

        Raises
        ------
        MedtoolError, OSError
            If it cannot be read.
        """
        if self._cache is Cache.DISK:
            self.sha256s[place] = sha256_of(self.paths[place])
            if self._on_disk(place) is not None:
                return
        pixels, self.sha256s[place] = read_picture(self.paths[place], self.preprocessing)
        self._keep(place, pixels)

    def get(self, place: int) -> Pixels:
        """Return one image, ``uint8 (3, height, width)``; not to be written to.

        Raises
        ------
        MedtoolError
            If it cannot be read any more, or is not the image that it was.
        """
        kept = self._kept.get(place) if self._cache is Cache.RAM else self._on_disk(place)
        if kept is not None:
            return kept
        pixels, sha256 = read_picture(self.paths[place], self.preprocessing)
        if self.sha256s[place] and sha256 != self.sha256s[place]:
            raise MedtoolError(
                f"{self.paths[place]} has changed since the training began", hint="start again with --overwrite"
            )
        self._keep(place, pixels)
        return pixels

    def _keep(self, place: int, pixels: Pixels) -> None:
        if self._cache is Cache.NONE:
            return
        with self._lock:
            if place in self._kept or self._left_bytes < pixels.nbytes:
                return
            self._left_bytes -= pixels.nbytes
            if self._cache is Cache.RAM:
                self._kept[place] = pixels
        if self._cache is Cache.DISK:
            stream = io.BytesIO()
            np.save(stream, pixels)
            write_whole(self._file(place), stream.getvalue())

    def _file(self, place: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self.sha256s[place]}-{self.preprocessing.key}.npy"

    def _on_disk(self, place: int) -> Pixels | None:
        if self._cache is not Cache.DISK or not self.sha256s[place]:
            return None
        try:
            found = np.load(self._file(place))
        except (OSError, ValueError, EOFError):
            return None  # not there, or damaged: the image itself is read
        size = (3, self.preprocessing.height, self.preprocessing.width)
        is_whole = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == size
        return found if is_whole else None
