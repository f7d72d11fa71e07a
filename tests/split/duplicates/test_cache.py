from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medtool import parallel
from medtool.split.duplicates import cache as caches
from medtool.split.duplicates import fingerprints as module
from medtool.split.duplicates.cache import SHARD, Cache, cache_path
from medtool.split.duplicates.fingerprint import Fingerprint, fingerprint_of
from medtool.split.duplicates.fingerprints import fingerprints_of
from medtool.split.duplicates.verification import picture_of


@pytest.fixture
def images(tmp_path):
    chance = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{number}.png" for number in range(40)]
    for path in paths:
        Image.fromarray(chance.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    return paths


@pytest.fixture
def made(monkeypatch):
    """Return a list that grows with every fingerprint that is made anew."""
    seen: list[str] = []
    make = module.draft_of

    def counted(data, *, sha256):
        seen.append(sha256)
        return make(data, sha256=sha256)

    monkeypatch.setattr(module, "draft_of", counted)
    return seen


def run(paths, cache, **options):
    return fingerprints_of(paths, cache=cache, workers=1, **options)


def assert_same(one, other):
    assert one.sha256 == other.sha256
    assert one.formats == other.formats
    for name in ("sizes", "spectra", "colours", "is_blank"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_the_cache_lies_beside_the_manifest():
    assert cache_path(Path("data") / "manifest.v2.csv") == Path("data") / "medtool.hashes"


def test_what_was_made_once_is_not_made_again_and_is_the_same(tmp_path, images, made):
    first = run(images, tmp_path / "m.hashes")
    assert len(made) == 40
    second = run(images, tmp_path / "m.hashes")
    assert len(made) == 40
    assert_same(first, second)
    assert first.cache_notes == second.cache_notes == []
    assert_same(first, run(images, None))


def test_worker_processes_and_threads_take_from_the_cache_too(tmp_path, images):
    first = run(images, tmp_path / "m.hashes")
    shards = set((tmp_path / "m.hashes").iterdir())
    for workers in (2, 0):
        assert_same(first, fingerprints_of(images, cache=tmp_path / "m.hashes", workers=workers))
    assert set((tmp_path / "m.hashes").iterdir()) == shards


def test_other_content_under_the_same_name_is_noticed(tmp_path, images, made):
    run(images, tmp_path / "m.hashes")
    before = images[3].stat()
    pixels = np.asarray(Image.open(images[3])).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(images[3])
    os.utime(images[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    again = run(images, tmp_path / "m.hashes")
    assert len(made) == 41
    assert_same(again, run(images, None))


def test_the_same_content_under_another_name_is_known(tmp_path, images, made):
    run(images, tmp_path / "m.hashes")
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    run([tmp_path / "elsewhere" / path.name for path in images], tmp_path / "m.hashes")
    assert len(made) == 40


def test_fingerprints_of_another_version_are_made_anew(tmp_path, images, made, monkeypatch):
    monkeypatch.setattr(caches, "VERSION", 7)
    run(images, tmp_path / "m.hashes")
    monkeypatch.undo()
    found = run(images, tmp_path / "m.hashes")
    assert found.cache_notes == ["40 fingerprints in m.hashes are of another version: made anew"]
    assert_same(found, run(images, None))


def test_any_damage_is_noticed_and_costs_time_only(tmp_path, images, made):
    wanted = run(images, None)
    run(images, tmp_path / "whole")
    (shard,) = (tmp_path / "whole").iterdir()
    data = shard.read_bytes()
    chance = np.random.default_rng(0)
    damaged = [data[: int(len(data) * share)] for share in (0, 0.5, 0.99)]
    for place in chance.integers(0, len(data), 60).tolist():
        damaged.append(data[:place] + bytes([data[place] ^ 1 << int(chance.integers(8))]) + data[place + 1 :])
    noticed = 0
    for number, contents in enumerate(damaged):
        folder = tmp_path / f"damaged{number}"
        folder.mkdir()
        (folder / shard.name).write_bytes(contents)
        found = run(images, folder)
        assert_same(found, wanted)
        noticed += bool(found.cache_notes)
        again = run(images, folder)
        assert_same(again, wanted)
        assert again.cache_notes == []
    assert noticed >= 50


def test_rows_that_were_altered_are_noticed_by_their_checksums(tmp_path, images):
    wanted = run(images, tmp_path / "m.hashes")
    (shard,) = (tmp_path / "m.hashes").iterdir()
    frame = pl.read_parquet(shard)
    frame.with_columns(width=pl.col("width") + 1).write_parquet(shard)
    found = run(images, tmp_path / "m.hashes")
    assert found.cache_notes == ["1 of 1 files in m.hashes are damaged: made anew"]
    assert_same(found, wanted)


def test_a_folder_that_cannot_be_made_is_noted_and_work_goes_on(tmp_path, images):
    (tmp_path / "m.hashes").write_text("a file is in the way")
    found = run(images, tmp_path / "m.hashes")
    assert len(found.cache_notes) == 1
    assert "fingerprints are not kept" in found.cache_notes[0]
    assert_same(found, run(images, None))
    assert (tmp_path / "m.hashes").read_text() == "a file is in the way"


def test_a_run_that_is_stopped_loses_little_and_goes_on(tmp_path, images, made, monkeypatch):
    monkeypatch.setattr(caches, "_FLUSH_ROWS", 8)
    monkeypatch.setattr(module, "_BATCH", 4)

    class Stopped:
        done = 0

        def advance(self, label=""):
            self.done += 1
            if self.done == 25:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "m.hashes", steps=lambda total, label: contextlib.nullcontext(Stopped()))
    assert len(made) >= 25
    made.clear()
    found = run(images, tmp_path / "m.hashes")
    assert len(made) <= 15
    assert_same(found, run(images, None))


def test_what_a_killed_run_had_written_is_used(tmp_path, images, made, monkeypatch):
    monkeypatch.setattr(caches, "_FLUSH_ROWS", 8)
    kept = Cache(tmp_path / "m.hashes")
    for path in images[:20]:
        kept.add(fingerprint_of(path.read_bytes(), sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    del kept  # as a kill does: the last four are lost
    (tmp_path / "m.hashes" / ".medtool-tmp-0123456789abcdef").write_bytes(b"half a shard")
    made.clear()
    run(images, tmp_path / "m.hashes")
    assert len(made) == 24


def fake(number):
    spectrum = np.full((16, 16), number % 100, np.int8)
    colours = np.full((8, 8, 3), number % 250, np.uint8)
    return Fingerprint(f"{number:016x}{'0' * 48}", number, 2, "PNG", spectrum, colours, False)


def test_many_small_shards_are_made_one(tmp_path):
    folder = tmp_path / "m.hashes"
    for number in range(20):
        kept = Cache(folder)
        kept.add(fake(number))
        kept.close()
    assert len(list(folder.glob(SHARD))) <= 9
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in folder.glob(SHARD))
    kept = Cache(folder)
    for number in range(20):
        found = kept.find(fake(number).sha256)
        assert found is not None
        assert found.width == number
        assert np.array_equal(found.spectrum, fake(number).spectrum)
        assert np.array_equal(found.colours, fake(number).colours)
    assert kept.find("f" * 64) is None


def test_images_that_nobody_asks_for_any_more_are_forgotten_beyond_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "_MOST_OTHERS", 10)
    folder = tmp_path / "m.hashes"
    kept = Cache(folder)
    for number in range(50):
        kept.add(fake(number))
    kept.close()
    kept = Cache(folder)
    assert len(kept.prefixes) == 50
    for number in (41, 43):
        assert kept.find(fake(number).sha256) is not None
    kept.close()
    kept = Cache(folder)
    assert len(kept.prefixes) == 12
    assert kept.find(fake(41).sha256) is not None
    assert kept.find(fake(43).sha256) is not None


def test_hashes_that_begin_alike_are_told_apart(tmp_path, images, made):
    first = run(images[:1], tmp_path / "m.hashes")
    other = f"{first.sha256[0][:16]}{'0' * 48}"
    kept = Cache(tmp_path / "m.hashes")
    assert kept.find(other) is None
    kept.add(Fingerprint(other, 7, 7, "PNG", np.zeros((16, 16), np.int8), np.zeros((8, 8, 3), np.uint8), False))
    kept.close()
    kept = Cache(tmp_path / "m.hashes")
    assert kept.find(other).width == 7
    assert kept.find(first.sha256[0]).width == 30


def test_several_runs_at_once_do_no_harm(tmp_path, images):
    folder = tmp_path / "m.hashes"
    wanted = run(images, None)
    stores = [Cache(folder) for _ in range(12)]
    for place, path in enumerate(images):
        data = path.read_bytes()
        stores[place % 12].add(fingerprint_of(data, sha256=wanted.sha256[place]))
    for store in stores:
        store.close()
    assert len(list(folder.glob(SHARD))) < 12
    found = run(images, folder)
    assert_same(found, wanted)


def test_a_shard_that_vanishes_while_it_is_read_is_made_anew(tmp_path, images, monkeypatch):
    wanted = run(images, tmp_path / "m.hashes")
    real = caches._shards
    monkeypatch.setattr(caches, "_shards", lambda folder: [*real(folder), folder / "hashes-gone.parquet"])
    found = run(images, tmp_path / "m.hashes")
    assert found.cache_notes == []
    assert_same(found, wanted)


def test_the_cache_holds_no_paths(tmp_path, images):
    run(images, tmp_path / "m.hashes")
    (shard,) = (tmp_path / "m.hashes").iterdir()
    columns = ["version", "sha256", "spectrum", "colours", "width", "height", "format", "is_blank", "crc32"]
    assert pl.read_parquet(shard).columns == columns
    assert str(tmp_path).encode() not in shard.read_bytes()


def test_missing_images_and_several_rows_of_one_image_keep_their_places(tmp_path, images, made):
    found = run([images[0], None, images[1], images[0], tmp_path / "no.png"], None)
    assert found.sha256[0] == found.sha256[3] != ""
    assert found.sha256[1] == found.sha256[4] == ""
    assert found.problems == {4: "no such file or directory"}
    assert len(made) == 2


def test_progress_is_shown_image_by_image(images):
    shown = []

    class Bar:
        def advance(self, label=""):
            shown.append(label)

    def steps(total, label):
        shown.append(total)
        return contextlib.nullcontext(Bar())

    run(images, None, steps=steps)
    assert shown[0] == 40
    assert len(shown) == 41


def test_threads_and_processes_make_the_same_fingerprints(images, tmp_path):
    (tmp_path / "images" / "39.png").write_bytes(b"no image")
    one = run(images, None)
    two, automatic = (fingerprints_of(images, cache=None, workers=workers) for workers in (2, 0))
    assert_same(one, two)
    assert_same(one, automatic)
    assert one.problems == two.problems == automatic.problems
    assert set(one.problems) == {39}


def test_where_processors_are_few_jpeg_files_stay_with_threads_and_no_others_do(images, tmp_path, monkeypatch):
    shutil.copy(images[0], tmp_path / "named wrongly.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    for name in ("a.jpg", "b.JPEG"):
        Image.fromarray(np.random.default_rng(7).integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / name, "JPEG")
    shutil.copy(tmp_path / "a.jpg", tmp_path / "jpeg.dat")
    paths = [*sorted(tmp_path.glob("*.*")), tmp_path / "missing.jpg", *images[:4]]
    by_processes = []

    def recorded(function, items, **options):
        by_processes.extend(path.name for batch in items for path in batch)
        return parallel.map_unordered(function, items, **{**options, "workers": 1})

    monkeypatch.setattr(module, "map_unordered", recorded)
    monkeypatch.setattr(module, "_FEW", 1)
    monkeypatch.setattr(module, "have_few_processors", lambda: True)
    found = fingerprints_of(paths, cache=None)
    assert set(by_processes) == {"named wrongly.jpg", "jpeg.dat", *(path.name for path in images[:4])}
    by_processes.clear()
    alone = fingerprints_of(paths, cache=None, workers=1)
    assert len(by_processes) == len(paths)
    assert_same(found, alone)
    assert found.problems == alone.problems
    assert {paths[place].name for place in found.problems} == {"broken.jpg", "missing.jpg"}


def test_small_pictures_are_kept_where_they_are_what_verification_would_read(tmp_path):
    sizes = {"a.jpg": (1024, 768), "long.jpg": (9600, 800), "between.jpg": (704, 520), "a.png": (100, 80)}
    for name, size in sizes.items():
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(tmp_path / name)
    paths = [tmp_path / name for name in sizes]
    for workers in (0, 2):
        small = fingerprints_of(paths, cache=None, workers=workers).small
        assert set(small) == {0, 3}
        for place, one in small.items():
            read, kept = picture_of(paths[place]), picture_of(paths[place], small=one)
            assert np.array_equal(read.square.grey, kept.square.grey)
            for name in ("path", "height", "width", "format", "exif", "step"):
                assert getattr(read, name) == getattr(kept, name)
