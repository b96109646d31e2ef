"""The same seed and flags give the same bits: the quick part of `tests.faults.same_bits`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.faults.same_bits import CASES, CONDITIONS, QUICK, differences, digest, run

CASE = next(case for case in CASES if case.name == "word")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run without any condition comes to."""
    return run(CASE, CONDITIONS[0], tmp_path_factory.mktemp("first"))


def test_with_everything_different_at_once(first: dict[str, bytes], tmp_path: Path) -> None:
    """Other threads, locale, time zone, hashes, folder, -O, and stopped in between; each process a fresh one."""
    parts = run(CASE, QUICK, tmp_path)
    assert differences(first, parts) == []
    assert digest(first) == digest(parts)


def test_one_bit_is_a_difference(first: dict[str, bytes]) -> None:
    for name, data in first.items():
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        assert differences(first, first | {name: flipped}) == [name]
        assert digest(first | {name: flipped}) != digest(first)
    assert differences(first, {}) == sorted(first)
    assert any(np.frombuffer(data[-4:], np.float32)[0] for name, data in first.items() if name.endswith("/w_h"))
