"""Copies that show nobody."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medtool.manifest import Manifest
from medtool.split.copies import copies_in
from medtool.split.duplicates.fingerprints import Fingerprints, fingerprints_of
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.findings import Severity
from medtool.split.frames import MOST_OWNERS, blank_images, noun_of, ties_of
from medtool.split.inflation import estimate
from medtool.split.repair import repair
from medtool.split.rules.pictures import duplicate_findings
from medtool.split.table import AuditTable
from tests.split.rules.tables import only, seen, table_of

PARTS = ("train", "train", "train", "val", "test")


def duplicates_of(count: int, *pairs: tuple[int, int], kind: Kind = Kind.NEAR, blank: Sequence[int] = ()) -> Duplicates:
    looks = Fingerprints.empty(count)
    looks.is_blank[list(blank)] = True
    return Duplicates(tuple(DuplicatePair(*pair, kind, 0.98, "") for pair in sorted(pairs)), looks, {})


def chain(places: Sequence[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(places))


def cohort(count: int, own: int = 3) -> tuple[list[dict[str, str]], list[int]]:
    """A clean split of patients with images of their own and, last of each, one slate; and where the slates are."""
    rows = [
        {"patient": f"P{number}", "split": PARTS[number % len(PARTS)], "label": "ab"[number // len(PARTS) % 2]}
        for number in range(count)
        for _ in range(own + 1)
    ]
    return rows, list(range(own, len(rows), own + 1))


def ties(table: AuditTable, duplicates: Duplicates) -> tuple[int, int, int]:
    """Return how many pairs keep images together, and how many frames and blank pictures there are."""
    found = ties_of(duplicates, table.frame, table.groups)
    return len(found.pairs), len(found.frames), len(found.blanks)


def test_a_slate_of_many_patients_is_one_case_that_says_so_and_neither_leaks_nor_moves_anything():
    rows, slates = cohort(60)
    table = table_of(rows)
    duplicates = duplicates_of(len(rows), *chain(slates))
    findings = duplicate_findings(table, duplicates)
    (case,) = only(findings, "D207", Severity.MEDIUM).cases
    assert len(findings) == 1
    assert case.detail == (
        "one picture in 60 patients, 36 in train, 12 in val, 12 in test: a slate or a colour card? "
        "It is not counted as a leak"
    )
    assert case.rows == tuple(sorted(f"i{place}" for place in slates))
    assert dict(case.values) == {"copies": 60, "owners": 60}
    found = ties_of(duplicates, table.frame, table.groups)
    assert found.notes == ("1 picture is shared by many patients and does not keep them together",)
    assert repair(table, joined=found.joined).moves == ()


def test_a_slate_of_many_patients_inflates_nothing():
    rows, slates = cohort(60)
    table = table_of(rows)
    looks = Fingerprints.empty(len(rows))
    looks.sha256[:] = ["0" * 64] * len(rows)
    looks.sizes[:] = 100
    looks.colours[:] = np.random.default_rng(0).integers(0, 255, looks.colours.shape)
    pairs = tuple(DuplicatePair(*pair, Kind.PIXELS, 1.0, "") for pair in chain(slates))
    figures, reason = estimate(table, Duplicates(pairs, looks, {}))
    assert figures is not None, reason
    assert figures.n_leaking == 0


@pytest.mark.parametrize(("count", "is_frame"), [(MOST_OWNERS, False), (MOST_OWNERS + 1, True)])
def test_a_picture_of_few_patients_is_a_leak(count, is_frame):
    rows, slates = cohort(count)
    rows[slates[0]]["split"] = "test"
    duplicates = duplicates_of(len(rows), *chain(slates))
    assert bool({"D204"} - {one.rule.code for one in duplicate_findings(table_of(rows), duplicates)}) == is_frame


@pytest.mark.parametrize("patient", ["", "unknown", "n.a."])
def test_where_no_patient_is_known_every_copy_is_a_leak(patient):
    rows, slates = cohort(10)
    nobody = table_of([{**row, "patient": patient} for row in rows])
    without = table_of([{name: cell for name, cell in row.items() if name != "patient"} for row in rows])
    for table in (nobody, without):
        duplicates = duplicates_of(len(rows), *chain(slates))
        assert ties(table, duplicates) == (9, 0, 0)
        assert "D204" in {one.rule.code for one in duplicate_findings(table, duplicates)}


def test_ids_that_name_images_or_copies_and_not_patients_make_no_frame():
    count = 40
    parts = ["train", "test"] * 20
    by_image = table_of([{"patient": f"P{place}", "split": part} for place, part in enumerate(parts)])
    eight_each = [pair for first in range(0, count, 8) for pair in chain(range(first, first + 8))]
    assert ties(by_image, duplicates_of(count, *eight_each)) == (35, 0, 0)
    # Ten pictures that are there four times, each time under another id for all of them.
    by_copy = table_of([{"patient": f"copy {place % 4}", "split": part} for place, part in enumerate(parts)])
    four_each = [pair for first in range(0, count, 4) for pair in chain(range(first, first + 4))]
    assert ties(by_copy, duplicates_of(count, *four_each)) == (30, 0, 0)


@pytest.mark.parametrize("groups", [("patient", "lesion"), ("lesion", "patient")])
def test_a_picture_of_many_lesions_of_one_patient_is_a_leak(groups):
    rows, slates = cohort(10)
    lesions = [{**row, "lesion": f"L{place}", "patient": "P"} for place, row in enumerate(rows)]
    assert ties(table_of(lesions, groups), duplicates_of(len(rows), *chain(slates))) == (9, 0, 0)


def test_files_of_equal_bytes_are_a_leak_even_where_what_looks_alike_is_a_frame():
    rows, slates = cohort(10)
    alike = [DuplicatePair(*pair, Kind.NEAR, 0.97, "") for pair in chain(slates)]
    alike[2] = DuplicatePair(alike[2].first, alike[2].second, Kind.BYTES, 1.0, "")  # of patients in train and val
    table = table_of(rows)
    duplicates = Duplicates(tuple(alike), Fingerprints.empty(len(rows)), {})
    found = duplicate_findings(table, duplicates)
    assert {one.rule.code for one in found} == {"D202", "D207"}
    assert [case.rows for case in only(found, "D202", Severity.HIGH).cases] == [
        (f"i{alike[2].first}", f"i{alike[2].second}")
    ]
    assert ties_of(duplicates, table.frame, table.groups).joined == ((alike[2].first, alike[2].second),)


def test_blank_images_that_are_equal_link_nobody_and_are_told_once():
    rows = [{"split": part, "label": label} for part, label in zip(PARTS * 2, "ab" * 5, strict=True)]
    blank, shown = [0, 3, 4, 9], [1, 8]
    for patients in ([""] * 10, ["P1", "P2"] * 5):
        table = table_of([{**row, "patient": who} for row, who in zip(rows, patients, strict=True)])
        duplicates = duplicates_of(10, *chain(blank), *chain(shown), kind=Kind.PIXELS, blank=blank)
        found = duplicate_findings(table, duplicates)
        assert {one.rule.code for one in found} - {"D206", "D207"} == {"D203", "D205"}
        assert [case.rows for case in only(found, "D203").cases] == [("i1", "i8")]
        (case,) = only(found, "D205", Severity.LOW).cases
        assert case.rows == ("i0", "i3", "i4", "i9")
        assert case.detail == "a blank image 4 times: it shows nobody, and is no leak"
        told = ties_of(duplicates, table.frame, table.groups)
        assert told.joined == ((1, 8),)
        assert told.notes == ("4 blank images equal others: they show nobody, and do not keep images together",)


def test_blank_is_one_tone_and_neither_a_gradient_nor_a_dark_picture_nor_a_file_of_pages(tmp_path):
    across = np.linspace(0, 255, 64, dtype=np.uint8)
    dark = np.random.default_rng(0).poisson(2.0, (64, 64)).astype(np.uint8)
    nearly = np.zeros((64, 64), np.uint8)
    nearly[5, 5] = 1
    pictures = {
        "black.png": (np.zeros((64, 64), np.uint8), True),
        "white.png": (np.full((64, 64, 3), 255, np.uint8), True),
        "nearly.png": (nearly, True),
        "gradient.png": (np.tile(across, (64, 1)), False),
        "dark.png": (dark, False),
    }
    for name, (pixels, _) in pictures.items():
        Image.fromarray(pixels).save(tmp_path / name)
    page = Image.fromarray(np.zeros((64, 64), np.uint8))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    paths = [*(tmp_path / name for name in pictures), tmp_path / "pages.tif", None]
    expected = [*(is_blank for _, is_blank in pictures.values()), False, False]
    assert blank_images(fingerprints_of(paths, cache=None, workers=1)).tolist() == expected


def test_a_colour_card_in_both_manifests_is_no_shared_picture_and_a_lesion_is():
    rows, slates = cohort(3)
    there = AuditTable.of(
        Manifest.from_rows(
            [{"image": f"t{place}.png", "image_id": f"t{place}", "patient_id": f"Q{place // 3}"} for place in range(9)],
            Path(),
        )
    )
    here = table_of(rows)
    cards = [*slates, len(rows), len(rows) + 3, len(rows) + 6]
    duplicates = duplicates_of(len(rows) + 9, *chain(cards), (0, len(rows) + 1))
    found = duplicate_findings(here, duplicates, other=there)
    assert [case.rows for case in only(found, "D208", Severity.HIGH).cases] == [("i0", "t1")]
    (case,) = only(found, "D207").cases
    assert case.detail.startswith("one picture in 6 patients, 3 in train, 3 in the other manifest: a slate")


def test_copies_to_keep_together_are_those_that_show_somebody(tmp_path, shared_data):
    photographs = sorted((shared_data / "isic2017" / "images").iterdir())[:12]
    slate = Image.open(photographs[0]).convert("RGB").rotate(180)
    rows = []
    for place, photograph in enumerate(photographs):
        name = f"{place}.png"
        Image.open(photograph).save(tmp_path / name)
        rows.append({"image": name, "image_id": name, "patient": f"P{place // 2}", "visit": f"V{place}"})
        if place % 2:
            for kind, picture in (("slate", slate), ("black", Image.new("RGB", (80, 60)))):
                picture.save(tmp_path / f"{kind}{place}.png")
                rows.append({**rows[-1], "image": f"{kind}{place}.png", "image_id": f"{kind}{place}"})
    Image.open(photographs[5]).save(tmp_path / "copy.png")
    rows.append({"image": "copy.png", "image_id": "copy", "patient": "P0", "visit": "V0"})
    manifest = Manifest.from_rows(rows, tmp_path)
    ids = manifest.table.get_column("image_id").to_list()
    copies = copies_in(manifest, cache=None, workers=1)
    assert [{ids[first], ids[second]} for first, second in copies.joined] == [{"5.png", "copy"}]
    assert "1 picture is shared by many patients and does not keep them together" in copies.notes
    assert any(note.startswith("6 blank images equal others") for note in copies.notes)
    by_image = copies_in(manifest, group=("none",), cache=None, workers=1)
    assert {"slate1", "slate3"} in [{ids[first], ids[second]} for first, second in by_image.joined]


def test_a_clean_split_with_a_slate_and_a_blank_image_of_each_patient_is_left_as_it_is(medtool, tmp_path):
    random = np.random.default_rng(3)
    slate = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((160, 120), 3)
    rows = []
    for number in range(10):
        for kind in ("a", "b", "c", "slate", "black"):
            own = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((160, 120), 3)
            picture = {"slate": slate, "black": Image.new("RGB", (160, 120))}.get(kind, own)
            picture.save(tmp_path / f"{number}{kind}.png")
            rows.append({"image": f"{number}{kind}.png", "patient": f"P{number}", "split": PARTS[number % len(PARTS)]})
    manifest, fixed = tmp_path / "m.csv", tmp_path / "fixed.csv"
    pl.DataFrame(rows).write_csv(manifest)
    options = ("--workers", "1", "--fail-on", "high", "--json")
    ended = medtool("split", "audit", manifest, "--fix", fixed, *options)
    document = json.loads(ended.out)
    assert ended.code == 0
    assert {one["code"] for one in document["findings"] if one["severity"] != "low"} == {"D207"}
    assert document["repair"]["moves"] == []
    assert "1 picture is shared by many patients and does not keep them together" in document["notes"]
    split = medtool("split", "make", manifest, "--keep-duplicates-together", "--workers", "1", "--stratify", "none")
    assert "0 pairs of copies are kept together" in split.err
    assert "1 picture is shared by many patients" in split.err


def test_what_is_grouped_by_has_a_name():
    names = [noun_of(groups) for groups in ((), ("patient_id",), ("PatientID", "x"), ("lesion", "patient"), ("ID",))]
    assert names == ["group", "patient", "patient", "lesion", "ID"]


@st.composite
def albums(draw: st.DrawFn) -> tuple[AuditTable, Duplicates]:
    count = draw(st.integers(2, 24))
    who = st.sampled_from(["", *"abcdefg"])
    rows = [
        {
            "patient": draw(who),
            "lesion": draw(st.sampled_from(["", "", "1", "2"])),
            "split": draw(st.sampled_from(PARTS)),
        }
        for _ in range(count)
    ]
    places = st.integers(0, count - 1)
    ends = draw(st.sets(st.tuples(places, places).filter(lambda pair: pair[0] < pair[1]), max_size=20))
    kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=len(ends), max_size=len(ends)))
    pairs = tuple(DuplicatePair(*pair, kind, 0.98, "") for pair, kind in zip(sorted(ends), kinds, strict=True))
    return table_of(rows), Duplicates(pairs, Fingerprints.empty(count), {})


@given(albums())
@settings(max_examples=100)
def test_a_pair_is_let_go_only_beside_pictures_of_more_than_a_few_patients(album):
    table, duplicates = album
    found = ties_of(duplicates, table.frame, table.groups)
    framed = {place: each for each in found.frames for place in each.places}
    for pair in duplicates.pairs:
        assert pair in found.pairs or framed[pair.first] is framed[pair.second]
    for each in found.frames:
        assert each.n_owners > MOST_OWNERS
        patients = (
            set(table.frame[list(each.places)].get_column("patient")) - {""} if "patient" in table.groups else set()
        )
        lesions = set(table.frame[list(each.places)].get_column("lesion")) - {""} if "lesion" in table.groups else set()
        assert len(patients) + len(lesions) >= each.n_owners


@given(albums(), st.randoms(use_true_random=False))
def test_the_order_of_rows_decides_nothing(album, random):
    table, duplicates = album
    order = list(range(table.frame.height))
    random.shuffle(order)
    place_of = {row: place for place, row in enumerate(order)}
    turned = sorted(
        (
            DuplicatePair(*sorted((place_of[pair.first], place_of[pair.second])), pair.kind, pair.similarity, "")
            for pair in duplicates.pairs
        ),
        key=lambda pair: (pair.first, pair.second),
    )
    straight = ties_of(duplicates, table.frame, table.groups)
    other = ties_of(Duplicates(tuple(turned), duplicates.fingerprints, {}), table.frame[order], table.groups)
    assert {frozenset(pair) for pair in straight.joined} == {
        frozenset((order[first], order[second])) for first, second in other.joined
    }
    assert {frozenset(each.places) for each in straight.frames} == {
        frozenset(order[place] for place in each.places) for each in other.frames
    }


def test_no_pairs_are_no_ties_whatever_else_is_there():
    assert ties_of(duplicates_of(3), pl.DataFrame({"patient": ["a", "b", "c"]}), ["patient"]).notes == ()
    rows, slates = cohort(5)
    beyond = duplicates_of(len(rows) + 2, *chain(slates), (0, len(rows)))
    assert ties(table_of(rows), beyond) == (0, 1, 0)
    assert seen(duplicate_findings(table_of(rows), duplicates_of(len(rows)))) == {}
