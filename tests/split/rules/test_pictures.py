from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtool.manifest import Manifest
from medtool.split.duplicates.fingerprints import Fingerprints
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.findings import Case, Finding
from medtool.split.page.pairs import select_pairs
from medtool.split.rules.pictures import duplicate_findings
from medtool.split.table import AuditTable

ACROSS = ("D202", "D203", "D204")


def table_of(parts: Sequence[str], **columns: Sequence[str]) -> AuditTable:
    rows = [
        {
            "image": f"{number}.png",
            "image_id": f"i{number}",
            "split": part,
            **{name: values[number] for name, values in columns.items()},
        }
        for number, part in enumerate(parts)
    ]
    return AuditTable.of(Manifest.from_rows(rows, Path()))


def duplicates_of(*pairs: tuple[int, int, Kind]) -> Duplicates:
    made = [
        DuplicatePair(first, second, kind, 1.0 if kind is not Kind.NEAR else 0.98, "mirrored" * (kind is Kind.NEAR))
        for first, second, kind in sorted(pairs)
    ]
    return Duplicates(tuple(made), Fingerprints.empty(max([40, *(pair.second + 1 for pair in made)])), {})


def by_code(findings: Sequence[Finding]) -> dict[str, tuple[Case, ...]]:
    return {finding.rule.code: finding.cases for finding in findings}


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        (Kind.BYTES, "D202", "train and test: same bytes"),
        (Kind.PIXELS, "D203", "train and test: same pixels"),
        (Kind.NEAR, "D204", "train and test: mirrored (similarity 0.980)"),
    ],
)
def test_a_pair_across_parts_is_a_case_with_the_trained_image_first(kind, code, words):
    found = by_code(duplicate_findings(table_of(["test", "train"]), duplicates_of((0, 1, kind))))
    assert list(found) == [code]
    (case,) = found[code]
    assert case.rows == ("i1", "i0")
    assert case.detail == words
    assert (case.values["first_part"], case.values["second_part"]) == ("train", "test")


@pytest.mark.parametrize(("parts", "words"), [(("train", "test"), "there"), (("test", "train"), "back")])
def test_what_is_said_of_a_pair_makes_the_second_image_of_the_one_that_is_trained_on(parts, words):
    pair = DuplicatePair(0, 1, Kind.NEAR, 0.98, "there", "back")
    table, duplicates = table_of(parts), Duplicates((pair,), Fingerprints.empty(40), {})
    (case,) = by_code(duplicate_findings(table, duplicates))["D204"]
    assert case.detail == f"train and test: {words} (similarity 0.980)"
    assert case.values["alteration"] == words
    (shown,) = select_pairs(table, duplicates).pairs
    assert shown.what == words


def test_rows_that_only_a_chain_links_across_parts_are_cases_that_name_the_row_in_between():
    parts = ["train", "train", "test"]
    found = by_code(duplicate_findings(table_of(parts), duplicates_of((0, 1, Kind.NEAR), (1, 2, Kind.NEAR))))
    direct, chained = sorted(found["D204"], key=lambda case: "way" in case.detail)
    assert direct.rows == ("i1", "i2")
    assert chained.rows == ("i0", "i2")
    assert chained.detail == "train and test: linked by way of i1"
    (copies,) = found["D205"]
    assert copies.rows == ("i0", "i1")


def test_a_chain_through_an_unused_row_is_a_leak_and_the_unused_row_is_none():
    found = by_code(
        duplicate_findings(table_of(["train", "", "val"]), duplicates_of((0, 1, Kind.NEAR), (1, 2, Kind.NEAR)))
    )
    assert {code: [case.rows for case in cases] for code, cases in found.items()} == {"D204": [("i0", "i2")]}


def test_a_long_chain_is_counted_and_found_in_time():
    parts = ["train"] * 20_000 + ["test"]
    chain = duplicates_of(*((number, number + 1, Kind.NEAR) for number in range(20_000)))
    found = by_code(duplicate_findings(table_of(parts), chain))
    assert len(found["D204"]) == 20_000
    details = {case.rows[0]: case.detail for case in found["D204"]}
    assert details["i19999"] == "train and test: mirrored (similarity 0.980)"
    assert details["i19995"] == "train and test: linked by way of i19996, i19997, i19998, i19999"
    assert details["i0"] == "train and test: linked by way of 19,999 others"


