from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from medtool import weights
from medtool.errors import InputError, MissingWeightsError, UnknownNameError
from medtool.weights import State, WeightsInfo

from .conftest import CONTENT

ROOT = Path(__file__).resolve().parents[2]


def test_every_record_is_whole() -> None:
    for each in weights.known():
        assert re.fullmatch(r"[0-9a-f]{64}", each.sha256)
        assert each.url.startswith("https://")
        assert each.url.endswith(each.file_name)
        assert each.size_bytes > 1_000_000
        assert all((each.title, each.licence, each.citation))
    for attribute in ("name", "sha256", "file_name", "url"):
        assert len({getattr(each, attribute) for each in weights.known()}) == len(weights.known())


def test_every_record_is_named_like_its_segmenter() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {each.name for each in weights.known()} <= set(project["entry-points"]["medtool.segmenters"])


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDTOOL_WEIGHTS", str(tmp_path / "here"))
    assert weights.folder() == tmp_path / "here"
    monkeypatch.setenv("MEDTOOL_WEIGHTS", "relative")
    monkeypatch.chdir(tmp_path)
    assert weights.folder() == tmp_path / "relative"
    monkeypatch.delenv("MEDTOOL_WEIGHTS")
    assert weights.folder().name == "weights"
    assert weights.folder().is_absolute()


def test_find_takes_the_right_size_and_reads_nothing(info: WeightsInfo) -> None:
    assert weights.find("tiny") is None
    path = weights.folder() / info.file_name
    path.parent.mkdir()
    path.write_bytes(bytes(len(CONTENT) - 1))
    assert weights.find("tiny") is None
    path.write_bytes(bytes(len(CONTENT)))
    assert weights.find("tiny") == path
    assert weights.find(info.file_name) == path


def test_verifying_reads_every_byte(info: WeightsInfo) -> None:
    path = weights.folder() / info.file_name
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1] + b"\0")
    assert weights.look_at("tiny").state is State.HERE
    wrong = weights.look_at("tiny", verify=True)
    assert wrong.state is State.WRONG
    assert wrong.sha256 not in (None, info.sha256)
    path.write_bytes(CONTENT)
    assert weights.look_at("tiny", verify=True).state is State.VERIFIED


def test_missing_weights_name_the_command(info: WeightsInfo) -> None:
    with pytest.raises(MissingWeightsError, match="tiny are not on this machine") as caught:
        weights.require("tiny")
    assert caught.value.hint == "medtool weights get tiny"


def test_a_file_of_the_wrong_size_is_said_to_be_one(info: WeightsInfo) -> None:
    weights.folder().mkdir()
    (weights.folder() / info.file_name).write_bytes(b"12345")
    with pytest.raises(MissingWeightsError, match="it has 5 bytes, not 300,000") as caught:
        weights.require("tiny")
    assert caught.value.hint == "medtool weights get tiny --overwrite"


def test_ones_own_file_is_found_by_its_name(info: WeightsInfo) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        weights.require("acme.safetensors")
    assert caught.value.hint == f"copy the file to {weights.folder() / 'acme.safetensors'}"
    weights.folder().mkdir()
    own = weights.folder() / "acme.safetensors"
    own.write_bytes(b"own")
    (weights.folder() / "notes.txt").write_bytes(b"no weights")
    (weights.folder() / "folder.pt").mkdir()
    assert weights.require("acme.safetensors") == own
    assert [(found.name, found.state) for found in weights.look_at_all()] == [
        ("tiny", State.MISSING),
        ("acme.safetensors", State.OWN),
    ]


@pytest.mark.parametrize("name", ["", "nothing", "../tiny_0001.pth", "/etc/passwd.pth", "a/b.pt", ".pth"])
def test_a_name_is_never_a_path(info: WeightsInfo, name: str) -> None:
    with pytest.raises(UnknownNameError):
        weights.find(name)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_that_cannot_be_read_is_one_line(info: WeightsInfo) -> None:
    weights.folder().mkdir()
    weights.folder().chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be read"):
            weights.find("tiny")
    finally:
        weights.folder().chmod(0o700)


def test_nothing_but_the_download_imports_the_network() -> None:
    script = (
        "import sys, medtool.weights, medtool.cli.weights\n"
        "print([name for name in ('ssl', 'http.client', 'urllib.request', 'numpy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_no_other_source_names_a_network_module() -> None:
    network = re.compile(
        r"^\s*(?:import|from)\s+(?:urllib\.request|http|ssl|ftplib|smtplib|requests|httpx|aiohttp)\b", re.M
    )
    using = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "medtool").rglob("*.py")
        if network.search(path.read_text("utf-8"))
    }
    assert using == {"medtool/weights/download.py"}


def test_the_page_for_carrying_files_by_hand_has_every_address_and_hash() -> None:
    page = (ROOT / "docs" / "how-to" / "weights.md").read_text(encoding="utf-8")
    for each in weights.known():
        assert f"\n{each.url}\n" in page
        assert f"\n{each.sha256}  {each.file_name}\n" in page
        assert f"| `{each.name}` | {each.citation} | {each.licence} | {each.size_bytes:,} |" in page
