"""A little of each long load of tests/faults/long_loads.py: right results, and memory that does not grow with them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from charlm.text import batches, token_file
from tests.faults.long_loads import (
    EOS_ID,
    draw,
    lines_of_block,
    score_side_by_side,
    score_through_a_pipe,
    train_on,
    write_model,
    write_token_file,
)

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="reads /proc")


def test_the_lines_of_a_pipe_are_answered_in_order_at_constant_memory(tmp_path: Path) -> None:
    found = score_through_a_pipe(tmp_path, 10)
    assert len(found.at_marks) == 4
    assert found.most.peak < found.at_marks[0] + 30
    lengths = Counter(map(len, lines_of_block(3)))
    assert lengths[0] > 100
    assert lengths[3000] == 1


def test_processes_that_score_with_one_model_share_most_of_their_memory(tmp_path: Path) -> None:
    write_model(tmp_path / "m.npz", 1, 16)
    _, held, shares = score_side_by_side(tmp_path, "m.npz", 3, 20)
    for one, share in zip(held, shares, strict=True):
        assert 0 < share.private < share.proportional < one.rss
        assert share.private < one.rss - 20  # the libraries


def test_a_long_text_is_drawn(tmp_path: Path) -> None:
    write_model(tmp_path / "m.npz", 1, 16, "file")
    _, held, most, come = draw(tmp_path, ["m.npz", "--max-length", "30000"], [3000, 15000])
    assert come == 30001
    assert held[0] <= held[1] <= most.peak < held[0] + 30


def test_a_token_file_is_trained_on_a_piece_at_a_time(tmp_path: Path) -> None:
    most, line = train_on(tmp_path, 3_000_000, 1)
    assert "over: " in line
    assert most.anonymous < 300
    assert most.file < 300


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_mapped_corpus_is_let_go_of_at_each_border(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: bool
) -> None:
    """Its pages would add up: a megabyte for each eight of the text."""
    write_token_file(tmp_path / "tokens", 5_000_000)
    corpus = token_file.read(str(tmp_path / "tokens"))
    assert np.count_nonzero(corpus.tokens == EOS_ID) > 1000
    monkeypatch.setattr(batches, "SHUFFLE_BYTES", 1 << 20)
    released: list[int] = []
    monkeypatch.setattr(batches, "release_pages", lambda tokens: released.append(1))
    made = batches.Batches(
        corpus.tokens, vocabulary_size=corpus.vocabulary.size, streams=4, bptt=8, shuffle=shuffle, seed=1
    )  # fmt: skip
    assert len(released) >= made._borders.size - 2
