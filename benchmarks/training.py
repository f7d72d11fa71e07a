"""What ``medtool`` learns from real images and from the demo's phantoms: scores of test parts with 95% intervals.

    python benchmarks/training.py [isic2017] [ham10000] [phantoms] [--folder FOLDER] [--weights FILE]

Each figure comes from the commands manifest, split make and train, which are printed as they run; nothing is trained or
scored here. ``isic2017`` tells melanoma from the rest, from scratch, with age and sex beside the image, and from
published weights of MobileNetV2 (timm's mobilenetv2_100, ``--weights``). ``ham10000`` tells seven diagnoses twice, by
folds that cut no lesion and by folds that do, with the same network and budget: the difference is the leak. The
``phantoms`` are learnt once with their labels and once with labels shuffled over patients. Options were chosen on val.

Times are of the whole ``medtool train``; processor time is that of all its threads. With ``--folder`` the runs are
kept, and are gone on with, or read again, by the same call. Images are looked for in ../shared/data beside the
checkout.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtool.statistics.bootstrap import Interval, clustered_intervals, clusters_of
from medtool.statistics.classification import WeightedScores

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "mobilenetv2_100_imagenetnorm_in1k_fp16.safetensors"
HOW = ("--precision", "bf16", "--channels-last")
ISIC_TASK = ("--positive", "melanoma", "--sampling", "balanced", "--threshold", "youden")
SCRATCH = ("--size", "128", "--weights", "none", "--epochs", "18", "--batch-size", "16", "--weight-decay", "0.05")
SEED = 905
LEAST_PHANTOM_AUC = 0.95
SEVERAL = ("balanced_accuracy", "accuracy", "auc")


@dataclass(frozen=True)
class Place:
    """Where the work is done, and the weights that a fine-tuning starts from."""

    folder: Path
    weights: Path


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    processor_s: float

    def __str__(self) -> str:
        return f"{self.wall_s / 60:.1f} min, {self.processor_s / 60:.1f} min of the processors"


def main() -> int:
    """Print the figures; the exit status is 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=f"some of {', '.join(CLAIMS)}; by default all")
    parser.add_argument("--folder", type=Path, help="keeps data and runs; by default a temporary one")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of timm's mobilenetv2_100")
    given = parser.parse_args()
    if unknown := set(given.what) - set(CLAIMS):
        parser.error(f"{', '.join(sorted(unknown))}: the claims are {', '.join(CLAIMS)}")
    with tempfile.TemporaryDirectory(prefix="medtool-bench-") as temporary:
        place = Place((given.folder or Path(temporary)).absolute(), given.weights)
        place.folder.mkdir(parents=True, exist_ok=True)
        holds = [CLAIMS[name](place) for name in given.what or CLAIMS]
    return 0 if all(holds) else 1


def isic2017(place: Place) -> bool:
    """Tell melanoma from the rest; there is no goal but the aim of an AUC of 0.80 from published weights."""
    root = copied(place, "isic2017")
    split = root / "split.csv"
    medtool("manifest", "isic2017", root, once=root / "manifest.csv")
    made = ("--group", "none", "--fractions", "0.65,0.15,0.2", "--keep-duplicates-together", "--out", split)
    medtool("split", "make", root / "manifest.csv", *made, once=split)
    for name, options in isic_runs(place).items():
        cost = trained(place, name, split, *ISIC_TASK, *options)
        for part in ("val", "test"):
            print(f"{name}, {part}: {in_words(scores_of(place, name, part), 'auc', 'balanced_accuracy')}")
        print(f"{name}: {cost}\n")
    return True


def isic_runs(place: Place) -> dict[str, tuple[object, ...]]:
    """Return the options of each run by its name."""
    return {
        "isic-mobilenetv2": (
            *("--model", "mobilenetv2", "--weights", place.weights, "--size", "193", "--epochs", "12"),
            *("--unfreeze", "1:14", "--layer-decay", "0.9", "--weight-decay", "0.05"),
        ),
        "isic-scratch": ("--model", "timm/resnet10t", *SCRATCH),
        "isic-fusion": ("--model", "fusion/timm/resnet10t", "--metadata", "age,sex", *SCRATCH),
    }


