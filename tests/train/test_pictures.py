"""Images of a training: kept within bounds, and never another than it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtool.errors import MedtoolError
from medtool.runs.preprocessing import Preprocessing, read_picture
from medtool.train import pictures as module
from medtool.train.augment_options import PRESETS, AugmentPreset
from medtool.train.batches import Batches, Variation
from medtool.train.choices import Cache
from medtool.train.pictures import Pictures

SMALL = Preprocessing(16, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
BYTES = 3 * 16 * 16


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(1)
    found = [tmp_path / f"{index}.png" for index in range(6)]
    for path in found:
        Image.fromarray(rng.integers(0, 255, (20, 20, 3)).astype(np.uint8)).save(path)
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list in which every file that is read from now on is noted."""
    found: list[Path] = []

    def noting(path: Path, preprocessing: Preprocessing) -> tuple[np.ndarray, str]:
        found.append(path)
        return read_picture(path, preprocessing)

    monkeypatch.setattr(module, "read_picture", noting)
    return found


def looked_at(paths: list[Path], cache: Cache, n_kept: int, folder: Path | None = None) -> Pictures:
    pictures = Pictures(paths, SMALL, cache=cache, limit_bytes=n_kept * (BYTES + 128), folder=folder)
    for place in range(len(paths)):
        pictures.look(place)
    return pictures


@pytest.mark.parametrize(("cache", "n_read_again"), [(Cache.NONE, 6), (Cache.RAM, 2), (Cache.DISK, 2)])
def test_the_cache_keeps_what_it_has_room_for_and_gives_the_same(
    paths: list[Path], reads: list[Path], tmp_path: Path, cache: Cache, n_read_again: int
) -> None:
    pictures = looked_at(paths, cache, 4, tmp_path / "kept" if cache is Cache.DISK else None)
    assert reads == paths
    reads.clear()
    for place, path in enumerate(paths):
        np.testing.assert_array_equal(pictures.get(place), read_picture(path, SMALL)[0])
    assert len(reads) == n_read_again


def test_a_second_run_finds_what_the_first_kept_on_disk_by_content(
    paths: list[Path], reads: list[Path], tmp_path: Path
) -> None:
    looked_at(paths, Cache.DISK, 99, tmp_path / "kept")
    reads.clear()
    renamed = [path.rename(path.with_name(f"again-{path.name}")) for path in paths]
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(renamed[0])
    pictures = looked_at(renamed, Cache.DISK, 99, tmp_path / "kept")
    assert reads == renamed[:1]
    assert pictures.get(0).max() == 0
    other = Pictures(renamed, Preprocessing(8, 8, SMALL.mean, SMALL.std), cache=Cache.DISK, limit_bytes=10**6,
                     folder=tmp_path / "kept")  # fmt: skip
    other.look(1)
    assert other.get(1).shape == (3, 8, 8)


def test_a_damaged_file_of_the_cache_is_read_anew(paths: list[Path], reads: list[Path], tmp_path: Path) -> None:
    pictures = looked_at(paths, Cache.DISK, 99, tmp_path / "kept")
    for kept, damage in zip(sorted((tmp_path / "kept").iterdir()), (b"", b"junk", b"\x93NUMPY"), strict=False):
        kept.write_bytes(damage)
    reads.clear()
    for place, path in enumerate(paths):
        np.testing.assert_array_equal(pictures.get(place), read_picture(path, SMALL)[0])
    assert len(reads) == 3


def test_an_image_that_changes_while_it_is_trained_on_is_refused(paths: list[Path]) -> None:
    pictures = looked_at(paths, Cache.NONE, 0)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(paths[2])
    with pytest.raises(MedtoolError, match=r"2\.png has changed since the training began"):
        pictures.get(2)


def batches_of(paths: list[Path], threads: int) -> Batches:
    targets = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]
    metadata = np.arange(12, dtype=np.float32).reshape(6, 2)
    return Batches(looked_at(paths, Cache.RAM, 99), targets, metadata, batch_size=4, threads=threads)


def test_batches_hold_what_belongs_together_in_the_order_asked_for(paths: list[Path]) -> None:
    batches = batches_of(paths, threads=3)
    found = list(batches.in_order([5, 0, 3, 3, 1]))
    assert [batch.places for batch in found] == [(5, 0, 3, 3), (1,)]
    for batch in found:
        for row, place in enumerate(batch.places):
            np.testing.assert_array_equal(batch.images[row].numpy(), read_picture(paths[place], SMALL)[0])
            assert batch.targets[row].tolist() == batches.targets[place].tolist()
            assert batch.metadata is not None
            assert batch.metadata[row].tolist() == [2 * place, 2 * place + 1]


def test_variation_depends_on_seed_epoch_and_position_and_not_on_threads(paths: list[Path]) -> None:
    def images(threads: int, seed: int, epoch: int) -> list[list[float]]:
        variation = Variation(PRESETS[AugmentPreset.STANDARD], seed, epoch)
        stream = batches_of(paths, threads).in_order(range(6), variation)
        return [batch.images.flatten().tolist() for batch in stream]

    assert images(1, 1, 1) == images(4, 1, 1)
    assert images(1, 1, 1) != images(1, 2, 1)
    assert images(1, 1, 1) != images(1, 1, 2)


def test_several_processes_share_every_batch_and_lose_nothing(paths: list[Path]) -> None:
    batches = batches_of(paths, threads=1)
    for n_images in (4, 6, 8, 11, 100):
        alone = [list(share) for share in batches.shares(n_images)]
        shared = [batches.shares(n_images, rank=rank, of=2) for rank in range(2)]
        for number, of_each in enumerate(zip(*shared, strict=True)):
            assert sorted(place for share in of_each for place in share) == alone[number]
            assert all(len(share) >= 2 for share in of_each)
        left_out = len(alone) - len(shared[0])
        assert left_out == (n_images > 4 and n_images % 4 in (2, 3))


def test_a_reader_that_stops_early_leaves_no_threads(paths: list[Path]) -> None:
    import threading

    stream = batches_of(paths, threads=3).in_order(range(6))
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("medtool-images")]
