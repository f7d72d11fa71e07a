"""The page of JSON documents names every document and key that commands print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")


def documents() -> Iterator[tuple[str, set[str], bool]]:
    """Yield the name, the keys and whether more keys are mixed in, of every document that is spelt out in cli/."""
    for path in sorted((ROOT / "medtool" / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Dict):
                continue
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            if keys[:2] == ["format", "version"]:
                name = ast.literal_eval(node.values[0])
                yield name, {str(key) for key in keys[2:] if key is not None}, None in keys


@pytest.mark.parametrize(("name", "keys", "has_more"), [pytest.param(*each, id=each[0]) for each in documents()])
def test_every_document_of_a_command_is_on_the_page_with_its_keys(name: str, keys: set[str], has_more: bool) -> None:
    assert f"`{name}`" in PAGE
    section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    if section is None:  # then the table at the top leads to the page that has them
        return
    rows = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE)
    shown = {key for row in rows for key in re.findall(r"`([a-z_0-9]+)`", row)}
    assert keys <= shown
    assert has_more or shown <= keys


def test_documents_are_found_in_the_code() -> None:
    assert {"medtool-segment", "medtool-demo", "medtool-weights"} <= {name for name, _, _ in documents()}
