"""The cache while it is made: what is damaged is made again, what is not stays, and one process works at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from medtool.cam import store as under_test
from medtool.cam.store import Store, open_store
from medtool.errors import BusyError, InputError, LineageError, OutputError
from medtool.heatmaps import HeatmapAttributes, open_heatmaps
from medtool.heatmaps.format import Head, Row
from medtool.heatmaps.writing import Layout
from medtool.lineage import new_lineage
from medtool.storage import TEMPORARY_PREFIX, locked

N = 12
IDS = [f"{number:03}.png" for number in range(N)]


def row(image_id: str, *, size: tuple[int, int] = (2, 3), salt: str = "") -> Row:
    digest = hashlib.sha256((image_id + salt).encode())
    rng = np.random.default_rng(int.from_bytes(digest.digest()[:4], "little"))
    maps = rng.normal(size=(1, *size)).astype(np.float32)
    flags = np.zeros(1, np.uint8)
    return Row(image_id, digest.hexdigest(), maps, rng.random(1), flags, None, "benign", "", int(rng.integers(1 << 62)))


def now(**made_with: Any) -> dict[str, Any]:
    return new_lineage("cam", {"method": "gradcam", **made_with}, packages=["numpy"])


def head(**made_with: Any) -> Head:
    document = {**now(**made_with), "status": "finished"}
    return Head(HeatmapAttributes("gradcam"), (), json.dumps(document).encode())


def layout(n: int, size: tuple[int, int] = (2, 3)) -> Layout:
    return Layout(n, size, 7, 6, has_keys=True)


def add(store: Store, ids: Iterable[str], **more: Any) -> None:
    rows = [row(image_id, **more) for image_id in ids]
    store.add(Head(HeatmapAttributes("gradcam")), rows, layout=layout(len(rows), rows[0].heatmaps.shape[1:]))


def make(out: Path, ids: Iterable[str] = IDS, **more: Any) -> bytes:
    with open_store(out) as store:
        store.load(now(), overwrite=False)
        add(store, ids, **more)
        store.finish(head(), {}, layout=layout(0, more.get("size", (2, 3))))
    return out.read_bytes()


def loaded(out: Path) -> tuple[set[str], list[str]]:
    """Return the ids of what is there and can be used, and what is said."""
    with open_store(out) as store:
        notes = store.load(now(), overwrite=False)
        return set(store.known), notes


@pytest.fixture
def out(tmp_path: Path) -> Path:
    make(tmp_path / "cams.h5")
    return tmp_path / "cams.h5"


class StoppedError(Exception):
    """What ends a process in a test."""


def stopped(out: Path, *parts: Iterable[str], **more: Any) -> Path:
    """Leave parts behind, as a process does that is stopped; return their folder."""
    with contextlib.suppress(StoppedError), open_store(out) as store:
        store.load(now(), overwrite=False)
        for ids in parts:
            add(store, ids, **more)
        raise StoppedError
    return out.with_name(".medtool-parts-cams.h5")


def test_parts_in_any_order_make_the_same_file_and_leave_nothing_behind(tmp_path: Path, out: Path) -> None:
    other = tmp_path / "other/cams.h5"
    with open_store(other) as store:
        store.load(now(), overwrite=False)
        for ids in (IDS[8:], IDS[1::2][:4], IDS[:8:2]):
            add(store, ids)
        store.finish(head(), {}, layout=layout(0))
    assert other.read_bytes() == out.read_bytes()
    assert list(other.parent.iterdir()) == [other]


def test_what_a_stopped_process_has_finished_is_there_for_the_next(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "cams.h5", IDS[:3], IDS[3:5])
    (folder / f"{TEMPORARY_PREFIX}half").write_bytes(b"half")
    assert loaded(tmp_path / "cams.h5") == (set(IDS[:5]), [])
    assert sorted(path.name for path in folder.iterdir()) == ["00000000.h5", "00000001.h5", "lineage.json"]


def test_a_part_is_newer_than_the_cache(out: Path) -> None:
    stopped(out, IDS[2:3], salt="changed")
    with open_store(out) as store:
        store.load(now(), overwrite=False)
        assert store.known[IDS[2]].image_sha256 == row(IDS[2], salt="changed").image_sha256
        store.finish(head(), {}, layout=layout(0))
    with open_heatmaps(out) as file:
        np.testing.assert_array_equal(file.raw(IDS[2]), row(IDS[2], salt="changed").heatmaps[0])


def test_a_part_with_a_flipped_bit_is_removed_and_the_others_stay(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "cams.h5", IDS[:3], IDS[3:5])
    part = folder / "00000000.h5"
    data = bytearray(part.read_bytes())
    data[data.index(row(IDS[1]).heatmaps.tobytes())] ^= 1
    part.write_bytes(data)

    known, notes = loaded(tmp_path / "cams.h5")

    assert known == set(IDS[3:5])
    assert notes == [f"{part} is damaged; its heatmaps are made again"]
    assert not part.exists()


@pytest.mark.parametrize(
    "text",
    ["003.png", row(IDS[3]).image_sha256, row(IDS[3]).heatmaps.tobytes()[:8], row(IDS[3]).key.to_bytes(8, "little")],
    ids=["id", "hash", "map", "key"],
)
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_of_a_row_costs_that_row_alone(out: Path, text: str | bytes, bit: int) -> None:
    data = bytearray(out.read_bytes())
    data[data.index(text if isinstance(text, bytes) else text.encode()) + 2] ^= 1 << bit
    out.write_bytes(data)

    known, notes = loaded(out)

    # Of two rows with one id, after a flip in an id, the sums tell which is right.
    assert {IDS[3]} <= set(IDS) - known <= {IDS[3], "002.png", "001.png", "007.png"}
    assert len(notes) == 1
    assert "1 heatmaps are damaged and left out" in notes[0]


def test_whatever_bit_flips_no_wrong_row_is_taken(out: Path) -> None:
    whole = out.read_bytes()
    truth = {image_id: (row(image_id).image_sha256, row(image_id).key) for image_id in IDS}
    refused = []
    for place in range(0, len(whole), 61):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        out.write_bytes(data)
        try:
            with open_store(out) as store:
                store.load(now(), overwrite=False)
                found = {image_id: (known.image_sha256, known.key) for image_id, known in store.known.items()}
        except LineageError as error:
            refused.append((error.message, error.hint or ""))
        else:
            assert found.items() <= truth.items(), place
    assert len(refused) > 5
    assert all("\n" not in message and "--overwrite" in hint for message, hint in refused)
    assert not list(out.parent.glob(".*"))


def drop(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def renamed_lineage(document: dict[str, Any]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["lineage"], file.attrs["checksum"]
        file["lineage"] = np.frombuffer(json.dumps(document).encode(), np.uint8)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop("checksum"), "it has no checksums; it cannot be gone on with"),
        (drop("lineage"), "what it says of its maps has changed since it was written"),
        (renamed_lineage(now() | {"command": "segment"}), "was not made by medtool cam"),
        (renamed_lineage(now() | {"made_with": [1]}), "does not say what the maps were made with"),
        (renamed_lineage(now() | {"outputs": {"failed": [1]}}), "does not say what the maps were made with"),
        (renamed_lineage(now(method="layercam")), "was made in another way: method was layercam, now gradcam"),
        (drop("score"), "no data set 'score'; it cannot be gone on with"),
    ],
)
def test_a_cache_that_cannot_be_gone_on_with_is_refused_and_stays(
    out: Path, change: Callable[[h5py.File], None], reason: str
) -> None:
    with h5py.File(out, "r+") as file:
        change(file)
    before = out.read_bytes()

    with pytest.raises(LineageError, match=reason) as caught:
        loaded(out)

    assert "\n" not in caught.value.message
    assert "--overwrite" in (caught.value.hint or "")
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_a_map_that_is_damaged_while_a_process_works_does_not_get_a_new_sum(out: Path) -> None:
    with open_store(out) as store:
        store.load(now(), overwrite=False)
        data = bytearray(out.read_bytes())
        data[data.index(row(IDS[4]).heatmaps.tobytes())] ^= 1
        out.write_bytes(data)
        with pytest.raises(InputError, match=r"'004\.png' is not what it was"):
            store.finish(head(), {}, layout=layout(0))
    assert out.read_bytes() == data
    assert list(out.parent.iterdir()) == [out]
    assert loaded(out)[0] == set(IDS) - {IDS[4]}


def test_a_second_process_is_told_that_the_cache_is_held_and_not_its_hidden_folder(out: Path) -> None:
    refused = []

    def attempt() -> None:
        try:
            with open_store(out):
                pass
        except BusyError as error:
            refused.append(error.message)

    with open_store(out):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    (message,) = refused
    assert message.startswith(f"{out} is being written by another medtool process (process {os.getpid()} on ")
    assert ".medtool-parts" not in message


def test_a_folder_that_another_process_takes_away_at_the_wrong_moment_is_made_again(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = []

    def late(folder: Path) -> Any:
        times.append(folder)
        if len(times) < 4:
            folder.rmdir()  # as a process does that has finished
            raise OutputError(f"cannot write {folder / 'lock'}: no such file or directory")
        return locked(folder)

    monkeypatch.setattr(under_test, "locked", late)
    with open_store(out) as store:
        store.load(now(), overwrite=False)
        assert set(store.known) == set(IDS)
    assert len(times) == 4
    assert list(out.parent.iterdir()) == [out]


def test_where_parts_lie_already_it_is_still_seen_at_once_that_the_cache_cannot_be_written(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(out, IDS[:2])
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != out.parent)
    with pytest.raises(OutputError, match=r"cannot write .*cams\.h5: permission denied"), open_store(out):
        pass
    assert (folder / "00000000.h5").exists()


def test_putting_parts_together_holds_few_maps_in_memory(tmp_path: Path) -> None:
    out = tmp_path / "cams.h5"
    size = (64, 64)  # 16 KiB a map
    with open_store(out) as store:
        store.load(now(), overwrite=False)
        for start in range(0, 6000, 1000):
            add(store, (f"{number:07}" for number in range(start, start + 1000)), size=size)
        tracemalloc.start()
        store.finish(head(), {}, layout=layout(0, size))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert out.stat().st_size > 98e6
    assert peak < 50e6