def test_a_chain_through_an_altered_copy_is_told_apart_from_the_same_bytes():
    pairs = duplicates_of((0, 1, Kind.BYTES), (1, 2, Kind.BYTES), (2, 3, Kind.PIXELS), (0, 4, Kind.NEAR))
    found = by_code(duplicate_findings(table_of(["train", "train", "test", "test", "val"]), pairs))
    assert {case.rows for case in found["D202"]} == {("i0", "i2"), ("i1", "i2")}
    assert {case.rows for case in found["D203"]} == {("i0", "i3")}
    assert {case.rows for case in found["D204"]} == {("i0", "i4")}
    assert all("same bytes" in case.detail for case in found["D202"])


def test_two_rows_of_one_file_are_left_to_the_rule_of_paths_and_a_copy_beside_them_is_not():
    parts = ["train", "test", "test"]
    table = table_of(parts)
    rows = [{**row, "image": "same.png"} if row["image_id"] != "i2" else row for row in table.manifest.rows()]
    same = AuditTable.of(Manifest.from_rows(rows, Path()))
    found = by_code(duplicate_findings(same, duplicates_of((0, 1, Kind.BYTES), (1, 2, Kind.BYTES))))
    assert [case.rows for case in found["D202"]] == [("i0", "i2")]


def test_two_rows_of_one_file_in_one_part_are_left_to_the_rule_of_paths():
    rows = [{"image": path, "image_id": path, "split": "train"} for path in ("a.png", "./a.png")]
    table = AuditTable.of(Manifest.from_rows(rows, Path()))
    assert duplicate_findings(table, duplicates_of((0, 1, Kind.BYTES))) == []


def test_copies_in_one_part_are_one_case_a_picture():
    pairs = duplicates_of((0, 1, Kind.BYTES), (1, 2, Kind.PIXELS), (3, 4, Kind.NEAR))
    found = by_code(duplicate_findings(table_of(["train"] * 5), pairs))
    assert list(found) == ["D205"]
    assert [(case.subject, case.rows, case.detail) for case in found["D205"]] == [
        ("i0, i1 and 1 more", ("i0", "i1", "i2"), "3 times in train: same pixels"),
        ("i3, i4", ("i3", "i4"), "2 times in train: altered copy"),
    ]


def test_without_parts_all_rows_count_as_in_one():
    found = by_code(duplicate_findings(table_of(["", ""]), duplicates_of((0, 1, Kind.BYTES))))
    assert {code: cases[0].detail for code, cases in found.items()} == {"D205": "2 times: same bytes"}


def test_unused_copies_are_no_case_where_other_rows_are_in_parts():
    assert duplicate_findings(table_of(["", "", "train"]), duplicates_of((0, 1, Kind.BYTES))) == []


def test_other_labels_and_other_patients_of_one_picture_are_cases_and_unknown_ones_are_not():
    table = table_of(
        ["train"] * 4,
        label=["nv", "mel", "", "nv"],
        patient=["P1", "P1", "P2", "unknown"],
        lesion=["L1", "L2", "", "L1"],
    )
    pairs = duplicates_of((0, 1, Kind.NEAR), (1, 2, Kind.NEAR), (2, 3, Kind.NEAR))
    found = by_code(duplicate_findings(table, pairs))
    assert [(case.subject, case.detail) for case in found["D206"]] == [
        ("label of i0, i1 and 1 more", "mel (1), nv (2): altered copy")
    ]
    assert [(case.subject, case.rows) for case in found["D207"]] == [
        ("lesion of i0, i1 and 1 more", ("i0", "i1", "i3")),
        ("patient of i0, i1 and 1 more", ("i0", "i1", "i2")),
    ]


def test_a_picture_in_both_manifests_is_a_case_with_the_audited_row_first():
    here, there = table_of(["test", "train"]), table_of(["train", "", ""])
    found = by_code(
        duplicate_findings(here, duplicates_of((0, 3, Kind.NEAR), (2, 4, Kind.BYTES), (3, 4, Kind.NEAR)), other=there)
    )
    assert list(found) == ["D208"]
    assert sorted((case.rows, case.detail) for case in found["D208"]) == [
        (("i0", "i0"), "test here, train there: linked by way of i1 of the other manifest, i2 of the other manifest"),
        (("i0", "i1"), "test here, no part there: mirrored (similarity 0.980)"),
        (("i0", "i2"), "test here, no part there: linked by way of i1 of the other manifest"),
    ]


