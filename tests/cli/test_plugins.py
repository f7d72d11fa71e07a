"""``medtool plugins`` lists without loading, checks by contract, and writes plugins that work at once."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medtool import registry
from medtool.errors import ExitCode
from medtool.testing.synthetic import write_class_folders

Lay = Callable[[Path], None]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lay]:
    """Return a function that puts a distribution's folder on ``sys.path`` with the metadata an installer would write.

    The real installation, by pip, is what the session ``plugins`` of noxfile.py does.
    """
    before = set(sys.modules)

    def put(folder: Path) -> None:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"]
        (info / "METADATA").write_text(lines[0], encoding="utf-8")
        groups = project["entry-points"].items()
        points = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in pairs.items()) for group, pairs in groups
        ]
        (info / "entry_points.txt").write_text("".join(points), encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        registry.forget()

    yield put
    for name in set(sys.modules) - before:
        if name.startswith(("medtool_", "acme")):
            del sys.modules[name]
    registry.forget()


def broken_plugin(folder: Path, *, name: str, target: str, module: str = "") -> Path:
    folder.mkdir()
    text = f'[project]\nname = "{folder.name}"\nversion = "1.0"\n[project.entry-points."medtool.segmenters"]\n'
    (folder / "pyproject.toml").write_text(f'{text}{name} = "{target}"\n', encoding="utf-8")
    (folder / f"{target.partition(':')[0]}.py").write_text(module, encoding="utf-8")
    return folder


def test_the_list_shows_name_kind_distribution_version_and_target(medtool) -> None:
    done = medtool("plugins", "list", "segmenters")

    header, *rows = done.out.splitlines()
    assert header.split() == ["name", "kind", "distribution", "version", "target"]
    assert all(row.split()[1] == "segmenter" for row in rows)
    (row,) = [row.split() for row in rows if row.startswith("random-walker")]
    assert row[2] == "medtool"
    assert row[4] == "medtool.segment.random_walker:RandomWalker"


def test_quiet_gives_names_alone_and_json_a_document(medtool) -> None:
    names = medtool("plugins", "list", "dataset", "-q").out.splitlines()
    document = json.loads(medtool("plugins", "list", "datasets", "--json").out)

    assert names == registry.names("dataset")
    assert (document["format"], document["version"]) == ("medtool-plugins-list", 1)
    assert [plugin["name"] for plugin in document["plugins"]] == names
    assert document["problems"] == []


def test_an_unknown_kind_is_a_usage_error_with_the_nearest(medtool) -> None:
    done = medtool("plugins", "list", "segmentor")

    assert done.code == ExitCode.USAGE
    assert "Did you mean 'segmenter'" in done.err


def test_the_list_shows_a_conflict_and_loads_nothing(medtool, lay: Lay, tmp_path: Path) -> None:
    lay(broken_plugin(tmp_path / "acme-a", name="same", target="acme_a:X", module="raise SystemExit(9)"))
    lay(broken_plugin(tmp_path / "acme-b", name="same", target="acme_b:X", module="raise SystemExit(9)"))

    done = medtool("plugins", "list")
    used = medtool("plugins", "check", "same")

    assert done.code == ExitCode.DONE
    assert [line.split()[2] for line in done.out.splitlines() if line.startswith("same ")] == ["acme-a", "acme-b"]
    assert "'same' cannot be used: it is claimed by acme-a 1.0 (acme_a:X), acme-b 1.0 (acme_b:X)" in done.err
    assert medtool("plugins", "list", "-q").out.splitlines().count("same") == 1
    assert used.code == ExitCode.FAILED
    assert "acme-a" in used.err
    assert "acme-b" in used.err


def test_a_plugin_that_cannot_be_loaded_is_one_line_with_its_origin(medtool, lay: Lay, tmp_path: Path) -> None:
    lay(broken_plugin(tmp_path / "acme-a", name="sick", target="acme_a:X", module="import no_such_module"))

    done = medtool("plugins", "check", "sick")

    assert done.code == ExitCode.FAILED
    assert done.out == ""
    assert done.err.splitlines() == [
        "medtool: segmenter 'sick' of acme-a 1.0 (acme_a:X) cannot be loaded:"
        " ModuleNotFoundError: No module named 'no_such_module'"
    ]


def test_a_check_prints_a_line_each_and_ends_with_0_when_all_pass(medtool) -> None:
    done = medtool("plugins", "check", "random-walker")

    assert done.code == ExitCode.DONE
    assert len(done.out.splitlines()) >= 10
    assert all(line.startswith("passed ") for line in done.out.splitlines())
    assert "0 failed, 0 skipped" in done.err


def test_a_check_that_fails_says_why_and_ends_with_1(medtool, lay: Lay, tmp_path: Path) -> None:
    module = (
        "class X:\n    version = licence = citation = '1'\n    weights = None\n    needs_torch = False\n"
        "    def __init__(self, *, weights, device, precision): ...\n"
        "    def embed(self, image): raise ValueError('two\\nlines')\n"
        "    def segment(self, embedding, prompt): ...\n"
    )
    lay(broken_plugin(tmp_path / "acme-a", name="sick", target="acme_a:X", module=module))

    done = medtool("plugins", "check", "sick")
    quiet = medtool("plugins", "check", "sick", "-q")
    document = json.loads(medtool("plugins", "check", "sick", "--json").out)

    assert done.code == quiet.code == ExitCode.FAILED
    assert "failed   odd sizes are segmented: ValueError: two lines" in done.out.splitlines()
    assert all(line.startswith("failed ") for line in quiet.out.splitlines())
    assert (document["format"], document["name"], document["kind"]) == ("medtool-plugins-check", "sick", "segmenter")
    assert {check["outcome"] for check in document["checks"]} == {"passed", "failed"}


@pytest.mark.slow
def test_a_check_without_the_weights_is_skipped_which_is_not_passed(medtool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path))

    done = medtool("plugins", "check", "mobile-sam")

    assert done.code == ExitCode.PARTIAL
    assert "skipped  odd sizes are segmented: weights 'mobile-sam' are not on this machine" in done.out
    assert "0 failed" in done.err
    assert "0 skipped" not in done.err


def test_a_data_set_is_checked_on_a_folder_of_it(medtool, tmp_path: Path) -> None:
    root = write_class_folders(tmp_path)

    done = medtool("plugins", "check", "folder", "--root", root, "--set", "splits=no")
    without = medtool("plugins", "check", "folder")
    unknown = medtool("plugins", "check", "folder", "--root", root, "--set", "split=no")
    bare = medtool("plugins", "check", "folder", "--root", root, "--set", "splits")
    misplaced = medtool("plugins", "check", "heatmap", "--root", root)

    assert done.code == ExitCode.DONE, done.out
    assert without.code == unknown.code == bare.code == misplaced.code == ExitCode.USAGE
    assert "--root is missing" in without.err
    assert "there is no option 'split'" in unknown.err
    assert "not NAME=VALUE" in bare.err
    assert "are for data sets" in misplaced.err


def test_an_unknown_name_is_a_usage_error_with_the_nearest(medtool) -> None:
    done = medtool("plugins", "check", "random-walkr")

    assert done.code == ExitCode.USAGE
    assert "Did you mean 'random-walker'" in done.err
    assert done.err.endswith("try: medtool plugins list\n")


def test_a_name_of_two_kinds_asks_which(medtool, lay: Lay, tmp_path: Path) -> None:
    lay(broken_plugin(tmp_path / "acme-a", name="masks", target="acme_a:X"))

    done = medtool("plugins", "check", "masks")

    assert done.code == ExitCode.USAGE
    assert "'masks' is the name of dataset and segmenter; say which" in done.err
    assert "--kind dataset" in done.err


@pytest.mark.parametrize("kind", ["segmenter", "dataset", pytest.param("architecture", marks=pytest.mark.slow)])
def test_a_new_plugin_passes_its_contract_as_it_is(medtool, lay: Lay, tmp_path: Path, kind: str) -> None:
    if kind == "architecture":
        import torch

        torch.set_num_threads(1)  # networks as small as this one only wait for one another's threads
    done = medtool("plugins", "new", "my-first", "--kind", kind, "--into", tmp_path)
    folder = tmp_path / "medtool-my-first"
    assert done.code == ExitCode.DONE
    assert done.out.strip() == str(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["medtool-my-first"]

    lay(folder)
    root = ["--root", write_class_folders(tmp_path / "data")] if kind == "dataset" else []
    checked = medtool("plugins", "check", "my-first", *root)

    assert checked.code == ExitCode.DONE, checked.out
    assert "0 failed, 0 skipped" in checked.err


def test_the_tests_of_a_new_plugin_pass_under_pytest(medtool, lay: Lay, tmp_path: Path) -> None:
    medtool("plugins", "new", "my-first", "--kind", "dataset", "--into", tmp_path)
    folder = tmp_path / "medtool-my-first"
    lay(folder)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("kind", ["segmenter", "dataset", "architecture"])
def test_a_new_plugin_follows_our_style(medtool, tmp_path: Path, kind: str) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("needs ruff")
    medtool("plugins", "new", "a-name-of-some-length", "--kind", kind, "--into", tmp_path)

    for command in ("check --select E,F,W,N,B,UP,RUF", "format --check"):
        done = subprocess.run(
            [ruff, *command.split(), "--isolated", "--line-length", "120", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Nuclei", "my_seg", "2d-net", "-x", "x-", "x--y", "ü", "../x", "a/b", "", "a" * 61])
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(medtool, tmp_path: Path, name: str) -> None:
    done = medtool("plugins", "new", "--kind", "segmenter", "--into", tmp_path, "--", name)

    assert done.code == ExitCode.USAGE
    assert "cannot name a plugin" in done.err
    assert list(tmp_path.iterdir()) == []


def test_words_of_python_make_names_all_the_same(medtool, lay: Lay, tmp_path: Path) -> None:
    medtool("plugins", "new", "none", "--kind", "dataset", "--into", tmp_path)
    lay(tmp_path / "medtool-none")

    assert type(registry.load("dataset", "none")).__name__ == "NoneDataset"


def test_nothing_is_overwritten_and_no_taken_name_is_given(medtool, tmp_path: Path) -> None:
    (tmp_path / "medtool-mine").mkdir()

    there = medtool("plugins", "new", "mine", "--kind", "segmenter", "--into", tmp_path)
    taken = medtool("plugins", "new", "medtool-heatmap", "--kind", "segmenters", "--into", tmp_path)
    nowhere = medtool("plugins", "new", "mine", "--kind", "segmenter", "--into", tmp_path / "none")

    assert there.code == taken.code == nowhere.code == ExitCode.USAGE
    assert "is there already" in there.err
    assert "'heatmap' is there already, from medtool" in taken.err
    assert "is not a folder" in nowhere.err
    assert [path.name for path in tmp_path.iterdir()] == ["medtool-mine"]


def test_new_tells_as_json_what_it_wrote(medtool, tmp_path: Path) -> None:
    document = json.loads(medtool("plugins", "new", "mine", "--kind", "segmenter", "--into", tmp_path, "--json").out)

    assert document["format"] == "medtool-plugins-new"
    assert document["files"] == [
        "README.md",
        "medtool_mine/__init__.py",
        "medtool_mine/segmenter.py",
        "pyproject.toml",
        "tests/test_segmenter.py",
    ]
