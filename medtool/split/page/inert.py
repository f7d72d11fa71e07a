"""Text from outside, written so that no character in it acts on the page or hides."""

from __future__ import annotations

import unicodedata

#: Longer texts are cut: a cell may hold a megabyte, and a page many cells.
MOST_CHARACTERS = 400

# Controls (terminals, line breaks), formats (bidirectional overrides, no-width characters that make two ids look
# alike), lone surrogates (undecodable bytes of a file name), and the two separators of lines.
_WRITTEN_OUT = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def inert(text: str) -> str:
    r"""Return ``text`` with every control and invisible character written out, such as ``\x1b`` and ``\u202e``.

    What is longer than :data:`MOST_CHARACTERS` ends with how much was cut. Escaping for HTML is the template's.
    """
    more = len(text) - MOST_CHARACTERS
    shown = text if more <= 0 else text[:MOST_CHARACTERS]
    if not shown.isascii() or not shown.isprintable():
        shown = "".join(_written_out(character) for character in shown)
    return shown if more <= 0 else f"{shown}… ({more:,} more characters)"


def _written_out(character: str) -> str:
    if unicodedata.category(character) not in _WRITTEN_OUT:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
