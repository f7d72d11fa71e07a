"""Where heatmaps of a network look on real lesions, method by method: ``medtool cam`` and ``medtool cam score``.

    medtool manifest isic2017 ../shared/data/isic2017 --out isic2017/manifest.csv
    medtool split make isic2017/manifest.csv --out isic2017/split.csv --fractions 0.65,0.15,0.2
    medtool train isic2017/split.csv --positive melanoma --model mobilenetv2 --weights ... --out run
    python benchmarks/heatmaps_isic2017.py run isic2017/split.csv --work heatmaps/

Localisation is scored on the whole test part, with thresholds from val; Score-CAM, which asks the network once for each
of 1280 channels, on every so many-th image of it. Faithfulness and the sanity check are of every so many-th test image,
as they ask the network a hundred times an image. Everything is kept in the folder, so that an interrupted call goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from medtool.cli.app import run

METHODS = ("gradcam", "gradcam++", "xgradcam", "layercam", "eigencam", "hirescam", "ablationcam")
SLOW = "scorecam"
PLACES = ("pointing_game", "energy_inside", "iou", "box_ap50")
ANSWERS = ("deletion_blur", "insertion_blur", "road", "average_drop")


def medtool(*words: object) -> None:
    """Run a command in this process, as torch takes long to load; one with images that failed is done too."""
    print("medtool", *map(str, words), flush=True)
    with contextlib.redirect_stdout(io.StringIO()):
        code = run([*map(str, words), "--no-progress"])
    if code not in (0, 4):
        sys.exit(code)


def every(manifest: Path, step: int) -> Path:
    """Write a manifest of every so many-th test image, beside the whole one; return it."""
    with manifest.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"][::step]
    path = manifest.with_name(f"{manifest.stem}-every-{step}.csv")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def scored(out: Path, manifest: Path, files: list[Path], *more: object) -> dict[str, Any]:
    """Return the scores of files, the first compared with the others; made once."""
    if not out.exists():
        others = [word for path in files[1:] for word in ("--compare", path)]
        medtool("cam", "score", files[0], manifest, "--split", "test", *others, *more, "--out", out)
    return json.loads(out.read_text())


def cell(document: dict[str, Any], place: int, score: str) -> str:
    """Return a value with its interval."""
    (found,) = (
        each for each in document["results"][place]["scores"] if each["class"] is None and each["score"] == score
    )
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def table(document: dict[str, Any], scores: tuple[str, ...]) -> None:
    """Print a row a method."""
    print("| method |", " | ".join(f"`{name}`" for name in scores), "|")
    print("|---" * (len(scores) + 1) + "|")
    for place, result in enumerate(document["results"]):
        print(f"| {result['method']} |", " | ".join(cell(document, place, name) for name in scores), "|")


def main() -> int:
    """Make what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--work", type=Path, default=Path("heatmaps"))
    parser.add_argument("--step", type=int, default=8, help="every so many-th test image for faithfulness; 0 for none")
    parser.add_argument(
        "--slow-step", type=int, default=16, help="every so many-th test image for Score-CAM; 0 for none"
    )
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    files = []
    for method in METHODS:
        files.append(given.work / f"{method}.h5")
        medtool("cam", given.run, given.manifest, "--split", "val,test", "--method", method, "--out", files[-1])
    places = scored(given.work / "places.json", given.manifest, files)
    print(f"\n{places['n_images']} test images\n")
    table(places, PLACES)
    (area,) = {cell(places, place, "mask_area") for place in range(len(files))}
    print(f"| a map that knows nothing | {area} | {area} |" + " |" * (len(PLACES) - 2))
    print("\ndifference to the first, p adjusted:")
    for each in places["comparisons"]:
        if each["score"] in PLACES:
            print(
                f"{each['second']['method']:12} {each['score']:14} {each['difference']:+.3f}"
                f" ({each['low']:+.3f} to {each['high']:+.3f}), {each['p_adjusted']:.4f}"
            )
    if given.slow_step:
        slow_places(given)
    if given.step:
        answers_of(given, files)
    return 0


def slow_places(given: argparse.Namespace) -> None:
    """Print where Score-CAM looks in some of the images, beside the first method in the same ones."""
    slow, fast = (given.work / f"{name}-few.h5" for name in (SLOW, METHODS[0]))
    few = every(given.manifest, given.slow_step)
    for path, method in ((slow, SLOW), (fast, METHODS[0])):
        medtool("cam", given.run, few, "--method", method, "--out", path)
    found = scored(given.work / "slow.json", few, [slow, fast])
    print(f"\n{found['n_images']} of them, without a val part\n")
    table(found, PLACES[:2])


def answers_of(given: argparse.Namespace, files: list[Path]) -> None:
    """Print what the network answers without what the maps show, and whether the maps need it."""
    few = every(given.manifest, given.step)
    answers = scored(given.work / "answers.json", few, files, "--run", given.run, "--sanity")
    print(f"\n{answers['n_images']} of them\n")
    table(answers, ANSWERS)
    print("\nsanity: mean rank correlation with a random classifier, with all layers random")
    for result in answers["results"]:
        check = result["sanity"]
        ends = [check["stages"][place]["rank_correlation"]["value"] for place in (0, -1)]
        verdict = "passes" if check["passes"] else "fails"
        print(f"{result['method']:12} {verdict:7} {ends[0]:+.3f} {ends[1]:+.3f}")


if __name__ == "__main__":
    sys.exit(main())
