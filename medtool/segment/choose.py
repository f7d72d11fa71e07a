"""Which segmenter does the work, and whether it can on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtool import registry, weights
from medtool.errors import MissingWeightsError, UsageError, reason_of
from medtool.storage import sha256_of

EMBEDDED = "random-walker"

# The order of the published results with point prompts; MedSAM is not here, as its weights were trained on boxes.
BEST_FIRST = ("sam-vit-h", "sam-vit-l", "sam-vit-b", "mobile-sam")


@dataclass(frozen=True)
class Choice:
    """A segmenter with all that is needed to build it, in this process or another.

    Attributes
    ----------
    weights, weights_sha256
        File and hash of its weights; None when it has none.
    device, precision
        Resolved; ``cpu`` and ``fp32`` for a segmenter without torch.
    note
        One line for the user on why this one, or empty.
    """

    name: str
    version: str
    weights: Path | None
    weights_sha256: str | None
    needs_torch: bool
    device: str
    precision: str
    note: str

    def build(self) -> Any:
        """Return the segmenter, ready to work."""
        kind = registry.load("segmenter", self.name)
        return kind(weights=self.weights, device=self.device, precision=self.precision)


def choose_segmenter(
    name: str,
    *,
    weights_file: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    has_runs: bool = False,
) -> Choice:
    """Resolve a segmenter's name, weights, device and precision.

    Parameters
    ----------
    name
        A registered name, or ``auto``: the best of :data:`BEST_FIRST` whose weights are on this machine, else the
        embedded one.
    weights_file
        Weights of one's own in the segmenter's published format, instead of the published ones.
    has_runs
        Whether trained networks make the heatmaps: ``device`` is for them then, whatever the segmenter is.

    Raises
    ------
    UnknownNameError
        If there is no such segmenter.
    UsageError
        If an option means nothing to the segmenter, or there is no such device or precision on this machine.
    MissingWeightsError
        If it was asked for by name and its weights are not on this machine.
    """
    note = ""
    if name == "auto":
        if weights_file is not None:
            raise UsageError(
                f"--weights {weights_file} does not tell the network", hint="name it too, as in --segmenter sam-vit-b"
            )
        name, note = _best_here()
    kind = registry.load("segmenter", name)
    path = _weights_for(name, kind.weights, weights_file)
    if not kind.needs_torch:
        unused = ["--device"] if device not in ("auto", "cpu") and not has_runs else []
        unused += ["--precision"] if precision not in ("auto", "fp32") else []
        if unused and note:
            from medtool.devices import resolve_device, resolve_precision  # a slip in them is one here too

            resolve_precision(precision, resolve_device(device))
            note += f"; {' and '.join(unused)} would be for a network, and this is none"
        elif unused:
            raise UsageError(
                f"the segmenter {name!r} works on the CPU, without torch: {' and '.join(unused)} would mean nothing",
                hint="leave them out, or choose a segmenter that uses them: medtool plugins list segmenters",
            )
        return Choice(name, kind.version, path, _hash(path), False, "cpu", "fp32", note)
    from medtool.devices import resolve_device, resolve_precision  # torch loads here

    resolved = resolve_device(device)
    return Choice(name, kind.version, path, _hash(path), True, resolved, resolve_precision(precision, resolved), note)


def _best_here() -> tuple[str, str]:
    for name in BEST_FIRST:
        if weights.find(name) is not None:
            return name, f"segmenter {name}: the best one whose weights are on this machine"
    wrong = [found for found in map(weights.look_at, BEST_FIRST) if found.state is weights.State.WRONG]
    reason = (
        f"{wrong[0].path} is not the published {wrong[0].name}"
        if wrong
        else "no weights of a better one are on this machine"
    )
    return EMBEDDED, (
        f"segmenter {EMBEDDED} (built in): {reason}; medtool weights get {BEST_FIRST[-1]} fetches a small one"
    )


def _weights_for(name: str, published: str | None, own: Path | None) -> Path | None:
    if published is None:
        if own is not None:
            raise UsageError(f"the segmenter {name!r} has no weights; --weights {own} means nothing to it")
        return None
    return weights.require(published) if own is None else own


def _hash(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return sha256_of(path)
    except OSError as error:
        raise MissingWeightsError(f"the weights {path} cannot be read: {reason_of(error)}") from error
