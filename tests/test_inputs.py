"""What the user names becomes images: which, in which order, called what, and what is said of the rest."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtool.errors import InputError, ManifestError, UsageError
from medtool.folders import image_suffix, output_name, stem_of
from medtool.inputs import Listing, find_images

DICOM = b"\0" * 128 + b"DICM" + b"\0" * 8
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX file system")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _make(root: Path, *names: str, data: bytes = b"x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _link(link: Path, target: Path | str) -> None:
    try:
        link.symlink_to(target, target_is_directory=(link.parent / target).is_dir())
    except OSError:
        pytest.skip("this system does not let us make links")


def _ids(listing: Listing) -> list[str]:
    return [item.image_id for item in listing.items]


def _reasons(listing: Listing) -> dict[str, str]:
    return {problem.image_id: problem.reason for problem in listing.problems}


# Folders


def test_a_folder_gives_its_images_by_the_code_points_of_their_paths(here: Path) -> None:
    _make(
        here / "in",
        "b.png",
        "a/z.JPG",
        "a-b/y.png",
        "B.tif",
        "ä.png",
        "a/x.nii.gz",
        "notes.txt",
        "x.gz",
        "noext",
        "z.csv",
    )
    listing = find_images(["in"])
    assert _ids(listing) == ["B.tif", "a-b/y.png", "a/x.nii.gz", "a/z.JPG", "b.png", "ä.png"]
    assert [item.relative.as_posix() for item in listing.items] == _ids(listing)
    assert listing.items[0].path == Path("in/B.tif")
    assert listing.problems == []


def test_hidden_names_are_passed_over(here: Path) -> None:
    _make(here, "a.png", ".b.png", ".git/c.png", "sub/._d.png", ".medtool-tmp-1.png")
    assert _ids(find_images(["."])) == ["a.png"]


def test_dicom_files_without_a_suffix_are_found_and_dicomdir_is_not(here: Path) -> None:
    _make(here, "IM0001", "1.2.840.113619.2.55", "IM.1", "DICOMDIR", "IM.xyz", data=DICOM)
    _make(here, "README", "core.123", "short.1")
    assert _ids(find_images(["."])) == ["1.2.840.113619.2.55", "IM.1", "IM0001"]


def test_earlier_results_inside_the_folder_are_passed_over_and_named(here: Path) -> None:
    _make(here, "in/a.png", "in/a-masks/lineage.json", "in/a-masks/masks/a.png", "in/a-masks/overlays/a.jpg")
    for inputs in (["in"], ["in/*"], ["in/**/*.png"], ["in/**"], ["*"], ["in/a.png", "in/a-masks"]):
        listing = find_images(inputs)
        assert [item.path.as_posix() for item in listing.items] == ["in/a.png"], inputs
        assert any("a-masks" in note and "result" in note for note in listing.notes), inputs
    with pytest.raises(InputError, match="a-masks: it holds a result"):
        find_images(["in/a-masks"])
    assert _ids(find_images(["in/a-masks/masks"])) == ["a.png"]


def test_links_to_folders_are_followed_once_and_real_names_win(here: Path) -> None:
    _make(here, "in/z/a.png", "elsewhere/b.png")
    _link(here / "in" / "a-link", "z")
    _link(here / "in" / "z" / "loop", here / "in")
    _link(here / "in" / "other", here / "elsewhere")
    assert _ids(find_images(["in"])) == ["other/b.png", "z/a.png"]


def test_a_link_to_nothing_is_a_problem_where_an_image_is_meant(here: Path) -> None:
    _make(here, "in/a.png")
    _link(here / "in" / "b.png", "gone.png")
    _link(here / "in" / "notes.txt", "gone.txt")
    _link(here / "in" / "round.png", "round.png")
    listing = find_images(["in"])
    assert _ids(listing) == ["a.png"]
    assert _reasons(listing)["b.png"] == "a link to nothing"
    assert "round.png" in _reasons(listing)
    assert "notes.txt" not in _reasons(listing)


@posix_only
def test_what_is_no_regular_file_is_a_problem_and_never_opened(here: Path) -> None:
    _make(here, "in/a.png")
    os.mkfifo(here / "in" / "pipe.png")
    assert _reasons(find_images(["in"])) == {"pipe.png": "is not a regular file"}
    assert _reasons(find_images(["in/a.png", "in/pipe.png", "/dev/null"])) == {
        f"{here.relative_to('/')}/in/pipe.png": "is not a regular file",
        "dev/null": "is not a regular file",
    }


@contextlib.contextmanager
def _without_privileges() -> Iterator[None]:
    """Be a user whom permissions bind, where the tests run as root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@posix_only
