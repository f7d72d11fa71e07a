from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from medtool.manifest import Manifest
from medtool.split.findings import Case, Finding
from medtool.split.rules.masks import MaskFacts, facts_of, mask_findings
from medtool.split.table import AuditTable

SIDE = 48


def disc(radius: float, *, value: int = 255, centre: tuple[float, float] = (24, 24)) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.where(np.hypot(rows - centre[0], columns - centre[1]) < radius, value, 0).astype(np.uint8)


def discs(count: int) -> list[np.ndarray]:
    return [disc(4 + number % 4, centre=(16 + number, 24)) for number in range(count)]


def resized(mask: np.ndarray, how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    small = Image.fromarray(mask).resize((37, 37), how)
    return np.asarray(small.resize((SIDE, SIDE), how))


def table_of(folder: Path, masks: Sequence[np.ndarray | None], **columns: Sequence[str]) -> AuditTable:
    rows = []
    for number, mask in enumerate(masks):
        if mask is not None:
            Image.fromarray(mask).save(folder / f"m{number}.png")
        more = {name: values[number] for name, values in columns.items()}
        rows.append({"image": f"{number}.png", "image_id": f"i{number}", "mask": f"m{number}.png", **more})
    return AuditTable.of(Manifest.from_rows(rows, folder))


def sizes_of(table: AuditTable, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    return np.tile([width, height], (table.frame.height, 1))


def found_in(table: AuditTable, sizes: np.ndarray | None = None, **options) -> dict[str, tuple[Case, ...]]:
    findings, notes = mask_findings(table, sizes_of(table) if sizes is None else sizes, workers=1, **options)
    assert notes == []
    return by_code(findings)


def by_code(findings: Sequence[Finding]) -> dict[str, tuple[Case, ...]]:
    return {finding.rule.code: finding.cases for finding in findings}


def rows_of(found: Mapping[str, tuple[Case, ...]]) -> dict[str, list[tuple[str, ...]]]:
    return {code: [case.rows for case in cases] for code, cases in found.items()}


def test_sound_masks_are_no_finding_and_rows_without_a_mask_are_passed_over(tmp_path):
    table = table_of(tmp_path, [disc(radius) for radius in (5, 8, 11)])
    rows = [*table.manifest.rows(), {"image": "9.png", "image_id": "i9", "mask": ""}]
    assert found_in(AuditTable.of(Manifest.from_rows(rows, tmp_path))) == {}


def test_a_manifest_without_masks_is_no_finding():
    table = AuditTable.of(Manifest.from_rows([{"image": "a.png"}], Path()))
    assert mask_findings(table, sizes_of(table)) == ([], [])


def test_missing_and_unreadable_masks_are_named_with_their_reason(tmp_path):
    table = table_of(tmp_path, [disc(5), None, disc(8), np.dstack([disc(9)] * 3)])
    (tmp_path / "m2.png").write_bytes((tmp_path / "m2.png").read_bytes()[:60])
    found = found_in(table)
    assert rows_of(found) == {"M601": [("i1",)], "M602": [("i2",), ("i3",)]}
    assert found["M601"][0].detail == "m1.png: does not exist"
    assert "3 channels" in found["M602"][1].detail


def test_a_worker_that_dies_loses_one_mask_only(tmp_path, monkeypatch):
    from medtool.split.rules import masks as module

    real = module._read_one

    def dies(path: Path):
        if path.name == "m1.png":
            raise RuntimeError("out of memory")
        return real(path)

    monkeypatch.setattr(module, "_read_one", dies)
    found = found_in(table_of(tmp_path, [disc(5), disc(6), disc(7)]))
    assert rows_of(found) == {"M602": [("i1",)]}
    assert found["M602"][0].detail == "m1.png: RuntimeError: out of memory"


def test_masks_are_read_in_other_processes_to_the_same_findings(tmp_path):
    table = table_of(tmp_path, [*discs(19), disc(0)])
    told: list[str] = []

    class Told:
        def advance(self, label: str = "") -> None:
            told.append(label)

    findings, _ = mask_findings(
        table, sizes_of(table), workers=2, steps=lambda total, label: contextlib.nullcontext(Told())
    )
    assert rows_of(by_code(findings)) == rows_of(found_in(table))
    assert sorted(told) == sorted(f"m{number}.png" for number in range(20))


def test_a_mask_of_another_size_than_its_image_is_a_case_and_an_unknown_size_is_none(tmp_path):
    table = table_of(tmp_path, [disc(5), disc(6)[:40], disc(7)[:40], disc(8)])
    found = found_in(table, np.array([[48, 48], [40, 48], [0, 0], [96, 96]]))
    assert {case.rows[0]: case.detail for case in found["M603"]} == {
        "i1": "m1.png: 48 × 40 px, its image 40 × 48 px; it may be turned by a quarter",
        "i3": "m3.png: 48 × 48 px, its image 96 × 96 px",
    }


def test_an_interpolated_mask_among_masks_of_two_values_has_odd_values(tmp_path):
    table = table_of(tmp_path, [*discs(20), resized(disc(9.2))])
    assert rows_of(found_in(table)) == {"M604": [("i20",)]}


def test_one_grey_value_at_the_border_is_odd_among_masks_of_two_values(tmp_path):
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[10:30, 10:30] = 255
    square[10:30, 30] = 128
    table = table_of(tmp_path, [*discs(20), square])
    found = found_in(table)
    assert [case.detail for case in found["M604"]] == [
        "m20.png: 128 fill no area, as after interpolation or lossy compression"
    ]


def test_a_data_set_whose_masks_were_all_interpolated_is_found(tmp_path):
    blurred = [resized(disc(radius)) for radius in (8, 10, 12, 14)]
    assert len(found_in(table_of(tmp_path, blurred))["M604"]) == 4


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_a_mask_that_was_a_jpeg_has_odd_values(tmp_path, quality):
    Image.fromarray(disc(9.2)).save(tmp_path / "lossy.jpg", quality=quality)
    lossy = np.asarray(Image.open(tmp_path / "lossy.jpg"))
    table = table_of(tmp_path, [*discs(20), lossy])
    assert rows_of(found_in(table)) == {"M604": [("i20",)]}


def test_a_mask_that_marks_with_another_value_than_all_others_is_odd(tmp_path):
    table = table_of(tmp_path, [*discs(20), disc(9.2, value=1)])
    found = found_in(table)
    assert [case.detail for case in found["M604"]] == ["m20.png: it marks with 1, 20 of 21 masks mark with 255"]


def test_a_rare_class_is_not_odd_whatever_its_value(tmp_path):
    for rare in (2, 128):
        two = disc(11)
        two[disc(5) > 0] = rare
        table = table_of(tmp_path, [*discs(20), two])
        assert found_in(table) == {}


def test_a_thin_ring_of_a_class_between_two_others_is_not_odd_in_a_data_set_of_classes(tmp_path):
    masks = []
    for number in range(6):
        mask = disc(8 + number, value=1)
        mask[disc(7 + number) > 0] = 2
        masks.append(mask)
    assert found_in(table_of(tmp_path, masks)) == {}


def test_numbers_of_instances_are_not_odd(tmp_path):
    masks = []
    for number in range(5):
        mask = np.zeros((SIDE, SIDE), np.uint16)
        for instance in range(30 + number):
            row, column = divmod(instance, 7)
            mask[1 + 7 * row : 6 + 7 * row, 1 + 7 * column : 6 + 7 * column] = 1000 * number + instance + 1
        mask[0, ::9] = 60000 + np.arange(6)  # cut by the border: one pixel of each is left
        masks.append(mask)
    assert found_in(table_of(tmp_path, masks)) == {}


def test_real_instance_and_lesion_masks_are_sound(shared_data):
    for folder, pattern in (("nuclei", "labels/*"), ("monuseg", "labels/*"), ("isic2017-hires", "masks/*")):
        rows = [
            {"image": f"{path.stem}.x", "image_id": path.stem, "mask": path.relative_to(shared_data).as_posix()}
            for path in sorted((shared_data / folder).glob(pattern))[:24]
        ]
        table = AuditTable.of(Manifest.from_rows(rows, shared_data))
        assert len(rows) >= 8
        assert found_in(table, np.zeros((len(rows), 2), int)) == {}


def test_real_masks_that_are_resized_are_found(shared_data, tmp_path):
    paths = sorted((shared_data / "ham10000" / "masks").iterdir())[:30]
    masks = [np.asarray(Image.open(path).convert("L")) for path in paths]
    masks[7] = np.asarray(Image.fromarray(masks[7]).resize((150, 112), Image.Resampling.BICUBIC).resize((200, 150)))
    assert rows_of(found_in(table_of(tmp_path, masks), np.zeros((30, 2), int))) == {"M604": [("i7",)]}


def test_empty_and_full_masks_are_cases(tmp_path):
    full = np.full((SIDE, SIDE), 255, np.uint8)
    found = found_in(table_of(tmp_path, [disc(5), disc(0), full, disc(8)]))
    assert {case.rows[0]: case.detail for case in found["M605"]} == {
        "i1": "m1.png: 0 in every pixel",
        "i2": "m2.png: 255 in every pixel",
    }
    assert list(found) == ["M605"], "empty masks are no copies of one another"


def test_a_map_of_several_classes_without_background_is_not_full(tmp_path):
    classes = np.ones((SIDE, SIDE), np.uint8)
    classes[:, 20:] = 2
    assert found_in(table_of(tmp_path, [classes])) == {}


def test_the_same_mask_of_different_images_is_a_case_and_that_of_one_picture_is_not(tmp_path):
    table = table_of(tmp_path, [disc(5), disc(8), disc(8), disc(9), disc(9)])
    found = found_in(table)
    assert [(case.rows, case.detail) for case in found["M606"]] == [
        (("i1", "i2"), "2 files with the same labels, 193 of 2,304 pixels marked"),
        (("i3", "i4"), "2 files with the same labels, 249 of 2,304 pixels marked"),
    ]
    pictures = np.array([0, 1, 2, 3, 3])
    assert rows_of(found_in(table, pictures=pictures)) == {"M606": [("i1", "i2")]}


def test_the_same_labels_in_another_format_are_the_same_mask(tmp_path):
    table = table_of(tmp_path, [disc(8), disc(8).astype(np.uint16)])
    assert rows_of(found_in(table)) == {"M606": [("i0", "i1")]}


def test_masks_that_coincide_easily_are_no_copies(tmp_path):
    box, dot = np.zeros((2, SIDE, SIDE), np.uint8)
    box[:, :24] = 255
    dot[4:6, 5:7] = 255
    dot[4, 7] = 255
    assert found_in(table_of(tmp_path, [box, box, dot, dot])) == {}


def test_one_mask_file_of_several_channels_of_one_patient_is_no_case_and_of_two_patients_it_is(tmp_path):
    table = table_of(tmp_path, [disc(8)])
    for patients, codes in ((("P1", "P1"), []), (("P1", "P2"), ["M606"]), (("", ""), ["M606"])):
        rows = [
            {"image": f"{name}.png", "image_id": name, "mask": "m0.png", "patient": patient}
            for name, patient in zip(("t1", "t2"), patients, strict=True)
        ]
        assert list(found_in(AuditTable.of(Manifest.from_rows(rows, table.manifest.root)))) == codes


def test_volumes_and_files_of_several_pages_are_noted_and_not_faulted(tmp_path, shared_data):
    volume = next((shared_data / "nifti-hippocampus").glob("*_label.nii.gz"))
    (tmp_path / "m0.nii.gz").write_bytes(volume.read_bytes())
    pages = [Image.fromarray(disc(radius)) for radius in (5, 6)]
    pages[0].save(tmp_path / "m1.tif", save_all=True, append_images=pages[1:])
    rows = [{"image": f"{name}.png", "mask": name} for name in ("m0.nii.gz", "m1.tif")]
    table = AuditTable.of(Manifest.from_rows(rows, tmp_path))
    assert mask_findings(table, sizes_of(table), workers=1) == (
        [],
        ["masks: 2 are volumes or have several pages, and were not checked"],
    )


def test_a_mask_of_negative_or_huge_labels_has_its_values():
    labels = np.zeros((8, 8), np.int64)
    labels[:4] = -(2**40)
    labels[:, :3] = 2**40
    facts = facts_of(labels)
    assert facts.marks == (-(2**40), 2**40)
    assert (facts.n_marks, facts.n_loose, facts.marked_px) == (2, 0, 24 + 20)


masks = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 4))


@given(masks, st.integers(0, 3))
def test_facts_do_not_change_when_a_mask_is_turned_or_its_type_changes(labels, turns):
    facts, turned = facts_of(labels), facts_of(np.rot90(labels, turns))

    def of_any_turn(one: MaskFacts) -> tuple:
        return one.marks, one.n_marks, one.marked_px, one.loose, one.n_loose, one.is_rectangle, one.is_uniform

    assert of_any_turn(turned) == of_any_turn(facts)
    assert facts_of(labels.astype(np.int64)) == facts
    assert facts_of(labels.astype(np.int64) + (labels > 0) * 2**40).n_loose == facts.n_loose
    assert facts.marked_px == np.count_nonzero(labels)


@given(masks, masks)
def test_digests_are_equal_only_for_equal_masks(first, second):
    assert (facts_of(first).digest == facts_of(second).digest) == np.array_equal(first, second)
