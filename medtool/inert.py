"""Text from outside, written so that no character in it acts on a terminal or a page, or hides there."""

from __future__ import annotations

import unicodedata

# Controls (terminals, line breaks), formats (bidirectional overrides, characters of no width that make two ids look
# alike), lone surrogates (undecodable bytes of a file name), and the two separators of lines.
_WRITTEN_OUT = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def inert(text: str) -> str:
    r"""Return ``text`` with every control and invisible character as ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``.

    Escaping for HTML is another matter, and the page's.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written_out(character) for character in text)


def _written_out(character: str) -> str:
    if unicodedata.category(character) not in _WRITTEN_OUT:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
