"""List 100,000 images in 200 folders: medtool's find_images beside pathlib and glob, in one run.

    python benchmarks/listing.py [--files 100000]

The claim: under 3 seconds. All three must find the same files in the same order; what medtool does beyond the others
(hidden files, links, earlier results, DICOM without a suffix, one output name an image) is included in its time.
"""

from __future__ import annotations

import argparse
import glob
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from medtool.images.options import IMAGE_SUFFIXES
from medtool.inputs import find_images

LIMIT_S = 3.0
REPEATS = 3


def make_files(folder: Path, count: int) -> None:
    """Write ``count`` empty images, a text file in every folder, and nothing else."""
    for index in range(count):
        parent = folder / f"site{index % 4}" / f"patient{index % 200:03d}"
        if index < 200:
            parent.mkdir(parents=True, exist_ok=True)
            (parent / "notes.txt").touch()
        (parent / f"IMG_{index:06d}.{'jpg' if index % 2 else 'PNG'}").touch()


def by_pathlib(folder: Path) -> list[str]:
    """List with Path.rglob, filter by suffix, sort by the relative path."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def by_glob(folder: Path) -> list[str]:
    """List with glob.glob, filter by suffix, sort."""
    found = glob.glob("**/*", root_dir=folder, recursive=True)  # noqa: PTH207 - the peer
    return sorted(Path(name).as_posix() for name in found if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def by_medtool(folder: Path) -> list[str]:
    """List with find_images."""
    return [item.relative.as_posix() for item in find_images([str(folder)]).items]


def seconds(function: Callable[[Path], list[str]], folder: Path) -> tuple[float, list[str]]:
    """Return the fastest of a few runs, and what was found."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = function(folder)
        times.append(time.perf_counter() - start)
    return min(times), found


def main() -> int:
    """Measure and print; the exit status is 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=100_000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, files)
        ours_s, ours = seconds(by_medtool, folder)
        rows = [("medtool find_images", ours_s)]
        for label, function in (("sorted(Path.rglob)", by_pathlib), ("glob.glob", by_glob)):
            peer_s, theirs = seconds(function, folder)
            if theirs != ours or len(ours) != files:
                print(f"{label} finds {len(theirs)} files, medtool {len(ours)}, wanted {files}")
                return 1
            rows.append((label, peer_s))
    for label, taken_s in rows:
        print(f"{label:22s} {files:,} files  {taken_s:6.2f} s  ratio to medtool {taken_s / ours_s:.2f}")
    print(f"claim: under {LIMIT_S:g} s for 100,000 files: {'holds' if ours_s < LIMIT_S else 'DOES NOT HOLD'}")
    return 0 if ours_s < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
