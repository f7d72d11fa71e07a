"""The loop: epochs of batches, each scored on the val part; the best is kept, and a killed training goes on as it was.

Everything random is drawn from the seed, the epoch and the place in it, so that the only state is what is written at
the end of each epoch, in one file, whole. Whatever else a killed training left behind is done again.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medtool.architectures.layers import layer_groups
from medtool.devices import is_memory_error
from medtool.errors import InputError, MedtoolError
from medtool.protocols import Steps
from medtool.runs import checkpoints
from medtool.runs.checkpoints import Card
from medtool.runs.forward import Normaliser, autocast
from medtool.runs.probabilities import probabilities_of
from medtool.storage import write_whole
from medtool.train.augment import generator_for
from medtool.train.augment_options import AugmentOptions
from medtool.train.averaging import WeightAverage
from medtool.train.batches import Batch, Batches, Variation
from medtool.train.freezing import freeze, parse_unfreezing, trainable_groups
from medtool.train.losses import make_loss, weights_of
from medtool.train.metrics import is_better, is_higher_better, score
from medtool.train.mixing import Mix, draw_mix
from medtool.train.optimizers import make_optimizer
from medtool.train.options import TrainOptions, WorkOptions
from medtool.train.sampling import epoch_order
from medtool.train.schedules import make_schedule
from medtool.train.team import Alone, Team

RESUME_NAME = "resume.pt"
_CHECK_EVERY = 20  # batches between two looks at the loss on a device that works ahead
_MIXING = 1_000_003  # tells the generator of a batch from those of its images

Line = Callable[[str], None]
ShowSteps = Callable[[int, str], AbstractContextManager[Steps]]


@dataclass(frozen=True)
class Lessons:
    """What is learnt from, and what chooses.

    Attributes
    ----------
    train, val
        Places of images in ``batches``.
    labels
        For each of ``train``: its class, for sampling; of several labels the rarest.
    patients
        For each of ``train``.
    ids
        Of all images, for messages.
    """

    batches: Batches
    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    labels: Sequence[int]
    patients: Sequence[str]
    ids: Sequence[str]


@dataclass(frozen=True)
class Watch:
    """Who is told how a training goes.

    Attributes
    ----------
    say
        Takes a line for the user.
    steps
        Opens a progress bar over so many steps, with a label.
    epoch
        Takes the line of ``metrics.jsonl`` of each finished epoch, for trackers.
    """

    say: Line
    steps: ShowSteps
    epoch: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes
    ----------
    best
        The checkpoint that is reported: the best one by the val part.
    last
        The one of the last epoch; the same file where that is the best.
    history
        The lines of ``metrics.jsonl``.
    """

    best: Path
    last: Path
    history: list[dict[str, Any]]


