"""Seconds, memory and recall of matching a million 64-bit hashes with each other, and many queries with a few hashes.

Two sets: uniform random hashes, and hashes of images that look alike (medtool's own of real dermoscopy, with noise on
the spectrum of each, so that bits go together and are skewed as they are there). In both, 20,000 hashes are copies of
others with 0 to 8 bits turned over. The peers are faiss's exact indices, asked for a part of the queries; each
measurement of ours runs in a process of its own. On a busy machine, compare the processor's seconds.

Run: python benchmarks/matching.py [--scale] [--images FOLDER]     (pip install faiss-cpu for the peers)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "ham10000" / "images"
RADIUS = 8
N_PLANTED = 20_000
NOISE = 0.5  # of the spectrum's standard deviation over images
N_QUERIES = {"flat": 5_000, "multi-hash": 20_000}

Words = npt.NDArray[np.uint64]


def uniform(n: int, *, seed: int) -> Words:
    """Return random hashes."""
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def look_alikes(n: int, *, seed: int, folder: Path) -> Words:
    """Return the hashes of real images with noise on their spectra."""
    from medtool.split.duplicates.fingerprint import decoded, encoded, hashes_of
    from medtool.split.duplicates.fingerprints import fingerprints_of

    spectra = decoded(fingerprints_of(sorted(folder.iterdir()), cache=None).spectra)
    chance = np.random.default_rng(seed)
    spread = spectra.std(0) * NOISE
    found = []
    for size in (min(20_000, n - start) for start in range(0, n, 20_000)):
        noise = spread * chance.standard_normal((size, *spread.shape), dtype=np.float32)
        found.append(hashes_of(encoded(spectra[chance.integers(len(spectra), size=size)] + noise)))
    return np.concatenate(found)


def plant(hashes: Words, *, seed: int) -> npt.NDArray[np.int64]:
    """Replace the last hashes by copies of others with 0 to 8 bits turned over; return which are copied."""
    chance = np.random.default_rng(seed)
    sources = chance.integers(len(hashes) - N_PLANTED, size=N_PLANTED)
    bits = chance.permuted(np.tile(np.arange(64, dtype=np.uint64), (N_PLANTED, 1)), axis=1)[:, :RADIUS]
    is_turned = np.arange(RADIUS) < (np.arange(N_PLANTED) % (RADIUS + 1))[:, None]
    flips = np.where(is_turned, np.uint64(1) << bits, np.uint64(0))
    hashes[-N_PLANTED:] = hashes[sources] ^ np.bitwise_or.reduce(flips, axis=1)
    return sources


def measure_pairs(hashes: Words) -> dict[str, float]:
    """Match hashes with themselves and count."""
    from medtool.split.duplicates.matching import iter_close_pairs

    sources = plant(hashes, seed=3)
    start = len(hashes) - N_PLANTED
    is_found = np.zeros(N_PLANTED, bool)
    n_pairs, before, busy = 0, time.perf_counter(), time.process_time()
    for first, second, _ in iter_close_pairs(hashes, radius=RADIUS):
        n_pairs += len(first)
        copied = np.flatnonzero(second >= start)
        copy = second[copied] - start
        is_found[copy[sources[copy] == first[copied]]] = True
    busy, seconds = time.process_time() - busy, time.perf_counter() - before
    return {"seconds": seconds, "cpu_seconds": busy, "pairs": n_pairs, "recall": float(is_found.mean())}


def measure_matches(queries: Words, index: Words) -> dict[str, float]:
    """Match queries with an index and count."""
    from medtool.split.duplicates.matching import iter_close_matches

    before, busy = time.perf_counter(), time.process_time()
    n_pairs = sum(len(query) for query, _, _ in iter_close_matches(queries, index, radius=RADIUS))
    busy, seconds = time.process_time() - busy, time.perf_counter() - before
    return {"seconds": seconds, "cpu_seconds": busy, "pairs": n_pairs}


def measure(kind: str, n_queries: int, n: int, folder: Path) -> None:
    """Print, as JSON, one measurement; the hashes take part in its memory."""
    make = {"uniform": uniform, "look-alikes": lambda n, *, seed: look_alikes(n, seed=seed, folder=folder)}[kind]
    figures = measure_matches(make(n_queries, seed=1), make(n, seed=2)) if n_queries else measure_pairs(make(n, seed=1))
    print(json.dumps(figures | {"peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return float(memory.peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def run_alone(kind: str, n_queries: int, n: int, folder: Path) -> dict[str, float]:
    """Return a measurement of a fresh process, and print it."""
    command = [sys.executable, __file__, "--one", kind, str(n_queries), str(n), "--images", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(done.stdout)
    what = f"{n_queries:,} × {n:,}" if n_queries else f"{n:,}"
    recall = "" if n_queries else f"   recall of planted pairs {figures['recall']:.4f}"
    seconds = f"{figures['seconds']:7.2f} s ({figures['cpu_seconds']:.2f} s of the processor)"
    counts = f"{figures['peak_mib']:6.0f} MiB  {figures['pairs']:12,.0f} pairs"
    print(f"{kind:11}  {what:>22}  {seconds}  {counts}{recall}", flush=True)
    return figures


def run_faiss(n: int, ours: float) -> None:
    """Print how long faiss needs for a part of the queries, and for all by that."""
    import faiss

    hashes = uniform(n, seed=1)
    plant(hashes, seed=3)
    data = hashes.view(np.uint8).reshape(n, 8)
    flat = faiss.IndexBinaryFlat(64)
    multi = faiss.IndexBinaryMultiHash(64, 3, 21)
    multi.nflip = 2
    for name, index in (("flat", flat), ("multi-hash", multi)):
        some = data[-N_QUERIES[name] :]
        before = time.perf_counter()
        index.add(data)
        added = time.perf_counter() - before
        before = time.perf_counter()
        index.range_search(some, RADIUS + 1)
        seconds = added + (time.perf_counter() - before) * n / len(some)
        print(
            f"faiss {name} ({faiss.omp_get_max_threads()} threads), from {len(some):,} queries: {seconds:,.0f} s",
            end="",
        )
        print(f"; medtool is {seconds / ours:.0f} times as fast", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, default=SHARED, help="a folder of images that look alike")
    parser.add_argument("--scale", action="store_true", help="also two, four and ten million hashes")
    parser.add_argument("--one", nargs=3, metavar=("SET", "QUERIES", "HASHES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, n_queries, n = options.one
        measure(kind, int(n_queries), int(n), options.images)
        return
    million = 1_000_000
    print(f"radius {RADIUS}, 64 bits, one thread")
    ours = run_alone("uniform", 0, million, options.images)
    kinds = ["uniform", *(["look-alikes"] if options.images.is_dir() else [])]
    if "look-alikes" in kinds:
        run_alone("look-alikes", 0, million, options.images)
    else:
        print(f"look-alikes: not measured, there is no folder {options.images}")
    for kind in kinds:
        for n_queries, n in ((1_280_000, 10_000), (12_800_000, 100_000)):
            run_alone(kind, n_queries, n, options.images)
    if options.scale:
        for n in (2 * million, 4 * million, 10 * million):
            run_alone("uniform", 0, n, options.images)
    if importlib.util.find_spec("faiss"):
        run_faiss(million, ours["seconds"])
    else:
        print("faiss: not measured, it is not installed")


if __name__ == "__main__":
    main()
