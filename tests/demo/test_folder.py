"""A demo's folder: the same whatever happened on the way, and nobody else's files are touched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtool.demo import folder as demo_folder
from medtool.demo.folder import cases_of, draw, write_demo
from medtool.demo.options import DemoOptions, Kind
from medtool.demo.phantom import Case, Phantom
from medtool.errors import BusyError, OutputError, UsageError
from medtool.manifest import read_manifest
from medtool.storage import locked

SMALL = DemoOptions(images=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sketch(case: Case) -> Phantom:
    """Return what stands in for a phantom where only files matter: small, quick, and another one for each case."""
    rng = case.patient.stream(*case.keys.values())
    shape = (8, 9) if case.patient.kind is Kind.XRAY else (8, 9, 3)
    dtype = np.uint16 if case.patient.kind is Kind.XRAY else np.uint8
    pixels = rng.integers(0, 2**12 if case.patient.kind is Kind.XRAY else 256, shape).astype(dtype)
    return Phantom(pixels, np.where(rng.random((8, 9)) < 0.5, 255, 0).astype(np.uint8))


@pytest.fixture(scope="module", autouse=True)
def _quick_drawing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_folder, "draw", sketch)
        yield


@pytest.fixture(scope="module")
def small(_quick_drawing: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "small"
    write_demo(folder, SMALL)
    return folder


@pytest.mark.parametrize("images", [0, -4, 100_001])
def test_numbers_of_images_that_make_no_sense_are_refused(images: int) -> None:
    with pytest.raises(UsageError, match=str(images)):
        DemoOptions(images=images)


def test_the_manifest_names_images_and_masks_that_are_there(small: Path) -> None:
    manifest = read_manifest(small / "manifest.csv")
    assert manifest.columns[:6] == ["image", "image_id", "patient", "site", "label", "mask"]
    rows = list(manifest.rows())
    assert [row["image_id"] for row in rows] == ["P0001_1", "P0001_2", "P0001_3"]
    for row in rows:
        with Image.open(manifest.locate(row["image"])) as image, Image.open(manifest.locate(row["mask"])) as mask:
            assert image.size == mask.size
            assert image.mode == "RGB"
        assert row["age"].isdigit()
        assert row["sex"] in ("male", "female")
        assert row["localization"]
    assert {path.name for path in (small / "images").rglob("*.png") if path.parent.name == "lesion"} == {
        f"{row['image_id']}.png" for row in rows
    }


def test_the_real_pictures_have_a_table_of_their_own(small: Path) -> None:
    rows = list(read_manifest(small / "real.csv").rows())
    assert {row["image_id"] for row in rows} == {
        "retina",
        "immunohistochemistry",
        "cell",
        "microaneurysms",
        "shepp-logan",
    }
    text = (small / "README.md").read_text(encoding="utf-8")
    for row in rows:
        assert (small / row["image"]).is_file()
        assert row["licence"] in text


def test_the_folder_can_be_listed_as_an_input(small: Path) -> None:
    from medtool.inputs import find_images

    listing = find_images([str(small / "images")])
    assert len(listing.items) == 8
    assert not listing.problems


def test_the_same_call_again_changes_nothing(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (small / "images").rglob("*.png")}
    summary = write_demo(small, SMALL)
    assert summary.drawn == 0
    assert {path: path.stat().st_mtime_ns for path in (small / "images").rglob("*.png")} == before


@pytest.mark.parametrize("writes", range(14))
def test_stopped_at_any_write_it_goes_on_to_the_same_folder(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    left = writes
    write = demo_folder.write_whole

    def stop_soon(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            (path.parent / ".medtool-tmp-left").write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        left -= 1
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(demo_folder, "write_whole", stop_soon)
        try:
            write_demo(tmp_path / "demo", SMALL)
        except KeyboardInterrupt:
            assert not (tmp_path / "demo" / "manifest.csv").exists()
    write_demo(tmp_path / "demo", SMALL)
    assert contents(tmp_path / "demo") == contents(small)


def test_a_larger_demo_holds_the_smaller_one(small: Path, tmp_path: Path) -> None:
    grown = tmp_path / "demo"
    write_demo(grown, DemoOptions(images=2))
    summary = write_demo(grown, SMALL)
    assert summary.drawn == 1
    assert contents(grown) == contents(small)


def test_worker_processes_write_what_drawing_here_gives(tmp_path: Path) -> None:
    options = DemoOptions(images=2)
    write_demo(tmp_path / "demo", options, workers=2)
    for case in islice(cases_of(options.kind, options.seed), options.images):
        with Image.open(tmp_path / "demo" / "images" / "lesion" / f"{case.name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), draw(case).pixels)


@pytest.mark.parametrize("other", [DemoOptions(images=2), DemoOptions(images=3, seed=1), DemoOptions(Kind.XRAY, 3)])
def test_another_demo_is_not_mixed_in(small: Path, other: DemoOptions) -> None:
    before = contents(small)
    with pytest.raises(UsageError, match="holds another demo"):
        write_demo(small, other)
    assert contents(small) == before


def test_overwriting_leaves_nothing_of_the_demo_before(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write_demo(folder, DemoOptions(Kind.XRAY, 1))
    write_demo(folder, SMALL, overwrite=True)
    assert contents(folder) == contents(small)
    with Image.open(folder / "masks" / "lesion" / "P0001_1.png") as mask:
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_a_folder_with_other_things_is_refused_and_overwriting_leaves_them(small: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty") as caught:
        write_demo(tmp_path, SMALL)
    assert "--overwrite" in str(caught.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    write_demo(tmp_path, SMALL, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    assert contents(small).items() <= contents(tmp_path).items()


def test_a_record_that_is_not_ours_is_no_licence_to_write(tmp_path: Path) -> None:
    for text in ("{}", "[", '{"format": "medtool-demo-folder", "version": 99}', '{"kind": "../../x"}'):
        (tmp_path / "demo.json").write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="not empty"):
            write_demo(tmp_path, SMALL)


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="demo"):
        write_demo(tmp_path / "demo", SMALL)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    tmp_path.joinpath("demo").mkdir()
    with locked(tmp_path / "demo"), pytest.raises(BusyError):
        write_demo(tmp_path / "demo", SMALL)


def test_x_rays_are_written_with_16_bits(tmp_path: Path) -> None:
    write_demo(tmp_path / "demo", DemoOptions(Kind.XRAY, 1))
    with Image.open(tmp_path / "demo" / "images" / "xray" / "P0001_1.png") as image:
        assert image.mode == "I;16"
        assert np.asarray(image).max() > 255


def test_every_phantom_is_counted_once_also_those_that_were_there(tmp_path: Path) -> None:
    class Counter:
        done = 0

        def advance(self, label: str = "") -> None:
            self.done += 1

    for images in (1, 2):
        counter = Counter()
        write_demo(tmp_path / "demo", DemoOptions(images=images), steps=counter)
        assert counter.done == images
