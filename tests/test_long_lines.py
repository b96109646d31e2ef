"""A line too long to be tokenized at once is scored in pieces, to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from charlm.errors import InputError
from charlm.text.corpus import load
from charlm.text.tokenizer import Tokenizer
from charlm.workflows import long_lines
from charlm.workflows.long_lines import LongLine, long_ones_apart
from charlm.workflows.model_files import load_model
from charlm.workflows.score import Scorer
from tests.stub_model import write_tiny_model

LINES = ["ab c", "bca  x aab " * 9 + "e\u0301a", "", "a", "cab\tab b" * 7, "c" * 70]
KINDS = [
    Tokenizer(), Tokenizer("word"), Tokenizer("byte", "line", "none"),
    Tokenizer("char", "line", "nfkc", lowercase=True),
]  # fmt: skip


def write(folder: Path, tokenizer: Tokenizer) -> str:
    symbols = ["ab", "bca", "aab", "c"] if tokenizer.level == "word" else "abc \té"
    write_tiny_model(folder / "m.npz", symbols, tokenizer, sharpness=3, labels=None)
    path = folder / "text"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return str(path)


@pytest.mark.parametrize("tokenizer", KINDS, ids=lambda kind: f"{kind.level} {kind.normalize}")
@pytest.mark.parametrize("on_unknown", ["unk", "skip"])
@pytest.mark.parametrize("exclude", [False, True])
def test_pieces_give_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer, on_unknown: str, exclude: bool
) -> None:
    path = write(tmp_path, tokenizer)

    def score() -> tuple[list[object], list[float]]:
        loaded = load_model(tmp_path / "m.npz", 1)
        columns: list[object] = []
        numbers: list[float] = []
        for per in ("sentences", "tokens"):
            scorer = Scorer(loaded, on_unknown=on_unknown, exclude_unknowns=exclude)
            for window in getattr(scorer, per)(path):
                if per == "sentences":
                    columns += zip(window.texts, window.tokens, window.unknowns, strict=True)
                else:
                    parts = window.lines, window.positions, window.symbols, window.unknown, window.counted.tolist()
                    columns += zip(*parts, strict=True)
                numbers += window.log_probs_nats.tolist()
            summary = scorer.summary.to_json()
            numbers += [value for value in summary.values() if isinstance(value, float)]
            columns += [value for value in summary.values() if isinstance(value, int)]
        scorer = Scorer(loaded, on_unknown=on_unknown, exclude_unknowns=exclude)
        columns.append(sum(scorer.corpus(path)))
        return columns, numbers

    whole = score()
    monkeypatch.setattr(long_lines, "LONG_LINE", 30)
    monkeypatch.setattr("charlm.text.pieces.PIECE", 7)
    columns, numbers = score()
    assert columns == whole[0]
    np.testing.assert_allclose(numbers, whole[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokenizer", KINDS, ids=lambda kind: f"{kind.level} {kind.normalize}")
def test_an_unknown_token_is_found_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
) -> None:
    path = write(tmp_path, tokenizer)

    def message() -> str:
        scorer = Scorer(load_model(tmp_path / "m.npz", 1), on_unknown="error")
        with pytest.raises(InputError) as caught:
            list(scorer.sentences(path))
        return str(caught.value)

    whole = message()
    assert "at line 2, column 6 " in whole
    monkeypatch.setattr(long_lines, "LONG_LINE", 30)
    monkeypatch.setattr("charlm.text.pieces.PIECE", 3)
    assert message() == whole


def test_pieces_cut_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.pieces.PIECE", 4)
    line = LongLine("abcdefg hi  jk l mnopq", 1)
    pieces = list(line.pieces(Tokenizer("word")))
    assert "".join(piece for piece, _ in pieces) == line.text
    assert [is_last for _, is_last in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [word for piece, _ in pieces for word in piece.split()] == line.text.split()
    assert len(pieces) > 2


def test_long_lines_are_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_lines, "LONG_LINE", 2)
    assert list(long_ones_apart(["a", "b", "ccc", "d", "eee", "fff"])) == [["a", "b"], ["ccc"], ["d"], ["eee"], ["fff"]]
    assert list(long_ones_apart(["", ""])) == [["", ""]]


@pytest.mark.parametrize("level", ["char", "word", "byte"])
@pytest.mark.parametrize("sequence", ["line", "paragraph", "file"])
def test_a_long_line_is_numbered_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, sequence: str
) -> None:
    path = tmp_path / "text"
    path.write_text("".join(f"{line}\n" for line in LINES))
    tokenizer = Tokenizer.from_options(level, sequence)
    whole, _ = load([str(path)], tokenizer)
    monkeypatch.setattr("charlm.text.pieces.PIECE", 3)
    monkeypatch.setattr("charlm.text.spool.BLOCK_TOKENS", 4)
    again, _ = load([str(path)], tokenizer)
    assert again.vocabulary == whole.vocabulary
    assert again.counts == whole.counts
    assert again.tokens.tolist() == whole.tokens.tolist()
