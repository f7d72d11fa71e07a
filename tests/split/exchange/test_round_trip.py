"""What goes out comes back: the same role for every image in every fold, or an error, never another role."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.errors import ManifestError
from medtool.manifest import Manifest
from medtool.split.exchange.exchange import import_split
from medtool.split.exchange.format import format_of
from medtool.split.exchange.options import ExportOptions, FormatName, ImportOptions, Unnamed
from tests.split.exchange.manifests import any_rows, fold_rows, hold_out_rows, manifest_of, roles_by_fold

# Each example writes files; a quarter of the usual number finds what there is to find.
few = settings(max_examples=settings.default.max_examples // 4)


def written(manifest: Manifest, name: FormatName, folder: Path, **options: object) -> Path:
    """Write a split without waiting for the disk, and return what to import it from."""
    files = format_of(name).export(manifest, ExportOptions(**options)).files
    for file_name, data in files.items():
        (folder / file_name).write_bytes(data)
    return folder / "datalist.json" if name == FormatName.MONAI else folder


def came_back(manifest: Manifest, name: FormatName, *, unnamed: Unnamed = Unnamed.UNUSED) -> Manifest:
    """Return the manifest that a split comes back as, onto images that have had none."""
    bare = Manifest(manifest.table.drop("split", "fold", "val_fold", strict=False), manifest.root)
    with tempfile.TemporaryDirectory() as folder:
        path = written(manifest, name, Path(folder))
        return import_split(bare, name, [path], ImportOptions(unnamed=unnamed)).manifest


@few
@given(hold_out_rows())
@pytest.mark.parametrize("name", [FormatName.CLAM, FormatName.MONAI])
def test_a_hold_out_split_comes_back_with_the_same_roles(name, rows):
    manifest = manifest_of(rows)
    assert roles_by_fold(came_back(manifest, name)) == roles_by_fold(manifest)


@few
@given(fold_rows())
@pytest.mark.parametrize("name", list(FormatName))
def test_folds_come_back_with_the_same_roles(name, rows):
    manifest = manifest_of(rows)
    assert roles_by_fold(came_back(manifest, name)) == roles_by_fold(manifest)


@few
@given(fold_rows(has_val=True))
@pytest.mark.parametrize("name", [FormatName.NNUNET, FormatName.CLAM])
def test_folds_with_a_val_part_come_back_with_the_same_roles(name, rows):
    manifest = manifest_of(rows)
    assert roles_by_fold(came_back(manifest, name)) == roles_by_fold(manifest)


@few
@given(fold_rows(has_test=True))
@pytest.mark.parametrize("name", [FormatName.CLAM, FormatName.MONAI])
def test_folds_with_a_fixed_test_part_come_back_with_the_same_roles(name, rows):
    manifest = manifest_of(rows)
    assert roles_by_fold(came_back(manifest, name)) == roles_by_fold(manifest)


@few
@given(fold_rows(has_test=True))
def test_nnunet_has_no_word_for_test_and_for_unused_so_one_of_them_comes_back(rows):
    manifest = manifest_of([row for row in rows if row])  # none unused: what is not named is test
    assert roles_by_fold(came_back(manifest, FormatName.NNUNET, unnamed=Unnamed.TEST)) == roles_by_fold(manifest)


@few
@given(hold_out_rows())
def test_nnunet_loses_the_test_part_of_a_hold_out_split_and_nothing_else(rows):
    manifest = manifest_of(rows)
    expected = ["" if role == "test" else role for role in roles_by_fold(manifest)[None]]
    assert roles_by_fold(came_back(manifest, FormatName.NNUNET)) == {None: expected}


@few
@given(any_rows)
@pytest.mark.parametrize("name", [FormatName.CLAM, FormatName.MONAI])
def test_any_roles_come_back_the_same_or_are_refused(name, rows):
    manifest = manifest_of(rows)
    try:
        roles = roles_by_fold(manifest)
        back = roles_by_fold(came_back(manifest, name))
    except ManifestError:
        return
    if set(back) != set(roles):  # one fold, or folds that are all the same, come back as a hold-out split
        assert list(back) == [None]
        assert all(each == back[None] for each in roles.values())
    else:
        assert back == roles


@few
@given(any_rows)
def test_what_nnunet_reads_is_the_same_after_a_round_trip(rows):
    manifest = manifest_of(rows)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        try:
            path = written(manifest, FormatName.NNUNET, Path(first))
            back = import_split(manifest, FormatName.NNUNET, [path], ImportOptions()).manifest
        except ManifestError:
            return
        written(back, FormatName.NNUNET, Path(second))
        assert (Path(first) / "splits_final.json").read_bytes() == (Path(second) / "splits_final.json").read_bytes()


@few
@given(fold_rows(has_val=True), st.integers(0, 5))
@pytest.mark.parametrize("name", list(FormatName))
def test_one_fold_comes_back_as_a_hold_out_split(name, rows, number):
    manifest = manifest_of(rows)
    roles = roles_by_fold(manifest)
    fold = number % len(roles)
    with tempfile.TemporaryDirectory() as folder:
        path = written(manifest, name, Path(folder), fold=fold)
        back = import_split(manifest, name, [path], ImportOptions()).manifest
    lost = "test" if name == FormatName.NNUNET else None
    assert roles_by_fold(back) == {None: ["" if role == lost else role for role in roles[fold]]}


@few
@given(fold_rows(has_val=True), st.integers(0, 5))
@pytest.mark.parametrize("name", [FormatName.NNUNET, FormatName.CLAM])
def test_one_fold_of_many_can_be_taken(name, rows, number):
    manifest = manifest_of(rows)
    roles = roles_by_fold(manifest)
    fold = number % len(roles)
    with tempfile.TemporaryDirectory() as folder:
        path = written(manifest, name, Path(folder))
        back = import_split(manifest, name, [path], ImportOptions(fold=fold)).manifest
    lost = "test" if name == FormatName.NNUNET else None
    assert roles_by_fold(back) == {None: ["" if role == lost else role for role in roles[fold]]}


@few
@given(st.lists(st.text(min_size=1), unique=True, min_size=4, max_size=8))
@pytest.mark.parametrize("name", list(FormatName))
def test_any_image_id_comes_back_or_is_refused(name, ids):
    manifest = manifest_of([{"image_id": text, "fold": str(number % 2)} for number, text in enumerate(ids)])
    try:
        back = came_back(manifest, name)
    except ManifestError:
        return
    assert roles_by_fold(back) == roles_by_fold(manifest)
    assert back.table.get_column("image_id").to_list() == ids


@few
@given(fold_rows(has_test=True))
@pytest.mark.parametrize("name", list(FormatName))
def test_the_same_manifest_gives_the_same_bytes(name, rows):
    manifest = manifest_of(rows)
    first, second = (format_of(name).export(manifest, ExportOptions()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", list(FormatName))
def test_importing_onto_the_manifest_itself_changes_no_cell(name):
    manifest = manifest_of([{"label": "a", "fold": str(number % 3)} for number in range(9)])
    with tempfile.TemporaryDirectory() as folder:
        made = import_split(manifest, name, [written(manifest, name, Path(folder))], ImportOptions())
    assert made.manifest.table.equals(manifest.table)
    assert not any("replaced" in note for note in made.notes)
