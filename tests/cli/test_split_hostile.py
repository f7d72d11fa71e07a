"""``medtool split`` on tables that are broken or meant ill: an error with its line, or inert in every output."""

from __future__ import annotations

import csv
import html.parser
import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medtool.manifest import read_manifest
from tests.conftest import Ended

Command = Callable[..., Ended]

# Every one is a legal text in a CSV cell, and an order to some program that shows it.
HOSTILE = [
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://x.invalid","ok")',
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31mred",
    "\x7f\x08back",
    "line\rover",
    "line\nbreak",
    "\u202egpj.exe",
    "\u2028line",
    "\u2066isolate",
    "<script>alert(1)</script>",
    "</title></style></textarea><img src=x onerror=alert(1)>",
    "\" onmouseover=alert(1) '",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "[bold red]markup[/]",
    "%s %(name)s {0}",
    '"quoted"',
    "\ttab",
    "007",
    "12345678901234567890123",
    "1e5",
]

# Tags that carry no behaviour, and the one picture source of the page.
_TAGS_OF_THE_PAGE = {
    *("html", "head", "meta", "title", "style", "body", "main", "section", "article", "header", "footer", "h1", "h2"),
    *("h3", "div"),
    *("p", "span", "strong", "bdi", "code", "a", "ul", "li", "details", "summary", "figure", "figcaption", "img", "br"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "line", "rect", "circle", "text", "path", "desc"),
}


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _rows(texts: list[str], *, images: int = 3) -> list[dict[str, str]]:
    """Return a leaky split: each text is a patient with an image in train, val and test."""
    return [
        {
            "image": f"images/{place}-{number}.png",
            "image_id": f"{text}#{number}",
            "patient": text,
            "site": texts[(place + number) % len(texts)],
            "label": texts[place % 2],
            "split": ("train", "val", "test")[number % 3],
            "note": text,
            f"x{texts[0]}": text,
        }
        for place, text in enumerate(texts)
        for number in range(images)
    ]


