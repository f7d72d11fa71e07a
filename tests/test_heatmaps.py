"""Files of heatmaps: what is written is read, and nothing that breaks the format's rules is."""

from __future__ import annotations

import hashlib
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medtool.errors import InputError, OutputError
from medtool.heatmaps import HeatmapAttributes, open_heatmaps, resize_heatmap, write_heatmaps_file
from medtool.testing.synthetic import write_image_mask_pairs

GRAD_CAM = HeatmapAttributes(method="grad-cam", weights="ab" * 32, layer="layer4", target="melanoma")
IDS = ["a/first", "b/zweite Läsion", "third"]


def maps(n: int = 3, height: int = 7, width: int = 5) -> np.ndarray:
    return np.random.default_rng(905).random((n, height, width), dtype=np.float32)


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    path = tmp_path / "cams.h5"
    write_heatmaps_file(
        path, maps(), image_ids=IDS, attributes=GRAD_CAM, image_sha256={"third": "c" * 64}, scores={"third": 0.75}
    )
    return path


def test_what_is_written_is_read_again(cams: Path) -> None:
    with open_heatmaps(cams) as file:
        assert file.ids == tuple(IDS)
        assert len(file) == 3
        assert "third" in file
        assert file.attributes == GRAD_CAM
        assert file.layer_size == (7, 5)
        assert [file.sha256_of(image_id) for image_id in IDS] == ["", "", "c" * 64]
        assert np.isnan(file.score_of("a/first"))
        assert file.score_of("third") == 0.75
        np.testing.assert_array_equal(file.get("b/zweite Läsion", size=(7, 5)), maps()[1])


def test_the_same_maps_give_the_same_bytes_and_hash(cams: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.h5"
    write_heatmaps_file(
        again, maps(), image_ids=IDS, attributes=GRAD_CAM, image_sha256={"third": "c" * 64}, scores={"third": 0.75}
    )

    assert again.read_bytes() == cams.read_bytes()
    with open_heatmaps(cams) as file:
        assert file.content_hash == hashlib.sha256(cams.read_bytes()).hexdigest()


def test_a_map_lies_on_the_image_as_pytorch_and_opencv_lay_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    cv2 = pytest.importorskip("cv2")
    for height, width in ((64, 48), (7, 5), (3, 2), (1, 1), (61, 47), (1022, 767)):
        heatmap = maps(1, 14, 9)[0]
        ours = resize_heatmap(heatmap, (height, width))
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(heatmap)[None, None], size=(height, width), mode="bilinear", align_corners=False
        )[0, 0].numpy()
        opencv = cv2.resize(heatmap, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
        if (height, width) > heatmap.shape:
            np.testing.assert_allclose(ours, opencv, atol=2e-6)
        assert ours.dtype == np.float32


def test_a_hot_cell_is_not_shifted() -> None:
    heatmap = np.zeros((7, 7), np.float32)
    heatmap[2, 4] = 1

    resized = resize_heatmap(heatmap, (224, 224))

    rows, columns = np.nonzero(resized == resized.max())
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == (2.5 * 32, 4.5 * 32)


@given(
    heatmap=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 1e6, width=32)
    ),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_a_resized_map_stays_within_its_range_and_mirrors(heatmap: np.ndarray, size: tuple[int, int]) -> None:
    resized = resize_heatmap(heatmap, size)

    slack = 1e-5 * max(1.0, float(heatmap.max()))
    assert resized.shape == size
    assert heatmap.min() - slack <= resized.min()
    assert resized.max() <= heatmap.max() + slack
    np.testing.assert_allclose(resize_heatmap(heatmap[::-1, ::-1], size), resized[::-1, ::-1], atol=2 * slack)


def test_negative_values_are_cut_before_resizing(tmp_path: Path) -> None:
    path = tmp_path / "cams.h5"
    write_heatmaps_file(path, [[[-8.0, 1.0]]], image_ids=["x"], attributes=GRAD_CAM)

    with open_heatmaps(path) as file:
        np.testing.assert_allclose(file.get("x", size=(1, 4)), [[0, 0.25, 0.75, 1]])


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (np.full((2, 2), np.nan), "NaN"),
        ([[1, np.inf], [0, 0]], "infinite"),
        (np.zeros((2, 2)), "nowhere above 0"),
        (-np.ones((2, 2)), "nowhere above 0"),
        (np.ones((2, 2)), "one value everywhere"),
    ],
)
def test_a_map_that_says_nothing_is_an_error_of_that_image_alone(cams: Path, stored: Any, reason: str) -> None:
    with h5py.File(cams, "r+") as file:
        del file["checksum"]  # as a program writes it that knows of no sums
        file["heatmaps"][1, :2, :2] = stored
        file["heatmaps"][1] = np.resize(stored, (7, 5))

    with open_heatmaps(cams) as file:
        with pytest.raises(InputError, match=f"'b/zweite Läsion' .*{reason}"):
            file.get(IDS[1], size=(9, 9))
        assert file.get("third", size=(9, 9)).shape == (9, 9)