def ham10000(place: Place) -> bool:
    """Tell seven diagnoses by folds with and without a leak; the leak must raise the balanced accuracy."""
    root = copied(place, "ham10000")
    medtool("manifest", "ham10000", root, once=root / "manifest.csv")
    options = (
        *("--model", "mobilenetv2", "--weights", place.weights, "--size", "97", "--epochs", "6", "--folds", "all"),
        *("--unfreeze", "1:14", "--weight-decay", "0.05", "--augment", "light", "--sampling", "balanced"),
        *("--monitor", "balanced_accuracy"),
    )
    found = {}
    for name, group, more in (("lesion", "lesion", ()), ("image", "none", ("--allow-leak",))):
        split = root / f"by-{name}.csv"
        medtool(
            "split",
            "make",
            root / "manifest.csv",
            "--folds",
            "2",
            "--val",
            "0.1",
            "--group",
            group,
            "--out",
            split,
            once=split,
        )
        cost = trained(place, f"ham-by-{name}", split, *options, *more)
        found[name] = Answers.of(place.folder / "runs" / f"ham-by-{name}", split)
        print(f"folds by {name}: {cost}")
    leaky, clean = found["image"], found["lesion"]
    every = np.ones(len(leaky.p), bool)
    parts = {"all": every, "lesion in train too": leaky.is_leaked, "lesion not in train": ~leaky.is_leaked}
    gains = {}
    for name, is_in in parts.items():
        print(f"images, by what the networks of the folds by image have seen: {name}, {is_in.sum()} of {len(is_in)}")
        for folds, answers in found.items():
            print(f"  folds by {folds}: {in_words(answers.scores(is_in), *SEVERAL)}")
        gains[name] = gained(leaky, clean, is_in)
        print(f"  more by image: {', '.join(f'{score} {shown(one)}' for score, one in gains[name].items())}")
    print()
    return (gains["all"]["balanced_accuracy"].low or 0.0) > 0


def phantoms(place: Place) -> bool:
    """Tell the label of lesion phantoms, and fail to tell shuffled labels."""
    root = place.folder / "data" / "phantoms"
    medtool("demo", root, "--kind", "lesion", "--images", "600", once=root / "manifest.csv")
    split, shuffled = root / "split.csv", root / "shuffled.csv"
    medtool("split", "make", root / "manifest.csv", "--seed", "1", "--out", split, once=split)
    if not shuffled.exists():
        shuffle_labels(split, shuffled)
    network = (
        *("--model", "mobilenetv2", "--weights", place.weights, "--size", "129", "--epochs", "8"),
        *("--unfreeze", "1:14", "--weight-decay", "0.05"),
    )
    found = {}
    for name, manifest in (("phantoms", split), ("phantoms-shuffled", shuffled)):
        cost = trained(place, name, manifest, *network)
        found[name] = scores_of(place, name, "test")
        print(f"{name}, test: {in_words(found[name], 'auc')}; {cost}")
    shuffled_auc = found["phantoms-shuffled"]["intervals"]["auc"]
    is_learnt = found["phantoms"]["scores"]["auc"] >= LEAST_PHANTOM_AUC
    return is_learnt and shuffled_auc["low"] <= 0.5 <= shuffled_auc["high"]


CLAIMS: dict[str, Callable[[Place], bool]] = {"isic2017": isic2017, "ham10000": ham10000, "phantoms": phantoms}


def copied(place: Place, name: str) -> Path:
    """Return a copy of a data set, since a manifest lies above its images, and those may not be written beside."""
    root = place.folder / "data" / name
    if not root.exists():
        source = SHARED / "data" / name
        if not source.is_dir():
            raise SystemExit(f"{source} is not there: it holds the images that this is measured on")
        shutil.copytree(source, root, copy_function=shutil.copyfile)
    return root


def medtool(*arguments: object, once: Path | None = None) -> Cost:
    """Run a command of medtool, unless what it makes is there, and return what it took."""
    if once is not None and once.exists():
        return Cost(0, 0)
    words = [str(each) for each in arguments]
    print(f"$ medtool {shlex.join(words)}", flush=True)
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "medtool", *words, "--no-progress"], check=True)
    after = os.times()
    spent = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return Cost(time.perf_counter() - began, spent)


