"""The table of images: text in, text out, and refusals that name the line."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.errors import InputError, ManifestError, OutputError, UsageError
from medtool.manifest import COLUMNS, Manifest, csv_bytes, path_fault, read_manifest, write_manifest

_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
_tables = st.lists(_names.filter(lambda name: name.strip() and name not in COLUMNS), max_size=3, unique=True).flatmap(
    lambda extra: st.lists(
        st.fixed_dictionaries(
            {
                "image": _texts.filter(lambda text: text and not path_fault(text)),
                "image_id": _texts.filter(bool),
                "patient": _texts,
                "mask": _texts.filter(lambda text: not path_fault(text)),
                "split": st.sampled_from(["train", "val", "test", ""]),
                "fold": st.sampled_from(["0", "1", "17", ""]),
                **dict.fromkeys(extra, _texts),
            }
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row["image_id"],
    )
)


def _csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


@settings(max_examples=50)
@given(_tables, st.sampled_from([".csv", ".parquet"]))
def test_writing_and_reading_gives_the_same_table(rows: list[dict[str, str]], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"manifest{suffix}"
        manifest = Manifest.from_rows(rows, Path(folder))
        write_manifest(manifest, path)
        back = read_manifest(path)
        first = path.read_bytes()
        write_manifest(back, path)
        assert path.read_bytes() == first
    assert back.columns == manifest.columns
    assert list(back.rows()) == list(manifest.rows())
    empty = {name for name in rows[0] if all(row[name] == "" for row in rows)}
    assert list(back.rows()) == [{name: row[name] for name in manifest.columns} for row in rows]
    assert set(manifest.columns) == set(rows[0]) - empty


@settings(max_examples=50)
@given(_tables)
def test_polars_reads_what_is_written_as_the_same_text(rows: list[dict[str, str]]) -> None:
    manifest = Manifest.from_rows(rows, Path("data"))
    theirs = pl.read_csv(csv_bytes(manifest), infer_schema=False)
    assert theirs.fill_null("").rows() == manifest.table.rows()


def test_ids_that_look_like_numbers_and_formulas_are_not_altered(tmp_path: Path) -> None:
    values = ["007", "1e5", "12345678901234567890", "=1+1", "+5", "-x", "@cmd", "1.0", "NaN", "TRUE"]
    rows = [{"image": f"{value}.png", "image_id": value, "patient": value} for value in values]
    write_manifest(Manifest.from_rows(rows, tmp_path), tmp_path / "manifest.csv")
    assert (tmp_path / "manifest.csv").read_text().splitlines()[1] == "007.png,007,007"
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"copy{suffix}"
        write_manifest(read_manifest(tmp_path / "manifest.csv"), path)
        assert read_manifest(path).table["patient"].to_list() == values


def test_the_eight_columns_come_first_and_columns_without_a_value_are_left_out(tmp_path: Path) -> None:
    rows = [{"age": "5", "label": "a", "image": "a.png", "patient": ""}, {"image": "b.png", "scanner": "x"}]
    manifest = Manifest.from_rows(rows, tmp_path)
    assert manifest.columns == ["image", "image_id", "label", "age", "scanner"]
    assert manifest.table.rows() == [("a.png", "a.png", "a", "5", ""), ("b.png", "b.png", "", "", "x")]


def test_without_an_image_id_the_path_is_the_id(tmp_path: Path) -> None:
    manifest = read_manifest(_csv(tmp_path, "label,image\nx,a/1.png\ny,b/1.png\n"))
    assert manifest.columns == ["label", "image", "image_id"]
    assert [row["image_id"] for row in manifest.rows()] == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\na.png\nb.png\na.png\n", "line 4: image_id 'a.png' is taken already ({path}, line 2)"),
        ('image,image_id\n"a\nb.png",1\nc.png,1\n', "line 4: image_id '1' is taken already ({path}, line 2)"),
        ("image,image_id\na.png,1\nb.png,\n", "line 3: image_id is empty"),
        ("image,image_id\na.png,1\n,2\n", "line 3: image is empty"),
        ("image\na.png\n/etc/passwd\n", "line 3: image '/etc/passwd' is absolute"),
        ("image\nC:/x.png\n", "line 2: image 'C:/x.png' starts with a drive letter"),
        ("image\nC:x.png\n", "line 2: image 'C:x.png' starts with a drive letter"),
        ("image\n\\\\host\\x.png\n", "is absolute"),
        ("image\na\\b.png\n", "line 2: image 'a\\\\b.png' holds a backslash"),
        ("image\na/../../b.png\n", "line 2: image 'a/../../b.png' leaves the manifest's folder by '..'"),
        ("image\n..\n", "leaves the manifest's folder"),
        ("image,mask\na.png,\nb.png,../m.png\n", "line 3: mask '../m.png' leaves"),
        ("image,split\na.png,train\nb.png,training\n", "line 3: split is 'training'; it must be train, val, test or"),
        ("image,split\na.png,Val\n", "did you mean 'val'?"),
        ("image,split\na.png,tset\n", "did you mean 'test'?"),
        ("image,split\na.png,  \n", "line 2: split is '  '"),
        ("image,fold\na.png,0\nb.png,-1\n", "line 3: fold is '-1'; it must be a whole number"),
        ("image,fold,val_fold\na.png,0,1\nb.png,1,two\n", "line 3: val_fold is 'two'; it must be a whole number"),
        ("image,fold\na.png,1.0\n", "line 2: fold is '1.0'"),
        ("image,fold\na.png,01\n", "line 2: fold is '01'"),
        ("image,fold\na.png,\u0661\n", "line 2: fold is"),
        ("Image,label\na.png,x\n", "line 1: no column is called 'image' (there are: Image, label)"),
        ("image;label\na.png;x\n", "line 1: no column is called 'image'"),
    ],
)
def test_what_a_manifest_must_not_hold_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = _csv(tmp_path, text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert message.replace("{path}", str(path)) in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_table_with_semicolons_is_told_apart_from_one_with_other_names(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(_csv(tmp_path, "image;label\na.png;x\n"))
    assert "commas" in (caught.value.hint or "")
    with pytest.raises(ManifestError) as caught:
        read_manifest(_csv(tmp_path, "Image,label\na.png,x\n"))
    assert "rename" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["a.png", "a b/ü.png", "..a/b..", "a/...", "./a.png", "a//b.png", "~/a.png"])
def test_paths_that_stay_inside_are_taken(text: str) -> None:
    assert path_fault(text) is None


@given(st.lists(st.sampled_from(["..", "a", ".", "", "b.png", "C:", "\\", "/"]), min_size=1, max_size=6))
def test_no_accepted_path_leaves_its_folder_on_any_system(parts: list[str]) -> None:
    import ntpath
    import posixpath

    text = "/".join(parts)
    if path_fault(text) is None:
        assert posixpath.normpath(posixpath.join("/data/m", text)).startswith("/data/m")
        assert ntpath.normpath(ntpath.join("D:\\root\\m", text)).startswith("D:\\root\\m")


def test_values_that_are_not_text_are_refused_with_their_row(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"row 2: age is 55 \(int\); every value must be text"):
        Manifest.from_rows([{"image": "a", "age": "1"}, {"image": "b", "age": 55}], tmp_path)  # type: ignore[dict-item]
    with pytest.raises(ManifestError, match=r"row 1: label is None \(NoneType\)"):
        Manifest.from_rows([{"image": "a", "label": None}], tmp_path)  # type: ignore[dict-item]
    with pytest.raises(ManifestError, match=r"row 1: image is .*not valid Unicode"):
        Manifest.from_rows([{"image": "a\udcff.png"}], tmp_path)
    with pytest.raises(ManifestError, match="needs one image or more"):
        Manifest.from_rows([], tmp_path)
    with pytest.raises(ManifestError, match="row 2: image_id 'a' is taken already"):
        Manifest.from_rows([{"image": "a"}, {"image": "a"}], tmp_path)


def test_parquet_keeps_text_and_refuses_ids_that_became_numbers(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    pl.DataFrame({"image": ["a.png", "b.png"], "age": [55, None], "fold": [0, 1], "label": ["x", None]}).write_parquet(
        path
    )
    assert list(read_manifest(path).rows()) == [
        {"image": "a.png", "image_id": "a.png", "age": "55", "fold": "0", "label": "x"},
        {"image": "b.png", "image_id": "b.png", "age": "", "fold": "1", "label": ""},
    ]
    pl.DataFrame({"image": ["a.png"], "patient": [7]}).write_parquet(path)
    with pytest.raises(ManifestError, match="column 'patient' is stored as Int64; it must be text"):
        read_manifest(path)
    pl.DataFrame({"image": ["a.png"], "boxes": [[1, 2]]}).write_parquet(path)
    with pytest.raises(ManifestError, match="column 'boxes' is stored as List"):
        read_manifest(path)
    pl.DataFrame({"image": ["a.png", "../b.png"]}).write_parquet(path)
    with pytest.raises(ManifestError, match=r"row 2: image .*leaves"):
        read_manifest(path)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"image\na.png\n", b"PAR1" + b"\xff" * 200 + b"PAR1"])
def test_a_broken_parquet_file_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "manifest.parquet"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"manifest\.parquet"):
        read_manifest(path)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.csv or \.parquet"):
        read_manifest(tmp_path / "manifest.xlsx")
    with pytest.raises(UsageError, match=r"ends in \.csv or \.parquet"):
        write_manifest(Manifest.from_rows([{"image": "a"}], tmp_path), tmp_path / "manifest")


def test_a_manifest_written_above_its_images_names_them_from_there(tmp_path: Path) -> None:
    root = tmp_path / "data" / "isic"
    root.mkdir(parents=True)
    manifest = Manifest.from_rows([{"image": "a.png", "mask": "m.png"}, {"image": "b.png"}], root)
    write_manifest(manifest, tmp_path / "manifest.csv")
    assert list(read_manifest(tmp_path / "manifest.csv").rows()) == [
        {"image": "data/isic/a.png", "image_id": "a.png", "mask": "data/isic/m.png"},
        {"image": "data/isic/b.png", "image_id": "b.png", "mask": ""},
    ]


def test_a_manifest_cannot_be_written_beside_its_images_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    manifest = Manifest.from_rows([{"image": "a.png"}], tmp_path / "data")
    with pytest.raises(ManifestError, match="paths must not leave") as caught:
        write_manifest(manifest, tmp_path / "out" / "manifest.csv")
    assert str(tmp_path / "data" / "manifest.csv") in (caught.value.hint or "")
    with pytest.raises(OutputError, match="does not exist"):
        write_manifest(manifest, tmp_path / "nowhere" / "manifest.csv")
    assert list((tmp_path / "out").iterdir()) == []


def test_files_are_located_and_links_out_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    for path in (root / "sub" / "a.png", outside / "b.png"):
        path.write_bytes(b"x")
    manifest = Manifest.from_rows([{"image": "sub/a.png"}], root)
    assert manifest.locate("sub/a.png") == root / "sub" / "a.png"
    for text, reason in (("sub/none.png", "does not exist"), ("sub", "is not a file"), ("../outside/b.png", "leaves")):
        with pytest.raises(InputError, match=reason):
            manifest.locate(text)
    try:
        (root / "inner").symlink_to("sub", target_is_directory=True)
    except OSError:
        pytest.skip("this system does not let us make links")
    (root / "outer").symlink_to(outside, target_is_directory=True)
    (root / "link.png").symlink_to(outside / "b.png")
    (root / "dangling.png").symlink_to(root / "gone.png")
    (root / "sub" / "near.png").symlink_to("a.png")
    assert manifest.locate("inner/a.png").read_bytes() == b"x"
    assert manifest.locate("sub/near.png").read_bytes() == b"x"
    for text, reason in (
        ("outer/b.png", "a link leads out of the manifest's folder"),
        ("link.png", "a link leads out of the manifest's folder"),
        ("dangling.png", "does not exist"),
    ):
        with pytest.raises(InputError, match=re.escape(reason)):
            manifest.locate(text)
    # A manifest's own folder may be a link itself.
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    assert Manifest.from_rows([{"image": "a"}], tmp_path / "alias").locate("sub/a.png").exists()


def test_counts_leave_out_what_is_unknown(tmp_path: Path) -> None:
    rows = [{"image": str(index), "label": label} for index, label in enumerate(["b", "a", "", "b"])]
    manifest = Manifest.from_rows(rows, tmp_path)
    assert manifest.counts("label") == {"a": 1, "b": 2}
    assert manifest.counts("patient") == {}


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_a_folder_that_cannot_be_written_to_gives_one_line(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="permission denied"):
            write_manifest(Manifest.from_rows([{"image": "a"}], tmp_path), tmp_path / "manifest.csv")
    finally:
        tmp_path.chmod(0o700)
