"""What may be written to a terminal, and what it can show."""

from __future__ import annotations

import sys


def printable(text: str) -> str:
    """The text with an escape for each character that could move the cursor, hide, or not be printed at all."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def can_show(text: str) -> bool:
    """Whether standard output has all characters of a text."""
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def showable(text: str) -> str:
    """The text with an escape for each character that standard output does not have."""
    return text.encode(_encoding(), "backslashreplace").decode(_encoding())


def _encoding() -> str:
    return (sys.stdout and sys.stdout.encoding) or "ascii"
