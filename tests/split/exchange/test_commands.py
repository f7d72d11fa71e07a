"""``medtool split export`` and ``import``: from the demo to other programs' files and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medtool.manifest import Manifest, csv_bytes, read_manifest
from medtool.roles import roles_of

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the demo's images, and with two manifests that have folds by patient."""
    from medtool.cli.app import run

    root = tmp_path_factory.mktemp("demo") / "demo"
    assert run(["demo", str(root), "--kind", "xray", "--images", "6", "-q", "--no-progress"]) == 0
    bare = read_manifest(root / "manifest.csv")
    patient = bare.table.get_column("patient").rank("dense").cast(pl.Int64) % 3
    folds = patient.cast(pl.String).alias("fold")
    (root / "folds.csv").write_bytes(csv_bytes(Manifest(bare.table.with_columns(folds), root)))
    nested = ((patient + 1) % 3).cast(pl.String).alias("val_fold")
    (root / "nested.csv").write_bytes(csv_bytes(Manifest(bare.table.with_columns(folds, nested), root)))
    return root


def roles(path: Path) -> list[list[str]]:
    return [roles_of(read_manifest(path), fold).to_list() for fold in range(3)]


@pytest.mark.parametrize(
    ("name", "table", "out", "back"),
    [
        ("nnunet", "folds.csv", "splits_final.json", "splits_final.json"),
        ("nnunet", "nested.csv", ".", "."),
        ("clam", "nested.csv", "splits/demo", "splits/demo"),
        ("monai", "folds.csv", "datalist.json", "datalist.json"),
    ],
)
def test_the_demos_folds_go_out_and_come_back(
    medtool: Run, demo: Path, tmp_path: Path, name: str, table: str, out: str, back: str
) -> None:
    written = medtool("split", "export", demo / table, "--format", name, tmp_path / out)
    assert written.code == 0
    assert all(Path(line).is_file() for line in written.out.splitlines())
    assert "fold 0: train" in written.err
    made = demo / f"back-{name}-{table}"
    read = medtool("split", "import", demo / "manifest.csv", tmp_path / back, "--format", name, "--out", made)
    assert read.code == 0
    assert read.out == f"{made}\n"
    assert roles(made) == roles(demo / table)
    assert (
        read_manifest(made)
        .table.drop("fold", "val_fold", strict=False)
        .equals(read_manifest(demo / "manifest.csv").table)
    )


def test_a_datalist_elsewhere_says_what_its_paths_are_relative_to(medtool: Run, demo: Path, tmp_path: Path) -> None:
    note = f"note: paths are relative to {demo}: give that to MONAI as base_dir or dataroot"
    assert note in medtool("split", "export", demo / "folds.csv", "--format", "monai", tmp_path / "d.json").err
    assert note not in medtool("split", "export", demo / "folds.csv", "--format", "monai", demo / "d.json").err


def test_json_says_what_was_written_and_what_was_read(medtool: Run, demo: Path, tmp_path: Path) -> None:
    ended = medtool("split", "export", demo / "nested.csv", "--format", "clam", tmp_path, "--json")
    document = json.loads(ended.out)
    assert list(document)[:2] == ["format", "version"]
    assert (document["format"], document["version"], document["split_format"]) == ("medtool-split-export", 1, "clam")
    assert document["files"] == [str(tmp_path / f"splits_{fold}.csv") for fold in range(3)]
    assert [fold["fold"] for fold in document["folds"]] == [0, 1, 2]
    assert sum(fold["test"] for fold in document["folds"]) == 6
    files = sorted(tmp_path.glob("*.csv"))
    ended = medtool(
        "split", "import", demo / "manifest.csv", *files, "--format", "clam", "--out", demo / "j.csv", "--json"
    )
    read = json.loads(ended.out)
    assert (read["format"], read["manifest"], read["folds"]) == (
        "medtool-split-import",
        str(demo / "j.csv"),
        document["folds"],
    )


def test_quiet_prints_paths_only(medtool: Run, demo: Path, tmp_path: Path) -> None:
    ended = medtool("split", "export", demo / "folds.csv", "--format", "nnunet", tmp_path / "s.json", "-q")
    assert (ended.out, ended.err) == (f"{tmp_path / 's.json'}\n", "")


