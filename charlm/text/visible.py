"""Symbols in a form that can be seen."""

from __future__ import annotations

import unicodedata

VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def visible(symbol: str) -> str:
    """A symbol with a sign or its code point for what could not be seen or would be taken for a sign."""
    shown = "".join(map(_visible_character, symbol))
    if unicodedata.category(symbol[0]).startswith("M"):  # it would be drawn onto whatever stands before it
        return f"U+{ord(symbol[0]):04X}{shown[1:]}"
    return shown


def _visible_character(character: str) -> str:
    if character in VISIBLE:
        return VISIBLE[character]
    if character.isprintable() and character not in VISIBLE.values():
        return character
    return f"U+{ord(character):04X}"
