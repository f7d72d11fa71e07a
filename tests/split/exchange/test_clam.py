"""CLAM's splits_0.csv and so on: what is written, what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medtool.errors import InputError, ManifestError, UsageError
from medtool.manifest import Manifest
from medtool.split.exchange.clam import export, read
from medtool.split.exchange.format import Imported
from medtool.split.exchange.options import ExportOptions, ImportOptions, Naming, Unnamed
from tests.split.exchange.manifests import manifest_of, roles_by_fold

GOLDEN = """,train,val,test
0,slide_1,slide_2,slide_0
1,slide_3,,
2,slide_4,,
"""


def slides(*names: str) -> Manifest:
    return manifest_of([{"image": f"slides/{n}.svs", "image_id": name} for n, name in enumerate(names)])


def imported(tmp_path: Path, tables: Sequence[str | bytes], manifest: Manifest, **options: Any) -> Imported:
    for fold, table in enumerate(tables):
        data = table.encode() if isinstance(table, str) else table
        (tmp_path / f"splits_{fold}.csv").write_bytes(data)
    return read(manifest, [tmp_path], ImportOptions(**options))


def test_the_files_are_the_tables_that_clam_reads_and_read_back(tmp_path):
    splits = {"slide_0": "test", "slide_1": "train", "slide_2": "val", "slide_3": "train", "slide_4": "train"}
    manifest = manifest_of([{"image_id": name, "split": split} for name, split in splits.items()])
    made = export(manifest, ExportOptions())
    assert made.files == {"splits_0.csv": GOLDEN.encode()}
    assert roles_by_fold(imported(tmp_path, [GOLDEN], manifest).manifest) == {None: list(splits.values())}


def test_there_is_a_file_a_fold_under_the_folds_number_and_nothing_else():
    made = export(manifest_of([{"fold": "1"}, {"fold": "2"}]), ExportOptions())
    assert list(made.files) == ["splits_1.csv", "splits_2.csv"]
    assert "CLAM takes them with --k_start 1 --k_end 3" in made.notes
    assert "fold 1 has no val part; CLAM's training needs all three in every fold" in made.notes


def test_one_fold_alone_keeps_its_number():
    rows = [{"fold": str(fold), "val_fold": str((fold + 1) % 3)} for fold in range(3)]
    made = export(manifest_of(rows), ExportOptions(fold=2))
    assert made.files == {"splits_2.csv": b",train,val,test\n0,im_000,im_001,im_002\n"}
    assert made.notes == ("CLAM takes them with --k_start 2 --k_end 3",)


def test_slide_ids_are_text_and_never_numbers(tmp_path):
    ids = ["007", "7", "7.0", "1e5", " 8 ", "12345678901234567890", "True"]
    manifest = manifest_of([{"image_id": text, "fold": str(n % 2)} for n, text in enumerate(ids)])
    made = export(manifest, ExportOptions())
    back = imported(tmp_path, [data for _, data in sorted(made.files.items())], manifest)
    assert roles_by_fold(back.manifest) == roles_by_fold(manifest)


def test_commas_quotes_and_line_ends_in_ids_come_back(tmp_path):
    ids = ["a,b", 'c"d', "e\nf", "g\rh", "=1+1", "\x1b[2J", "\u202e"]
    manifest = manifest_of([{"image_id": text, "fold": str(n % 2)} for n, text in enumerate(ids)])
    made = export(manifest, ExportOptions())
    back = imported(tmp_path, [data for _, data in sorted(made.files.items())], manifest)
    assert roles_by_fold(back.manifest) == roles_by_fold(manifest)


@pytest.mark.parametrize("word", ["NA", "nan", "None", "null", "N/A"])
def test_a_slide_that_pandas_would_take_for_an_empty_cell_is_refused(word):
    manifest = manifest_of([{"image_id": word, "split": "train"}, {"split": "val"}])
    with pytest.raises(ManifestError, match=f"CLAM would lose the slide '{word}'"):
        export(manifest, ExportOptions(naming=Naming.ID))
    assert export(manifest_of([{"image_id": word}, {"split": "val"}]), ExportOptions()).files  # it is not written


def test_such_a_word_in_a_file_is_an_empty_cell_and_is_counted(tmp_path):
    made = imported(tmp_path, [",train,val,test\n0,a,b,c\n1,nan,NaN,\n"], slides("a", "b", "c", "nan"))
    assert roles_by_fold(made.manifest) == {None: ["train", "val", "test", ""]}
    assert "2 cells are a word that pandas, and so CLAM, reads as empty; passed over" in made.notes


def test_ids_that_clam_takes_for_numbers_are_said():
    made = export(
        manifest_of([{"image_id": "1", "split": "train"}, {"image_id": "2", "split": "val"}]), ExportOptions()
    )
    assert any("every slide id is a number" in note for note in made.notes)


def test_numbers_that_pandas_has_written_are_not_guessed_but_explained(tmp_path):
    table = ",train,val,test\n0,1,3.0,4.0\n1,2,,\n"
    with pytest.raises(ManifestError, match=r"line 2, column val: the manifest has no image '3.0' \(2 of 4") as raised:
        imported(tmp_path, [table], slides("1", "2", "3", "4"))
    assert raised.value.hint == "'3.0' was written by a program that took it for a number: write the names as text"


def test_an_id_that_is_a_path_or_a_file_name_gives_way_to_the_name_without_ending():
    rows = [{"image": "s/TCGA-1.ab.svs", "image_id": "TCGA-1.ab.svs", "split": "train"}]
    made = export(manifest_of(rows), ExportOptions())
    assert made.files["splits_0.csv"] == b",train,val,test\n0,TCGA-1.ab,,\n"
    assert "slides are called by file name without ending, not by image_id" in made.notes
    made = export(manifest_of(rows), ExportOptions(naming=Naming.ID))
    assert made.files["splits_0.csv"] == b",train,val,test\n0,TCGA-1.ab.svs,,\n"


def test_slides_are_found_by_file_name_and_it_is_said(tmp_path):
    manifest = Manifest.from_rows([{"image": f"s/{name}.svs"} for name in "abc"], tmp_path)
    made = imported(tmp_path, [",train,val,test\n0,a,b,c\n"], manifest)
    assert made.manifest.table.get_column("split").to_list() == ["train", "val", "test"]
    assert "images are found by file name without ending, not by image_id" in made.notes
    with pytest.raises(ManifestError, match="by image_id"):
        imported(tmp_path, [",train,val,test\n0,a,b,c\n"], manifest, naming=Naming.ID)


def test_folds_that_overlap_as_clams_own_do_are_refused_with_the_way_to_take_one(tmp_path):
    tables = [",train,val,test\n0,a,b,c\n1,d,,\n", ",train,val,test\n0,a,b,c\n1,,,d\n"]
    with pytest.raises(ManifestError, match=r"image 'd' is test in fold 1; train in fold 0; .* test in all") as raised:
        imported(tmp_path, tables, slides("a", "b", "c", "d"))
    assert raised.value.hint == "--fold 0 imports that fold alone, as a hold-out split"
    back = imported(tmp_path, tables, slides("a", "b", "c", "d"), fold=1)
    assert roles_by_fold(back.manifest) == {None: ["train", "val", "test", "test"]}


def test_a_slide_that_one_file_has_not_is_named(tmp_path):
    tables = [",train,val,test\n0,b,,a\n1,c,,\n", ",train,val,test\n0,a,,b\n", ",train,val,test\n0,a,,c\n1,b,,\n"]
    with pytest.raises(ManifestError, match=r"image 'c' is test in fold 2; train in fold 0; in no part in fold 1"):
        imported(tmp_path, tables, slides("a", "b", "c"))


def test_the_order_of_files_and_what_lies_beside_them_do_not_matter(tmp_path):
    rows = [{"fold": str(fold), "val_fold": str((fold + 1) % 12)} for fold in range(12)]
    manifest = manifest_of(rows)
    for name, data in export(manifest, ExportOptions()).files.items():
        (tmp_path / name).write_bytes(data)
    for name in ("splits_0_bool.csv", "splits_0_descriptor.csv", "splits_00.csv", "splits_.csv", "notes.txt"):
        (tmp_path / name).write_text("x,y\n1,2\n")
    assert roles_by_fold(read(manifest, [tmp_path], ImportOptions()).manifest) == roles_by_fold(manifest)
    files = [tmp_path / f"splits_{fold}.csv" for fold in (11, 3, 0, 1, 2, 10, 9, 8, 7, 6, 5, 4)]
    assert roles_by_fold(read(manifest, files, ImportOptions()).manifest) == roles_by_fold(manifest)


def test_one_file_of_any_name_is_a_hold_out_split(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("train,val,test\na,b,c\n")  # CLAM reads by the names of the columns; an index need not be there
    back = read(slides("a", "b", "c"), [path], ImportOptions()).manifest
    assert roles_by_fold(back) == {None: ["train", "val", "test"]}


def test_images_that_no_file_names_are_test_when_asked(tmp_path):
    made = imported(tmp_path, [",train,val,test\n0,a,b,\n"], slides("a", "b", "c"), unnamed=Unnamed.TEST)
    assert roles_by_fold(made.manifest) == {None: ["train", "val", "test"]}
    assert "1 image is not named: taken as test" in made.notes


def test_the_same_table_in_every_file_is_one_hold_out_split(tmp_path):
    made = imported(tmp_path, [GOLDEN] * 3, slides(*(f"slide_{n}" for n in range(5))))
    assert list(roles_by_fold(made.manifest)) == [None]
    assert any("all 3 folds" in note for note in made.notes)


def test_files_whose_numbers_are_unclear_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "splits_0.csv").write_text(",train,val,test\n0,a,,\n")
    (tmp_path / "mine.csv").write_text(",train,val,test\n0,a,,\n")
    with pytest.raises(UsageError, match="are both fold 0"):
        read(slides("a"), [tmp_path / "one", tmp_path / "two"], ImportOptions())
    with pytest.raises(UsageError, match=r"mine\.csv: of several files, each must be called splits_NUMBER\.csv"):
        read(slides("a"), [tmp_path / "one", tmp_path / "mine.csv"], ImportOptions())
    with pytest.raises(UsageError, match=r"there is no splits_7\.csv in what was given"):
        read(slides("a"), [tmp_path / "one"], ImportOptions(fold=7))
    with pytest.raises(InputError, match=r"holds no splits_0\.csv or the like"):
        read(slides("a"), [tmp_path], ImportOptions())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            ",train,val,test\n0,a,b,c\n1,c,,\n",
            r"line 2, column test: 'c' is in test, and in train at .*line 3, column tr",
        ),
        (",train,val,test\n0,a,b,x\n", r"line 2, column test: the manifest has no image 'x' \(1 of 3 names is unknown"),
        (",train,test\n0,a,b\n", r"line 1: no column is called 'val' \(there are: 'train', 'test'\)"),
        (",train,val,test\na,True,False,False\n", "says True and False of each slide"),
        (",train,val,test\n0,a,b\n", "line 2: 3 fields where the header has 4"),
        (",train,val,test\n0,,,\n", "names no image"),
        (",train,val,test\n", "has a header and no rows"),
        (",train,val,val\n0,a,b,c\n", "both called 'val'"),
        ("", "is empty"),
        (b",train,val,test\n0,a,b,\xe4\n", "line 2: byte 0xe4 is not UTF-8"),
        (b"\xff\xfe,\0t\0", "UTF-16"),
    ],
)
def test_what_is_not_clams_is_refused_with_its_line(tmp_path, table, words):
    with pytest.raises(InputError, match=words):
        imported(tmp_path, [table], slides("a", "b", "c"))


def test_a_byte_order_mark_and_windows_line_ends_are_nothing_special(tmp_path):
    made = imported(tmp_path, [b"\xef\xbb\xbf,train,val,test\r\n0,a,b,c\r\n"], slides("a", "b", "c"))
    assert roles_by_fold(made.manifest) == {None: ["train", "val", "test"]}


def test_what_is_no_file_is_not_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(slides("a"), [tmp_path / "splits_0.csv"], ImportOptions())
    (tmp_path / "splits_0.csv").mkdir()
    with pytest.raises(InputError, match="is a folder, not a file"):
        read(slides("a"), [tmp_path], ImportOptions())


def test_one_test_part_for_all_is_refused_beside_those_of_the_folds(tmp_path):
    tables = [",train,val,test\n0,a,b,c\n", ",train,val,test\n0,c,a,b\n", ",train,val,test\n0,b,c,a\n"]
    with pytest.raises(UsageError, match=r"the folds have test parts of their own \(3 images\)"):
        imported(tmp_path, tables, slides("a", "b", "c", "d"), unnamed=Unnamed.TEST)


def test_numbers_of_folds_may_be_larger_than_any_machines(tmp_path):
    number = "123456789012345678901234567890"
    rows = [{"fold": "0", "val_fold": "1"}, {"fold": "1", "val_fold": number}, {"fold": number, "val_fold": "0"}]
    manifest = manifest_of(rows)
    for name, data in export(manifest, ExportOptions()).files.items():
        (tmp_path / name).write_bytes(data)
    assert roles_by_fold(read(manifest, [tmp_path], ImportOptions()).manifest) == roles_by_fold(manifest)
