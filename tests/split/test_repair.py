"""The repaired split: clean, by the fewest moves, none into test, and everything else as it was."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.manifest import Manifest
from medtool.roles import folds_of, has_fixed_test, parts_of, roles_of
from medtool.split.duplicates.fingerprints import Fingerprints
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.findings import Severity
from medtool.split.options import AuditOptions
from medtool.split.repair import Lost, Move, Repair, repair
from medtool.split.rules.of_table import cheap_findings
from medtool.split.rules.pictures import duplicate_findings
from medtool.split.table import AuditTable

GROUPS = ("patient", "lesion")
CELLS = ("split", "fold", "val_fold")


@dataclass(frozen=True)
class Case:
    """A split, and which of its rows show one picture."""

    rows: tuple[Mapping[str, str], ...]
    joined: tuple[tuple[int, int], ...]

    @property
    def table(self) -> AuditTable:
        return table_of(self.rows)


def table_of(rows: Sequence[Mapping[str, str]]) -> AuditTable:
    complete = [{"image": f"{place}.png", "image_id": f"{place}.png", **row} for place, row in enumerate(rows)]
    manifest = Manifest.from_rows(complete, Path())
    return AuditTable.of(manifest, [name for name in GROUPS if name in manifest.columns])


def repaired(*rows: str, joined: Sequence[tuple[int, int]] = ()) -> tuple[Repair, list[str]]:
    """Return the repair of rows such as ``P1 train``, and the parts after it."""
    patients = [row.partition(" ") for row in rows]
    result = repair(table_of([{"patient": patient, "split": split} for patient, _, split in patients]), joined=joined)
    return result, parts_of(result.manifest).to_list()


SPLITS = st.sampled_from(["train", "train", "val", "test", "test", ""]).map(lambda split: {"split": split})
FOLDS = st.sampled_from(["0", "1", "2", ""]).map(lambda fold: {"fold": fold})
VAL_FOLDS = st.tuples(st.sampled_from("012"), st.sampled_from("012")).map(
    lambda pair: {"fold": pair[0], "val_fold": pair[1] if pair[1] != pair[0] else ""}
)
FIXED = st.sampled_from([{"split": "test"}, {"fold": "0"}, {"fold": "1"}, {"split": "test", "fold": "1"}, {}])
MIXED = st.one_of(SPLITS, FOLDS, VAL_FOLDS, FIXED, st.just({"split": "train", "fold": "1", "val_fold": "0"}))


@st.composite
def cases(draw: st.DrawFn, most: int = 14) -> Case:
    kind = draw(st.sampled_from([SPLITS, FOLDS, VAL_FOLDS, FIXED, MIXED]))
    n = draw(st.integers(1, most))
    rows = []
    for _ in range(n):
        cells = draw(kind)
        patient, lesion = (
            draw(st.sampled_from(["", "unknown", "P1", "P2", "P3"])),
            draw(st.sampled_from(["", "", "P1", "L2", "L3"])),
        )
        label, site = draw(st.sampled_from(["", "mel", "nv"])), draw(st.sampled_from("AB"))
        rows.append({"patient": patient, "lesion": lesion, "label": label, "site": site, **cells})
    places = st.integers(0, n - 1)
    joined = (
        draw(st.lists(st.tuples(places, places).filter(lambda pair: pair[0] < pair[1]), max_size=2)) if n > 1 else []
    )
    return Case(tuple(rows), tuple(joined))


def cut(table: AuditTable, joined: Sequence[tuple[int, int]], parts: Sequence[str]) -> list[tuple[str, str]]:
    """Return every value of a group, and every picture, whose used rows are in several parts."""
    held = defaultdict(set)
    for row, part in zip(table.manifest.rows(), parts, strict=True):
        for name in table.groups:
            if row[name] not in ("", "unknown") and part:
                held[name, row[name]].add(part)
    for place, members in enumerate(copies(len(parts), joined)):
        held["copy", str(place)] = {parts[row] for row in members} - {""}
    return sorted(name for name, where in held.items() if len(where) > 1)


def copies(n: int, joined: Sequence[tuple[int, int]]) -> list[set[int]]:
    sets = [{row} for row in range(n)]
    for first, second in joined:
        one, other = (next(each for each in sets if row in each) for row in (first, second))
        if one is not other:
            sets.remove(other)
            one |= other
    return sets


def times_in_test(manifest: Manifest) -> list[int]:
    """Return for how many trainings an image is in test; more than there are folds where it is there for all."""
    folds = folds_of(manifest)
    roles = [roles_of(manifest, fold).to_list() for fold in folds] if folds else [roles_of(manifest).to_list()]
    return [sum(role == "test" for role in row) for row in zip(*roles, strict=True)]


@given(cases())
def test_no_group_and_no_picture_is_in_two_parts_afterwards(case: Case) -> None:
    result = repair(case.table, joined=case.joined)
    assert cut(case.table, case.joined, parts_of(result.manifest).to_list()) == []


@given(cases())
def test_the_audit_finds_no_leak_afterwards(case: Case) -> None:
    table = AuditTable.of(repair(case.table, joined=case.joined).manifest, case.table.groups)
    assert [each for each in cheap_findings(table, AuditOptions()) if each.severity is Severity.HIGH] == []
    pairs = tuple(DuplicatePair(first, second, Kind.NEAR, 0.99, "") for first, second in sorted(set(case.joined)))
    duplicates = Duplicates(pairs, Fingerprints.empty(len(case.rows)), {})
    found = duplicate_findings(table, duplicates)
    assert not {each.rule.code for each in found} & {"D202", "D203", "D204"}


@given(cases())
def test_no_row_is_in_test_that_was_not(case: Case) -> None:
    before, result = case.table.manifest, repair(case.table, joined=case.joined)
    if not parts_of(before).is_in([""]).all() and has_fixed_test(before) == has_fixed_test(result.manifest):
        was, is_now = times_in_test(before), times_in_test(result.manifest)
        assert all(now <= earlier for earlier, now in zip(was, is_now, strict=True))


@given(cases())
def test_all_else_stays_as_it_was_and_the_moves_are_the_difference(case: Case) -> None:
    before, result = case.table.manifest, repair(case.table, joined=case.joined)
    assert result.manifest.columns == before.columns
    others = [name for name in before.columns if name not in CELLS]
    assert result.manifest.table.select(others).equals(before.table.select(others))
    was, is_now = parts_of(before).to_list(), parts_of(result.manifest).to_list()
    ids = before.table.get_column("image_id").to_list()
    differences = [row for row in zip(ids, was, is_now, strict=True) if row[1] != row[2]]
    assert [(move.image_id, move.before, move.after) for move in result.moves] == differences
    for old, new, part, part_now in zip(before.rows(), result.manifest.rows(), was, is_now, strict=True):
        assert part != part_now or old == new
        assert (part == "") == (part_now == "")


@given(cases())
def test_a_repaired_split_needs_no_repair(case: Case) -> None:
    once = repair(case.table, joined=case.joined).manifest
    again = repair(AuditTable.of(once, case.table.groups), joined=case.joined)
    assert again.moves == ()
    assert again.manifest.table.equals(once.table)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(case: Case, random: object) -> None:
    order = list(range(len(case.rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    named = [{**row, "image_id": f"{place:02}"} for place, row in enumerate(case.rows)]
    place_of = {row: place for place, row in enumerate(order)}
    joined = [tuple(sorted((place_of[first], place_of[second]))) for first, second in case.joined]
    straight = repair(table_of(named), joined=case.joined).moves
    shuffled = repair(table_of([named[row] for row in order]), joined=joined).moves  # type: ignore[arg-type]
    assert sorted((move.image_id, move.after) for move in straight) == sorted((m.image_id, m.after) for m in shuffled)


@given(cases(most=5))
def test_no_fewer_moves_would_do(case: Case) -> None:
    table = case.table
    parts = parts_of(table.manifest).to_list()
    measured = {part: 2 if part == "test" else int(part.startswith("fold")) for part in parts if part}
    if has_fixed_test(table.manifest):
        measured = {part: int(part == "test") for part in measured}
    choices = [[to for to in measured if measured[to] <= measured[part]] if part else [""] for part in parts]
    fewest = min(
        sum(now != was for now, was in zip(chosen, parts, strict=True))
        for chosen in itertools.product(*choices)
        if not cut(table, case.joined, chosen)
    )
    assert len(repair(table, joined=case.joined).moves) == fewest


def test_a_clean_split_is_left_alone() -> None:
    result, parts = repaired("P1 train", "P1 train", "P2 test", "P3 val", "P4 ", " test")
    assert (result.moves, result.lost, result.notes) == ((), (), ())
    assert parts == ["train", "train", "test", "val", "", "test"]
    assert dict(result.before) == dict(result.after) == {"train": 2, "val": 1, "test": 2}


def test_rows_leave_test_even_where_most_are_there() -> None:
    result, parts = repaired("P1 train", "P1 test", "P1 test", "P2 test")
    assert parts == ["train", "train", "train", "test"]
    assert result.moves == (
        Move("1.png", "test", "train", "patient P1"),
        Move("2.png", "test", "train", "patient P1"),
    )


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        (("P1 train", "P1 val", "P1 val"), "val"),
        (("P1 train", "P1 train", "P1 val"), "train"),
        (("P1 val", "P1 train"), "train"),
        (("P1 val", "P1 test", "P1 test"), "val"),
    ],
)
def test_the_smaller_side_moves_and_a_tie_goes_to_train(rows: tuple[str, ...], part: str) -> None:
    assert set(repaired(*rows)[1]) == {part}


def test_copies_are_brought_together_also_by_way_of_a_row_that_is_not_used() -> None:
    result, parts = repaired("P1 train", "P2 ", "P3 test", "P4 test", joined=[(0, 1), (1, 2)])
    assert parts == ["train", "", "train", "test"]
    assert result.moves == (Move("2.png", "test", "train", "copies of 0.png"),)


def test_copies_are_brought_together_also_by_way_of_an_image_of_another_manifest() -> None:
    _, parts = repaired("P1 train", "P2 test", "P3 test", joined=[(0, 7), (1, 7)])
    assert parts == ["train", "train", "test"]


def test_rows_that_name_one_file_are_brought_together() -> None:
    rows = [{"image": "a/same.png", "split": "train"}, {"image": "a/./same.png", "split": "test"}]
    result = repair(table_of([*rows, {"split": "test"}]))
    assert result.moves == (Move("1.png", "test", "train", "image a/same.png"),)


@pytest.mark.parametrize("nobody", ["", " ", "unknown", "NaN", "N/A"])
def test_rows_that_name_nobody_are_not_tied_to_each_other(nobody: str) -> None:
    rows = [{"patient": nobody, "split": split} for split in ("train", "test", "val")]
    assert repair(table_of([*rows, {"patient": "P1", "split": "train"}])).moves == ()


def test_an_unused_row_does_not_tie_two_patients_to_each_other() -> None:
    rows = [
        {"patient": "P1", "lesion": "L1", "split": "train"},
        {"patient": "P1", "lesion": "L2"},
        {"patient": "P2", "lesion": "L2", "split": "test"},
    ]
    assert repair(table_of(rows)).moves == ()


def test_a_unit_of_several_patients_moves_whole_and_says_why() -> None:
    rows = [
        {"patient": "P1", "lesion": "L1", "split": "train"},
        {"patient": "P1", "lesion": "L2", "split": "train"},
        {"patient": "P2", "lesion": "L2", "split": "test"},
        {"patient": "P2", "lesion": "L3", "split": "test"},
    ]
    result = repair(table_of(rows))
    assert [(move.image_id, move.because) for move in result.moves] == [("2.png", "lesion L2"), ("3.png", "lesion L2")]


def test_between_folds_most_rows_win_and_then_the_fold_with_the_fewest_images() -> None:
    folds = ["0", "0", "0", "1", "2", "2"]
    patients = ["P1", "", "", "P1", "P2", "P2"]
    rows = [{"patient": patient, "fold": fold} for patient, fold in zip(patients, folds, strict=True)]
    assert parts_of(repair(table_of(rows)).manifest).to_list()[3] == "fold 1"
    rows += [{"patient": "P2", "fold": "0"}]
    result = repair(table_of(rows))
    assert [(move.image_id, move.after) for move in result.moves] == [("0.png", "fold 1"), ("6.png", "fold 2")]
    assert dict(result.before) == {"fold 0": 4, "fold 1": 1, "fold 2": 2}
    assert dict(result.after) == {"fold 0": 2, "fold 1": 2, "fold 2": 3}


def test_a_row_takes_the_val_fold_along() -> None:
    rows = [
        {"patient": "P1", "fold": "0", "val_fold": "1"},
        {"patient": "P1", "fold": "0", "val_fold": "1"},
        {"patient": "P1", "fold": "0", "val_fold": "2"},
        {"patient": "P2", "fold": "1", "val_fold": ""},
    ]
    result = repair(table_of(rows))
    assert result.moves == (Move("2.png", "fold 0, val of fold 2", "fold 0, val of fold 1", "patient P1"),)
    assert result.manifest.table.row(2, named=True)["val_fold"] == "1"


def test_a_row_of_a_fixed_test_part_goes_to_its_patients_fold() -> None:
    rows = [{"patient": "P1", "split": "test"}, {"patient": "P1", "fold": "1"}, {"patient": "P2", "split": "test"}]
    result = repair(table_of([*rows, {"patient": "P3", "fold": "0"}]))
    assert [result.manifest.table.row(0, named=True)[name] for name in ("split", "fold")] == ["", "1"]
    assert roles_of(result.manifest, 1).to_list() == ["val", "val", "test", "train"]
    assert result.notes == ()


def test_what_the_repair_costs_is_said() -> None:
    rows = [
        {"patient": "P1", "split": "train", "label": "mel"},
        {"patient": "P1", "split": "test", "label": "mel"},
        {"patient": "P2", "split": "test", "label": "nv"},
    ]
    result = repair(table_of(rows))
    assert result.lost == (Lost("test", "mel", 1),)
    assert result.notes == ()
    document = result.as_document()
    assert document["n_moves"] == 1
    assert (document["before"], document["after"]) == ({"train": 1, "test": 2}, {"train": 2, "test": 1})
    assert document["moves"] == [
        {"image_id": "1.png", "before": "test", "after": "train", "because": "patient P1"},
    ]


def test_an_emptied_test_part_is_said() -> None:
    result, _ = repaired("P1 train", "P1 test")
    assert any("test has no image any more" in note for note in result.notes)
    assert result.lost == ()
    rows = [{"patient": "P1", "split": "test"}, {"patient": "P1", "fold": "0"}, {"patient": "P2", "fold": "1"}]
    notes = repair(table_of(rows)).notes
    assert any("fixed test part" in note for note in notes)


def test_a_split_by_image_of_real_lesions_is_repaired_by_moving_what_a_count_says(shared_data: Path) -> None:
    from medtool.datasets.ham10000 import Ham10000

    whole = Ham10000().manifest(shared_data / "ham10000")
    rows = [{**row, "split": ("train", "train", "val", "test")[place % 4]} for place, row in enumerate(whole.rows())]
    manifest = Manifest.from_rows(rows, whole.root)
    result = repair(AuditTable.of(manifest, ["lesion"]))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["lesion"]][row["split"]] += 1
    expected = 0
    for parts in counts.values():
        stay = {part: n for part, n in parts.items() if part != "test"} or parts
        expected += sum(parts.values()) - max(stay.values())
    assert len(result.moves) == expected
    assert expected > 200
    splits = result.manifest.table.group_by("lesion").n_unique()
    assert splits.get_column("split").max() == 1
