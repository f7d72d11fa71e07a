"""``medtool split make``: what it writes, says, refuses and ends with."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medtool.errors import OutputError
from medtool.manifest import read_manifest, write_manifest
from medtool.roles import roles_of
from medtool.split import make_files
from medtool.split.duplicates.fingerprints import Fingerprints
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.make import make_split
from medtool.split.make_files import Files, write_split
from medtool.split.options import MakeOptions


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a manifest of 90 images of 30 patients."""
    path = tmp_path / "manifest.csv"
    rows = [f"i/{n}.png,P{n // 3:02d},{'ab'[n // 3 % 2]},s{n // 30}" for n in range(90)]
    path.write_text("\n".join(["image,patient,label,site", *rows]) + "\n")
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_manifest_the_patients_and_the_report_lie_beside_the_manifest(
    medtool: Callable[..., Any], table: Path
) -> None:
    before = table.read_bytes()
    ended = medtool("split", "make", table)
    written = table.with_name("manifest-split.csv")
    assert (ended.code, ended.out) == (0, f"{written}\n")
    assert table.read_bytes() == before
    made = read_manifest(written)
    assert made.columns == ["image", "image_id", "patient", "label", "site", "split"]
    assert made.counts("split") == {"test": 12, "train": 66, "val": 12}
    patients = rows_of(written.with_name("manifest-split.patients.csv"))
    assert list(patients[0]) == ["patient", "images", "split"]
    assert [row["patient"] for row in patients if row["split"] == "val"] == sorted(
        {row["patient"] for row in made.rows() if row["split"] == "val"}
    )
    assert {row["images"] for row in patients} == {"3"}
    report = json.loads(written.with_suffix(".json").read_text())
    assert list(report)[:3] == ["format", "version", "medtool"]
    assert (report["format"], report["version"], report["made_with"]["seed"]) == ("medtool-split", 1, 0)


def test_what_is_said_names_parts_and_the_largest_deviation(medtool: Callable[..., Any], table: Path) -> None:
    ended = medtool("split", "make", table, "--folds", 3)
    lines = ended.err.splitlines()
    assert lines[0].split() == ["part", "images", "wanted", "patients", "classes", "sites"]
    assert lines[1].split() == ["fold", "0", "30", "30.0", "10", "2", "of", "2", "3"]
    assert [line.split("  ")[0] for line in lines[4:7]] == ["val of fold 0", "val of fold 1", "val of fold 2"]
    assert lines[-1].startswith("furthest from ideal: ")
    assert "percentage points (label" in lines[-1]
    quiet = medtool("split", "make", table, "--folds", 3, "-q")
    assert (quiet.out, quiet.err) == (f"{table.with_name('manifest-split.csv')}\n", "")


def test_json_has_every_stratum_and_the_files(medtool: Callable[..., Any], table: Path) -> None:
    ended = medtool(
        "split", "make", table, "--json", "--stratify", "label", "--stratify", "site", "-o", table.parent / "x.csv"
    )
    document = json.loads(ended.out)
    assert document["manifest"] == str(table.parent / "x.csv")
    assert document["patients"] == str(table.parent / "x.patients.csv")
    assert document["report"] == str(table.parent / "x.json")
    wanted = [row for row in document["strata"] if row["part"] == "train" and row["stratum"] == {"label": "a"}]
    assert [(row["wanted"], row["images"]) for row in wanted] == [(31.5, 33)]
    assert {part["part"]: part["units"] for part in document["parts"]}.keys() == {"train", "val", "test"}
    assert document["parts"][0]["sites"].keys() == {"s0", "s1", "s2"}
    written = json.loads((table.parent / "x.json").read_text())
    assert written.items() <= document.items()


def test_the_same_command_again_is_fine_and_writes_nothing(medtool: Callable[..., Any], table: Path) -> None:
    medtool("split", "make", table)
    written = [table.with_name(f"manifest-split{end}") for end in (".csv", ".patients.csv", ".json")]
    before = [path.stat().st_mtime_ns for path in written]
    again = medtool("split", "make", table)
    assert again.code == 0
    assert "the same split is there already" in again.err
    assert [path.stat().st_mtime_ns for path in written] == before


def test_another_split_is_only_replaced_when_asked(medtool: Callable[..., Any], table: Path) -> None:
    medtool("split", "make", table)
    before = table.with_name("manifest-split.csv").read_bytes()
    ended = medtool("split", "make", table, "--seed", 1)
    assert ended.code == 1
    assert "manifest-split.csv are there already" in ended.err
    assert "--overwrite" in ended.err
    assert table.with_name("manifest-split.csv").read_bytes() == before
    assert medtool("split", "make", table, "--seed", 1, "--overwrite").code == 0
    assert table.with_name("manifest-split.csv").read_bytes() != before


