"""Scores of a classifier for many weightings of the same images at once, as the bootstrap asks for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class WeightedScores:
    """The main scores of probabilities against what was true, of images that count as often as their weights say.

    With all weights 1 they are those of :func:`medtool.train.metrics.score`; images of weight 0 are not there.

    Parameters
    ----------
    probabilities
        Shape ``(n, classes)``.
    decisions, truths
        Shape ``(n, classes)``: what was decided, and what was true. One class an image, or any number of labels.
    is_exclusive
        Whether it is one class an image. Of two such classes, the AUC is that of the second.
    """

    def __init__(self, probabilities: Floats, decisions: Bools, truths: Bools, *, is_exclusive: bool) -> None:
        self.is_exclusive = is_exclusive
        self._hits = (decisions & truths).astype(np.float64)
        self._rejections = (~decisions & ~truths).astype(np.float64)
        self._given, self._true = decisions.astype(np.float64), truths.astype(np.float64)
        n_classes = truths.shape[1]
        places = [1] if is_exclusive and n_classes == 2 else range(n_classes)
        self._ranked = [_Ranked(probabilities[:, place], truths[:, place]) for place in places]

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Return accuracy, balanced accuracy, AUC and F1 for weights ``(draws, n)``, each ``(draws,)``.

        NaN where a score is undefined, as where a class has no example.
        """
        total = weights.sum(axis=1, keepdims=True)
        hits, true = weights @ self._hits, weights @ self._true
        given = weights @ self._given
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = hits / true
            f1 = np.where(true > 0, 2 * hits / (true + given), np.nan)
            if self.is_exclusive:
                accuracy, balanced = hits.sum(axis=1) / total[:, 0], recall.mean(axis=1)
            else:
                rejections = weights @ self._rejections
                accuracy = ((hits + rejections) / total).mean(axis=1)
                balanced = ((recall + rejections / (total - true)) / 2).mean(axis=1)
        auc = np.mean([ranked.auc(weights) for ranked in self._ranked], axis=0)
        return {"accuracy": accuracy, "balanced_accuracy": balanced, "auc": auc, "f1": f1.mean(axis=1)}


class _Ranked:
    """One class's scores in order, ties taken together."""

    def __init__(self, scores: Floats, truth: Bools) -> None:
        self._order = np.argsort(scores, kind="stable")
        ranked = scores[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1]]))
        self._truth = truth[self._order].astype(np.float64)

    def auc(self, weights: Floats) -> Floats:
        """Return how often a positive scores above a negative, a tie counting as a half, for each row of weights."""
        ordered = weights[:, self._order]
        positives = np.add.reduceat(ordered * self._truth, self._starts, axis=1)
        negatives = np.add.reduceat(ordered * (1 - self._truth), self._starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = positives.sum(axis=1) * negatives.sum(axis=1)
            return np.asarray((positives * below).sum(axis=1) / pairs)
