"""Numbers in sentences."""

from __future__ import annotations

import pytest

from charlm.wording import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (1234567, "1,234,567 steps")]
)
def test_a_number_and_its_noun(number: int, told: str) -> None:
    assert counted(number, "step") == told
