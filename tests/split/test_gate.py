"""Nothing leaky is trained on or scored unawares, and what is allowed stays marked for good."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.errors import LeakError, LineageError
from medtool.lineage import new_lineage, read_lineage, write_lineage
from medtool.manifest import Manifest, read_manifest
from medtool.roles import roles_of
from medtool.split.gate import Clearance, gate
from medtool.split.marks import Leak, inherited, is_leaky, leaks_of, marks_of
from medtool.split.options import AuditOptions
from medtool.split.seen import Seen, read_seen, seen_of, write_seen

LEAKY = [("a", "P1", "train"), ("b", "P1", "test"), ("c", "P2", "train"), ("d", "P3", "test")]
CLEAN = [("a", "P1", "train"), ("b", "P1", "train"), ("c", "P2", "test")]


def manifest_of(rows: Sequence[tuple[str, str, str]], column: str = "split") -> Manifest:
    return Manifest.from_rows(
        [{"image": f"{name}.png", "image_id": name, "patient": patient, column: part} for name, patient, part in rows],
        Path(),
    )


def asked(manifest: Manifest, *, is_leak_allowed: bool = False, **how: Any) -> Clearance:
    return gate(manifest, AuditOptions(), is_leak_allowed=is_leak_allowed, **how)


def trained(manifest: Manifest, run: str, clearance: Clearance, parents: Sequence[Seen] = ()) -> Seen:
    leaks, roles = clearance.leaks, roles_of(manifest)
    return seen_of(manifest, roles, run=run, groups=("patient",), leaks=leaks, parents=parents)


def test_a_clean_split_passes_and_its_mark_says_so() -> None:
    clearance = asked(manifest_of(CLEAN))
    assert (clearance.findings, clearance.leaks, clearance.is_leaky) == ((), (), False)
    assert clearance.marks == {"leaks": []}


def test_a_patient_in_two_parts_is_refused_with_the_rule_the_number_and_the_way_out() -> None:
    with pytest.raises(LeakError, match=r"manifest\.csv leaks: G101 group-in-two-parts, 1 case \(.*P1\)") as caught:
        asked(manifest_of(LEAKY), source="manifest.csv")
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    assert (caught.value.hint or "").startswith("medtool split audit manifest.csv")
    assert "--allow-leak" in (caught.value.hint or "")


def test_of_many_cases_the_first_are_named() -> None:
    rows = [(f"{patient}{part}", f"P{patient}", part) for patient in range(9) for part in ("train", "test")]
    with pytest.raises(LeakError, match=r"9 cases \(patient P0, patient P1, patient P2, \.\.\.\)"):
        asked(manifest_of(rows))


def test_a_file_named_in_two_parts_is_refused() -> None:
    rows = [{"image": "a.png", "image_id": str(row), "split": split} for row, split in enumerate(("train", "test"))]
    with pytest.raises(LeakError, match="D201"):
        asked(Manifest.from_rows(rows, Path()))


def test_other_columns_can_be_told_to_hold_together() -> None:
    rows = [{"image": f"{split}.png", "batch": "B1", "split": split} for split in ("train", "test")]
    manifest = Manifest.from_rows(rows, Path())
    assert asked(manifest).leaks == ()
    with pytest.raises(LeakError, match="batch B1"):
        gate(manifest, AuditOptions(group=("batch",)), is_leak_allowed=False)


def test_an_allowed_leak_is_marked() -> None:
    clearance = asked(manifest_of(LEAKY), is_leak_allowed=True)
    assert clearance.marks == {"leaks": [{"code": "G101", "n_cases": 1}]}
    assert json.loads(json.dumps(clearance.marks)) == clearance.marks


def test_only_what_the_fold_trains_and_measures_counts() -> None:
    # P1 is in folds 1 and 2: both are trained on when fold 0 is held out.
    manifest = manifest_of([("a", "P1", "1"), ("b", "P1", "2"), ("c", "P2", "0"), ("d", "P3", "0")], column="fold")
    assert asked(manifest, fold=0).leaks == ()
    for fold in (1, 2):
        with pytest.raises(LeakError, match="G101"):
            asked(manifest, fold=fold)
    with pytest.raises(LeakError, match="G102"):
        asked(manifest)


def test_folds_that_vote_together_are_refused_and_apart_are_not() -> None:
    manifest = manifest_of([("a", "P1", "0"), ("b", "P2", "1"), ("c", "P3", "2")], column="fold")
    assert asked(manifest).leaks == ()
    with pytest.raises(LeakError, match="F301"):
        gate(manifest, AuditOptions(are_folds_ensembled=True), is_leak_allowed=False)


def test_a_manifest_without_parts_is_held_against_the_runs_alone() -> None:
    train = manifest_of(CLEAN)
    run = trained(train, "fine", asked(train))
    new = [
        {"image": f"{name}.png", "image_id": name, "patient": patient} for name, patient in (("x", "P1"), ("y", "P9"))
    ]
    manifest = Manifest.from_rows(new, Path())
    assert asked(manifest).leaks == ()
    with pytest.raises(LeakError, match=r"R501 run-has-seen-patient, 1 case \(patient P1\)"):
        asked(manifest, runs=[run])
    assert asked(manifest, runs=[run], is_leak_allowed=True).leaks == (Leak("R501", 1),)
    assert asked(Manifest.from_rows(new[1:], Path()), runs=[run]).leaks == ()


def test_what_is_made_from_a_leaky_run_is_leaky_to_the_last_grandchild(tmp_path: Path) -> None:
    leaky = manifest_of(LEAKY)
    folder = tmp_path / "base"
    clearance = asked(leaky, is_leak_allowed=True)
    folder.mkdir()
    write_lineage(folder, new_lineage("train", clearance.marks, packages=[]))
    write_seen(folder, trained(leaky, "base", clearance))

    base = read_seen(folder)
    fresh = manifest_of([("m", "P7", "train"), ("n", "P8", "test")])
    child = asked(fresh, runs=[base])
    assert child.leaks == (Leak("G101", 1),)
    grandchild = asked(manifest_of([("q", "P9", "test")]), runs=[trained(fresh, "child", child, [base])])
    assert grandchild.marks == clearance.marks

    predictions = new_lineage("predict", {"batch": 8, **grandchild.marks}, packages=[])
    report = asked(manifest_of([("q", "P9", "test")]), made_from=[predictions])
    assert is_leaky(predictions)
    assert report.marks == clearance.marks
    assert is_leaky(read_lineage(folder) or {})


def test_a_lineage_without_the_mark_is_clean() -> None:
    assert leaks_of(new_lineage("segment", {}, packages=[])) == ()
    assert not is_leaky({"made_with": {"leaks": []}})


@pytest.mark.parametrize(
    "mark",
    [
        "G101",
        {"code": "G101"},
        [1],
        ["G101"],
        [{"code": "G101"}],
        [{"code": 1, "n_cases": 1}],
        [{"code": "G101", "n_cases": True}],
        None,
    ],
)
def test_a_mark_that_cannot_be_read_does_not_pass_as_clean(mark: object) -> None:
    with pytest.raises(LineageError, match=r"made_with\.leaks"):
        is_leaky({"made_with": {"leaks": mark}})


leaks = st.lists(st.builds(Leak, st.sampled_from(["G101", "D201", "R501"]), st.integers(1, 9)), max_size=4)


@given(leaks, leaks, leaks)
def test_inheriting_loses_no_rule_and_its_order_does_not_matter(
    first: list[Leak], second: list[Leak], third: list[Leak]
) -> None:
    together = inherited(first, second, third)
    assert {leak.code for leak in together} == {leak.code for leak in [*first, *second, *third]}
    assert together == inherited(third, inherited(second, first)) == inherited(together, together)
    assert leaks_of({"made_with": marks_of(together)}) == together


def test_real_lesions_split_by_image_are_refused_and_split_by_lesion_pass(shared_data: Path) -> None:
    from medtool.datasets.ham10000 import Ham10000

    whole = Ham10000().manifest(shared_data / "ham10000")
    by_image, by_lesion = ([dict(row) for row in whole.rows()] for _ in range(2))
    lesions: dict[str, int] = {}
    for place, (one, other) in enumerate(zip(by_image, by_lesion, strict=True)):
        one["split"] = ("train", "test")[place % 2]
        other["split"] = ("train", "test")[lesions.setdefault(other["lesion"], len(lesions)) % 2]
    cut = {row["lesion"] for row in by_image if row["split"] == "train"}
    cut &= {row["lesion"] for row in by_image if row["split"] == "test"}
    with pytest.raises(LeakError, match=f"G101 group-in-two-parts, {len(cut)} cases"):
        asked(Manifest.from_rows(by_image, whole.root))
    assert asked(Manifest.from_rows(by_lesion, whole.root)).leaks == ()


def test_the_gate_loads_no_network_and_opens_no_image(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("image,patient,split\na.png,P1,train\nb.png,P2,test\n")
    program = (
        "import sys; from pathlib import Path; from medtool.manifest import read_manifest;"
        "from medtool.split.gate import gate; from medtool.split.options import AuditOptions;"
        f"gate(read_manifest(Path({str(path)!r})), AuditOptions(), is_leak_allowed=False);"
        "print(*sorted({'torch', 'cv2', 'skimage', 'sklearn', 'PIL', 'scipy'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
    assert len(read_manifest(path)) == 2