def test_a_missing_image_is_named_with_the_nearest_one(cams: Path) -> None:
    with open_heatmaps(cams) as file, pytest.raises(InputError, match=r"no heatmap of 'a/firts'.*nearest is 'a/first'"):
        file.get("a/firts", size=(9, 9))


def replace(file: h5py.File, name: str, **dataset: Any) -> None:
    if isinstance(dataset.get("data"), list):
        dataset["data"] = np.array(dataset["data"], dtype="S")
    if name in file:
        del file[name]
    file.create_dataset(name, **dataset)


def virtual(file: h5py.File) -> None:
    del file["heatmaps"]
    layout = h5py.VirtualLayout((3, 7, 5), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "heatmaps", (3, 7, 5))
    file.create_virtual_dataset("heatmaps", layout)


def zeros(file: h5py.File) -> None:
    replace(file, "heatmaps", data=np.zeros((3, 4096, 1024), "f4"), chunks=(1, 4096, 1024), compression="gzip")


def list_attribute(file: h5py.File) -> None:
    del file.attrs["layer"]
    lists = h5py.h5t.vlen_create(h5py.h5t.NATIVE_INT32)
    h5py.h5a.create(file.id, b"layer", lists, h5py.h5s.create(h5py.h5s.SCALAR))


def link(name: str, target: Any) -> Callable[[h5py.File], None]:
    def break_it(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = target

    return break_it


BREAKS: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "an external link in place of the maps": (
        link("heatmaps", h5py.ExternalLink("other.h5", "/x")),
        "'heatmaps' is a link",
    ),
    "an external link beside the maps": (link("extra", h5py.ExternalLink("other.h5", "/x")), "'extra' is a link"),
    "a soft link": (link("score", h5py.SoftLink("/image_id")), "'score' is a link"),
    "a virtual data set": (virtual, "heatmaps is a virtual data set"),
    "external storage": (
        lambda f: replace(f, "heatmaps", shape=(3, 7, 5), dtype="f4", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)]),
        "heatmaps is stored in another file",
    ),
    "a group in place of a data set": (lambda f: (f.__delitem__("score"), f.create_group("score")), "not a data set"),
    "a missing data set": (lambda f: f.__delitem__("image_sha256"), "no data set 'image_sha256'"),
    "another format": (lambda f: f.attrs.__setitem__("format", np.bytes_("other")), "format is 'other'"),
    "no format": (lambda f: f.attrs.__delitem__("format"), "format is None"),
    "a later version": (lambda f: f.attrs.__setitem__("version", 2), "format version is 2; .* reads version 1"),
    "an attribute of variable length": (
        lambda f: f.attrs.__setitem__("layer", "x"),
        "'layer' holds strings of variable length",
    ),
    "ids of variable length": (
        lambda f: replace(f, "image_id", data=np.array(["x", "y", "z"], dtype=object)),
        "image_id holds strings of variable length",
    ),
    "a list as an attribute": (
        lambda f: f.attrs.__setitem__("layer", np.array(["a", "b"], "S")),
        "attribute 'layer' must be one text",
    ),
    "a number as an attribute": (lambda f: f.attrs.__setitem__("layer", 3), "attribute 'layer' must be a text"),
    "no method": (lambda f: f.attrs.__delitem__("method"), "'method' must say"),
    "maps of doubles": (lambda f: replace(f, "heatmaps", data=np.zeros((3, 7, 5))), "float32"),
    "maps without a third axis": (lambda f: replace(f, "heatmaps", data=np.zeros((3, 7), "f4")), "float32"),
    "maps of no pixels": (lambda f: replace(f, "heatmaps", data=np.zeros((3, 0, 5), "f4")), "at least"),
    "maps of absurd size": (
        lambda f: replace(f, "heatmaps", shape=(3, 1 << 20, 1 << 20), dtype="f4", chunks=(1, 64, 64)),
        "at most",
    ),
    "absurdly many maps": (
        lambda f: replace(f, "heatmaps", shape=(1 << 40, 7, 7), dtype="f4", chunks=(1, 7, 7)),
        "at most",
    ),
    "a chunk that fills the memory": (
        lambda f: replace(
            f, "heatmaps", shape=(100_000, 32, 32), dtype="f4", chunks=(100_000, 32, 32), compression="gzip"
        ),
        "chunks of 409600000 bytes",
    ),
    "an unknown filter": (
        lambda f: replace(f, "heatmaps", data=np.zeros((3, 7, 5), "i4"), scaleoffset=0),
        "uses a filter",
    ),
    "numbers as ids": (lambda f: replace(f, "image_id", data=np.arange(3)), "image_id must be .* strings"),
    "lists as ids": (
        lambda f: replace(f, "image_id", shape=(3,), dtype=h5py.vlen_dtype(np.dtype("u1"))),
        "image_id must be .* strings",
    ),
    "fewer ids than maps": (lambda f: replace(f, "image_id", data=["x", "y"]), r"image_id must be \(3,\) strings"),
    "an id twice": (lambda f: replace(f, "image_id", data=["x", "y", "x"]), "'x' is there twice"),
    "an empty id": (lambda f: replace(f, "image_id", data=["x", "", "z"]), "image_id 1 must have a character"),
    "a huge id": (lambda f: replace(f, "image_id", data=["x", "y" * 5000, "z"]), "claims strings of 5000 bytes"),
    "huge ids of one length": (
        lambda f: replace(f, "image_id", shape=(3,), dtype="S100000000"),
        "strings of 100000000 bytes",
    ),
    "a hash that is none": (lambda f: replace(f, "image_sha256", data=["", "abc", ""]), "image_sha256 1 is not 64"),
    "whole numbers as scores": (lambda f: replace(f, "score", data=np.arange(3)), "score must be"),
    "chunks that are not there": (
        lambda f: replace(f, "heatmaps", shape=(3, 4096, 4096), dtype="f4", chunks=(1, 64, 64)),
        "heatmaps claims 201326592 bytes and stores 0",
    ),
    "a bomb of zeros": (zeros, "heatmaps claims 50331648 bytes and stores"),
    "maps of many classes that fill the memory": (
        lambda f: replace(f, "heatmaps", shape=(3, 4096, 256, 256), dtype="f4", chunks=(1, 1, 256, 256)),
        "heatmaps of an image take 1073741824 bytes",
    ),
    "classes without their maps": (lambda f: replace(f, "classes", data=["x"]), r"'classes' goes with \(n, k, h, w\)"),
    "maps of classes without names": (
        lambda f: replace(f, "heatmaps", data=np.zeros((3, 2, 7, 5), "f4")),
        r"'classes' goes with \(n, k, h, w\)",
    ),
    "fewer targets than maps": (lambda f: replace(f, "target", data=["x"]), r"target must be \(3,\) strings"),
    "an unknown way of having seen an image": (
        lambda f: replace(f, "seen", data=["", "perhaps", ""]),
        "seen 1 is none of '', 'train', 'val': 'perhaps'",
    ),
    "numbers of another kind as keys": (lambda f: replace(f, "key", data=np.zeros(3)), r"key must be \(3,\) uint64"),
    "flags of another kind": (lambda f: replace(f, "flag", data=np.zeros(3)), r"flag must be \(3,\) uint8"),
    "a spread of another shape": (
        lambda f: replace(f, "spread", data=np.zeros((3, 5, 7), "f4")),
        r"spread must be \(3, 7, 5\) float32",
    ),
    "sums of another kind": (lambda f: replace(f, "checksum", data=np.zeros(3)), r"checksum must be \(3,\) uint32"),
    "a sum too few": (lambda f: replace(f, "checksum", data=np.zeros(2, "u4")), r"checksum must be \(3,\) uint32"),
    "a text as lineage": (lambda f: replace(f, "lineage", data=np.bytes_("{}")), "lineage must be at most"),
    "an endless lineage": (
        lambda f: replace(f, "lineage", shape=(1 << 40,), dtype="u1", chunks=(1 << 20,)),
        "lineage must be at most",
    ),
    "maps of no shape": (lambda f: replace(f, "heatmaps", data=h5py.Empty("f4")), "heatmaps has no shape"),
    "a list of any length as an attribute": (list_attribute, "attribute 'layer' must be one text or number"),
    "a reference as an attribute": (
        lambda f: f.attrs.__setitem__("layer", f["score"].ref),
        "attribute 'layer' must be one text or number",
    ),
    "a huge attribute": (
        lambda f: f.attrs.__setitem__("layer", np.zeros(8000, "u1")),
        "attribute 'layer' must be one text or number",
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_file_that_breaks_a_rule_is_refused_in_one_line_that_names_it(cams: Path, what: str) -> None:
    break_it, reason = BREAKS[what]
    with h5py.File(cams, "r+") as file:
        break_it(file)

    with pytest.raises(InputError, match=reason) as caught:
        open_heatmaps(cams)
    assert str(cams) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_groups_in_groups_and_in_themselves_are_not_walked_through(cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        group = file
        for _ in range(500):
            group = group.create_group("deeper")
        group["up"] = file["/"]
        group["again"] = group

    with open_heatmaps(cams) as file:
        assert list(file.faults()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000, "its lineage is no JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "its lineage is no JSON"),
        (b"[]", "its lineage is no JSON object"),
        (b'{"made_with": []}', "does not say what the maps were made with"),
        (b'{"made_with": {}, "outputs": []}', "does not say what the maps were made with"),
        (b'{"made_with": {}, "outputs": {"failed": 1}}', "does not say what the maps were made with"),
    ],
)
def test_a_lineage_that_says_nothing_is_an_error(cams: Path, medtool: Any, text: bytes, reason: str) -> None:
    with h5py.File(cams, "r+") as file:
        del file.attrs["checksum"]
        file["lineage"] = np.frombuffer(text, np.uint8)

    with open_heatmaps(cams) as file, pytest.raises(InputError, match=reason):
        assert file.lineage
    ended = medtool("cam", "info", cams)
    assert ended.code == 1
    assert "Traceback" not in ended.err


def test_damaged_rows_are_named_one_by_one_where_that_is_asked_for(cams: Path, medtool: Any) -> None:
    with h5py.File(cams, "r+") as file:
        file["image_sha256"][2] = b"C" * 64
        file["flag"][0] = 200

    with pytest.raises(InputError, match="image_sha256 2 is not 64"):
        open_heatmaps(cams)
    with open_heatmaps(cams, keeps_damaged=True) as file:
        changed = "has changed since it was written: a bit was flipped"
        assert list(file.faults()) == [(IDS[0], changed), (IDS[2], changed)]
    ended = medtool("cam", "verify", cams)
    assert ended.code == 4
    assert ended.out.splitlines() == [f"a/first: the heatmap {changed}", f"third: the heatmap {changed}"]


def test_a_row_of_which_a_bit_has_changed_is_not_listed_as_if_it_were_whole(cams: Path, medtool: Any) -> None:
    with h5py.File(cams, "r+") as file:
        file["score"][2] = 0.25
        file["flag"][0] = 200

    ended = medtool("cam", "info", cams, "--images")

    assert [line.split(",")[1] for line in ended.out.splitlines()[1:]] == ["damaged", "done", "damaged"]
    assert "0.25" not in ended.out
    assert "flag 200 1" in medtool("cam", "info", cams).out


def test_a_virtual_data_set_and_external_storage_do_not_touch_their_sources(cams: Path, tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs a file that blocks whoever opens it")
    os.mkfifo(tmp_path / "other.h5")  # opening it would wait for ever
    with h5py.File(cams, "r+") as file:
        virtual(file)

    with pytest.raises(InputError, match="virtual"):
        open_heatmaps(cams)


@pytest.mark.parametrize("keep", [0, 7, 100, 1000, -1])
def test_a_file_cut_short_anywhere_is_refused(cams: Path, keep: int) -> None:
    cams.write_bytes(cams.read_bytes()[:keep])

    with pytest.raises(InputError, match=r"cut short|not an HDF5 file|damaged"):
        open_heatmaps(cams)


@pytest.mark.parametrize("seed", range(60))
def test_a_file_with_flipped_bytes_gives_maps_or_one_error_of_ours(cams: Path, seed: int) -> None:
    data = bytearray(cams.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(len(data), size=40):
        data[place] = random.integers(256)
    cams.write_bytes(data)

    said = ""
    try:
        with open_heatmaps(cams) as file:
            for image_id in file.ids:
                file.get(image_id, size=(9, 9))
    except InputError as error:
        said = error.message
    assert "\n" not in said


def test_a_damaged_heap_of_texts_does_not_send_us_round_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "medtool-heatmaps"
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 :] = bytes(len(data) - heap - 16)  # objects of no length, one after the other
    path.write_bytes(data)

    with pytest.raises(InputError, match="variable length"):
        open_heatmaps(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        open_heatmaps(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        open_heatmaps(tmp_path / "none.h5")


def test_files_of_other_programs_with_plain_strings_and_chunks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": np.bytes_("medtool-heatmaps"), "version": 1, "method": np.bytes_("theirs")})
        file.create_dataset("heatmaps", data=maps().astype(">f4"), chunks=(1, 7, 5), compression="gzip", shuffle=True)
        file["image_id"] = np.array([image_id.encode() for image_id in IDS])
        file["image_sha256"] = np.array([""] * 3, dtype="S64")
        file["score"] = np.zeros(3, "f4")

    with open_heatmaps(path) as file:
        assert file.ids == tuple(IDS)
        np.testing.assert_array_equal(file.get("third", size=(7, 5)), maps()[2])


def test_reading_one_map_does_not_read_the_others(tmp_path: Path) -> None:
    path = tmp_path / "cams.h5"
    write_heatmaps_file(path, maps(400, 64, 64), image_ids=[f"i{n}" for n in range(400)], attributes=GRAD_CAM)  # 6.5 MB

    tracemalloc.start()
    with open_heatmaps(path) as file:
        for image_id in file.ids:
            file.get(image_id, size=(64, 64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2e6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_ids": ["x", "y"]}, r"must be \(2, h, w\)"),
        ({"image_ids": ["x", "y", "x"]}, "'x' is given twice"),
        ({"image_ids": ["x", "", "z"]}, "image id 1 must have"),
        ({"heatmaps": np.full((3, 2, 2), np.inf)}, "'x' holds NaN or infinite"),
        ({"heatmaps": np.zeros((3, 0, 2))}, "at least"),
        ({"heatmaps": np.zeros((3, 2))}, r"must be \(3, h, w\)"),
        ({"image_sha256": {"w": "a" * 64}}, "'w', which is no image id"),
        ({"image_sha256": {"x": "A" * 64}}, "not 64 hexadecimal"),
        ({"scores": {"w": 1.0}}, "'w', which is no image id"),
        ({"attributes": HeatmapAttributes(method="")}, "must say how"),
        ({"attributes": HeatmapAttributes(method="x", layer="y" * 5000)}, "layer must have at most 4096 bytes"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    arguments = {"heatmaps": maps(), "image_ids": ["x", "y", "z"], "attributes": GRAD_CAM, **changes}

    with pytest.raises(InputError, match=reason):
        write_heatmaps_file(tmp_path / "cams.h5", arguments.pop("heatmaps"), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file or directory"):
        write_heatmaps_file(tmp_path / "none" / "cams.h5", maps(), image_ids=IDS, attributes=GRAD_CAM)


def test_ids_of_undecodable_file_names_come_back(tmp_path: Path) -> None:
    write_heatmaps_file(tmp_path / "cams.h5", maps(1), image_ids=["caf\udce9"], attributes=GRAD_CAM)

    with open_heatmaps(tmp_path / "cams.h5") as file:
        assert file.ids == ("caf\udce9",)


def snippets() -> list[str]:
    page = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "heatmaps-from-elsewhere.md"
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_image_mask_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_snippets_of_the_page_on_other_programs_run_and_segment_takes_the_file(medtool, photographs: Path) -> None:
    own, _, look = snippets()

    exec(compile(own, "own", "exec"), {})
    exec(compile(look, "look", "exec"), {})
    done = medtool(
        *("segment", "images", "--heatmaps", "cams.h5", "--segmenter", "heatmap", "--out", "masks-out", "--no-progress")
    )

    assert done.code == 0, done.err
    assert len(list((photographs / "masks-out").rglob("*.png"))) == 3


@pytest.mark.slow
def test_the_snippet_for_pytorch_grad_cam_runs(photographs: Path) -> None:
    pytest.importorskip("pytorch_grad_cam")

    exec(compile(snippets()[1], "grad_cam", "exec"), {})

    with open_heatmaps(photographs / "cams.h5") as file:
        assert file.ids == ("case_000.png", "case_001.png", "case_002.png")
        assert all(0 < file.score_of(image_id) < 1 for image_id in file.ids)
