"""A new plugin: a whole distribution that works and passes its contract tests before its author writes a line."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path
from string import Template

from medtool import registry
from medtool.errors import UsageError
from medtool.storage import TEMPORARY_PREFIX, make_folder, output_error, write_whole

MAX_NAME = 60


def write_plugin(name: str, *, kind: str, into: Path) -> Path:
    """Write a distribution ``medtool-NAME`` with one plugin into a folder, and return the distribution's folder.

    Parameters
    ----------
    name
        The plugin's name on the command line: lower-case letters, digits and single hyphens, a letter first.
    kind
        ``segmenter``, ``architecture`` or ``dataset``.
    into
        An existing folder.

    Raises
    ------
    UsageError
        If the name is not of that form, is taken, or the folder is there already.
    OutputError
        If it cannot be written.
    """
    kind = registry.kind_of(kind)
    name = _checked_name(name, kind)
    if not into.is_dir():
        raise UsageError(f"--into {into} is not a folder")
    folder = into / f"medtool-{name}"
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is there already", hint="another name, or another folder with --into")
    temporary = into / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        for path, text in _files(name, kind).items():
            make_folder((temporary / path).parent)
            write_whole(temporary / path, text.encode())
        try:
            temporary.rename(folder)
        except OSError as error:
            raise output_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _checked_name(name: str, kind: str) -> str:
    short = name.removeprefix("medtool-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", short) or len(short) > MAX_NAME:
        proposal = re.sub(r"[^a-z0-9]+", "-", short.lower()).strip("-0123456789")[:MAX_NAME].strip("-")
        raise UsageError(
            f"{name!r} cannot name a plugin: up to {MAX_NAME} characters a-z, 0-9 and single hyphens, a letter first",
            hint=f"medtool plugins new {proposal} --kind {kind}" if proposal else None,
        )
    taken = [info for info in registry.infos(kind) if info.name == short]
    if taken:
        raise UsageError(
            f"the {kind} {short!r} is there already, from {taken[0].distribution}: two of one name are refused on use",
            hint="another name",
        )
    return short


def _files(name: str, kind: str) -> dict[str, str]:
    module = f"medtool_{name.replace('-', '_')}"
    words = {
        "name": name,
        "kind": kind,
        "module": module,
        "cls": "".join(part.capitalize() for part in name.split("-")) + kind.capitalize(),
        "contract": f"{kind.capitalize()}Contract",
        "requires": _REQUIRES[kind],
        "check": f"medtool plugins check {name} --kind {kind}" + (" --root FOLDER" if kind == "dataset" else ""),
    }
    texts = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"{module}/__init__.py": _INIT,
        f"{module}/{kind}.py": _MODULES[kind],
        f"tests/test_{kind}.py": _TESTS[kind],
    }
    return {path: Template(text).substitute(words) for path, text in texts.items()}


_REQUIRES = {
    "segmenter": '"medtool>=0.1", "numpy>=2.0", "scikit-image>=0.24"',
    "architecture": '"medtool>=0.1", "timm>=1.0.20"',
    "dataset": '"medtool>=0.1"',
}

_PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "medtool-$name"
version = "0.1.0"
description = "The $kind $name for medtool."
readme = "README.md"
requires-python = ">=3.11"
dependencies = [$requires]

[project.optional-dependencies]
test = ["pytest>=8.3"]

[project.entry-points."medtool.${kind}s"]
$name = "$module.$kind:$cls"

[tool.hatch.build.targets.wheel]
packages = ["$module"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_README = """\
# medtool-$name

The $kind `$name` for medtool.

```
pip install -e '.[test]'
pytest
$check
```

Before you publish it: choose a licence, and set `licence` and `citation` in `$module/$kind.py`.
"""

_INIT = '''\
"""The $kind $name for medtool."""
'''

_SEGMENTER = '''\
"""The segmenter $name."""

from pathlib import Path
from typing import Any

import numpy as np
from medtool.protocols import Candidates, Prompt
from skimage.filters import gaussian, threshold_otsu


class $cls:
    """Whatever has the colour of the points; replace it by your method."""

    version = "1"  # another one whenever the masks may change
    licence = "not chosen yet"
    citation = "not published yet"
    weights = None
    needs_torch = False

    def __init__(self, *, weights: Path | None, device: str, precision: str) -> None:
        """Load what is costly to load, once a process."""

    def embed(self, image: np.ndarray) -> Any:
        """Do whatever does not depend on the prompt; ``image`` is ``(height, width, 3)`` uint8."""
        return gaussian(image, sigma=1, channel_axis=-1)

    def segment(self, embedding: Any, prompt: Prompt) -> Candidates:
        """Return one or more masks of the object that the points lie on, each with a score."""
        xs, ys = prompt.points[prompt.point_labels == 1].round().astype(int).T
        distance = np.linalg.norm(embedding - embedding[ys, xs].mean(axis=0), axis=-1)
        mask = distance <= threshold_otsu(distance)
        score = 1 - distance[mask].mean() / max(float(distance.mean()), 1e-12)
        return Candidates(masks=mask[None], scores=np.array([score]))
'''

_ARCHITECTURE = '''\
"""The architecture $name."""

from pathlib import Path
from typing import TYPE_CHECKING

from medtool.protocols import InputSpec

if TYPE_CHECKING:
    from torch import nn


class $cls:
    """ResNet-10 from timm; replace it by your network."""

    licence = "not chosen yet"
    citation = "not published yet"
    input = InputSpec(size=(176, 176))
    cam_layer = "layer4"  # the module, by its dotted name, whose output heatmaps are taken from

    def build(self, *, num_classes: int, in_channels: int = 3, pretrained: Path | None = None) -> "nn.Module":
        """Return a fresh network; ``pretrained`` is a file of weights on this machine."""
        import timm

        return timm.create_model(
            "resnet10t",
            num_classes=num_classes,
            in_chans=in_channels,
            pretrained=pretrained is not None,
            pretrained_cfg_overlay={"file": str(pretrained)},
        )
'''

_DATASET = '''\
"""The data set $name."""

from pathlib import Path
from typing import ClassVar

from medtool.errors import InputError
from medtool.manifest import Manifest


class $cls:
    """One folder a class, as in ``benign/0001.png``; replace it by your layout."""

    classes = ("benign", "malignant")
    licence = "not chosen yet"
    citation = "not published yet"
    options: ClassVar = {"suffix": "How the images' names end. Default: .png"}

    def manifest(self, root: Path, *, suffix: str = ".png") -> Manifest:
        """Return one row an image; every value is text, paths are relative to ``root``."""
        paths = [path for name in self.classes for path in sorted((root / name).glob(f"*{suffix}"))]
        if not paths:
            raise InputError(f"{root} holds no images like {self.classes[0]}/NAME{suffix}")
        rows = [{"image": path.relative_to(root).as_posix(), "label": path.parent.name} for path in paths]
        return Manifest.from_rows(rows, root)
'''

_MODULES = {"segmenter": _SEGMENTER, "architecture": _ARCHITECTURE, "dataset": _DATASET}

_TEST = '''\
"""The $kind keeps medtool's contract."""

from medtool.testing.contracts import $contract


class Test$cls($contract):
    name = "$name"
'''

_DATASET_TEST = '''\
"""The data set keeps medtool's contract."""

import pytest
from medtool.testing.contracts import $contract
from medtool.testing.synthetic import write_class_folders


class Test$cls($contract):
    name = "$name"

    @pytest.fixture
    def root(self, tmp_path):
        return write_class_folders(tmp_path)
'''

_TESTS = {"segmenter": _TEST, "architecture": _TEST, "dataset": _DATASET_TEST}