def test_the_manifest_itself_is_not_replaced_unasked(medtool: Callable[..., Any], table: Path) -> None:
    before = table.read_bytes()
    assert medtool("split", "make", table, "--out", table).code == 1
    assert table.read_bytes() == before
    assert medtool("split", "make", table, "--out", table, "--overwrite").code == 0
    assert read_manifest(table).counts("split").keys() == {"train", "val", "test"}
    again = medtool("split", "make", table, "--out", table, "--overwrite")
    assert "own split (train 66, val 12, test 12) is replaced" in again.err


@pytest.mark.parametrize("n_written", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_after_an_interruption_the_same_call_goes_on(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, n_written: int, suffix: str
) -> None:
    split = make_split(read_manifest(table), MakeOptions())
    files = Files.beside(tmp_path / f"out{suffix}")
    steps = ["write_whole", "write_json", "write_manifest"]

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(make_files, steps[n_written], interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_split(split, files)
    assert not files.manifest.exists()
    assert write_split(split, files)
    assert not write_split(split, files)
    assert read_manifest(files.manifest).table.equals(split.manifest.table)


def test_another_version_of_medtool_finds_its_split_the_same(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files.beside(tmp_path / "out.csv")
    write_split(make_split(read_manifest(table), MakeOptions()), files)
    monkeypatch.setattr("medtool.split.make_report.__version__", "99.0")
    assert not write_split(make_split(read_manifest(table), MakeOptions()), files)
    with pytest.raises(OutputError, match=r"out\.json, .*out\.csv are there already"):
        write_split(make_split(read_manifest(table), MakeOptions(seed=1)), files)


def test_parquet_goes_in_and_out(medtool: Callable[..., Any], table: Path) -> None:
    given = table.with_suffix(".parquet")
    write_manifest(read_manifest(table), given)
    assert medtool("split", "make", given, "--folds", 3, "--out", table.parent / "folds.parquet").code == 0
    made = read_manifest(table.parent / "folds.parquet")
    assert set(roles_of(made, 2)) == {"train", "val", "test"}
    by_csv = medtool("split", "make", table, "--folds", 3, "--json")
    stored = json.loads((table.parent / "folds.json").read_text())
    assert stored["split_sha256"] == json.loads(by_csv.out)["split_sha256"]


def test_the_split_may_be_written_above_the_images(medtool: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = ["image,patient,label", *(f"{n}.png,P{n},a" for n in range(20))]
    (tmp_path / "data" / "m.csv").write_text("\n".join(lines) + "\n")
    assert medtool("split", "make", tmp_path / "data" / "m.csv", "--out", tmp_path / "s.csv").code == 0
    assert rows_of(tmp_path / "s.csv")[0]["image"] == "data/0.png"
    assert medtool("split", "make", tmp_path / "data" / "m.csv", "--out", tmp_path / "no" / "s.csv").code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--fractions", "0.8"], 2, "two or three numbers"),
        (["--fractions", "a,b"], 2, "two or three numbers"),
        (["--fractions", "0.8,0.3"], 2, "add up to 1"),
        (["--fractions", "0.8,0.2", "--folds", "5"], 2, "not for folds"),
        (["--folds", "5", "--leave-one-site-out"], 2, "exclude each other"),
        (["--group", "lesion"], 1, "no column 'lesion' to group by"),
        (["--stratify", "age"], 1, "no column 'age' to stratify by"),
        (["--keep-test"], 1, "no row of the manifest has the split test"),
        (["--out", "x.txt"], 2, "ends in .csv or .parquet"),
        (["--out", ""], 2, "ends in .csv or .parquet"),
        (["--workers", "2"], 2, "--workers is for --keep-duplicates-together"),
        (["--cluster", "tcp://a:1"], 2, "--cluster is for --keep-duplicates-together"),
        (["--folds", "20"], 1, "there are 20 parts: 'a' is in 15 patients"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    medtool: Callable[..., Any], table: Path, arguments: list[str], code: int, message: str
) -> None:
    ended = medtool("split", "make", table, *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert list(table.parent.iterdir()) == [table]


def test_two_fractions_are_train_and_test_or_beside_a_kept_test_train_and_val(
    medtool: Callable[..., Any], table: Path
) -> None:
    medtool("split", "make", table, "--fractions", "0.8,0.2")
    written = table.with_name("manifest-split.csv")
    assert read_manifest(written).counts("split") == {"test": 18, "train": 72}
    tests = {row["image"] for row in rows_of(written) if row["split"] == "test"}
    medtool("split", "make", written, "--keep-test", "--fractions", "0.75,0.25", "--out", table.with_name("again.csv"))
    again = rows_of(table.with_name("again.csv"))
    assert {row["image"] for row in again if row["split"] == "test"} == tests
    assert {row["split"] for row in again} == {"train", "val", "test"}


def test_hostile_cells_are_inert_on_the_terminal_and_unaltered_in_the_files(
    medtool: Callable[..., Any], tmp_path: Path
) -> None:
    patient = "\x1b[31mred\x1b[0m"
    rows = [f'{n}.png,"{patient}",=1+1' for n in range(30)] + [f"{n + 30}.png,P{n},=1+1" for n in range(12)]
    (tmp_path / "m.csv").write_text("\n".join(["image,patient,label", *rows]) + "\n")
    ended = medtool("split", "make", tmp_path / "m.csv")
    assert ended.code == 0
    assert "\x1b" not in ended.err + ended.out
    assert "red" in ended.err
    groups = rows_of(tmp_path / "m-split.patients.csv")
    assert patient in {row["patient"] for row in groups}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a manifest of 24 patients whose first images are one picture, two and two."""
    for n in range(24):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / f"{n}.png")
    lines = ["image,patient,label", *(f"{n}.png,P{n},a" for n in range(24))]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "m.csv"


def test_duplicates_are_kept_together_and_what_cannot_be_looked_at_is_named(
    medtool: Callable[..., Any], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def find(paths: Sequence[Path | None], **options: Any) -> Any:
        asked.update(options, paths=paths)
        pairs = tuple(DuplicatePair(n, n + 1, Kind.NEAR, 0.98, "") for n in range(0, 22, 2))
        return Duplicates(pairs, Fingerprints.empty(24), {5: "not an image"}, ("a note",))

    monkeypatch.setattr("medtool.split.duplicates.search.find_duplicates", find)
    (pictures.parent / "23.png").unlink()
    ended = medtool("split", "make", pictures, "--keep-duplicates-together", "--json", "--workers", 1)
    assert ended.code == 4
    assert asked["paths"][:2] == [pictures.parent / "0.png", pictures.parent / "1.png"]
    assert asked["paths"][23] is None
    assert asked["cache"].parent == pictures.parent
    assert "5.png: not an image" in ended.err
    assert "23.png: does not exist" in ended.err
    assert "note: a note" in ended.err
    made = rows_of(pictures.with_name("m-split.csv"))
    assert all(made[n]["split"] == made[n + 1]["split"] for n in range(0, 22, 2))
    document = json.loads(ended.out)
    assert document["made_with"]["joined_pairs"] == 11
    assert [problem["image_id"] for problem in document["problems"]] == ["5.png", "23.png"]
    assert any("22 different patients are linked into 11 units" in note for note in document["notes"])


def test_images_are_counted_as_images_where_copies_are_joined_and_nothing_else_groups_them(
    medtool: Callable[..., Any], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = tuple(DuplicatePair(n, n + 1, Kind.NEAR, 0.98, "") for n in range(0, 8, 2))
    found = Duplicates(pairs, Fingerprints.empty(24), {}, ())
    monkeypatch.setattr("medtool.split.duplicates.search.find_duplicates", lambda paths, **options: found)
    ended = medtool("split", "make", pictures, "--keep-duplicates-together", "--group", "none")
    assert ended.code == 0, ended.err
    header, *parts = [line.split() for line in ended.err.splitlines() if "pairs" not in line][:4]
    assert header == ["part", "images", "wanted", "classes"]
    assert sum(int(cells[1]) for cells in parts) == 24


def test_copies_are_found_in_the_pictures_themselves(
    medtool: Callable[..., Any], shared_data: Path, tmp_path: Path
) -> None:
    sources = sorted((shared_data / "ham10000" / "images").iterdir())[:12]
    for n, source in enumerate(sources):
        with Image.open(source) as image:
            image.convert("RGB").save(tmp_path / f"a{n}.jpg", quality=95)
            image.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / f"b{n}.jpg", quality=70)
    lines = ["image,patient,label", *(f"{kind}{n}.jpg,{kind}{n},x" for kind in "ab" for n in range(12))]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    ended = medtool("split", "make", tmp_path / "m.csv", "--keep-duplicates-together", "--fractions", "0.5,0.5")
    assert ended.code == 0, ended.err
    split = {row["image"]: row["split"] for row in rows_of(tmp_path / "m-split.csv")}
    assert all(split[f"a{n}.jpg"] == split[f"b{n}.jpg"] for n in range(12))


@pytest.mark.parametrize(
    ("target", "given"), [("z.csv", "z.patients.csv"), ("linked.csv", "m.csv"), ("z.parquet", "z.patients.csv")]
)
def test_the_manifest_is_not_lost_under_the_patients_or_the_report(
    medtool: Callable[..., Any], table: Path, target: str, given: str
) -> None:
    source = table.rename(table.with_name(given))
    before = source.read_bytes()
    if target == "linked.csv":
        os.link(source, table.with_name("linked.json"))
    ended = medtool("split", "make", source, "--out", table.with_name(target), "--overwrite")
    assert ended.code == 2
    assert "would replace the manifest that is split" in ended.err
    assert source.read_bytes() == before
    assert not table.with_name(target).exists()


@pytest.mark.parametrize("name", ["d.csv", "d.patients.csv", "d.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_any_search_or_write(
    medtool: Callable[..., Any], table: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("medtool.split.copies.copies_in", lambda *_, **__: pytest.fail("copies were searched for"))
    table.with_name(name).mkdir()
    files = Files.beside(table.with_name("d.csv"))
    ended = medtool("split", "make", table, "--out", files.manifest, "--overwrite", "--keep-duplicates-together")
    assert ended.code == 1
    assert f"{name}: a folder is there" in ended.err
    with pytest.raises(OutputError, match="a folder is there"):
        write_split(make_split(read_manifest(table), MakeOptions()), files, overwrite=True)
    assert sorted(path.name for path in table.parent.iterdir()) == sorted([name, table.name])


@pytest.mark.parametrize("out", ["no/x.csv", "beside/x.csv"])
def test_a_folder_that_is_not_there_or_beside_the_images_is_refused_before_any_search(
    medtool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.setattr("medtool.split.copies.copies_in", lambda *_, **__: pytest.fail("copies were searched for"))
    (tmp_path / "data").mkdir()
    (tmp_path / "beside").mkdir()
    lines = ["image,patient,label", *(f"{n}.png,P{n},a" for n in range(20))]
    (tmp_path / "data" / "m.csv").write_text("\n".join(lines) + "\n")
    ended = medtool("split", "make", tmp_path / "data" / "m.csv", "--out", tmp_path / out, "--keep-duplicates-together")
    assert ended.code == 1
    assert not list((tmp_path / "beside").iterdir())


@pytest.mark.parametrize("name", ["x.patients.csv", "x.json"])
def test_another_file_in_the_place_of_the_patients_or_the_report_is_not_replaced_unasked(
    medtool: Callable[..., Any], table: Path, name: str
) -> None:
    table.with_name(name).write_text("mine\n")
    ended = medtool("split", "make", table, "--out", table.with_name("x.csv"))
    assert ended.code == 1
    assert f"{name} is there already and not the same" in ended.err
    assert table.with_name(name).read_text() == "mine\n"
    assert not table.with_name("x.csv").exists()
    assert medtool("split", "make", table, "--out", table.with_name("x.csv"), "--overwrite").code == 0


def test_patients_that_are_empty_in_many_folds_have_rows_in_one_order(
    medtool: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [f"{n}.png,{'' if n % 4 == 0 else f'P{n}'},{'ab'[n % 2]}" for n in range(400)]
    (tmp_path / "m.csv").write_text("\n".join(["image,patient,label", *rows]) + "\n")
    assert medtool("split", "make", tmp_path / "m.csv", "--folds", 5).code == 0
    patients = rows_of(tmp_path / "m-split.patients.csv")
    places = [(row["fold"], int(row["val_fold"] or -1), row["patient"]) for row in patients]
    assert places == sorted(places)
    written = (tmp_path / "m-split.patients.csv").read_bytes()
    again = medtool("split", "make", tmp_path / "m.csv", "--folds", 5)
    assert (again.code, "already; nothing was written" in again.err) == (0, True)
    assert (tmp_path / "m-split.patients.csv").read_bytes() == written


def test_fractions_in_a_file_of_options_are_a_text_or_a_list(medtool: Callable[..., Any], table: Path) -> None:
    for text in ("[0.5, 0.25, 0.25]", '"0.5,0.25,0.25"'):
        (table.parent / "options.toml").write_text(f"[split.make]\nfractions = {text}\nseed = 3\n")
        ended = medtool("split", "make", table, "--config", table.parent / "options.toml", "--json")
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["made_with"]["fractions"] == [0.5, 0.25, 0.25]
