"""One trained network on a device, asked how probable it finds a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from medtool.architectures.metadata import MetadataEncoder
from medtool.cam.score.cases import Case, Source
from medtool.cam.score.metrics import Floats
from medtool.cam.score.options import PREDICTED, TRUE_LABEL, ScoreOptions
from medtool.devices import Portions, clear_memory_errors
from medtool.errors import InputError, LineageError, UsageError
from medtool.runs.asked import Labels
from medtool.runs.folder import Run
from medtool.runs.forward import Normaliser, autocast
from medtool.runs.network import load_network
from medtool.runs.probabilities import probabilities_of

_PREFIX = "class:"


def check_weights(source: Source, run: Run) -> None:
    """See that a file's maps were made with a run's weights.

    Raises
    ------
    LineageError
        If they were made with others, with several networks together, or the file does not say.
    """
    said = [part.strip() for part in source.file.attributes.weights.split(",") if part.strip()]
    name = source.file.path
    if len(said) > 1:
        raise LineageError(
            f"{name} holds maps of {len(said)} networks together; faithfulness is that of one network",
            hint="medtool cam with one run, or leave out --run for localisation alone",
        )
    if said != [run.card.sha256]:
        theirs = f"by weights {said[0][:16]}…" if said else "by a network that the file does not name"
        raise LineageError(
            f"{name} was made {theirs}, and {run.folder} has the weights {run.card.sha256[:16]}…",
            hint="the run that the maps were made with, or leave out --run for localisation alone",
        )


class Judge:
    """A network that answers for images as they are and as they are not.

    Parameters
    ----------
    say
        Takes a line for the user, such as that memory does not suffice for a batch.

    Attributes
    ----------
    preprocessing
        How images are prepared for it.
    sha256
        Of its weights.
    """

    def __init__(self, run: Run, options: ScoreOptions, *, say: Callable[[str], None]) -> None:
        card = run.card
        self.classes, self.task, self.preprocessing = card.classes, card.task, card.preprocessing
        self.sha256 = card.sha256
        self.device = torch.device(options.device)
        self.labels = Labels.of([run])
        self._options = options
        self._portions = Portions(options.n_batch, options.device, say=say)
        self._encoder = None if card.metadata is None else MetadataEncoder.of(card.metadata)
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        with clear_memory_errors(options.device, task=f"the network of {run.folder}"):
            self.network = load_network(run.checkpoint, card).to(self.device).to(memory_format=layout)
        self.normalise = Normaliser(card.preprocessing, self.device, is_channels_last=options.channels_last)

    def metadata_of(self, case: Case) -> npt.NDArray[np.float32] | None:
        """Return the row ``(1, columns)`` that the network takes beside the image, if it takes any.

        Raises
        ------
        InputError
            If the manifest has not got the columns, or a value makes no sense.
        """
        if self._encoder is None:
            return None
        names = [column.name for column in self._encoder.columns]
        lacking = [name for name in names if name not in case.columns]
        if lacking:
            raise InputError(f"the network takes the column {lacking[0]!r}, which the manifest has not")
        table = pl.DataFrame({name: [case.columns[name]] for name in names}, schema=dict.fromkeys(names, pl.String))
        return self._encoder.encode(table)

    def place_of(self, source: Source, case: Case) -> int:
        """Return the place of the class that a case's map speaks for; -1 for the one that the network predicts.

        Raises
        ------
        InputError
            If the label is no class of the network.
        UsageError
            If the file does not say which class its maps speak for.
        """
        attribute = source.file.attributes.target
        name = source.class_of(case, self.labels.known) or source.file.target_of(case.image_id)
        if not name and attribute == TRUE_LABEL:
            name = self.labels.known(case.label)
        elif not name and attribute != PREDICTED:
            name = attribute.removeprefix(_PREFIX)
        if not name and attribute == PREDICTED:
            return -1
        if name in self.classes:
            return self.classes.index(name)
        if not name or attribute != TRUE_LABEL:
            raise UsageError(
                f"{source.file.path} has maps for {name or 'a class that it does not name'}; the network knows"
                f" {', '.join(self.classes)}",
                hint="medtool cam, whose files say it, or leave out --run for localisation alone",
            )
        raise InputError(f"its label {name!r} is none of the network's classes")

    def probabilities(self, images: Tensor, metadata: npt.NDArray[np.float32] | None = None) -> Floats:
        """Return the probability of each class, ``(n, classes)``, in pieces that the memory suffices for.

        Parameters
        ----------
        images
            Normalised, on the device.
        metadata
            Shape ``(n, columns)``.
        """
        found = self._portions.of(
            len(images), lambda part: self._forward(images[part], None if metadata is None else metadata[part])
        )
        logits = np.concatenate(found)
        is_finite = np.isfinite(logits).all(axis=1)
        p = np.full(logits.shape, np.nan)
        if is_finite.any():
            p[is_finite] = probabilities_of(logits[is_finite], self.task)
        return p

    def _forward(self, images: Tensor, metadata: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            more = () if metadata is None else (torch.from_numpy(metadata).to(self.device),)
            with autocast(self.device, self._options.precision):
                logits: npt.NDArray[np.float32] = self.network(images, *more).float().cpu().numpy()
            return logits


def stacked(rows: Sequence[npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float32] | None:
    """Return rows of metadata together; None where the network takes none."""
    given = [row for row in rows if row is not None]
    return np.concatenate(given) if given else None