def test_what_may_not_be_looked_at_is_a_problem() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        _make(root, "in/a.png", "in/closed/b.png", "in/NODICOM")
        assert len(find_images([name]).items) == 2  # everything that is imported late is there now
        (root / "in" / "NODICOM").chmod(0)
        (root / "in" / "closed").chmod(0)
        with _without_privileges():
            if not os.path.isdir(f"{name}/in"):  # noqa: PTH112 - never raises
                pytest.skip("the temporary folder is closed to other users")
            listed = find_images([f"{name}/in"])
            starred = find_images([f"{name}/in/*"])
            deep = find_images([f"{name}/in/**/*.png"])
            named = find_images([f"{name}/in/a.png", f"{name}/in/closed/b.png"])
        (root / "in" / "closed").chmod(0o700)
    assert [_ids(listing) for listing in (listed, starred, deep, named)] == [["a.png"]] * 4
    assert _reasons(listed) == {"NODICOM": "permission denied", "closed": "folder: permission denied"}
    assert _reasons(starred) == _reasons(listed)
    assert _reasons(deep) == {"closed": "folder: permission denied"}
    assert _reasons(named) == {"closed/b.png": "permission denied"}


def test_a_folder_that_fails_while_it_is_listed_is_a_problem(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(here, "in/a.png", "in/bad/b.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("bad"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for inputs in (["in"], ["in/**/*.png"], ["in/*/*.png", "in/a.png"]):
        listing = find_images(inputs)
        assert [item.path.name for item in listing.items] == ["a.png"]
        assert [problem.path.name for problem in listing.problems] == ["bad"]
        assert listing.problems[0].reason == "folder: permission denied"


@posix_only
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no undecodable names")
def test_a_name_that_is_not_unicode_is_a_problem_that_can_be_written_down(here: Path) -> None:
    _make(here, "in/a.png", "in/sub/c.png")
    try:
        (here / "in" / os.fsdecode(b"b\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    (here / "in" / "sub").rename(here / "in" / os.fsdecode(b"s\xe4"))
    for listing in (
        find_images(["in"]),
        find_images(["in/**/*.png"]),
        find_images(["-"], stdin=io.BytesIO(b"in/a.png\nin/b\xff.png\nin/s\xe4/c.png\n")),
    ):
        assert _ids(listing) == ["a.png"]
        assert set(_reasons(listing)) == {"b\\udcff.png", "s\\udce4/c.png"}
        for problem in listing.problems:
            problem.image_id.encode()
            assert problem.path.exists()


# Files, several inputs, and what results are called


def test_a_file_is_taken_whatever_it_is_called_and_its_result_lies_flat(here: Path) -> None:
    _make(here, "deep/er/a.xyz")
    (item,) = find_images(["deep/er/a.xyz"]).items
    assert (item.image_id, item.relative, item.path) == ("a.xyz", PurePosixPath("a.xyz"), Path("deep/er/a.xyz"))
    assert item.output_name == PurePosixPath("a.xyz.png")


def test_several_inputs_are_placed_below_what_they_have_in_common(here: Path) -> None:
    _make(here, "data/one/a.png", "data/two/sub/a.png", "data/b.png")
    assert _ids(find_images(["data/one", "data/two"])) == ["one/a.png", "two/sub/a.png"]
    assert _ids(find_images(["data/two/sub/a.png", "data/one/a.png"])) == ["two/sub/a.png", "one/a.png"]
    assert _ids(find_images(["data/one", "data/one/a.png"])) == ["a.png"]
    assert _ids(find_images(["data/two", str(here / "data" / "b.png")])) == ["two/sub/a.png", "b.png"]
    assert _ids(find_images(["data/one/../one/a.png"])) == ["a.png"]


def test_an_image_given_twice_is_taken_once_and_that_is_said(here: Path) -> None:
    _make(here, "data/a.png", "data/b.png")
    listing = find_images(["data", "data/a.png", "data/*.png"])
    assert _ids(listing) == ["a.png", "b.png"]
    assert listing.notes == ["3 files given more than once are taken once"]


def test_a_missing_file_is_a_problem_with_the_nearest_name_and_the_rest_goes_on(here: Path) -> None:
    _make(here, "data/lesion_01.png", "data/b.png")
    listing = find_images(["data/b.png", "data/lesion_1.png", "nowhere/c.png"])
    assert [item.path.name for item in listing.items] == ["b.png"]
    assert _reasons(listing) == {
        "data/lesion_1.png": "does not exist; did you mean 'lesion_01.png'?",
        "nowhere/c.png": "does not exist",
    }


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.png", "a"),
        ("a.JPEG", "a"),
        ("x.nii.gz", "x"),
        ("x.NII.GZ", "x"),
        ("x.y.tif", "x.y"),
        ("IM.1", "IM.1"),
        ("1.2.840.5", "1.2.840.5"),
        ("x.gz", "x.gz"),
        ("noext", "noext"),
        (".png", ".png"),
    ],
)
def test_only_suffixes_of_images_are_replaced(name: str, stem: str) -> None:
    assert stem_of(name) == stem
    assert stem + image_suffix(name) == name
    assert output_name(f"p/q.r/{name}") == f"p/q.r/{stem}.png"


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("s/x.nii", "s/x.nii.gz"), ("IM", "IM.png")])
def test_images_whose_results_would_have_one_name_are_refused_with_both_names(
    here: Path, names: tuple[str, str]
) -> None:
    _make(here / "in", *names, data=DICOM)
    with pytest.raises(InputError) as caught:
        find_images(["in"])
    assert all(Path(name).name in str(caught.value) for name in names)
    assert "glob" in (caught.value.hint or "")
    assert len(find_images([f"in/**/*{Path(names[0]).suffix}"]).items if names[0] != "IM" else [1]) == 1


