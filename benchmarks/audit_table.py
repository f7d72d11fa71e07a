"""Seconds and memory of ``medtool split audit --no-images`` on a manifest of a million rows, as a user runs it.

300,000 patients with 1 to 5 lesions, nine columns of metadata with 2 to 1,000,000 different values, rows in no order:

- clean: a split by patient;
- leaky: 5% of the patients are in a second part too;
- spelt: the same, and 5% of the patients are spelt in two ways (case, white space, leading zeros, ``.0``, Unicode);
- folds: five folds with a val part inside each training part, and 5% of the patients in two folds.

Labels go by lesion, so that many patients have two. Goal: under 20 s and 2 GiB. The patients in two parts are counted
again by a plain group-by, which must agree; of two spellings of one patient, the rows of the one may all lie in a wider
case, a lesion's. On a busy machine, compare the processor's seconds.

Run: python benchmarks/audit_table.py [--rows 1000000] [SET ...]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

SETS = ("clean", "leaky", "spelt", "folds")
N_FOLDS = 5
LEAKING = 0.05
LABELS = np.array(["naevus", "melanoma", "keratosis"])
PARTS = np.array(["train", "val", "test"])


def make_manifest(path: Path, *, kind: str, n_rows: int) -> None:
    """Write a manifest of one of the kinds."""
    chance = np.random.default_rng(SETS.index(kind))
    n_patients = max(10, n_rows * 3 // 10)
    patient = chance.integers(n_patients, size=n_rows)
    lesion = patient * 5 + chance.integers(5, size=n_rows)
    leaks = (patient < n_patients * LEAKING) & (chance.random(n_rows) < 0.5) & (kind != "clean")
    ids = pl.Series(patient).cast(pl.String).str.zfill(7)
    columns = {
        "image": pl.Series(np.arange(n_rows)).cast(pl.String).str.zfill(8) + ".jpg",
        "patient": _spelt(ids, chance) if kind == "spelt" else "P" + ids,
        "lesion": pl.Series("L" + ids) + "-" + pl.Series(lesion % 5).cast(pl.String),
        "site": pl.Series(patient % 40).cast(pl.String),
        "label": pl.Series(LABELS[np.digitize(lesion * 7907 % 1000, [700, 900])]),
        "sex": pl.Series(np.array(["female", "male", ""])[patient % 3]),
        "age": pl.Series(chance.integers(1, 100, size=n_rows)).cast(pl.String),
        "device": pl.Series(chance.integers(200, size=n_rows)).cast(pl.String),
        "exposure": pl.Series(np.round(chance.gamma(2, 5, n_rows), 3)).cast(pl.String),
        "comment": pl.Series(chance.integers(10_000, size=n_rows)).cast(pl.String),
        "series": "S" + pl.Series(chance.integers(n_rows // 2, size=n_rows)).cast(pl.String),
        "accession": "A" + pl.Series(chance.permutation(n_rows)).cast(pl.String),
        "pixel_spacing": pl.Series(chance.random(n_rows)).cast(pl.String),
    }
    if kind == "folds":
        fold = (patient % N_FOLDS + leaks) % N_FOLDS
        columns["fold"] = pl.Series(fold).cast(pl.String)
        columns["val_fold"] = pl.Series((patient % N_FOLDS + 2) % N_FOLDS).cast(pl.String)
    else:
        part = np.digitize((patient * 7919) % n_patients / n_patients, [0.7, 0.85])
        columns["split"] = pl.Series(PARTS[(part + leaks) % 3])
    pl.DataFrame(columns).write_csv(path)


def _spelt(ids: pl.Series, chance: np.random.Generator) -> pl.Series:
    """Return the ids, of one in twenty patients in two spellings."""
    ways = pl.DataFrame({"id": ids, "way": chance.integers(6, size=len(ids))})
    plain = pl.col("id").str.strip_chars_start("0")
    is_spelt = (pl.col("id").str.slice(-2).cast(pl.Int32) < 5) & (pl.col("way") > 0) & (plain != "")
    spellings = (
        pl.when(pl.col("way") == 1).then("P" + pl.col("id"))
        .when(pl.col("way") == 2).then(" p" + pl.col("id"))
        .when(pl.col("way") == 3).then("p" + plain)
        .when(pl.col("way") == 4).then("P" + plain + ".0")
        .otherwise("\uff30" + pl.col("id"))
    )  # fmt: skip
    return ways.select(pl.when(is_spelt).then(spellings).otherwise("P" + pl.col("id"))).to_series()


def measure(path: Path) -> None:
    """Run the command in this process; print, as JSON, what it took and found."""
    from medtool.cli.app import run

    said = io.StringIO()
    before, busy = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        code = run(["split", "audit", str(path), "--no-images", "--fail-on", "never", "--json"])
    figures = {"seconds": time.perf_counter() - before, "cpu_seconds": time.process_time() - busy}
    if code != 0:
        raise SystemExit(f"medtool split audit ended with {code}")
    peak = _peak_mib()
    findings = json.loads(said.getvalue())["findings"]
    cut = [case for one in findings if one["code"] in ("G101", "G102") for case in one["cases"]]
    figures["n_cut"] = sum(case["subject"].startswith("patient ") for case in cut)
    print(json.dumps(figures | {"peak_mib": peak, "cases": {one["code"]: one["n_cases"] for one in findings}}))


def _peak_mib() -> float:
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return float(memory.peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def leaks_by_group_by(path: Path) -> int:
    """Return how many patients are in two values of split or of fold."""
    table = pl.read_csv(path, infer_schema=False)
    part = "fold" if "fold" in table.columns else "split"
    return table.group_by("patient").agg(pl.col(part).n_unique()).filter(pl.col(part) > 1).height


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", metavar="SET", default=list(SETS), help=", ".join(SETS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.one)
        return
    print(f"{options.rows:,} rows")
    with tempfile.TemporaryDirectory(prefix="medtool-bench-") as folder:
        for kind in options.sets:
            path = Path(folder) / f"{kind}.csv"
            make_manifest(path, kind=kind, n_rows=options.rows)
            command = [sys.executable, __file__, "--one", str(path)]
            figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            cases = ", ".join(f"{code} {n:,}" for code, n in figures["cases"].items()) or "nothing"
            seconds = f"{figures['seconds']:6.2f} s ({figures['cpu_seconds']:.2f} s of the processor)"
            print(f"{kind:6}  {seconds}  {figures['peak_mib']:5.0f} MiB  {cases}")
            print(f"        patients cut: {figures['n_cut']:,}; by a group-by: {leaks_by_group_by(path):,}", flush=True)


if __name__ == "__main__":
    main()