def test_the_table_goes_to_stdout_when_asked(medtool: Run, demo: Path, tmp_path: Path) -> None:
    medtool("split", "export", demo / "folds.csv", "--format", "monai", tmp_path / "d.json")
    ended = medtool("split", "import", demo / "manifest.csv", tmp_path / "d.json", "--format", "monai", "--out", "-")
    assert ended.out.splitlines()[0].endswith(",fold")
    both = medtool(
        "split", "import", demo / "manifest.csv", tmp_path / "d.json", "--format", "monai", "--out", "-", "--json"
    )
    assert both.code == 2


def test_files_that_are_there_are_not_replaced_unless_asked(medtool: Run, demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "splits_final.json"
    first = ["split", "export", demo / "folds.csv", "--format", "nnunet", out]
    other = ["split", "export", demo / "nested.csv", "--format", "nnunet", out]
    assert medtool(*first).code == 0
    before = out.read_bytes()
    assert medtool(*first).code == 0  # the same bytes
    refused = medtool(*other)
    assert (refused.code, out.read_bytes()) == (1, before)
    assert "--overwrite" in refused.err
    assert medtool(*other, "--overwrite").code == 0
    assert out.read_bytes() != before


def test_a_folder_with_files_of_further_folds_is_refused_even_with_overwrite(
    medtool: Run, demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "splits_3.csv").write_text(",train,val,test\n")
    ended = medtool("split", "export", demo / "nested.csv", "--format", "clam", tmp_path, "--overwrite")
    assert ended.code == 1
    assert "splits_3.csv is not of this split, and CLAM would take it for a fold of it" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["splits_3.csv"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nested.csv", "--format", "monai", "d.json"], 1, "a MONAI datalist can hold an image out of one fold"),
        (["manifest.csv", "--format", "monai", "d.json"], 1, "the manifest has no split"),
        (["folds.csv", "--format", "nnunet", "d.txt"], 2, "give a file that ends in .json"),
        (["folds.csv", "--format", "nnunet", "gone/d.json"], 1, "gone does not exist"),
        (["folds.csv", "--format", "clam", "d.csv"], 2, "CLAM has a file a fold; give the folder for them"),
        (["folds.csv", "--format", "clam", "d.json"], 2, "CLAM has a file a fold; give the folder for them"),
        (["folds.csv", "--format", "clam", "d", "--label", "mask"], 2, "--label mask is for monai"),
        (["folds.csv", "--format", "monai", "d.json", "--names", "stem"], 2, "--names stem says nothing for monai"),
        (["folds.csv", "--format", "monai", "d.json", "--fold", "7"], 1, "the manifest has no fold 7"),
        (["folds.csv", "--format", "kaggle", "d.json"], 2, "kaggle"),
        (["folds.csv", "d.json"], 2, "--format"),
    ],
)
def test_what_cannot_be_written_ends_with_one_line(
    medtool: Run, demo: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    resolved = [
        demo / arguments[0],
        *(tmp_path / each if "." in each or each == "d" else each for each in arguments[1:]),
    ]
    ended = medtool("split", "export", *resolved)
    assert ended.code == code
    assert words in ended.err
    assert list(tmp_path.iterdir()) == []


def test_base_is_for_datalists_only(medtool: Run, demo: Path, tmp_path: Path) -> None:
    ended = medtool(
        "split", "import", demo / "manifest.csv", tmp_path, "--format", "clam", "--base", tmp_path, "--out", "-"
    )
    assert ended.code == 2
    assert "is for monai" in ended.err


def test_a_manifest_beside_the_images_folder_is_refused_with_the_place_for_it(
    medtool: Run, demo: Path, tmp_path: Path
) -> None:
    medtool("split", "export", demo / "folds.csv", "--format", "nnunet", tmp_path / "s.json")
    ended = medtool(
        "split", "import", demo / "manifest.csv", tmp_path / "s.json", "--format", "nnunet", "--out", tmp_path / "m.csv"
    )
    assert ended.code == 1
    assert str(demo / "manifest.csv") in ended.err


def test_names_that_a_terminal_would_obey_reach_it_inert(medtool: Run, demo: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"train": ["\x1b[2J\x1b]0;x\x07"], "val": []}]))
    ended = medtool("split", "import", demo / "manifest.csv", path, "--format", "nnunet", "--out", demo / "x.csv")
    assert ended.code == 1
    assert "\x1b" not in ended.out + ended.err
    assert not (demo / "x.csv").exists()