def test_uid_names_that_differ_only_in_their_last_number_do_not_meet(here: Path) -> None:
    _make(here / "in", "IM.1", "IM.2", "1.2.3", "1.2.4", data=DICOM)
    assert [str(item.output_name) for item in find_images(["in"]).items] == [
        "1.2.3.png",
        "1.2.4.png",
        "IM.1.png",
        "IM.2.png",
    ]


_names = st.text(st.sampled_from("aB.-_[1 ü"), min_size=1, max_size=6).filter(
    lambda name: name.strip(". ") and name[0] != "."
)


@settings(max_examples=40)
@given(st.sets(st.tuples(_names, _names, st.sampled_from([".png", ".TIF", ".nii.gz"])), min_size=1, max_size=6))
def test_outputs_are_distinct_or_refused_and_stay_below_the_folder(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, str, str]]
) -> None:
    root = tmp_path_factory.mktemp("in")
    made = set()
    for folder, name, suffix in paths:
        (root / folder).mkdir(exist_ok=True)
        (root / folder / (name + suffix)).write_bytes(b"x")
        made.add(f"{folder}/{name}{suffix}")
    try:
        listing = find_images([str(root)])
    except InputError:
        assert len({output_name(name) for name in made}) < len(made)
        return
    outputs = [item.output_name for item in listing.items]
    assert len(set(outputs)) == len(outputs)
    assert _ids(listing) == sorted(made)
    assert all(not output.is_absolute() and ".." not in output.parts for output in outputs)


# Globs


