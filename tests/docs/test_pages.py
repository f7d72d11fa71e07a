"""The pages: their links lead somewhere, and what is generated is up to date."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_or_heading_leads_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name) if name else page
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other), target


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or f"({name})" in index, name


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "commands.py"))["page"]()
    shown = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert shown == page, "run: python docs/commands.py"


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "rules.py"))["page"]()
    shown = (ROOT / "docs" / "reference" / "audit-rules.md").read_text(encoding="utf-8")
    assert shown == page, "run: python docs/rules.py"


def test_the_changelog_and_the_readme_name_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for command in (
        "demo",
        "manifest",
        "segment",
        "doctor",
        "plugins",
        "weights",
        "split make",
        "split audit",
        "train",
        "predict",
        "cam",
    ):
        assert f"medtool {command}" in readme, command
        assert f"medtool {command}" in changelog, command
