"""The options of bringing splits to other programs and back; the command line reads its defaults here."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from medtool.errors import UsageError


class FormatName(enum.StrEnum):
    """Whose files."""

    NNUNET = "nnunet"
    CLAM = "clam"
    MONAI = "monai"


class Naming(enum.StrEnum):
    """What an image is called in the other program's file."""

    AUTO = "auto"
    ID = "id"
    STEM = "stem"


class LabelSource(enum.StrEnum):
    """What goes under ``label`` in a MONAI datalist."""

    AUTO = "auto"
    MASK = "mask"
    CLASS = "class"
    NONE = "none"


class Unnamed(enum.StrEnum):
    """What becomes of the images that an imported file does not name."""

    UNUSED = "unused"
    TEST = "test"


@dataclass(frozen=True)
class ExportOptions:
    """How a split is written.

    Attributes
    ----------
    fold
        Write this fold alone, as train, val and test; None writes all.
    naming
        What images are called in files of nnU-Net and CLAM; MONAI's hold paths.
    label
        What goes under ``label`` in a MONAI datalist: by default masks where there are any, else classes.
    """

    fold: int | None = None
    naming: Naming = Naming.AUTO
    label: LabelSource = LabelSource.AUTO

    def check(self, name: FormatName) -> None:
        """Refuse options that the format has no use for.

        Raises
        ------
        UsageError
            Naming the option.
        """
        if name == FormatName.MONAI and self.naming != Naming.AUTO:
            raise UsageError(f"--names {self.naming} says nothing for monai, whose files hold paths")
        if name != FormatName.MONAI and self.label != LabelSource.AUTO:
            raise UsageError(f"--label {self.label} is for monai; files of {name} hold no labels")


@dataclass(frozen=True)
class ImportOptions:
    """How a file of another program is read.

    Attributes
    ----------
    fold
        Take this fold alone, as a hold-out split; None takes all.
    naming
        What the file calls an image: its image_id, its file name without ending, or whichever of the two fits the
        whole file.
    base
        The folder that the paths in a MONAI datalist are relative to; None tries the manifest's, then the datalist's.
    unnamed
        What images are that the file does not name.
    """

    fold: int | None = None
    naming: Naming = Naming.AUTO
    base: Path | None = None
    unnamed: Unnamed = Unnamed.UNUSED

    def check(self, name: FormatName) -> None:
        """Refuse options that the format has no use for.

        Raises
        ------
        UsageError
            Naming the option.
        """
        if name != FormatName.MONAI and self.base is not None:
            raise UsageError(f"--base {self.base} is for monai; files of {name} hold no paths")