def test_globs_match_as_a_shell_would(here: Path) -> None:
    _make(here, "d/a1.png", "d/a2.jpg", "d/b1.png", "d/.h.png", "d/s/a3.png", "d/s/t/a4.png", "d/.x/a5.png", "d/n.txt")
    assert _ids(find_images(["d/a*"])) == ["a1.png", "a2.jpg"]
    assert _ids(find_images(["d/?[13].png"])) == ["a1.png", "b1.png"]
    assert _ids(find_images(["d/**/*.png"])) == ["a1.png", "b1.png", "s/a3.png", "s/t/a4.png"]
    assert _ids(find_images(["d/**/t/*"])) == ["s/t/a4.png"]
    assert _ids(find_images(["*/s/*.png"])) == ["d/s/a3.png"]
    assert _ids(find_images(["d/.*.png"])) == [".h.png"]
    assert _ids(find_images(["d/**"])) == ["a1.png", "a2.jpg", "b1.png", "s/a3.png", "s/t/a4.png"]
    assert _ids(find_images([str(here / "d" / "s" / "**" / "*.png")])) == ["a3.png", "t/a4.png"]


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["**", "*", "a*", "?b", "[!a]*", "a", "s", "*.png", "[ab].png"]), min_size=1, max_size=4)
)
def test_globs_match_what_pythons_glob_matches(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    import glob

    from medtool.globs import expand_glob

    root = tmp_path_factory.getbasetemp() / "globs"
    if not root.exists():
        _make(root, "a/a.png", "a/b.png", "s/ab/a.png", "s/a/s/a", "ab", "a.png", "b.png", "s/.a/a.png", ".b.png")
    pattern = str(root.joinpath(*parts))
    theirs = {os.path.normpath(name) for name in glob.glob(pattern, recursive=True)} - {str(root)}  # noqa: PTH207
    matches = expand_glob(pattern)
    # A last ** names the folder's entries; medtool lists folders as a whole, so deeper ones need no mention.
    ours = {os.path.normpath(path) for _, path in matches.found}
    if parts[-1] == "**":
        assert ours <= theirs
        assert all(any(Path(name).is_relative_to(top) for top in ours) for name in theirs if Path(name).is_file())
    else:
        assert ours == theirs


def test_folders_that_a_glob_matches_are_listed_whole(here: Path) -> None:
    _make(here, "d/p1/x/a.png", "d/p2/b.png", "d/q/c.png", "d/p3.txt")
    listing = find_images(["d/p*"])
    assert _ids(listing) == ["p1/x/a.png", "p2/b.png"]
    assert listing.notes == ["d/p* matches 1 file too that is no image"]


def test_a_file_whose_name_holds_brackets_wins_over_the_pattern(here: Path) -> None:
    _make(here, "scan[1].png", "scan1.png", "set [2]/a.png")
    assert _ids(find_images(["scan[1].png"])) == ["scan[1].png"]
    assert _ids(find_images(["set [2]"])) == ["a.png"]
    assert _ids(find_images(["scan[0-9].png"])) == ["scan1.png"]


def test_double_stars_do_not_go_round_in_circles(here: Path) -> None:
    _make(here, "d/s/a.png")
    _link(here / "d" / "s" / "up", here / "d")
    _link(here / "d" / "s" / "again", here / "d")
    assert _ids(find_images(["d/**/*.png"])) == ["s/a.png"]


def test_a_glob_cannot_lead_up_after_a_wildcard(here: Path) -> None:
    _make(here, "d/s/a.png", "d/b.png")
    with pytest.raises(UsageError, match=r"'\.\.' cannot come after a wildcard"):
        find_images(["d/*/../b.png"])
    assert _ids(find_images(["d/../d/*.png"])) == ["b.png"]


# Paths on stdin


def test_paths_on_stdin_are_taken_literally_line_by_line(here: Path) -> None:
    _make(here, "d/a [x].png", "d/b.png", "e/c.png", "e/sub/f.png", "d/t.csv")
    stdin = io.BytesIO(b"\xef\xbb\xbfd/b.png\r\nd/a [x].png\r\n\r\ne\nd/*.png\nd/t.csv\nd/b.png")
    listing = find_images(["-"], stdin=stdin)
    assert _ids(listing) == ["d/b.png", "d/a [x].png", "e/c.png", "e/sub/f.png"]
    assert _reasons(listing)["d/*.png"] == "does not exist"
    assert "not on stdin" in _reasons(listing)["d/t.csv"]


@posix_only
def test_paths_ended_by_nul_may_hold_line_ends(here: Path) -> None:
    _make(here, "d/a\nb.png", "d/c.png")
    assert _ids(find_images(["-"], stdin=io.BytesIO(b"d/a\nb.png\0d/c.png\0"), null_separated=True)) == [
        "a\nb.png",
        "c.png",
    ]
    with pytest.raises(InputError, match="NUL") as caught:
        find_images(["-"], stdin=io.BytesIO(b"d/a\nb.png\0d/c.png\0"))
    assert "-0" in (caught.value.hint or "")


def test_stdin_goes_together_with_other_inputs_but_only_once(here: Path) -> None:
    _make(here, "d/a.png", "e/b.png")
    assert _ids(find_images(["d", "-"], stdin=io.BytesIO(b"e/b.png\n"))) == ["d/a.png", "e/b.png"]
    with pytest.raises(UsageError, match="twice"):
        find_images(["-", "-"], stdin=io.BytesIO(b""))


# Manifests


def test_a_manifest_gives_its_rows_in_its_order_with_all_columns(here: Path) -> None:
    _make(here, "data/img/b.png", "data/img/a.png", "data/m/b.png")
    (here / "data" / "manifest.csv").write_text(
        "image_id,image,mask,label\n007,img/b.png,m/b.png,x\n1e5,./img//a.png,m/gone.png,y\n8,img/none.png,,z\n"
    )
    listing = find_images(["data/manifest.csv"])
    assert _ids(listing) == ["007", "1e5"]
    assert [item.relative.as_posix() for item in listing.items] == ["img/b.png", "img/a.png"]
    assert listing.items[0].columns == {"image_id": "007", "image": "img/b.png", "mask": "m/b.png", "label": "x"}
    assert [item.mask for item in listing.items] == [Path("data/m/b.png"), None]
    assert _reasons(listing) == {"8": "does not exist"}
    assert any("m/gone.png does not exist" in note for note in listing.notes)


def test_rows_that_lead_out_by_a_link_are_problems(here: Path) -> None:
    _make(here, "data/a.png", "secret/b.png")
    _link(here / "data" / "link", here / "secret")
    (here / "data" / "manifest.csv").write_text("image\na.png\nlink/b.png\n")
    listing = find_images(["data/manifest.csv"])
    assert _ids(listing) == ["a.png"]
    assert _reasons(listing) == {"link/b.png": "a link leads out of the manifest's folder"}


def test_a_csv_that_is_no_manifest_stops_with_its_line(here: Path) -> None:
    _make(here, "a.png")
    (here / "labels.csv").write_text("id,dx\n1,mel\n")
    with pytest.raises(ManifestError, match=r"labels\.csv, line 1: no column is called 'image'"):
        find_images(["a.png", "labels.csv"])


def test_one_id_for_two_images_is_refused(here: Path) -> None:
    _make(here, "d/a.png", "e/b.png")
    for folder, name in (("d", "a.png"), ("e", "b.png")):
        (here / folder / "manifest.csv").write_text(f"image,image_id\n{name},1\n")
    with pytest.raises(InputError, match="both have the image_id '1'"):
        find_images(["d/manifest.csv", "e/manifest.csv"])


# Nothing at all


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nothing"], "nothing does not exist"),
        (["empty"], "no image in empty"),
        (["texts"], "2 files there, none of them an image by its name"),
        (["texts/*.png"], r"texts/\*\.png matches nothing"),
        (["-"], "no image in -: no path came on stdin"),
        (["empty/manifest.csv"], "does not exist"),
    ],
)
def test_no_image_at_all_is_one_clear_error(here: Path, inputs: list[str], message: str) -> None:
    (here / "empty").mkdir()
    _make(here, "texts/a.txt", "texts/b.md")
    with pytest.raises(InputError, match=message) as caught:
        find_images(inputs, stdin=io.BytesIO(b""))
    assert "\n" not in str(caught.value)


