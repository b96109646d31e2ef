"""Tokens with what comes before them in their sequence."""

from __future__ import annotations

import numpy as np
import pytest

from charlm.text import spool
from charlm.text.histories import Histories
from charlm.text.vocabulary import EOS_ID

V = 9
TOKENS = np.array([2, 3, 1, 4, 1, 1, 5, 6, 7, 8, 1, 2, 2], np.uint8)  # sequences of 3, 2, 1, 5 and 2 tokens


def test_how_many_tokens_go_so_far_back() -> None:
    histories = Histories(TOKENS, V)
    assert histories.longest == 5
    assert [histories.count(back) for back in range(6)] == [13, 8, 4, 2, 1, 0]
    assert [histories.reach(count, 50) for count in (1, 2, 3, 8, 13, 14)] == [4, 3, 2, 1, 0, 0]
    assert histories.reach(1, 2) == 2


@pytest.mark.parametrize("block", [1, 4, 100])
def test_all_places_with_so_much_before_them(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BLOCK_TOKENS", block)
    histories = Histories(TOKENS, V)
    for back, places in enumerate([range(13), [1, 2, 4, 7, 8, 9, 10, 12], [2, 8, 9, 10], [9, 10], [10]]):
        assert histories.draw(back, 100, 0).tolist() == list(places)


def test_a_draw_is_even_has_no_place_twice_and_follows_the_seed() -> None:
    histories = Histories(TOKENS, V)
    seen = np.zeros(13, int)
    for seed in range(2000):
        drawn = histories.draw(1, 3, seed)
        assert drawn.tolist() == sorted(set(drawn.tolist()))
        seen[drawn] += 1
    allowed = histories.draw(1, 100, 0)
    assert seen.sum() == seen[allowed].sum() == 6000
    assert abs(seen[allowed] - 750).max() < 120  # five standard deviations
    assert histories.draw(1, 3, 5).tolist() == histories.draw(1, 3, 5).tolist()


def test_a_window_ends_at_its_token_and_begins_with_its_sequence() -> None:
    window = Histories(TOKENS, V).window(np.array([2, 5, 10, 12]), 50)
    assert window.inputs.dtype == window.targets.dtype == np.int32
    assert window.targets.tolist() == [1, 1, 1, 2]
    assert window.inputs.T.tolist() == [[V, V, V, 2, 3], [V] * 5, [V, 5, 6, 7, 8], [V, V, V, V, 2]]


def test_a_window_is_no_longer_than_asked() -> None:
    window = Histories(TOKENS, V).window(np.array([10, 2]), 2)
    assert window.inputs.T.tolist() == [[7, 8], [2, 3]]


def test_a_text_of_one_sequence() -> None:
    tokens = np.arange(2, 9).astype(np.int32)
    for stream in (tokens, np.append(tokens, np.int32(EOS_ID))):
        histories = Histories(stream, V)
        assert histories.longest == stream.size
        assert histories.window(histories.draw(3, 1, 0), 3).inputs.shape == (3, 1)
