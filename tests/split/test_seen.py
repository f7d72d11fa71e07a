from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.errors import InputError, ManifestError, MedtoolError, UsageError
from medtool.lineage import new_lineage, write_lineage
from medtool.manifest import Manifest
from medtool.split.marks import Leak, marks_of
from medtool.split.seen import Seen, read_seen, seen_of, write_seen

SHA = "0123456789abcdef" * 4


def manifest_of(*rows: Sequence[str]) -> Manifest:
    names = ("image_id", "split", "patient", "lesion")
    return Manifest.from_rows(
        [{"image": f"{row[0]}.png", **dict(zip(names, row, strict=True))} for row in rows], Path()
    )


def seen_in(manifest: Manifest, run: str = "fine", **options) -> Seen:
    return seen_of(manifest, manifest.table.get_column("split"), run=run, groups=("patient", "lesion"), **options)


def write_run(folder: Path, seen: Seen, leaks: object = None) -> Path:
    folder.mkdir()
    write_seen(folder, seen)
    made_with = {} if leaks is None else {"leaks": leaks}
    write_lineage(folder, new_lineage("train", made_with, packages=[]))
    return folder


ROWS = (("a", "train", "P1", "L1"), ("b", "val", "P2", ""), ("c", "test", "P3", "L3"), ("d", "", "P4", "L4"))


def test_a_run_has_seen_what_it_trains_and_chooses_on_and_nothing_else():
    seen = seen_in(manifest_of(*ROWS), sha256s={"a": SHA, "c": SHA})
    assert seen.frame.rows() == [("fine", "train", "a", SHA, "P1", "L1"), ("fine", "val", "b", "", "P2", "")]
    assert seen.groups == ("patient", "lesion")
    assert not seen.is_leaky
    assert seen.parents == ()


def test_a_run_has_seen_what_its_parents_have_seen_once():
    base = seen_in(manifest_of(("z", "train", "P9", "L9")), run="base", leaks=[Leak("G101", 3)])
    left = seen_in(manifest_of(("y", "train", "P8", "L8")), run="left", parents=[base])
    right = seen_of(
        manifest_of(("x", "train", "P7", "L7")), pl.Series(["train"]), run="right", groups=("patient",), parents=[base]
    )
    both = seen_in(manifest_of(*ROWS), run="both", parents=[left, right], leaks=[Leak("D202", 1)])
    assert both.parents == ("left", "base", "right")
    assert both.frame.filter(pl.col("run") == "base").height == 1
    assert both.frame.filter(pl.col("run") == "right").item(0, "lesion") == ""
    assert both.leaks == (Leak("D202", 1), Leak("G101", 3))
    assert both.is_leaky


def test_what_was_written_is_read_back(tmp_path):
    seen = seen_in(manifest_of(*ROWS), sha256s={"a": SHA}, leaks=[Leak("G101", 3)])
    read = read_seen(write_run(tmp_path / "run", seen, marks_of(seen.leaks)["leaks"]))
    assert read.frame.equals(seen.frame)
    assert (read.run, read.groups, read.leaks) == (seen.run, seen.groups, seen.leaks)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(texts.filter(bool), texts), min_size=1, max_size=6, unique_by=lambda row: row[0]), texts)
def test_any_text_survives_the_file(tmp_path_factory, rows, run):
    manifest = Manifest.from_rows(
        [{"image": "a.png", "image_id": name, "patient": patient} for name, patient in rows] + [], Path()
    )
    groups = [name for name in ("patient",) if name in manifest.columns]
    seen = seen_of(manifest, pl.Series(["train"] * len(rows)), run=run or "run", groups=groups)
    read = read_seen(write_run(tmp_path_factory.mktemp("any") / "run", seen))
    assert read.frame.equals(seen.frame)
    assert read.run == seen.run


def test_no_folder_and_the_folder_of_another_program_are_told_apart(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        read_seen(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no seen\.csv") as caught:
        read_seen(tmp_path)
    assert caught.value.hint is not None
    assert "--against" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,role,image_id\nfine,train,a\n", "line 1: no column is called 'image_sha256'"),
        ("run,role,image_id,image_sha256\nfine,test,a,\n", "line 2: role is 'test'; it must be train or val"),
        ("run,role,image_id,image_sha256\nfine,train,,\n", "line 2: image_id is ''"),
        (f"run,role,image_id,image_sha256\nfine,train,a,{SHA}\nfine,val,b,12\n", "line 3: image_sha256 is '12'"),
        ("run,role,image_id,image_sha256\n,train,a,\n", "line 2: run is ''"),
        ("run,role,image_id,image_sha256\nfine,train\n", "line 2: 2 fields where the header has 4"),
        ("run,role,image_id,image_sha256\n", "no rows"),
        ("", "is empty"),
    ],
)
def test_a_damaged_table_is_one_line_that_names_the_place(tmp_path, text, message):
    folder = write_run(tmp_path / "run", seen_in(manifest_of(*ROWS)))
    (folder / "seen.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match="seen") as caught:
        read_seen(folder)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_a_run_that_does_not_say_how_it_was_made_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", seen_in(manifest_of(*ROWS)))
    (folder / "lineage.json").unlink()
    with pytest.raises(InputError, match=r"no lineage\.json"):
        read_seen(folder)


@pytest.mark.parametrize("leaks", ["yes", True, [1], ["G101"], {"G101": 1}, [{"code": "G101"}]])
def test_leaks_that_are_no_list_of_marks_are_refused(tmp_path, leaks):
    folder = write_run(tmp_path / "run", seen_in(manifest_of(*ROWS)), leaks)
    with pytest.raises(InputError, match=r"made_with\.leaks"):
        read_seen(folder)


def test_a_damaged_lineage_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", seen_in(manifest_of(*ROWS)))
    (folder / "lineage.json").write_text("{", encoding="utf-8")
    with pytest.raises(MedtoolError, match="not a JSON file"):
        read_seen(folder)


@pytest.mark.parametrize(("groups", "message"), [(("role",), "called 'role'"), (("slide",), "no column 'slide'")])
def test_a_group_column_that_cannot_be_kept_is_refused(groups, message):
    manifest = manifest_of(*ROWS)
    table = manifest.table.with_columns(pl.lit("x").alias("role"))
    with pytest.raises(ManifestError, match=message):
        seen_of(Manifest(table, Path()), table.get_column("split"), run="fine", groups=groups)


def test_a_run_that_trains_on_nothing_is_refused():
    with pytest.raises(ManifestError, match="no row of the manifest is in the train part"):
        seen_in(manifest_of(("a", "val", "P1", "L1")))


def test_image_ids_as_groups_are_kept_once():
    manifest = manifest_of(*ROWS)
    seen = seen_of(manifest, manifest.table.get_column("split"), run="fine", groups=("image_id", "patient"))
    assert seen.groups == ("patient",)
