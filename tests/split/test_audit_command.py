"""``medtool split audit`` from the shell: what it says, what it writes, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from medtool.manifest import read_manifest
from medtool.roles import roles_of
from medtool.split.seen import seen_of, write_seen

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of thirty patients; a clean manifest, and one with a patient and a mirrored copy that leak."""
    folder = tmp_path_factory.mktemp("album")
    (folder / "images").mkdir()
    rng = np.random.default_rng(905)
    rows = []
    for index in range(60):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((160, 120), 3)
        coarse.save(folder / f"images/{index:02}.png")
        part = ("train", "test", "train", "val", "test")[index // 2 % 5]
        rows.append(
            {
                "image": f"images/{index:02}.png",
                "patient": f"P{index // 2}",
                "label": "ab"[index // 10 % 2],
                "split": part,
            }
        )
    pl.DataFrame(rows).write_csv(folder / "clean.csv")
    Image.open(folder / "images/00.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "images/08.png")
    rows[6]["patient"] = "P1"
    pl.DataFrame(rows).write_csv(folder / "leaky.csv")
    shutil.copy(folder / "images/01.png", folder / "images/kept.png")
    return folder


@pytest.fixture
def work(album: Path, tmp_path: Path) -> Path:
    """The album's manifests in a folder of the test's own; without the mirrored copy in the clean one."""
    shutil.copytree(album / "images", tmp_path / "images")
    clean = [line for line in (album / "clean.csv").read_text().splitlines() if "/08.png" not in line]
    (tmp_path / "clean.csv").write_text("\n".join(clean) + "\n")
    shutil.copy(album / "leaky.csv", tmp_path)
    return tmp_path


def codes(document: dict[str, Any], severity: str | None = None) -> set[str]:
    return {one["code"] for one in document["findings"] if severity in (None, one["severity"])}


def audited(medtool: Run, *arguments: object) -> tuple[int, dict[str, Any]]:
    ended = medtool("split", "audit", *arguments, "--json", "--workers", "1")
    return ended.code, json.loads(ended.out)


def test_a_leaky_split_ends_with_code_3_and_names_patient_and_copy(medtool: Run, work: Path) -> None:
    code, document = audited(medtool, work / "leaky.csv")
    assert code == 3
    assert document["failed"] is True
    assert codes(document, "high") == {"G101", "D204"}
    cases = {one["code"]: one["cases"] for one in document["findings"]}
    assert [case["subject"] for case in cases["G101"]] == ["patient P1"]
    assert cases["G101"][0]["rows"] == ["images/02.png", "images/03.png", "images/06.png"]
    assert [case["rows"] for case in cases["D204"]] == [["images/00.png", "images/08.png"]]
    assert document["inflation"]["n_leaking"] >= 1


def test_a_clean_split_ends_with_code_0(medtool: Run, work: Path) -> None:
    code, document = audited(medtool, work / "clean.csv")
    assert code == 0
    assert document["failed"] is False
    assert not codes(document, "high") | codes(document, "medium")


@pytest.mark.parametrize(("fail_on", "code"), [("high", 3), ("medium", 3), ("low", 3), ("never", 0)])
def test_fail_on_decides_the_exit_code(medtool: Run, work: Path, fail_on: str, code: int) -> None:
    ended = medtool("split", "audit", work / "leaky.csv", "--no-images", "--fail-on", fail_on)
    assert ended.code == code
    assert f"--fail-on {fail_on}" in ended.err
    assert "not checked: duplicates, images" in ended.err
    assert "G101 high: group-in-two-parts, 1 case, 3 rows" in ended.out


def test_what_the_leaks_do_to_a_score_is_said(medtool: Run, work: Path) -> None:
    ended = medtool("split", "audit", work / "leaky.csv", "--workers", "1")
    assert (
        "what the leaks do to a nearest-neighbour classifier, on test (something leaks into 2 of 24 images;"
        in ended.err
    )
    assert "balanced accuracy" in ended.err


def test_quiet_prints_codes_alone(medtool: Run, work: Path) -> None:
    ended = medtool("split", "audit", work / "leaky.csv", "--no-images", "-q")
    assert "G101" in ended.out.split()
    assert all(len(line) == 4 for line in ended.out.splitlines())
    assert ended.err == ""


def test_a_second_audit_decodes_nothing_and_says_the_same(
    medtool: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = audited(medtool, work / "leaky.csv")
    assert list((work / "medtool.hashes").glob("hashes-*.parquet"))

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr("medtool.split.duplicates.fingerprint.reduced", refuse)
    _, second = audited(medtool, work / "leaky.csv")
    assert second == first
    shutil.rmtree(work / "medtool.hashes")
    _, third = audited(medtool, work / "leaky.csv")
    assert {"I702"} == codes(third) - codes(first)  # without the cache it would decode


def test_no_cache_writes_nothing(medtool: Run, work: Path) -> None:
    before = set(work.rglob("*"))
    assert medtool("split", "audit", work / "leaky.csv", "--no-cache").code == 3
    assert set(work.rglob("*")) == before


def test_the_repaired_split_is_clean_and_takes_nothing_into_test(medtool: Run, work: Path) -> None:
    code, document = audited(medtool, work / "leaky.csv", "--fix", work / "fixed.csv", "--html", work / "page.html")
    assert code == 3
    before, after = read_manifest(work / "leaky.csv"), read_manifest(work / "fixed.csv")
    assert before.table.drop("split").equals(after.table.drop("split"))
    moved = [old != new for old, new in zip(roles_of(before), roles_of(after), strict=True)]
    assert sum(moved) == document["repair"]["n_moves"] > 0
    assert all(new != "test" for new, is_moved in zip(roles_of(after), moved, strict=True) if is_moved)
    code, again = audited(medtool, work / "fixed.csv")
    assert not codes(again, "high")
    page = (work / "page.html").read_text()
    assert page.count("data:image/jpeg") >= 2
    assert "patient P1" in page


def test_known_cases_are_accepted_and_new_ones_are_not(medtool: Run, work: Path) -> None:
    known = medtool("split", "audit", work / "leaky.csv", "--no-images", "--json").out
    (work / "known.json").write_text(known)
    code, document = audited(medtool, work / "leaky.csv", "--no-images", "--baseline", work / "known.json")
    assert (code, document["findings"]) == (0, [])
    assert document["n_known"] == len(document["known"]) > 0
    rows = (work / "leaky.csv").read_text().replace("images/12.png,P6,", "images/12.png,P8,")
    (work / "leaky.csv").write_text(rows)
    code, document = audited(medtool, work / "leaky.csv", "--no-images", "--baseline", work / "known.json")
    assert code == 3
    assert [case["subject"] for one in document["findings"] for case in one["cases"] if one["code"] == "G101"] == [
        "patient P8"
    ]


def test_another_manifest_must_share_no_patient_and_no_picture(medtool: Run, work: Path) -> None:
    rows = (work / "clean.csv").read_text().splitlines()
    (work / "mine.csv").write_text("\n".join([rows[0], *rows[1:9]]) + "\n")
    (work / "other.csv").write_text("\n".join([rows[0], *rows[11:], "images/kept.png,Q1,a,test", rows[3]]) + "\n")
    _, document = audited(medtool, work / "mine.csv", "--against", work / "other.csv")
    cases = {one["code"]: [case["rows"] for case in one["cases"]] for one in document["findings"]}
    assert cases["G107"] == [["images/02.png", "images/03.png"]]
    assert ["images/01.png", "images/kept.png"] in cases["D208"]


def test_what_a_run_has_seen_is_found_in_what_it_is_to_be_scored_on(medtool: Run, work: Path) -> None:
    manifest = read_manifest(work / "leaky.csv")
    (work / "run").mkdir()
    write_seen(work / "run", seen_of(manifest, roles_of(manifest), run="run", groups=("patient",)))
    (work / "run" / "lineage.json").write_text(
        json.dumps(
            {"format": "medtool-lineage", "version": 1, "command": "train", "status": "finished", "made_with": {}}
        )
    )
    code, document = audited(medtool, work / "leaky.csv", "--no-images", "--run", work / "run")
    assert code == 3
    cases = {one["code"]: [case["rows"] for case in one["cases"]] for one in document["findings"]}
    assert cases["R501"] == [["images/02.png", "images/03.png"]]  # of test, as it chose on images/06.png
    (work / "others.csv").write_text("image,patient\nimages/04.png,P2\nimages/09.png,P77\n")
    code, document = audited(medtool, work / "others.csv", "--no-images", "--run", work / "run")
    assert code == 3
    cases = {one["code"]: [case["rows"] for case in one["cases"]] for one in document["findings"]}
    assert cases["R501"] == [["images/04.png"]]


def test_a_broken_image_is_named_and_the_rest_is_audited(medtool: Run, work: Path) -> None:
    (work / "images/20.png").write_bytes(b"not an image")
    (work / "images/21.png").unlink()
    code, document = audited(medtool, work / "leaky.csv", "--fail-on", "never")
    assert code == 4
    cases = {one["code"]: [case["rows"] for case in one["cases"]] for one in document["findings"]}
    assert cases["I701"] == [["images/21.png"]]
    assert cases["I702"] == [["images/20.png"]]
    assert "D204" in cases


def test_a_manifest_without_a_split_is_said_to_have_none(medtool: Run, work: Path) -> None:
    (work / "plain.csv").write_text("image,patient\nimages/00.png,P0\n")
    code, document = audited(medtool, work / "plain.csv", "--no-images")
    assert code == 3
    assert codes(document, "medium") == {"F305"}
    code, document = audited(medtool, work / "plain.csv", "--no-images", "--against", work / "clean.csv")
    assert "F305" not in codes(document)


def test_that_every_image_is_of_somebody_else_must_be_said(medtool: Run, work: Path) -> None:
    rows = [f"images/{n:02}.png,{part}" for n, part in enumerate(("train", "val", "test"))]
    (work / "anonymous.csv").write_text("\n".join(["image,split", *rows]) + "\n")
    code, document = audited(medtool, work / "anonymous.csv", "--no-images")
    assert (code, codes(document, "medium")) == (3, {"G104"})
    code, document = audited(medtool, work / "anonymous.csv", "--no-images", "--group", "none")
    assert (code, codes(document, "low")) == (0, {"G104"})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.csv"], 1, "missing.csv"),
        (["leaky.csv", "--group", "lesion"], 1, "no column 'lesion'"),
        (["leaky.csv", "--group", "patient", "--group", "patient"], 2, "twice"),
        (["leaky.csv", "--fix", "leaky.csv"], 2, "one of the files that are read"),
        (["leaky.csv", "--fix", "fixed.txt"], 2, "must end in .csv or .parquet"),
        (["leaky.csv", "--html", "page.pdf"], 2, "must end in .html"),
        (["leaky.csv", "--html", "nowhere/page.html"], 1, "does not exist"),
        (["leaky.csv", "--fix", "images/fixed.csv"], 1, "paths must not leave"),
        (["leaky.csv", "--fix", "clean.csv"], 1, "is there already"),
        (["leaky.csv", "--html", "other.html"], 1, "is there already"),
        (["leaky.csv", "--baseline", "other.html"], 1, "other.html"),
        (["leaky.csv", "--run", "images"], 2, "seen.csv"),
        (["leaky.csv", "--fail-on", "worst"], 2, "--fail-on"),
        (["leaky.csv", "--group", "split"], 2, "does not say who"),
        (["leaky.csv", "--against", "leaky.csv"], 2, "is the manifest that is audited"),
        (["leaky.csv", "--no-images", "--workers", "-1"], 2, "workers is -1"),
        (["leaky.csv", "--baseline", "empty.json"], 1, "is empty"),
        (["leaky.csv", "--workers", "-1"], 2, "workers is -1"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_and_writes_nothing(
    medtool: Run, work: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str
) -> None:
    (work / "empty.json").touch()
    (work / "other.html").write_text("<p>somebody's own page</p>")
    monkeypatch.chdir(work)
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    ended = medtool("split", "audit", *arguments)
    assert ended.code == code
    assert words in ended.err
    assert ended.out == ""
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_an_earlier_page_of_the_same_manifest_is_replaced_and_no_other(medtool: Run, work: Path) -> None:
    for _ in range(2):
        assert medtool("split", "audit", work / "leaky.csv", "--no-images", "--html", work / "page.html").code == 3
    ended = medtool("split", "audit", work / "clean.csv", "--no-images", "--html", work / "page.html")
    assert ended.code == 1
    assert "is there already" in ended.err


def test_a_page_that_cannot_be_written_costs_no_finding(medtool: Run, work: Path) -> None:
    (work / "page.html").mkdir()
    ended = medtool("split", "audit", work / "leaky.csv", "--no-images", "--html", work / "page.html", "--overwrite")
    assert ended.code == 1
    assert "cannot write" in ended.err
    assert "G101 high" in ended.out


def test_what_to_do_can_be_typed_as_it_is(medtool: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    shutil.copy("leaky.csv", "a name.csv")
    ended = medtool("split", "audit", "a name.csv", "--no-images")
    assert "medtool split audit 'a name.csv' --fix 'a name-repaired.csv'" in ended.out
    assert medtool("split", "audit", "a name.csv", "--no-images", "--fix", "a name-repaired.csv").code == 3
    assert medtool("split", "audit", "a name-repaired.csv", "--no-images").code == 0


def test_a_known_case_that_became_another_is_new(medtool: Run, work: Path) -> None:
    known = medtool("split", "audit", work / "leaky.csv", "--no-images", "--json").out
    (work / "known.json").write_text(known)
    rows = (work / "leaky.csv").read_text().replace("images/06.png,P1,a,val", "images/06.png,P1,a,train")
    (work / "leaky.csv").write_text(rows)
    code, document = audited(medtool, work / "leaky.csv", "--no-images", "--baseline", work / "known.json")
    assert (code, "G101" in codes(document)) == (3, True)


def test_no_audit_imports_torch(work: Path) -> None:
    code = (
        "import sys\nfrom medtool.cli.app import run\n"
        f"run(['split', 'audit', {str(work / 'leaky.csv')!r}, '--html', {str(work / 'p.html')!r}, '--workers', '1'])\n"
        "sys.exit(sorted({'torch', 'torchvision', 'timm', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_repair_that_is_there_already_stays_if_it_is_the_same_and_is_never_lost(medtool: Run, work: Path) -> None:
    fixed = work / "fixed.csv"
    command = ("split", "audit", work / "leaky.csv", "--no-images", "--fix", fixed, "--fail-on", "never")
    assert medtool(*command).code == 0
    written = fixed.read_bytes()
    assert medtool(*command).code == 0
    assert fixed.read_bytes() == written
    other = written.replace(b",train", b",val", 1)
    fixed.write_bytes(other)
    ended = medtool(*command)
    assert ended.code == 1
    assert "is there already and differs" in ended.err
    assert fixed.read_bytes() == other
    assert medtool(*command, "--overwrite").code == 0
    assert fixed.read_bytes() == written
