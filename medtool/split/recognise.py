"""Which images runs have seen, one by one: by the patient (lesion, ...), by the id in a manifest, and by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medtool.split.rules.identifiers import PLACEHOLDERS
from medtool.split.seen import Seen

_ROLES = ("val", "train")  # what weighs more overwrites


@dataclass(frozen=True, slots=True)
class Sight:
    """How a row of a manifest was recognised.

    Attributes
    ----------
    role
        Train or val.
    column
        The column by which: one of patients (lesions, ...), or ``image_id``.
    value
        What that column says.
    """

    role: str
    column: str
    value: str


class Recognised:
    """What several runs have seen together, their parents' included.

    Attributes
    ----------
    contents
        Train or val by the SHA-256 of each image file's bytes.
    groups
        The columns that the runs know, such as ``patient``, widest first.
    """

    def __init__(self, runs: Sequence[Seen]) -> None:
        self.contents: dict[str, str] = {}
        self.groups = tuple(dict.fromkeys(name for seen in runs for name in seen.groups))
        self._ids: dict[str, str] = {}
        self._values: dict[str, dict[str, str]] = {_stem(name): {} for name in self.groups}
        for role in _ROLES:
            for seen in runs:
                for row in seen.frame.iter_rows(named=True):
                    if row["role"] == role:
                        self._take(row, role, seen.groups)
        self.contents.pop("", None)

    def _take(self, row: Mapping[str, str], role: str, groups: Sequence[str]) -> None:
        self.contents[row["image_sha256"]] = role
        self._ids[row["image_id"]] = role
        for name in groups:
            if _is_known(row[name]):
                self._values[_stem(name)][row[name].strip()] = role

    def sight(self, columns: Mapping[str, str]) -> Sight | None:
        """Return how a row of a manifest was seen, or None; of several ways one by which it was trained on.

        Ids are compared as they are written, but for outer white space.
        """
        found: list[Sight] = []
        for name, value in columns.items():
            role = self._values.get(_stem(name), {}).get(value.strip())
            if role:
                found.append(Sight(role, name, value.strip()))
        role = self._ids.get(columns.get("image_id", ""))
        if role:
            found.append(Sight(role, "image_id", columns["image_id"]))
        return next((sight for sight in found if sight.role == "train"), found[0] if found else None)


def _stem(name: str) -> str:
    """Return what columns of one meaning have in common: ``patient_id`` is ``patient``."""
    return name.strip().casefold().removesuffix("_id")


def _is_known(value: str) -> bool:
    return value.strip().lower() not in PLACEHOLDERS
