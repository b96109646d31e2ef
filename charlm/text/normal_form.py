"""Unicode's normal forms in linear time.

Canonical order has the marks after a letter sorted by their combining class. `unicodedata` does so by insertion, which
of a million marks on one letter, a file of two megabytes, takes an hour in which not even Ctrl-C is heard. So long
runs of marks are sorted beforehand; the result is the same.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

Form = Literal["NFC", "NFKC"]
Decomposed = Literal["NFD", "NFKD"]

LONG_RUN = 64  # marks; a shorter run costs nothing to speak of
STRIDE = LONG_RUN // 2  # of every so manieth character, two in a row lie in a long run
FIRST, LAST = 0x300, 0x1FFFF  # where all marks are

_DECOMPOSED: dict[Form, Decomposed] = {"NFC": "NFD", "NFKC": "NFKD"}


def normalize(form: Form, text: str) -> str:
    """What ``unicodedata.normalize`` gives."""
    if not text.isascii():
        marks = _marks(form)
        if _has_long_run(text, marks):
            runs = re.compile(f"[{''.join(marks)}]{{{LONG_RUN},}}")
            text = runs.sub(lambda run: _sorted_run(run[0], _DECOMPOSED[form]), text)
    return unicodedata.normalize(form, text)


def _sorted_run(run: str, form: Decomposed) -> str:
    """Marks in canonical order, decomposed."""
    return "".join(sorted("".join(unicodedata.normalize(form, mark) for mark in run), key=unicodedata.combining))


def _has_long_run(text: str, marks: frozenset[str]) -> bool:
    """Whether there is one of ``STRIDE`` at the least: to look at all characters would outlast normalising them."""
    are_marks = bytes(map(marks.__contains__, text[::STRIDE]))
    place = -1
    while (place := are_marks.find(b"\1\1", place + 1)) >= 0:
        if marks.issuperset(text[place * STRIDE : (place + 1) * STRIDE]):
            return True
    return False


@lru_cache(maxsize=2)
def _marks(form: Form) -> frozenset[str]:
    """The characters that become marks alone, and no letter with them."""
    return frozenset(c for c in map(chr, range(FIRST, LAST + 1)) if _is_mark(c, _DECOMPOSED[form]))


def _is_mark(character: str, form: Decomposed) -> bool:
    return all(map(unicodedata.combining, unicodedata.normalize(form, character)))
