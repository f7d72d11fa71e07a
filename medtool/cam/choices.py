"""The choices of a heatmap that the command line offers; nothing here imports numpy or torch."""

from __future__ import annotations

import enum


class Method(enum.StrEnum):
    """How channels, cells or tokens are weighted.

    The methods up to ``rollout`` are computed here; those after it by pytorch-grad-cam.
    """

    GRADCAM = "gradcam"
    GRADCAM_PLUS_PLUS = "gradcam++"
    XGRADCAM = "xgradcam"
    LAYERCAM = "layercam"
    EIGENCAM = "eigencam"
    HIRESCAM = "hirescam"
    SCORECAM = "scorecam"
    ABLATIONCAM = "ablationcam"
    ROLLOUT = "rollout"
    EIGENGRADCAM = "eigengradcam"
    GRADCAM_ELEMENTWISE = "gradcam-elementwise"
    RANDOMCAM = "randomcam"
    KPCACAM = "kpcacam"
    FEM = "fem"
    SHAPLEYCAM = "shapleycam"
    FINERCAM = "finercam"
    SEGEIGENCAM = "segeigencam"
    FULLGRAD = "fullgrad"
    REFINECAM = "refinecam"
    SESS = "sess"


#: Weighted by gradients of the answer with respect to the layer.
BY_GRADIENT = frozenset({Method.GRADCAM, Method.GRADCAM_PLUS_PLUS, Method.XGRADCAM, Method.LAYERCAM, Method.HIRESCAM})
#: The answer's gradient is spread over the cells of the grid, so that maps of a finer grid have smaller values.
SPREAD_OVER_CELLS = frozenset({Method.GRADCAM, Method.XGRADCAM, Method.LAYERCAM, Method.HIRESCAM})
#: Computed by pytorch-grad-cam.
BY_PEER = frozenset(list(Method)[list(Method).index(Method.ROLLOUT) + 1 :])
#: Made from several maps at the image's size and scaled to 0–1; there is none of a layer.
OF_WHOLE_IMAGE = frozenset({Method.FULLGRAD, Method.REFINECAM, Method.SESS})
#: The same map whichever class is asked for.
WITHOUT_CLASS = frozenset({Method.EIGENCAM, Method.ROLLOUT, Method.KPCACAM, Method.FEM})


class Target(enum.StrEnum):
    """The class that a map speaks for, where it is not named image by image."""

    PREDICTED = "predicted"
    ALL = "all"
