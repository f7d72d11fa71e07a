"""One or more trained networks that answer together: the mean of their calibrated probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn

from medtool.architectures.metadata import MetadataEncoder
from medtool.devices import Portions, clear_memory_errors
from medtool.errors import InputError
from medtool.runs.checkpoints import Card
from medtool.runs.choices import Task
from medtool.runs.folder import Run, check_together
from medtool.runs.folding import fold_batch_norms
from medtool.runs.forward import Normaliser, autocast
from medtool.runs.network import load_network
from medtool.runs.preprocessing import Preprocessing
from medtool.runs.probabilities import probabilities_of
from medtool.storage import sha256_of
from medtool.train.outcome import CALIBRATION_NAME, Calibrated, read_calibrated
from medtool.train.predict_options import PredictOptions
from medtool.train.thresholds import Threshold
from medtool.train.views import posed, poses_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Member:
    """A run that takes part.

    Attributes
    ----------
    calibration_sha256
        Of its ``calibration.json``.
    """

    run: Run
    calibrated: Calibrated
    calibration_sha256: str

    @property
    def card(self) -> Card:
        """What is known of its best checkpoint."""
        return self.run.card

    def document(self) -> dict[str, Any]:
        """Return what goes into the lineage of its predictions."""
        return {
            "model": self.card.architecture,
            "checkpoint_sha256": self.card.sha256,
            "calibration_sha256": self.calibration_sha256,
        }


def members_of(runs: Sequence[Run]) -> tuple[Member, ...]:
    """Return runs that can answer together.

    Raises
    ------
    UsageError
        If one is given twice, or they know other classes or decide otherwise.
    InputError
        If a calibration is damaged, or not the one that its run ended with.
    """
    check_together(runs)
    return tuple(_member(run) for run in runs)


def _member(run: Run) -> Member:
    path = run.folder / CALIBRATION_NAME
    calibrated = read_calibrated(run.folder)
    sha256 = sha256_of(path)
    if sha256 != run.lineage["outputs"].get(CALIBRATION_NAME):
        raise InputError(f"{path} is not the calibration that the run ended with: its SHA-256 is another")
    if calibrated.calibration is not None and calibrated.calibration.n_classes != len(run.card.classes):
        raise InputError(f"{path} is damaged: it is for {calibrated.calibration.n_classes} classes")
    return Member(run, calibrated, sha256)


@dataclass(frozen=True)
class _Loaded:
    member: Member
    network: nn.Module
    normalise: Normaliser
    encoder: MetadataEncoder | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of some images.

    Attributes
    ----------
    probabilities
        Shape ``(n, classes)``; a row of NaN where a network's output is not finite.
    logits
        Shape ``(n, classes)``, where one network saw the images as they are; else None.
    """

    probabilities: Floats
    logits: npt.NDArray[np.float32] | None


class Ensemble:
    """Networks on a device, ready to answer.

    Parameters
    ----------
    say
        Takes a line for the user, such as that memory does not suffice for a batch.

    Attributes
    ----------
    preprocessings
        The ways in which an image has to be prepared, each once, by their keys.
    columns
        Of the manifest, which the networks take beside the image.
    thresholds
        By which to decide: those of the one run there is, chosen on just these probabilities; else empty.

    Raises
    ------
    UsageError
        If poses are asked for that a network cannot take.
    InputError
        If a checkpoint is damaged.
    """

    def __init__(self, members: Sequence[Member], options: PredictOptions, *, say: Callable[[str], None]) -> None:
        self._options = options
        self._portions = Portions(options.n_batch, options.device, say=say)
        self._poses = [poses_of(options.views, member.card.preprocessing) for member in members]
        self._device = torch.device(options.device)
        self._loaded = [self._load(member) for member in members]
        self.task: Task = members[0].card.task
        self.classes = members[0].card.classes
        self.preprocessings: dict[str, Preprocessing] = {
            member.card.preprocessing.key: member.card.preprocessing for member in members
        }
        self.is_lone = len(members) == 1 and len(self._poses[0]) == 1
        self.thresholds: Mapping[str, Threshold] = (
            members[0].calibrated.thresholds if self.is_lone and options.calibrate else {}
        )
        encoders = [each.encoder for each in self._loaded if each.encoder is not None]
        self.columns = tuple(dict.fromkeys(column.name for encoder in encoders for column in encoder.columns))

    def _load(self, member: Member) -> _Loaded:
        card = member.card
        is_last = self._options.channels_last
        layout = torch.channels_last if is_last else torch.contiguous_format
        encoder = None if card.metadata is None else MetadataEncoder.of(card.metadata)
        with clear_memory_errors(self._options.device, task=f"the network of {member.run.folder}"):
            network = load_network(member.run.checkpoint, card)
            fold_batch_norms(network)
            network = network.to(self._device, memory_format=layout)  # type: ignore[call-overload]
        return _Loaded(member, network, Normaliser(card.preprocessing, self._device, is_channels_last=is_last), encoder)

    def metadata_of(self, table: pl.DataFrame) -> list[npt.NDArray[np.float32] | None]:
        """Return for each network the numbers that it takes beside the images; raises ``InputError``."""
        return [None if each.encoder is None else each.encoder.encode(table) for each in self._loaded]

    def answer(self, images: Mapping[str, Tensor], metadata: Sequence[npt.NDArray[np.float32] | None]) -> Answer:
        """Return the mean of the calibrated probabilities over networks and poses.

        Parameters
        ----------
        images
            By the key of each preprocessing: uint8 ``(n, 3, height, width)``.
        metadata
            As of :meth:`metadata_of`, for the same images.

        Raises
        ------
        MedtoolError
            If the device's memory does not suffice for one image.
        """
        total: Floats | None = None
        logits = np.empty((0, len(self.classes)), np.float32)
        n_answers = 0
        for loaded, poses, numbers in zip(self._loaded, self._poses, metadata, strict=True):
            shown = images[loaded.member.card.preprocessing.key]
            for pose in poses:
                logits = self._logits(loaded, posed(shown, pose), numbers)
                p = self._probabilities(loaded.member, logits)
                total = p if total is None else total + p
                n_answers += 1
        assert total is not None
        return Answer(total / n_answers, logits if self.is_lone else None)

    def _probabilities(self, member: Member, logits: npt.NDArray[np.float32]) -> Floats:
        is_finite = np.isfinite(logits).all(axis=1)
        found = np.full(logits.shape, np.nan)
        if is_finite.any():
            sound = logits[is_finite]
            found[is_finite] = (
                member.calibrated.probabilities(sound, self.task)
                if self._options.calibrate
                else probabilities_of(sound, self.task)
            )
        return found

    def _logits(
        self, loaded: _Loaded, images: Tensor, metadata: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.float32]:
        """Return the logits of a batch, in smaller pieces where memory does not suffice for it."""
        found = self._portions.of(
            len(images),
            lambda part: self._forward(loaded, images[part], None if metadata is None else metadata[part]),
        )
        return np.concatenate(found)

    def _forward(
        self, loaded: _Loaded, images: Tensor, metadata: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            ready = loaded.normalise(images)
            more = () if metadata is None else (torch.from_numpy(metadata).to(self._device),)
            with autocast(self._device, self._options.precision):
                logits: npt.NDArray[np.float32] = loaded.network(ready, *more).float().cpu().numpy()
            return logits
