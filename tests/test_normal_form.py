from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text import normal_form
from charlm.text.normal_form import FIRST, LAST, LONG_RUN, STRIDE, Form, normalize

FORMS: list[Form] = ["NFC", "NFKC"]
# Marks above, below and overlaid; some that decompose into several marks, or are marks in NFKC alone.
MARKS = "\u0301\u0323\u0344\u0345\u0f73\u0f71\u3099\uff9e\u20d2\U0001d165"
LETTERS = ["a", "\n", "ộ", "가", "\u1100", "ﬁ", "İ", "e\u0301", ""]
runs = st.tuples(st.sampled_from(LETTERS), st.text(st.sampled_from(MARKS), max_size=4), st.integers(0, 3 * LONG_RUN))
texts = st.lists(runs, max_size=4).map(lambda parts: "".join(a + marks * times for a, marks, times in parts))


@pytest.mark.parametrize("form", FORMS)
@given(text=texts | st.text())
def test_it_is_the_normal_form(form: Form, text: str) -> None:
    assert normalize(form, text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", FORMS)
def test_of_every_character_in_a_long_run(form: Form) -> None:
    for code in range(FIRST, 0x20000):
        if not 0xD800 <= code < 0xE000 and unicodedata.combining(chr(code)):
            text = f"a{chr(code)}\u0301\u0323" * 2 + f"{chr(code)}\u0301\u0323" * (LONG_RUN // 3 + 1)
            assert normalize(form, text) == unicodedata.normalize(form, text), hex(code)


@pytest.mark.parametrize("form", FORMS)
def test_there_are_no_marks_elsewhere(form: Form) -> None:
    for code in (*range(FIRST), *range(LAST + 1, 0x110000)):
        assert not unicodedata.combining(unicodedata.normalize(form, chr(code))[0])


@pytest.mark.parametrize("before", range(STRIDE + 1))
def test_unicodedata_never_sorts_a_long_run(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it begins; for it would take time by the square of its length."""
    given: list[str] = []

    class Data:
        combining = staticmethod(unicodedata.combining)

        @staticmethod
        def normalize(form: Any, text: str) -> str:
            given.append(text)
            return unicodedata.normalize(form, text)

    monkeypatch.setattr(normal_form, "unicodedata", Data)
    normalize("NFC", "a" * before + "\u0301\u0323" * (LONG_RUN // 2) + "b")
    assert "\u0301\u0323" not in given[-1]