def test_no_input_is_a_usage_error() -> None:
    for inputs in ([], [""], ["a.png", ""]):
        with pytest.raises(UsageError):
            find_images(inputs)


def test_listing_a_folder_imports_neither_numpy_nor_polars(here: Path) -> None:
    _make(here, "a.png")
    program = (
        "import sys; from medtool.inputs import find_images; assert len(find_images(['.']).items) == 1;"
        "print([name for name in ('numpy', 'polars', 'torch', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.strip() == "[]"


# Real data


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        (["isic2017/images"], 2000),
        (["dicom/mr_series"], 22),
        (["nifti-hippocampus/*_image.nii.gz"], 6),
        (["**/ISIC_002430*.jpg"], 2),
        (["breakhis", "monuseg/images"], 38),
    ],
)
def test_real_folders_give_the_images_that_they_hold(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], count: int
) -> None:
    monkeypatch.chdir(shared_data)
    listing = find_images(inputs)
    assert len(listing.items) == count
    assert listing.problems == []
    assert all((shared_data / item.path).is_file() for item in listing.items)


def test_a_glob_that_matches_nothing_is_a_problem_beside_inputs_that_do(here: Path) -> None:
    _make(here, "a.png")
    listing = find_images(["a.png", "nothing*.png"])
    assert [item.image_id for item in listing.items] == ["a.png"]
    assert [(problem.image_id, problem.reason) for problem in listing.problems] == [("nothing*.png", "matches nothing")]
