"""The page of an audit: one inert file that shows what was found, whatever the ids hold."""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medtool.manifest import Manifest
from medtool.split.duplicates.fingerprints import Fingerprints
from medtool.split.duplicates.pairs import DuplicatePair, Duplicates, Kind
from medtool.split.findings import FORMAT, FORMAT_VERSION
from medtool.split.page.chart import interval_chart
from medtool.split.page.page import MAX_CASES, MOST_CHARACTERS, page_of, shown
from medtool.split.page.pairs import MAX_PAIRS, Place, select_pairs
from medtool.split.page.parts import count_parts
from medtool.split.page.thumbnails import LONG_SIDE_PX, thumbnails_of
from medtool.split.table import AuditTable

HOSTILE = "<script>alert('x')</script>\"&amp;{{ 7 * 7 }}\x1b[31m\u202egnp.\u200b\ud800</bdi><img src=http://e.org/x>"
VOID = {"meta", "img", "br", "line", "circle"}


class Reading(HTMLParser):
    """What a browser would see: elements, attributes and text, and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, tag: str, name: str) -> list[str]:
        return [value for its, key, value in self.attributes if (its, key) == (tag, name)]


def case(subject: str = "patient P1", rows: tuple[str, ...] = ("a", "b")) -> dict[str, Any]:
    return {"key": "0" * 16, "subject": subject, "rows": list(rows), "detail": "1 in train, 1 in test", "values": {}}


def found(*cases: dict[str, Any], severity: str = "high", code: str = "G101") -> dict[str, Any]:
    return {
        "code": code,
        "name": "group-in-two-parts",
        "severity": severity,
        "meaning": "What it means.",
        "remedy": "what to do",
        "n_cases": len(cases),
        "n_rows": len({row for one in cases for row in one["rows"]}),
        "cases": list(cases),
    }


def document(*findings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "medtool": "0.1.0",
        "manifest": "data/manifest.csv",
        "against": None,
        "images": 4,
        "parts": {"test": 1, "train": 3},
        "groups": ["patient"],
        "fail_on": "medium",
        "failed": bool(findings),
        "findings": list(findings),
        "n_known": 0,
        "inflation": None,
        "not_checked": [],
        "notes": [],
        **changes,
    }


def table_of(rows: list[dict[str, str]], root: Path = Path()) -> AuditTable:
    return AuditTable.of(Manifest.from_rows([{"image": f"{place}.png", **row} for place, row in enumerate(rows)], root))


def duplicates_of(*pairs: tuple[int, int], kind: Kind = Kind.NEAR, alteration: str = "mirrored") -> Duplicates:
    listed = tuple(DuplicatePair(first, second, kind, 0.97, alteration) for first, second in pairs)
    return Duplicates(listed, Fingerprints.empty(max(map(max, pairs), default=0) + 700), {})


def picture(path: Path, width: int, height: int) -> None:
    values = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3)
    Image.fromarray((values % 251).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a wide, a tall, a small, a broken and (named 4) a missing image."""
    root = tmp_path_factory.mktemp("images")
    for name, width, height in (("0", 600, 300), ("1", 300, 600), ("2", 40, 30)):
        picture(root / f"{name}.png", width, height)
    (root / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return root


def test_the_verdict_and_every_finding_are_there_in_words() -> None:
    low = found(case("patient P9", ("y",)), severity="low", code="G106")
    reading = Reading(
        page_of(
            document(found(case()), low, n_known=2, not_checked=["masks: there are none"], manifest_sha256="ab" * 32)
        )
    )
    for text in (
        "Failed high 1 finding low 1 finding Findings fail the audit from medium on.",
        "The baseline accepts 2 known cases",
        "1 check was left out.",
        "G101 group in two parts high 1 case, 2 images What it means. What to do: what to do",
        "patient P1 1 in train, 1 in test a , b",
        "Not checked masks: there are none",
        "data/manifest.csv , 4 images",
        "Made by medtool 0.1.0",
        f"SHA-256 {'ab' * 32}",
    ):
        assert text in reading.text
    assert set(reading.values("a", "href")) == {"#finding-1", "#finding-2", "#not-checked"}
    assert {link[1:] for link in reading.values("a", "href")} <= {
        value for _, key, value in reading.attributes if key == "id"
    }


def test_a_clean_audit_passes_and_says_that_nothing_was_found() -> None:
    reading = Reading(page_of(document()))
    assert "Passed Nothing was found." in reading.text
    assert "Duplicates" not in reading.text
    never = Reading(page_of(document(found(case()), failed=False, fail_on="never")))
    assert "Passed high 1 finding No finding fails this audit." in never.text


def test_a_page_needs_nothing_but_itself_and_runs_nothing(folder: Path) -> None:
    table = table_of([{"split": "train"}, {"split": "test"}], folder)
    page = page_of(document(found(case())), selection=select_pairs(table, duplicates_of((0, 1))))
    reading = Reading(page)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(reading.tags)
    assert not [key for _, key, _ in reading.attributes if key.startswith("on")]
    assert all(source.startswith("data:image/jpeg;base64,") for source in reading.values("img", "src"))
    assert all(link.startswith("#") for link in reading.values("a", "href"))
    assert "url(" not in page
    assert "@import" not in page
    policy = dict(zip(reading.values("meta", "http-equiv"), reading.values("meta", "content"), strict=False))
    assert policy["Content-Security-Policy"].startswith("default-src 'none'; img-src data:;")


def test_hostile_text_is_shown_and_does_nothing(folder: Path) -> None:
    rows = [
        {"image_id": text, "patient": text, "label": text, "split": split}
        for text, split in (("a" + "<b>\u202e\n", "train"), ("b</td><script>", "test"))
    ]
    table = table_of(rows, folder)
    pairs = select_pairs(table, duplicates_of((0, 1), alteration=HOSTILE))
    one = found(case(HOSTILE, (HOSTILE, "b"))) | {"name": HOSTILE, "meaning": HOSTILE, "remedy": HOSTILE}
    hostile = document(one, manifest=HOSTILE, against=HOSTILE, groups=[HOSTILE], not_checked=[HOSTILE], notes=[HOSTILE])
    page = page_of(hostile, parts=count_parts(table), selection=pairs)
    clean = page_of(
        document(found(case("P", ("a", "b"))), against="b", not_checked=["x"], notes=["x"]),
        parts=count_parts(table_of([{"patient": "P", "label": "x", "split": split} for split in ("train", "test")])),
        selection=select_pairs(
            table_of([{"patient": p, "label": p, "split": s} for p, s in (("P", "train"), ("Q", "test"))], folder),
            duplicates_of((0, 1)),
        ),
    )
    tags = Reading(page).tags
    assert {tag for tag in tags if tags[tag]} == set(Reading(clean).tags)
    assert tags["img"] == 2
    assert shown(HOSTILE) in "".join(Reading(page).texts)
    assert not [letter for letter in page if unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter != "\n"]
    assert page.encode().decode() == page


@given(st.text(max_size=40))
def test_any_id_is_shown_as_its_inert_form(text: str) -> None:
    reading = Reading(page_of(document(found(case(text)))))
    assert shown(text) in reading.texts or not text
    assert all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs") for letter in shown(text))


def test_inert_text_keeps_what_people_write_and_writes_out_what_hides() -> None:
    assert shown("Müller عربي 患者 12") == "Müller عربي 患者 12"
    assert shown("a\tb\n\x1b[0m\u202e\u200b\ufeff\U000e0041") == r"a\x09b\x0a\x1b[0m\u202e\u200b\ufeff\U000e0041"
    assert shown("x" * (MOST_CHARACTERS + 7)) == "x" * MOST_CHARACTERS + "… (7 more characters)"


def test_ten_thousand_cases_are_a_small_page_that_says_what_it_leaves_out() -> None:
    cases = [case(f"patient P{number}", tuple(f"{number}-{row}" for row in range(50))) for number in range(10_000)]
    page = page_of(document(found(*cases)))
    assert len(page) < 500_000
    reading = Reading(page)
    assert f"{10_000 - MAX_CASES:,} more cases are not shown" in reading.text
    assert "10,000 cases, 500,000 images" in reading.text
    assert "and 42 more" in reading.text
    assert f"patient P{MAX_CASES - 1}" in reading.texts
    assert f"patient P{MAX_CASES}" not in reading.texts


def test_a_pair_is_shown_side_by_side_with_what_differs(folder: Path) -> None:
    rows = [{"patient": "P1", "label": "mel", "split": "test"}, {"patient": "P2", "label": "mel", "split": "train"}]
    selection = select_pairs(table_of(rows, folder), duplicates_of((0, 1)))
    (pair,) = selection.pairs
    assert (pair.first.part, pair.second.part) == ("train", "test")
    assert (pair.differing, pair.place) == (("patient",), Place.TWO_PARTS)
    reading = Reading(page_of(document(), selection=selection))
    assert "In two parts: 1 pair mirrored similarity 0.970" in reading.text
    assert "image 1.png 0.png part train test size 300 × 600 px 600 × 300 px label mel mel" in reading.text
    assert "patient P2 differs: ≠ P1" in reading.text
    assert reading.values("img", "alt") == ["Image 1.png", "Image 0.png"]


def test_an_image_that_cannot_be_shown_says_why(folder: Path) -> None:
    table = table_of([{"split": "train"}] * 5, folder)
    reading = Reading(page_of(document(), selection=select_pairs(table, duplicates_of((0, 3), (0, 4)))))
    assert reading.tags["img"] == 2
    assert reading.text.count("cannot be shown:") == 2
    assert "cannot be shown: does not exist" in reading.text


def test_thumbnails_keep_the_shape_and_a_small_image_is_not_blown_up(folder: Path) -> None:
    paths = [folder / f"{name}.png" for name in ("0", "1", "2", "3", "0")]
    drawn = thumbnails_of(paths)
    sizes = {path.stem: (one.width, one.height, one.full_width, one.full_height) for path, one in drawn.items()}
    long, short = LONG_SIDE_PX, LONG_SIDE_PX // 2
    assert sizes == {
        "0": (long, short, 600, 300),
        "1": (short, long, 300, 600),
        "2": (40, 30, 40, 30),
        "3": (0, 0, 0, 0),
    }
    for path, one in drawn.items():
        if one.jpeg:
            with Image.open(io.BytesIO(base64.b64decode(one.jpeg))) as image:
                assert (image.format, image.size) == ("JPEG", (one.width, one.height))
        else:
            assert (path.stem, bool(one.problem)) == ("3", True)


def test_a_thumbnail_of_a_real_image_looks_like_it(shared_data: Path) -> None:
    path = sorted((shared_data / "isic2017").rglob("*.jpg"))[0]
    drawn = thumbnails_of([path])[path]
    with Image.open(path) as image, Image.open(io.BytesIO(base64.b64decode(drawn.jpeg))) as small:
        expected = np.asarray(image.convert("RGB").resize(small.size), dtype=float)
        assert np.abs(np.asarray(small, dtype=float) - expected).mean() < 4


def test_of_many_pairs_every_place_has_its_share_and_the_rest_is_counted() -> None:
    rows = [{"split": "train"} for _ in range(600)] + [{"split": "test"}, {"split": ""}]
    across = [(row, 600) for row in range(5)]
    within = [(row, row + 1) for row in range(0, 598, 2)] + [(5, 601)]
    selection = select_pairs(table_of(rows), duplicates_of(*across, *within))
    assert selection.totals == {Place.TWO_PARTS: 5, Place.ONE_PART: 300}
    assert Counter(pair.place for pair in selection.pairs) == {Place.TWO_PARTS: 5, Place.ONE_PART: MAX_PAIRS - 5}
    assert [pair.place for pair in selection.pairs[:5]] == [Place.TWO_PARTS] * 5
    text = Reading(page_of(document(), selection=select_pairs(table_of(rows), duplicates_of(*within), most=2))).text
    assert "In one part, or not used: 300 pairs , 2 of them shown" in text


def test_a_picture_that_many_patients_share_is_no_pair_in_two_parts() -> None:
    rows = [{"split": ("train", "test")[row % 2], "patient": f"P{row // 2}"} for row in range(20)]
    slates = [(row, row + 4) for row in range(0, 16, 4)]  # beside each patient's own picture
    selection = select_pairs(table_of(rows), duplicates_of(*slates, (1, 2)))
    assert selection.totals == {Place.TWO_PARTS: 1, Place.NOBODY: 4}
    assert (
        "Blank, or shared by many patients: no leak: 4 pairs" in Reading(page_of(document(), selection=selection)).text
    )


@given(st.lists(st.integers(0, 40), min_size=3, max_size=3), st.integers(1, 60))
def test_shares_never_exceed_what_is_there_and_leave_no_room_unused(numbers: list[int], most: int) -> None:
    other = table_of([{"split": "test"}])
    rows = table_of([{"split": "train"}, {"split": "train"}, {"split": "test"}])
    ends = [(0, 2), (0, 3), (0, 1)]
    pairs = duplicates_of(*[pair for pair, n in zip(ends, numbers, strict=True) for _ in range(n)])
    selection = select_pairs(rows, pairs, other=other, most=most)
    shown = Counter(pair.place for pair in selection.pairs)
    assert len(selection.pairs) == min(most, sum(numbers))
    for place, n in zip((Place.TWO_PARTS, Place.TWO_MANIFESTS, Place.ONE_PART), numbers, strict=True):
        assert shown[place] >= min(n, most // 3)
        assert shown[place] <= n == selection.totals.get(place, 0)


def test_pairs_with_the_other_manifest_are_shown_and_pairs_within_it_are_not(folder: Path) -> None:
    mine = table_of([{"patient": "P1", "split": "test"}], folder)
    other = table_of([{"split": "train"}, {"split": "train"}], folder)
    (pair,) = select_pairs(mine, duplicates_of((0, 2), (1, 2)), other=other).pairs
    assert (pair.place, pair.first.image_id, pair.second.image_id) == (Place.TWO_MANIFESTS, "0.png", "1.png")
    assert pair.differing == ()
    assert pair.second.path == folder / "1.png"


def test_pairs_that_differ_come_first() -> None:
    rows = [{"label": label, "split": "train"} for label in ("a", "a", "a", "b")]
    selection = select_pairs(table_of(rows), duplicates_of((0, 1), (0, 2), (2, 3)))
    assert [pair.differing for pair in selection.pairs] == [("label",), (), ()]


@pytest.mark.parametrize(
    ("kind", "alteration", "words"),
    [
        (Kind.BYTES, "", "same file"),
        (Kind.PIXELS, "", "same pixels"),
        (Kind.NEAR, "", "altered copy"),
        (Kind.NEAR, "turned by 90°", "turned by 90°"),
    ],
)
def test_what_a_pair_has_in_common_is_said(kind: Kind, alteration: str, words: str) -> None:
    rows = table_of([{"split": "train"}, {"split": "test"}])
    (pair,) = select_pairs(rows, duplicates_of((0, 1), kind=kind, alteration=alteration)).pairs
    assert pair.what == words


def test_the_parts_are_counted_by_patient_and_class_in_the_order_they_are_read() -> None:
    rows = [
        {"patient": "P1", "label": "nv", "split": "test"},
        {"patient": "P2", "label": "mel", "split": "train"},
        {"patient": "P2", "label": "nv", "split": "train"},
        {"patient": "unknown", "label": "nv", "split": "train"},
        {"patient": "P3", "label": "", "split": ""},
    ]
    parts = count_parts(table_of(rows))
    assert [(part.name, part.n_images, part.groups["patient"]) for part in parts] == [
        ("train", 3, 1),
        ("test", 1, 1),
        ("", 1, 1),
    ]
    assert [part.labels for part in parts] == [{"mel": 1, "nv": 2}, {"mel": 0, "nv": 1}, {"mel": 0, "nv": 0}]
    text = Reading(page_of(document(images=5), parts=parts)).text
    assert "Part Images Share patient mel nv train 3 60.0% 1 1 2 test 1 20.0% 1 0 1 not used 1 20.0% 1 0 0" in text


def test_folds_are_counted_by_what_they_hold_out() -> None:
    rows = [{"fold": str(place % 11), "val_fold": str((place + 1 + place % 2) % 11)} for place in range(44)]
    parts = count_parts(table_of(rows))
    assert [(part.name, part.n_images) for part in parts] == [(f"fold {number}", 4) for number in range(11)]


def test_a_manifest_without_a_split_says_so() -> None:
    text = Reading(page_of(document(parts={"": 4}, groups=[]))).text
    assert "The manifest has no split and no folds." in text
    assert "No column says which images belong together." in text


def comparison(with_leaks: float, without: float, n_images: int) -> dict[str, Any]:
    def around(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    difference, control = around(with_leaks - without), around(0.01)
    scores = {"with": around(with_leaks), "without": around(without), "difference": difference, "control": control}
    return {**scores, "n_images": n_images}


def inflation(**changes: Any) -> dict[str, Any]:
    return {
        "method": "1-nearest-neighbour",
        **comparison(0.8, 0.5, 400),
        "balanced": comparison(0.7, 0.4, 400),
        "classes": {"mel": comparison(0.6, 0.3, 90), "<nv>": comparison(0.8, 0.5, 310)},
        "leaking": comparison(0.9, 0.2, 80),
        "scored": "test",
        "n_patients": 300,
        "unit": "lesions",
        "n_leaking": 80,
        "n_left_out": 95,
        "resamples": 2000,
        "notes": ["chosen at random"],
        **changes,
    }


def test_the_inflation_is_drawn_to_scale() -> None:
    reading = Reading(interval_chart([("all images", comparison(0.8, 0.5, 4)), ("some", comparison(1.0, 0.0, 4))]))
    ends = [float(x) for x in reading.values("line", "x1")[:6]]
    left, right = ends[0], ends[-1]
    centres = [float(x) for x in reading.values("circle", "cx")]
    assert centres == pytest.approx([left + value * (right - left) for value in (0.8, 0.5, 1.0, 0.0)], abs=0.1)
    assert "all images: with leaks 0.800 (0.700 to 0.900), without 0.500 (0.400 to 0.600); some:" in reading.text


def test_the_inflation_is_told_by_class_first_with_numbers_and_intervals() -> None:
    page = Reading(page_of(document(inflation=inflation())))
    assert page.tags["svg"] == 1
    for text in (
        "400 images of 300 lesions (test)",
        "Something leaks into 80 images.",
        "mel 90 0.600 0.300 +0.300 +0.200 to +0.400 +0.010 <nv> 310",
        "mean of the classes 400 0.700 0.400",
        "images with a leak 80 0.900 0.200 +0.700",
        "chosen at random",
    ):
        assert text in page.text


def test_an_inflation_without_leaks_has_no_row_for_them() -> None:
    page = Reading(page_of(document(inflation=inflation(leaking=None, n_leaking=0))))
    assert "images with a leak" not in page.text
    assert page.tags["circle"] == 2


def test_a_repair_is_shown_with_its_moves_and_its_cost() -> None:
    repair = {
        "manifest": "fixed.csv",
        "n_moves": 300,
        "before": {"train": 2, "test": 2},
        "after": {"train": 4},
        "lost": [{"part": "val", "label": "mel", "n_before": 3}],
        "notes": ["test has no image any more"],
        "moves": [
            {"image_id": f"i{n}", "before": "test", "after": "train", "because": "patient P1"} for n in range(300)
        ],
    }
    text = Reading(page_of(document(repair=repair))).text
    assert "fixed.csv : 300 images moved, none into a test part." in text
    assert "train 2 4 test 2 0" in text
    assert "val has no image of mel any more (it had 3)." in text
    assert "i0 test train patient P1" in text
    assert f"{300 - MAX_CASES} more moves are not shown" in text


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours such as #1a1f27 (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_every_text_has_enough_contrast_by_day_and_by_night() -> None:
    light, dark = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", page_of(document()), re.DOTALL)[:2]
    ]
    for colours in (light, dark):
        pairs = [
            (name, ground)
            for name in ("ink", "quiet", "link", "high", "medium", "passed")
            for ground in ("paper", "ground")
        ]
        pairs += [(name, f"{name}-soft") for name in ("high", "medium", "low", "passed")] + [("quiet", "picture")]
        for name, ground in pairs:
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