def test_a_chain_through_the_other_manifest_is_a_leak():
    pairs = duplicates_of((0, 2, Kind.PIXELS), (1, 2, Kind.PIXELS))
    found = by_code(duplicate_findings(table_of(["test", "train"]), pairs, other=table_of(["train"])))
    assert [case.rows for case in found["D203"]] == [("i1", "i0")]


def test_folds_leak_into_one_another():
    rows = [{"image": f"{n}.png", "image_id": f"i{n}", "fold": fold} for n, fold in enumerate("110")]
    table = AuditTable.of(Manifest.from_rows(rows, Path()))
    found = by_code(duplicate_findings(table, duplicates_of((0, 1, Kind.NEAR), (0, 2, Kind.NEAR))))
    assert {case.rows for case in found["D204"]} == {("i0", "i2"), ("i1", "i2")}
    assert [case.rows for case in found["D205"]] == [("i0", "i1")]


def test_no_pairs_no_findings():
    assert duplicate_findings(table_of(["train", "test"]), duplicates_of(), other=table_of(["train"])) == []


@st.composite
def albums(draw: st.DrawFn) -> tuple[list[str], int, Duplicates]:
    """Parts of the rows of two manifests, how many rows the first one has, and pairs among all."""
    parts = draw(st.lists(st.sampled_from(["train", "val", "test", ""]), min_size=3, max_size=12))
    count = draw(st.integers(1, len(parts) - 1))
    places = st.integers(0, len(parts) - 1)
    ends = draw(st.sets(st.tuples(places, places).filter(lambda pair: pair[0] < pair[1]), max_size=14))
    kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=len(ends), max_size=len(ends)))
    return parts, count, duplicates_of(*((*pair, kind) for pair, kind in zip(sorted(ends), kinds, strict=True)))


def pictures_of(total: int, duplicates: Duplicates) -> list[set[int]]:
    """The plainest way to follow chains: join sets until nothing is left to join."""
    pictures = [{place} for place in range(total)]
    for pair in duplicates.pairs:
        first = next(each for each in pictures if pair.first in each)
        second = next(each for each in pictures if pair.second in each)
        if first is not second:
            pictures.remove(second)
            first |= second
    return pictures


@given(albums())
def test_exactly_the_rows_whose_picture_is_in_another_part_are_in_cases_and_every_case_crosses(album):
    parts, count, duplicates = album
    table, other = table_of(parts[:count]), table_of(parts[count:])
    found = by_code(duplicate_findings(table, duplicates, other=other))
    cases = [case for code in ACROSS for case in found.get(code, ())]
    leaking = {
        f"i{row}"
        for picture in pictures_of(len(parts), duplicates)
        for row in picture
        if row < count and parts[row] and {parts[each] for each in picture if each < count} - {"", parts[row]}
    }
    assert {row for case in cases for row in case.rows} == leaking
    for case in cases:
        first, second = (parts[int(row[1:])] for row in case.rows)
        assert first != second
        assert "" not in (first, second)
        assert (first, second) not in [("test", "train"), ("test", "val"), ("val", "train")]
    keys = [
        (finding.rule.code, case.key(finding.rule, finding.severity))
        for finding in duplicate_findings(table, duplicates, other=other)
        for case in finding.cases
    ]
    assert len(set(keys)) == len(keys)


@given(albums())
def test_exactly_the_rows_whose_picture_is_in_the_other_manifest_are_in_cases(album):
    parts, count, duplicates = album
    table, other = table_of(parts[:count]), table_of(parts[count:])
    found = by_code(duplicate_findings(table, duplicates, other=other)).get("D208", ())
    pictures = [picture for picture in pictures_of(len(parts), duplicates) if min(picture) < count <= max(picture)]
    assert {case.rows[0] for case in found} == {f"i{row}" for picture in pictures for row in picture if row < count}
    there = {f"i{row - count}" for picture in pictures for row in picture if row >= count}
    assert {case.rows[1] for case in found} == there


@given(albums())
def test_every_pair_that_crosses_is_a_case(album):
    parts, count, duplicates = album
    found = by_code(duplicate_findings(table_of(parts[:count]), duplicates, other=table_of(parts[count:])))
    for pair in duplicates.pairs:
        if pair.second < count and "" not in (parts[pair.first], parts[pair.second]):
            ids = {f"i{pair.first}", f"i{pair.second}"}
            cases = found.get(ACROSS[list(Kind).index(pair.kind)], ())
            assert any(set(case.rows) == ids for case in cases) == (parts[pair.first] != parts[pair.second])