def _is_inert(text: str) -> bool:
    """Tell whether a terminal only shows this text: no control character but line feed and tab, no overriding."""
    return not any(
        (unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") and character not in "\n\t")
        or 0x202A <= ord(character) <= 0x202E
        or 0x2066 <= ord(character) <= 0x2069
        for character in text
    )


class _Page(html.parser.HTMLParser):
    """What a browser makes of a page: its elements, their attributes and the text that is shown."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _check_page(page: str) -> _Page:
    assert _is_inert(page)
    read = _Page(page)
    for tag, attributes in read.elements:
        assert tag in _TAGS_OF_THE_PAGE, tag
        assert not [name for name in attributes if name.startswith("on") or name in ("srcdoc", "formaction")]
        assert all(not (attributes.get(name) or "").startswith("javascript:") for name in ("href", "src"))
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
    return read


def _texts_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for key, item in value.items() for text in (key, *_texts_in(item))}
    if isinstance(value, list):
        return {text for item in value for text in _texts_in(item)}
    return {value} if isinstance(value, str) else set()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    return _write(tmp_path / "manifest.csv", _rows(HOSTILE))


def test_what_an_audit_says_of_hostile_cells_is_inert(medtool: Command, hostile: Path) -> None:
    for more in ([], ["-v"], ["-q"], ["--group", "site"], ["--group", "note", "--fail-on", "never"]):
        ended = medtool("split", "audit", hostile, "--no-images", *more)
        assert ended.code == (0 if "never" in more else 3)
        assert _is_inert(ended.out)
        assert _is_inert(ended.err)
        assert "Traceback" not in ended.err
    assert "- note \\x1b[2J\\x1b[31mred: 1 in train" in ended.out


def test_the_json_of_an_audit_is_ascii_and_gives_every_cell_back(medtool: Command, hostile: Path) -> None:
    ended = medtool("split", "audit", hostile, "--no-images", "--json")
    assert ended.out.isascii()
    assert _is_inert(ended.out)
    found = {one["code"]: one for one in json.loads(ended.out)["findings"]}
    assert {case["subject"] for case in found["G101"]["cases"]} == {f"patient {text}" for text in HOSTILE}
    rows = {row for case in found["G101"]["cases"] for row in case["rows"]}
    assert rows == {f"{text}#{number}" for text in HOSTILE for number in range(3)}


def test_the_page_of_an_audit_shows_hostile_cells_and_runs_none(medtool: Command, hostile: Path) -> None:
    page = hostile.parent / "page.html"
    assert medtool("split", "audit", hostile, "--no-images", "--html", page).code == 3
    read = _check_page(page.read_bytes().decode())
    for text in ("<script>alert(1)</script>", "{{ 7 * 7 }}{% raw %}", "\\x1b[2J\\x1b[31mred", "\\u202egpj.exe"):
        assert f"patient {text}" in read.text
    assert "49" not in read.text.split("patient {{")[1][:40]


def test_a_repaired_manifest_keeps_every_cell_and_shows_none_of_them_raw(medtool: Command, hostile: Path) -> None:
    fixed = hostile.parent / "fixed.csv"
    ended = medtool("split", "audit", hostile, "--no-images", "--fix", fixed, "--json")
    assert ended.code == 3
    assert _is_inert(ended.err)
    before, after = read_manifest(hostile).table, read_manifest(fixed).table
    assert after.drop("split").equals(before.drop("split"))
    moves = json.loads(ended.out)["repair"]["moves"]
    assert {move["image_id"] for move in moves} <= set(before.get_column("image_id"))
    assert medtool("split", "audit", fixed, "--no-images", "--json").out.count('"G101"') == 0


@pytest.mark.parametrize("more", [[], ["--folds", "3"], ["--stratify", "note", "--stratify", "site"]])
def test_a_split_of_hostile_cells_says_nothing_raw_and_keeps_them(
    medtool: Command, hostile: Path, more: list[str]
) -> None:
    if "note" in more:  # no part may lack a value of the first
        more = ["--stratify", "label", *more]
    ended = medtool("split", "make", hostile, *more, "--json")
    assert ended.code == 0, ended.err
    assert _is_inert(ended.err)
    assert ended.out.isascii()
    report = (hostile.parent / "manifest-split.json").read_bytes()
    assert report.isascii()
    assert _is_inert(report.decode())
    assert set(HOSTILE[:2]) <= _texts_in(json.loads(ended.out)["parts"])
    made = read_manifest(hostile.parent / "manifest-split.csv")
    given = read_manifest(hostile).table
    assert made.table.select([name for name in given.columns if name != "split"]).equals(given.drop("split"))
    with (hostile.parent / "manifest-split.patients.csv").open(encoding="utf-8", newline="") as file:
        assert {row["patient"] for row in csv.DictReader(file)} == set(HOSTILE)
    plain = medtool("split", "make", hostile, *more)
    assert _is_inert(plain.out)
    assert _is_inert(plain.err)


@pytest.mark.parametrize("kind", ["nnunet", "clam", "monai"])
def test_a_split_for_other_programs_is_inert_or_refused(medtool: Command, hostile: Path, kind: str) -> None:
    out = hostile.parent / ("out" if kind == "clam" else "out.json")
    ended = medtool("split", "export", hostile, out, "--format", kind)
    assert ended.code in (0, 1)
    assert _is_inert(ended.out)
    assert _is_inert(ended.err)
    assert "Traceback" not in ended.err
    assert "unexpected" not in ended.err
    if ended.code:
        assert ended.err.startswith("medtool: ")
        assert not out.exists()
    elif kind != "clam":
        assert out.read_bytes().isascii()
        assert _is_inert(out.read_text())
        json.loads(out.read_bytes())


def test_two_pictures_with_hostile_names_are_shown_inert(medtool: Command, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(905).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((256, 192))
    rows = []
    for number, text in enumerate(("\x1b[31m<img src=x onerror=alert(1)>", "=1+1\u202e")):
        name = f"images/{number}.png" if sys.platform == "win32" else f"images/{number}\x1b[2J'\"&lt;b&gt;.png"
        picture.save(tmp_path / name)
        row = {"image": name, "image_id": text, "patient": text, "label": text, "split": ("train", "test")[number]}
        rows.append(row)
    rows.append({"image": "images/gone\x1b[2J.png", "image_id": "gone", "patient": "g", "label": "g", "split": "val"})
    (tmp_path / "broken\x1b[2J.png" if sys.platform != "win32" else tmp_path / "broken.png").write_bytes(b"no picture")
    broken = "broken.png" if sys.platform == "win32" else "broken\x1b[2J.png"
    rows.append({"image": broken, "image_id": "\x9bbroken", "patient": "b", "label": "g", "split": "val"})
    manifest, page = _write(tmp_path / "manifest.csv", rows), tmp_path / "page.html"
    ended = medtool("split", "audit", manifest, "--html", page, "--workers", "1", "--json")
    assert ended.code == 3
    assert _is_inert(ended.out + ended.err)
    codes = {one["code"] for one in json.loads(ended.out)["findings"]}
    assert {"I701", "I702"} <= codes
    assert codes & {"D201", "D202", "D203", "D204", "D205", "D206", "D207"}
    read = _check_page(page.read_bytes().decode())
    assert [attributes["alt"] for tag, attributes in read.elements if tag == "img"] == [
        "Image \\x1b[31m<img src=x onerror=alert(1)>",
        "Image =1+1\\u202e",
    ]
    plain = medtool("split", "audit", manifest, "--workers", "1")
    assert _is_inert(plain.out + plain.err)


# A table, and what is said of it after the name of the file.
BROKEN = {
    "UTF-16": ("image,patient,split\na.png,1,train\n".encode("utf-16"), ", line 1: the file is UTF-16"),
    "UTF-16 without a mark": ("image,patient\na.png,1\n".encode("utf-16-le"), ", line 1: a NUL byte"),
    "Latin-1": ("image,patient,split\na.png,1,train\nb.png,Müller,test\n".encode("latin-1"), ", line 3: byte 0xfc"),
    "Windows-1252": (b"image,patient,split\r\na.png,\x93x\x94,train\r\n", ", line 2: byte 0x93"),
    "ragged": (b"image,patient,split\na.png,1,train\nb.png,2\n", ", line 3: 2 fields where the header has 3"),
    "ragged after a break": (b'image,patient\n"a\n.png",1\nb.png,2,3\n', ", line 4: 3 fields where the header has 2"),
    "unclosed": (b'image,patient,split\na.png,1,train\nb.png,"2,test\n', ", line 3: a quote that is opened"),
    "one id twice": (b"image,image_id\na.png,7\nb.png,8\nc.png,7\n", ", line 4: image_id '7' is taken already"),
    "hostile id twice": (b"image,image_id\na.png,\x1b[2J\nb.png,\x1b[2J\n", ", line 3: image_id '\\x1b[2J' is taken"),
    "one column twice": (b"image,\x1b[2J,\x1b[2J\na.png,1,2\n", ", line 1: columns 2 and 3 are both called '\\x1b[2J'"),
    "other columns": (b'\x1b[2J,"b\nc"\n1,2\n', ", line 1: no column is called 'image' (there are: \\x1b[2J, b\\x0ac)"),
    "leaves by ..": (b"image,split\na.png,train\n../../etc/passwd,test\n", ", line 3: image '../../etc/passwd' leaves"),
    "leaves hidden": (b"image,split\na/b/../../../c.png,train\n", ", line 2: image 'a/b/../../../c.png' leaves"),
    "absolute": (b"image,split\n/etc/passwd,train\n", ", line 2: image '/etc/passwd' is absolute"),
    "drive": (b"image,split\nC:\\x.png,train\n", ", line 2: image 'C:\\\\x.png' starts with a drive letter"),
    "mask leaves": (b"image,mask,split\na.png,../m.png,train\n", ", line 2: mask '../m.png' leaves"),
    "split with an escape": (b"image,split\na.png,\x1b[2Jtrain\n", ", line 2: split is '\\x1b[2Jtrain'"),
    "huge fold": (b"image,fold\na.png,1e5\n", ", line 2: fold is '1e5'"),
    "empty": (b"", " is empty"),
    "no row": (b"image,patient,split\n", " has a header and no rows"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_is_an_error_with_its_line_in_every_command(medtool: Command, tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    broken, sound = tmp_path / "broken.csv", tmp_path / "sound.csv"
    broken.write_bytes(data)
    sound.write_text("image,patient,split\na.png,1,train\nb.png,2,test\n")
    page, fixed = tmp_path / "page.html", tmp_path / "fixed.csv"
    commands = [
        ["make", broken],
        ["audit", broken, "--no-images", "--html", page, "--fix", fixed, "--json"],
        ["audit", sound, "--against", broken, "--no-images", "--html", page],
        ["export", broken, tmp_path / "out.json", "--format", "nnunet"],
    ]
    for command in commands:
        ended = medtool("split", *command)
        assert ended.code == 1
        assert ended.out == ""
        assert ended.err.startswith(f"medtool: {broken}{message}"), ended.err
        assert _is_inert(ended.err)
        assert len(ended.err.splitlines()) <= 2  # the error, and what to do
        assert {path.name for path in tmp_path.iterdir()} == {"broken.csv", "sound.csv"}


def test_a_byte_order_mark_and_the_line_ends_of_windows_change_nothing(medtool: Command, tmp_path: Path) -> None:
    rows = _rows(["a", "b", "c", "d", "e", "ü"])
    plain = _write(tmp_path / "manifest.csv", rows)
    text = plain.read_bytes().replace(b"\r\n", b"\n")
    said = []
    for number, data in enumerate((text, b"\xef\xbb\xbf" + text, b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "manifest.csv").write_bytes(data)
        ended = medtool("split", "audit", folder / "manifest.csv", "--no-images", "--json")
        assert ended.code == 3
        said.append({**json.loads(ended.out.replace(str(folder), "")), "manifest_sha256": ""})
        assert medtool("split", "make", folder / "manifest.csv").code == 0
        assert (folder / "manifest-split.csv").read_bytes() == (tmp_path / "0" / "manifest-split.csv").read_bytes()
    assert said[0] == said[1] == said[2]


def test_ids_are_never_read_as_numbers(medtool: Command, tmp_path: Path) -> None:
    # Each pair is one number to a program that reads numbers, and two patients here.
    pairs = [("12345678901234567890123", "12345678901234567890124"), ("1e5", "100000"), ("0x10", "16"), ("1_0", "10")]
    rows = [
        {"image": f"{place}-{side}.png", "patient": text, "label": "x", "split": ("train", "test")[side]}
        for place, pair in enumerate(pairs)
        for side, text in enumerate(pair)
    ]
    apart = _write(tmp_path / "apart.csv", rows)
    ended = medtool("split", "audit", apart, "--no-images", "--json")
    assert not {one["code"] for one in json.loads(ended.out)["findings"]} & {"G101", "G102", "G103"}
    # Leading zeros and ``.0`` are what programs add and drop: said, as another finding than one id in two parts.
    rows = [
        {"image": f"{number}.png", "patient": text, "label": "x", "split": split}
        for number, (text, split) in enumerate([("007", "train"), ("7", "test"), ("8", "train"), ("8.0", "test")])
    ]
    alike = _write(tmp_path / "alike.csv", rows)
    found = {
        one["code"]: one
        for one in json.loads(medtool("split", "audit", alike, "--no-images", "--json").out)["findings"]
    }
    assert "G101" not in found
    assert {case["subject"] for case in found["G103"]["cases"]} == {"patient 007 = 7", "patient 8 = 8.0"}
    assert medtool("split", "make", apart, "--stratify", "none").code == 0
    with (tmp_path / "apart-split.patients.csv").open(encoding="utf-8", newline="") as file:
        assert {row["patient"] for row in csv.DictReader(file)} == {text for pair in pairs for text in pair}


def test_names_on_the_command_line_are_shown_inert(medtool: Command, tmp_path: Path) -> None:
    manifest = _write(tmp_path / "manifest.csv", _rows(["a", "b", "c", "d", "e", "f"]))
    for command in (
        ["audit", manifest, "--no-images", "--group", "\x1b[2Jnone"],
        ["audit", manifest, "--no-images", "--baseline", tmp_path / "\x1b[2J.json"],
        ["audit", manifest, "--no-images", "--fix", tmp_path / "\x1b[2J" / "fixed.csv"],
        ["audit", tmp_path / "\x1b[2J.csv", "--no-images"],
        ["make", manifest, "--group", "\x1b[2Jnone"],
        ["make", manifest, "--stratify", "\x9b[2Jnone"],
        ["make", manifest, "--out", tmp_path / "\x1b[2J" / "split.csv"],
    ):
        ended = medtool("split", *command)
        assert ended.code in (1, 2)
        assert _is_inert(ended.out + ended.err)
        assert "\\x1b[2J" in ended.err or "\\x9b[2J" in ended.err


@pytest.mark.parametrize("command", ["make", "audit"])
def test_nothing_is_written_outside_of_the_images_folder(medtool: Command, tmp_path: Path, command: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    manifest = _write(tmp_path / "data" / "manifest.csv", _rows(["a", "b", "c", "d", "e", "f"]))
    out = tmp_path / "elsewhere" / "split.csv"
    more = ["--out", out] if command == "make" else ["--no-images", "--fix", out]
    ended = medtool("split", command, manifest, *more)
    assert ended.code == 1
    assert "must not leave" in ended.err
    assert list(out.parent.iterdir()) == []


_cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(_cells | st.sampled_from(HOSTILE), min_size=3, max_size=5, unique=True))
def test_whatever_is_in_the_cells_is_inert_in_what_is_said(medtool: Command, tmp_path: Path, texts: list[str]) -> None:
    manifest = _write(tmp_path / "manifest.csv", _rows(texts))
    assert [row["patient"] for row in read_manifest(manifest).rows()][::3] == texts
    plain = medtool("split", "audit", manifest, "--no-images")
    ended = medtool(
        "split", "audit", manifest, "--no-images", "--json", "--html", tmp_path / "page.html", "--overwrite"
    )
    assert plain.code == ended.code == 3
    assert _is_inert(plain.out + plain.err + ended.err)
    assert ended.out.isascii()
    assert {row for one in json.loads(ended.out)["findings"] for case in one["cases"] for row in case["rows"]} <= {
        f"{text}#{number}" for text in texts for number in range(3)
    }
    _check_page((tmp_path / "page.html").read_bytes().decode())
