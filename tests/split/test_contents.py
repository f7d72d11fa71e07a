"""Leaks that only the bytes of the files betray."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtool.errors import LeakError
from medtool.manifest import Manifest
from medtool.split.contents import gate_contents
from medtool.split.marks import Leak
from medtool.split.seen import Seen, seen_of

PARTS = {"a": "train", "b": "train", "c": "val", "d": "test", "e": "test"}


def seen(**sha256s: str) -> Seen:
    """Return what a run has seen that was trained on files of these contents."""
    rows = [{"image": f"{name}.png", "image_id": name, "split": "train"} for name in sha256s]
    manifest = Manifest.from_rows(rows, Path())
    return seen_of(manifest, manifest.table.get_column("split"), run="first", groups=(), sha256s=sha256s)


def test_copies_in_one_part_and_different_files_are_no_leak() -> None:
    sha256s = {"a": "1", "b": "1", "c": "2", "d": "3", "e": "3"}
    assert gate_contents(sha256s, PARTS, runs=[seen(x="1", y="9")], is_leak_allowed=False) == ()


def test_one_file_in_two_parts_is_refused_or_marked() -> None:
    sha256s = {"a": "1", "b": "2", "c": "1", "d": "3", "e": "2"}
    with pytest.raises(LeakError, match=r"D202 same-file-across-parts, 2 cases \(a and c, b and e\)"):
        gate_contents(sha256s, PARTS, is_leak_allowed=False)
    assert gate_contents(sha256s, PARTS, is_leak_allowed=True) == (Leak("D202", 2),)


def test_a_test_image_that_a_parent_saw_under_another_name_is_refused_or_marked() -> None:
    sha256s = {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}
    with pytest.raises(LeakError, match=r"R502 run-has-seen-image, 1 case \(e\)"):
        gate_contents(sha256s, PARTS, runs=[seen(x="1", y="5")], is_leak_allowed=False)
    assert gate_contents(sha256s, PARTS, runs=[seen(x="5")], is_leak_allowed=True) == (Leak("R502", 1),)