class Training:
    """One training, from where it is.

    Parameters
    ----------
    network
        Fresh, or with the weights to start from, on the CPU.
    card
        Of the checkpoints; epoch, score and hash are filled in.
    augment
        How the train part is varied; mixup is in ``options``.
    folder
        The run's; earlier work in it is taken up.
    team
        The processes that train together.

    Raises
    ------
    InputError
        If the state in the folder is damaged.
    """

    def __init__(
        self,
        network: nn.Module,
        lessons: Lessons,
        options: TrainOptions,
        work: WorkOptions,
        *,
        card: Card,
        augment: AugmentOptions,
        folder: Path,
        watch: Watch,
        team: Team | None = None,
    ) -> None:
        self.lessons, self.options, self.work = lessons, options, work
        self.card, self.augment, self.folder, self.watch = card, augment, folder, watch
        self.team = team or Alone(work.device)
        self.device = torch.device(work.device)
        layout = torch.channels_last if work.channels_last else torch.contiguous_format
        self.network = self.team.placed(network, layout)
        self.normalise = Normaliser(card.preprocessing, self.device, is_channels_last=work.channels_last)
        self.groups = layer_groups(self.network)
        self.unfreezing = parse_unfreezing(options.unfreeze)
        self.optimizer = make_optimizer(
            self.groups,
            name=options.optimizer,
            lr=options.lr,
            weight_decay=options.weight_decay,
            layer_decay=options.layer_decay,
        )
        self.shares = lessons.batches.shares(len(lessons.train), rank=self.team.rank, of=self.team.size)
        of_first, of_last = (
            lessons.batches.shares(len(lessons.train), rank=rank, of=self.team.size) for rank in (0, self.team.size - 1)
        )
        self.share_sizes = [(len(most), len(least)) for most, least in zip(of_first, of_last, strict=True)]
        self.schedule = make_schedule(
            options.schedule,
            total_steps=options.epochs * len(self.shares),
            warmup_steps=None if options.warmup is None else round(options.warmup * len(self.shares)),
            higher_is_better=is_higher_better(options.monitor),
        )
        weights = weights_of(lessons.batches.targets[lessons.train], task=options.task, how=options.class_weights)
        self.loss = make_loss(
            options.loss_name,
            task=options.task,
            class_weights=None if weights is None else weights.to(self.device),
            label_smoothing=options.label_smoothing,
            focal_alpha=options.focal_alpha,
            focal_gamma=options.focal_gamma,
        )
        self.average = WeightAverage(self.network, options.ema) if options.ema else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=work.precision == "fp16")
        self.micro_batch = work.micro_batch or options.batch_size
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.reference: dict[str, Any] = {}
        self.last_name = ""
        self._n_trained = 0
        self._go_on()

    @property
    def done(self) -> int:
        """How many epochs are over."""
        return len(self.history)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train."""
        patience = self.options.patience
        is_stuck = bool(patience and self.reference and self.done - self.reference["epoch"] >= patience)
        return self.done >= self.options.epochs or is_stuck

    @property
    def result(self) -> Fitted:
        """What has come of it."""
        shelf = self.folder / checkpoints.FOLDER
        return Fitted(shelf / self.best["name"], shelf / self.last_name, self.history)

    def run(self) -> Fitted:
        """Train until the epochs or the patience are over.

        Raises
        ------
        MedtoolError
            If the loss is no finite number, naming the batch, or an image cannot be read; the best checkpoint is kept.
        """
        while not self.is_over:
            self._epoch()
        return self.result

    def _go_on(self) -> None:
        path = self.folder / RESUME_NAME
        if path.exists():
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                self.network.load_state_dict(self._shares(state["network"], self.network.state_dict()))
                self.optimizer.load_state_dict(self._shares_of_optimizer(state["optimizer"]))
                self.schedule.load_state_dict(state["schedule"])
                self.scaler.load_state_dict(state["scaler"])
                if self.average is not None:
                    average = state["average"]
                    weights = self._shares(average["average"], self.average.weights())
                    self.average.load_state_dict({**average, "average": weights})
                self.history, self.best, self.reference = state["history"], state["best"], state["reference"]
                self.last_name, self.micro_batch = state["last_name"], state["micro_batch"]
            except Exception as error:  # torch's reader ends in many kinds of error on broken bytes
                first = str(error).strip().split("\n")[0]
                raise InputError(f"{path} is damaged: {first}", hint="start again with --overwrite") from error
            if not self.is_over:
                self.watch.say(f"goes on after epoch {self.done} of {self.options.epochs}")
        if len(set(self.team.gathered(self.last_name))) > 1:
            raise InputError(f"not all processes see the same {path}", hint="wait for the file system, and start again")
        if self.team.rank == 0:
            names = {self.last_name, self.best.get("name", "")}
            checkpoints.keep_only(self.folder / checkpoints.FOLDER, names)
        self.team.wait()

    def _shares(self, whole: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.team.share(value, like.get(name, value)) for name, value in whole.items()}

    def _shares_of_optimizer(self, whole: Mapping[str, Any]) -> dict[str, Any]:
        """Return an optimizer's state with this process's shares of the tensors that each parameter has."""
        own = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        numbers = [number for group in whole["param_groups"] for number in group["params"]]
        of_number = dict(zip(numbers, own, strict=True))
        state = {
            number: {
                name: self.team.share(value, of_number[number]) if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
            for number, values in whole["state"].items()
        }
        return {**whole, "state": state}

    def _wrap(self, n_trained: int) -> None:
        """Put around the network what compiling and several processes need; anew when other layers are trained."""
        if n_trained == self._n_trained:
            return
        self._n_trained = n_trained
        self.wrapped = self.team.wrapped(self.network)
        self.forward: Callable[..., Any] = torch.compile(self.wrapped) if self.work.compile else self.wrapped

    def _epoch(self) -> None:
        number = self.done + 1
        began = time.perf_counter()
        seeds = generator_for(self.options.seed, number, -1 - self.team.rank)
        torch.manual_seed(seeds.initial_seed() % 2**63)
        n_trainable = trainable_groups(self.unfreezing, number, len(self.groups))
        freeze(self.network, self.groups, n_trainable)
        self._wrap(n_trainable)
        train_loss, n_images = self._train(number)
        trained_s = time.perf_counter() - began
        with contextlib.nullcontext() if self.average is None else self.average.applied_to(self.network):
            self.team.align(self.network)  # what is scored in shares is what the first process writes down
            val = self._scores(number)
            line = {
                "epoch": number,
                "train_loss": train_loss,
                "val": val,
                "lr": max(group["lr"] for group in self.optimizer.param_groups),
                "trained_groups": n_trainable,
                "micro_batch": self.micro_batch,
                "images_per_s": round(n_images / trained_s, 1),
                "seconds": round(time.perf_counter() - began, 2),
            }
            self._keep(line)
        self.schedule.observe(val[self.options.monitor])
        self.history.append(line)
        self._write_state()
        if self.team.rank == 0:
            checkpoints.keep_only(self.folder / checkpoints.FOLDER, {self.last_name, self.best["name"]})
            self.watch.epoch(line)
        self.team.wait()
        self._tell(line)

    def _train(self, epoch: int) -> tuple[float, int]:
        """Learn from all batches of an epoch; return its mean loss and how many images it had."""
        lessons, options = self.lessons, self.options
        order = epoch_order(lessons.labels, lessons.patients, sampling=options.sampling, seed=options.seed, epoch=epoch)
        variation = Variation(self.augment, options.seed, epoch)
        batches = lessons.batches.in_order(lessons.train[order], variation, shares=self.shares)
        sums = torch.zeros(2, dtype=torch.float64, device="cpu" if self.device.type == "mps" else self.device)
        n_images = 0
        watched: list[tuple[int, Batch, Tensor]] = []
        every = 1 if self.device.type == "cpu" else _CHECK_EVERY
        label = f"epoch {epoch} of {options.epochs}{self._left()}"
        with contextlib.closing(batches), self.watch.steps(len(self.shares), label) as bar:
            for number, batch in enumerate(batches):
                self.schedule.apply(self.optimizer, (epoch - 1) * len(self.shares) + number)
                total, weight = self._step(batch, epoch, number)
                sums += torch.stack([total, weight]).to(sums)
                n_images += len(batch.places)
                watched.append((number + 1, batch, total / weight))
                if len(watched) >= every:
                    self._refuse_no_number(watched, epoch)
                    watched.clear()
                bar.advance()
            self._refuse_no_number(watched, epoch)
        return float(sums[0] / sums[1]), n_images * self.team.size

    def _step(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """Learn from one batch; return the loss's total and weight over all processes."""
        images = self.normalise(batch.images)
        targets = batch.targets.to(self.device)
        metadata = None if batch.metadata is None else batch.metadata.to(self.device)
        if self.options.mixup:
            chance = generator_for(self.options.seed, epoch, _MIXING + number * self.team.size + self.team.rank)
            mix: Mix = draw_mix(len(images), chance, alpha=self.options.mixup)
            images, targets = mix.of(images), mix.of(targets)
            metadata = None if metadata is None else mix.of(metadata)
        weight = self.team.total(self.loss.weight(targets).detach().float())
        total = self._gradients(images, targets, metadata, weight, number)
        self.scaler.unscale_(self.optimizer)
        if self.options.clip_norm:
            parameters = [
                one for group in self.optimizer.param_groups for one in group["params"] if one.grad is not None
            ]
            nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
        total = self.team.total(total)
        if self.device.type != "cpu" or math.isfinite(float(total)):  # elsewhere it is seen a few batches later
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.average is not None:
                self.average.update(self.network)
        return total, weight

    def _gradients(
        self, images: Tensor, targets: Tensor, metadata: Tensor | None, weight: Tensor, number: int
    ) -> Tensor:
        """Leave the gradients of a batch's mean loss; where memory is short, in smaller parts from then on."""
        while True:
            try:
                return self._gradients_in_parts(images, targets, metadata, weight, self._n_parts(number))
            except RuntimeError as error:
                if not is_memory_error(error):
                    raise
                advice = "a smaller --size or --model, or another --device"
                if self.micro_batch <= 1:
                    raise MedtoolError(
                        f"{self.work.device} has too little memory to train on one image", hint=advice
                    ) from error
                if self.team.size > 1:  # the others wait for gradients that will not come
                    raise MedtoolError(
                        f"{self.work.device} has too little memory for {min(self.micro_batch, len(images))} images",
                        hint=f"--micro-batch {max(1, min(self.micro_batch, len(images)) // 2)}",
                    ) from error
            self.micro_batch = max(1, min(self.micro_batch, len(images)) // 2)
            self.watch.say(f"{self.work.device} ran out of memory: {self.micro_batch} images at a time from here on")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _n_parts(self, number: int) -> int:
        """Return in how many parts the shares of a batch go through the network.

        All processes take as many, since one that splits the network waits for the others in every part.
        """
        most, least = self.share_sizes[number]
        return min(-(-most // self.micro_batch), least)

    def _gradients_in_parts(
        self, images: Tensor, targets: Tensor, metadata: Tensor | None, weight: Tensor, n_parts: int
    ) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        bounds = [round(part * len(images) / n_parts) for part in range(n_parts + 1)]  # parts of about one size
        for start, stop in itertools.pairwise(bounds):
            is_last = stop == len(images)
            extra = () if metadata is None else (metadata[start:stop],)
            with contextlib.nullcontext() if is_last else self.team.alone(self.wrapped):
                with autocast(self.device, self.work.precision):
                    logits = self.forward(images[start:stop], *extra)
                part = self.loss.total(logits, targets[start:stop])
                # The mean of all processes' gradients is what remains, so each counts for as many as they are.
                self.scaler.scale(part / weight * self.team.size).backward()  # type: ignore[no-untyped-call]
            total += part.detach()
        return total

    def _refuse_no_number(self, watched: Sequence[tuple[int, Batch, Tensor]], epoch: int) -> None:
        for number, batch, loss in watched:
            if not math.isfinite(float(loss)):
                names = ", ".join(self.lessons.ids[place] for place in batch.places[:3])
                raise MedtoolError(
                    f"the loss is {float(loss)} in epoch {epoch}, batch {number} of {len(self.shares)}"
                    f" ({names}, ...){self._kept()}",
                    hint="a lower --lr, a longer --warmup, or --precision fp32",
                )

    def _kept(self) -> str:
        return f"; {self.best['name']} is kept" if self.best else ""

    def _scores(self, epoch: int) -> dict[str, float | None]:
        lessons = self.lessons
        own = self.team.own(lessons.val)
        logits = logits_of(
            self.network,
            lessons.batches,
            own,
            normalise=self.normalise,
            precision=self.work.precision,
            limit=self.micro_batch,
        )
        logits = self.team.rows(logits, len(lessons.val))
        if not np.isfinite(logits).all():
            row = int((~np.isfinite(logits)).any(axis=1).argmax())
            raise MedtoolError(
                f"the network gives no numbers for {lessons.ids[lessons.val[row]]} after epoch {epoch}{self._kept()}",
                hint="a lower --lr, a longer --warmup, or --precision fp32",
            )
        targets = lessons.batches.targets[lessons.val]
        with torch.inference_mode():
            loss = self.loss(torch.from_numpy(logits).to(self.device), targets.to(self.device))
        found = score(
            probabilities_of(logits, self.options.task),
            targets.numpy(),
            task=self.options.task,
            classes=self.card.classes,
        )
        return {"loss": float(loss), **found}

    def _keep(self, line: dict[str, Any]) -> None:
        """Write the checkpoint of this epoch, and remember it if it is the best so far."""
        monitor = self.options.monitor
        value = line["val"][monitor]
        if value is None:
            raise MedtoolError(
                f"the val part has no {monitor} in epoch {line['epoch']}", hint="another --monitor, such as loss"
            )
        card = replace(self.card, epoch=line["epoch"], score=float(value))
        shelf = self.folder / checkpoints.FOLDER
        state = self.team.whole(self.network.state_dict())
        if self.team.rank == 0:
            checkpoints.write_checkpoint(shelf, card, state)
        self.last_name = checkpoints.name_of(card)
        if is_better(monitor, value, self.best.get("score")):
            self.best = {"epoch": line["epoch"], "score": float(value), "name": self.last_name}
        if is_better(monitor, value, self.reference.get("score"), self.options.min_delta):
            self.reference = {"epoch": line["epoch"], "score": float(value)}

    def _write_state(self) -> None:
        state = self._state()
        if self.team.rank == 0:
            stream = io.BytesIO()
            torch.save(state, stream)
            write_whole(self.folder / RESUME_NAME, stream.getvalue())

    def _state(self) -> dict[str, Any]:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "history": self.history,
            "best": self.best,
            "reference": self.reference,
            "last_name": self.last_name,
            "micro_batch": self.micro_batch,
        }
        whole: dict[str, Any] = self.team.whole(state)
        return whole

    def _tell(self, line: dict[str, Any]) -> None:
        monitor = self.options.monitor
        is_best = "the best so far" if self.best["epoch"] == line["epoch"] else f"best {self.best['score']:.4f}"
        self.watch.say(
            f"epoch {line['epoch']} of {self.options.epochs}: train loss {line['train_loss']:.4f},"
            f" val {monitor} {line['val'][monitor]:.4f} ({is_best}), {line['images_per_s']:g} images/s{self._left()}"
        )

    def _left(self) -> str:
        """Return in words how long the epochs that are left will take, by those that are over."""
        if not self.done or self.is_over:
            return ""
        left_s = (self.options.epochs - self.done) * sum(one["seconds"] for one in self.history) / self.done
        return f", about {in_words(left_s)} left"


def logits_of(
    network: nn.Module,
    batches: Batches,
    places: npt.NDArray[np.int64],
    *,
    normalise: Normaliser,
    precision: str,
    limit: int = 0,
) -> npt.NDArray[np.float32]:
    """Return the logits ``(n, classes)`` of images, as they are, with the network in evaluation mode.

    Parameters
    ----------
    limit
        Most images at once; 0 is a batch.
    """
    network.eval()
    found = []
    with torch.inference_mode(), contextlib.closing(batches.in_order(places)) as stream:
        for batch in stream:
            size = limit or len(batch.places)
            for start in range(0, len(batch.places), size):
                part = slice(start, start + size)
                images = normalise(batch.images[part])
                metadata = () if batch.metadata is None else (batch.metadata[part].to(normalise.device),)
                with autocast(normalise.device, precision):
                    found.append(network(images, *metadata).float().cpu().numpy())
    n_classes = batches.targets.shape[1]
    return np.concatenate(found) if found else np.empty((0, n_classes), np.float32)


def in_words(seconds: float) -> str:
    """Return a duration in the unit that suits it, such as ``12 min``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