def trained(place: Place, name: str, manifest: Path, *options: object) -> Cost:
    """Train a run, unless it is finished, and return what its training took in all calls together."""
    note = place.folder / "runs" / f"{name}-cost.json"
    note.parent.mkdir(exist_ok=True)
    spent = json.loads(note.read_text()) if note.exists() else {"wall_s": 0.0, "processor_s": 0.0, "finished": False}
    if not spent["finished"]:
        cost = medtool("train", manifest, *options, *HOW, "--out", place.folder / "runs" / name)
        spent = {
            "wall_s": spent["wall_s"] + cost.wall_s,
            "processor_s": spent["processor_s"] + cost.processor_s,
            "finished": True,
        }
        note.write_text(json.dumps(spent))
    return Cost(spent["wall_s"], spent["processor_s"])


def scores_of(place: Place, name: str, part: str) -> dict[str, Any]:
    """Return what the run itself says of a part."""
    found: dict[str, Any] = json.loads((place.folder / "runs" / name / "scores.json").read_text())[part]
    return found


def in_words(found: dict[str, Any], *names: str) -> str:
    """Return scores with their intervals and the number of images."""
    values = [f"{name} {shown(Interval(**found['intervals'][name]))}" for name in names]
    return f"{', '.join(values)} (n {found['n_images']})"


def shown(interval: Interval) -> str:
    """Return a score with its interval."""
    if interval.value is None:
        return "undefined"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f} (no interval: draws lack a class)"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


@dataclass(frozen=True)
class Answers:
    """What several networks say of all images, each by the one that was not trained on it, in the manifest's order.

    Attributes
    ----------
    p, is_true
        Shape ``(images, classes)``.
    is_leaked
        Whether the train part of the network that was asked has another image of the lesion, shape ``(images,)``.
    """

    p: Any
    is_true: Any
    lesions: Sequence[str]
    is_leaked: Any

    @classmethod
    def of(cls, run: Path, manifest: Path) -> Answers:
        """Read them from the folder of several runs."""
        given = {row["image_id"]: row for row in rows_of(run / f"out-of-fold_seed{SEED}.csv")}
        lesions = {row["image_id"]: row["lesion"] for row in rows_of(manifest)}
        names = [name for name in next(iter(given.values())) if name.startswith("probability/")]
        leaked = set()
        for fold in sorted(run.glob("fold*")):
            parts = {row["image_id"]: row["split"] for row in rows_of(fold / "split.csv")}
            learnt = {lesions[image_id] for image_id, part in parts.items() if part == "train"}
            leaked |= {one for one, part in parts.items() if part == "test" and lesions[one] in learnt}
        ids = sorted(given)
        return cls(
            np.array([[float(given[one][name]) for name in names] for one in ids]),
            np.array([[given[one]["label"] == name.partition("/")[2] for name in names] for one in ids]),
            [lesions[one] for one in ids],
            np.array([one in leaked for one in ids]),
        )

    def scores(self, some: Any) -> dict[str, Any]:
        """Return the scores of some of the images, as ``scores.json`` has them; lesions are drawn, not images."""
        lesions = [name for name, kept in zip(self.lesions, some, strict=True) if kept]
        found = clustered_intervals(self.weighted(some), clusters_of(lesions), seed=SEED)
        return {"n_images": int(some.sum()), "intervals": {name: one.document() for name, one in found.items()}}

    def weighted(self, some: Any) -> WeightedScores:
        """Return the scores of some images for weights of them."""
        decided = self.p == self.p.max(axis=1, keepdims=True)
        return WeightedScores(self.p[some], decided[some], self.is_true[some], is_exclusive=True)


def gained(leaky: Answers, clean: Answers, is_in: Any) -> dict[str, Interval]:
    """Return by how much the scores of one are above those of the other, of the same draws of lesions."""
    one, other = leaky.weighted(is_in), clean.weighted(is_in)
    lesions = [name for name, kept in zip(leaky.lesions, is_in, strict=True) if kept]

    def differences(weights: Any) -> dict[str, Any]:
        ours, theirs = one(weights), other(weights)
        return {name: ours[name] - theirs[name] for name in SEVERAL}

    return clustered_intervals(differences, clusters_of(lesions), seed=SEED)


def shuffle_labels(source: Path, target: Path) -> None:
    """Write a manifest whose patients have one another's labels, within each part of the split."""
    rows = rows_of(source)
    chance = random.Random(SEED)
    for part in ("train", "val", "test"):
        own = {row["patient"]: row["label"] for row in rows if row["split"] == part}
        given = dict(zip(own, chance.sample(list(own.values()), len(own)), strict=True))
        for row in rows:
            if row["split"] == part:
                row["label"] = given[row["patient"]]
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


if __name__ == "__main__":
    sys.exit(main())
