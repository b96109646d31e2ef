"""Scores against a model with known probabilities, and of a real one whatever the batch."""

from __future__ import annotations

import gzip
import io
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.errors import InputError
from charlm.text import corpus
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.workflows import scoring_batches
from charlm.workflows.model_files import LoadedModel, load_model
from charlm.workflows.score import UNLEARNT, Scorer
from charlm.workflows.score_results import Sentences, Summary, Tokens
from charlm.workflows.scoring_batches import line_windows
from tests.stub_model import StubModel, vocabulary_of, write_tiny_model

Window = TypeVar("Window", Sentences, Tokens)
LETTERS = "ab \n"


class Sentence(NamedTuple):
    """A row of ``Sentences``."""

    log_prob_nats: float
    tokens: int
    unknowns: int
    text: str


class Token(NamedTuple):
    """A row of ``Tokens``; None for a score that does not count."""

    line: int
    position: int
    symbol: str
    log_prob_nats: float | None
    unknown: bool


def drawn_table(size: int, seed: int = 0) -> np.ndarray:
    """Probabilities of the next token given the last two."""
    return np.random.default_rng(seed).dirichlet(np.ones(size), (size + 1, size + 1))


def stub(
    tokenizer: Tokenizer | None = None,
    symbols: Sequence[str] = LETTERS,
    table: np.ndarray | None = None,
    header: dict[str, Any] | None = None,
) -> LoadedModel:
    vocabulary = vocabulary_of(symbols)
    model: Any = StubModel(drawn_table(vocabulary.size) if table is None else table)
    return LoadedModel(model, vocabulary, tokenizer or Tokenizer(), header or {}, "stub")


def known(loaded: LoadedModel, tokens: Sequence[str]) -> list[float]:
    """The log probability of each token and of EOS, one at a time."""
    model: Any = loaded.model
    before = last = loaded.vocabulary.size
    nats = []
    for token_id in [*loaded.vocabulary.ids(tokens).tolist(), EOS_ID]:
        nats.append(math.log(model.table[before, last, token_id]))
        before, last = last, token_id
    return nats


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "text"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def sentence_rows(window: Sentences) -> list[Sentence]:
    columns = window.log_probs_nats.tolist(), window.tokens, window.unknowns, window.texts
    return [Sentence(*row) for row in zip(*columns, strict=True)]


def token_rows(window: Tokens) -> list[Token]:
    nats = [score if counted else None for score, counted in zip(window.log_probs_nats, window.counted, strict=True)]
    columns = window.lines, window.positions, window.symbols, nats, window.unknown
    return [Token(*row) for row in zip(*columns, strict=True)]


def sentences_of(scorer: Scorer, path: str) -> list[Sentence]:
    return [row for window in scorer.sentences(path) for row in sentence_rows(window)]


def tokens_of(scorer: Scorer, path: str) -> list[Token]:
    return [row for window in scorer.tokens(path) for row in token_rows(window)]


def until_error(windows: Iterator[Window], message: str) -> list[Window]:
    """What comes before an error."""
    found: list[Window] = []

    def collect() -> None:
        found.extend(windows)

    with pytest.raises(InputError, match=message):
        collect()
    return found


def score_corpus(loaded: LoadedModel, path: str, **options: Any) -> Summary:
    scorer = Scorer(loaded, **options)
    for _ in scorer.corpus(path):
        pass
    return scorer.summary


# ---- exact numbers ----


def test_each_line_has_its_known_log_probability_tokens_and_text(tmp_path: Path) -> None:
    loaded = stub()
    lines = ["ab", "", "a?b", "  ", "abba" * 50, "", "b"]
    found = sentences_of(Scorer(loaded), written(tmp_path, "\n".join(lines) + "\n"))
    assert [sentence.text for sentence in found] == lines
    assert [sentence.tokens for sentence in found] == [len(line) + 1 for line in lines]
    assert [sentence.unknowns for sentence in found] == [line.count("?") for line in lines]
    expected = [sum(known(loaded, line)) for line in lines]
    assert [sentence.log_prob_nats for sentence in found] == pytest.approx(expected, rel=1e-12)


def test_the_probabilities_of_all_texts_sum_to_one(tmp_path: Path) -> None:
    table = drawn_table(4)
    table[:4, :, :] = 1e-300  # as good as never
    table[:4, :, EOS_ID] = 1  # after two tokens comes the end
    table[:, EOS_ID] = [1e-300, 1, 1e-300, 1e-300]
    table[4, :, EOS_ID] += table[4, :, UNK_ID]
    table[4, :, UNK_ID] = 1e-300
    table[4, 4] = [0.1, 0.2, 0.3, 0.4]
    table[4, UNK_ID] = [0.25, 0.25, 0.25, 0.25]
    loaded = stub(symbols="ab", table=table)
    every = ["".join(letters) for size in range(3) for letters in itertools.product("ab?", repeat=size)]
    found = sentences_of(Scorer(loaded), written(tmp_path, "\n".join(every)))
    assert len(found) == 13
    assert sum(math.exp(sentence.log_prob_nats) for sentence in found) == pytest.approx(1, abs=1e-12)


def test_each_token_has_its_line_position_symbol_and_known_log_probability(tmp_path: Path) -> None:
    loaded = stub()
    found = tokens_of(Scorer(loaded), written(tmp_path, "a\t\n\nb"))
    nats = [*known(loaded, "a\t"), *known(loaded, ""), *known(loaded, "b")]
    assert [token[:3] for token in found] == [
        (1, 1, "a"), (1, 2, "\t"), (1, 3, "<eos>"), (2, 1, "<eos>"), (3, 1, "b"), (3, 2, "<eos>")
    ]  # fmt: skip
    assert [token.log_prob_nats for token in found] == pytest.approx(nats, abs=1e-12)
    assert [token.unknown for token in found] == [False, True, False, False, False, False]


def test_words(tmp_path: Path) -> None:
    loaded = stub(Tokenizer(level="word", lowercase=True), ["the", "cat"])
    found = tokens_of(Scorer(loaded), written(tmp_path, " The  cat\u2003dog\n \n"))
    assert [(token.line, token.position, token.symbol, token.unknown) for token in found] == [
        (1, 1, "the", False), (1, 2, "cat", False), (1, 3, "dog", True), (1, 4, "<eos>", False), (2, 1, "<eos>", False)
    ]  # fmt: skip
    nats = known(loaded, ["the", "cat", "dog"]) + known(loaded, [])
    assert [token.log_prob_nats for token in found] == pytest.approx(nats, abs=1e-12)


def test_the_summary_counts_and_divides(tmp_path: Path) -> None:
    loaded = stub()
    nats = [known(loaded, line) for line in ("ab a?", "", "b")]
    total = sum(map(sum, nats))
    scorer = Scorer(loaded)
    sentences_of(scorer, written(tmp_path, "ab a?\n\nb"))
    assert scorer.summary.empty == 1
    assert scorer.summary.to_json() == pytest.approx(
        {
            "sentences": 3,
            "tokens": 9,
            "unknowns": 1,
            "characters": 9,
            "words": 3,
            "log_prob_nats": total,
            "nats_per_token": -total / 9,
            "bits_per_token": -total / 9 / math.log(2),
            "bits_per_character": -total / 9 / math.log(2),
            "bits_per_word": -total / 3 / math.log(2),
            "perplexity": math.exp(-total / 9),
            "perplexity_excluding_unknowns": math.exp(-(total - nats[0][4]) / 8),
        },
        rel=1e-12,
    )


def test_characters_and_words_are_those_of_the_raw_text(tmp_path: Path) -> None:
    scorer = Scorer(stub(symbols="\xe9ab"))
    sentences_of(scorer, written(tmp_path, "e\u0301 a\r\n"))  # cleaned, one code point less
    assert (scorer.summary.characters, scorer.summary.words, scorer.summary.tokens) == (5, 2, 4)


def test_an_empty_text_has_no_figures(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    for sequence in ("line", "paragraph", "file"):
        loaded = stub(Tokenizer(sequence=sequence))
        for summary in (score_corpus(loaded, path), (scorer := Scorer(loaded), sentences_of(scorer, path))[0].summary):
            values = summary.to_json()
            assert [value for value in values.values() if value is not None] == [0] * 6
            assert values["perplexity"] is values["bits_per_word"] is None


# ---- unknown tokens ----


def test_excluded_unknowns_are_in_neither_the_sum_nor_the_count(tmp_path: Path) -> None:
    loaded = stub()
    path = written(tmp_path, "a?b\nab")
    nats = known(loaded, "a?b")
    scorer = Scorer(loaded, exclude_unknowns=True)
    first, second = sentences_of(scorer, path)
    assert first == (pytest.approx(sum(nats) - nats[1]), 3, 1, "a?b")
    assert second == (pytest.approx(sum(known(loaded, "ab"))), 3, 0, "ab")
    tokens = tokens_of(Scorer(loaded, exclude_unknowns=True), path)
    assert [token.log_prob_nats is None for token in tokens] == [token.unknown for token in tokens]
    assert scorer.summary == score_corpus(loaded, path)  # the summary has both


def test_skipped_unknowns_are_as_if_not_in_the_text(tmp_path: Path) -> None:
    loaded = stub()
    path = written(tmp_path, "?a?b\n??\nab\n")
    scorer = Scorer(loaded, on_unknown="skip")
    ab = pytest.approx(sum(known(loaded, "ab")), abs=1e-12)
    assert sentences_of(scorer, path) == [
        (ab, 3, 2, "?a?b"),
        (pytest.approx(known(loaded, "")[0]), 1, 2, "??"),
        (ab, 3, 0, "ab"),
    ]
    assert (scorer.summary.tokens, scorer.summary.unknowns) == (7, 4)
    assert scorer.summary.perplexity == scorer.summary.perplexity_excluding_unknowns
    tokens = tokens_of(Scorer(loaded, on_unknown="skip"), path)
    assert [(token.line, token.position) for token in tokens] == [
        (1, 2), (1, 4), (1, 5), (2, 3), (3, 1), (3, 2), (3, 3)
    ]  # fmt: skip
    for sequence in ("paragraph", "file"):
        loaded = stub(Tokenizer(sequence=sequence))
        summary = score_corpus(loaded, written(tmp_path, "?a?b\na"), on_unknown="skip")
        assert summary.log_prob_nats == pytest.approx(sum(known(loaded, "ab\na")))
        assert (summary.tokens, summary.unknowns, summary.unknown_tokens) == (5, 2, 0)


@pytest.mark.parametrize(("ask", "rows", "number"), [("sentences", sentence_rows, 3), ("tokens", token_rows, 6)])
def test_an_unknown_that_is_an_error_comes_after_the_lines_before_it(
    tmp_path: Path, ask: str, rows: Callable[[Any], list[Any]], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for characters in (1, 3, 4096):
        monkeypatch.setattr(scoring_batches, "WINDOW_CHARACTERS", characters)
        scorer = Scorer(stub(), on_unknown="error")
        windows = getattr(scorer, ask)(written(tmp_path, "ab\n\nb\na ?\nb?\n"))
        found = until_error(windows, r"text: '\?' \(U\+003F, QUESTION MARK\) at line 4, column 3 is not")
        assert len([row for window in found for row in rows(window)]) == number
        assert scorer.summary.sentences == 3


@pytest.mark.parametrize(
    ("tokenizer", "text", "message"),
    [
        (Tokenizer(), "a\u00a0", r"'\\xa0' \(U\+00A0, NO-BREAK SPACE\) at line 1, column 2 "),
        (Tokenizer(), "a\u0308\u0308b\nae\u0301", r"'ä' \(U\+00E4, .*\) at line 1, column 1 "),
        (Tokenizer(normalize="nfkc"), "a\ufb00?", r"'f' \(U\+0066, .*\) at line 1, column 2 "),
        (Tokenizer(level="word"), "a b\n  a  dog", r"the word 'dog' at line 2, column 6 "),
        (Tokenizer(level="byte", normalize="none"), "a\nbé", r"byte 0xc3 at line 2, column 2 "),
        (Tokenizer(sequence="paragraph"), "a\n\n\n b\n?", r"'\?' \(U\+003F, .*\) at line 5, column 1 "),
        (Tokenizer(sequence="file"), "a\n\n\n bb?", r"'\?' \(U\+003F, .*\) at line 4, column 4 "),
        (Tokenizer(level="word", sequence="file"), "a\n\n\n b d\n", r"word 'd' \(U\+0064, .*\) at line 4, column 4 "),
    ],
)
def test_where_an_unknown_stands_in_the_text_as_given(
    tmp_path: Path, tokenizer: Tokenizer, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score_corpus(stub(tokenizer), written(tmp_path, text), on_unknown="error")


def test_the_newline_can_be_what_is_unknown(tmp_path: Path) -> None:
    for sequence in ("paragraph", "file"):
        with pytest.raises(InputError, match=r"'\\n' \(U\+000A\) at line 1, column 3 "):
            score_corpus(stub(Tokenizer(sequence=sequence), "ab"), written(tmp_path, "ab\nb"), on_unknown="error")


def test_the_unknown_word_itself_may_stand_in_a_text(tmp_path: Path) -> None:
    loaded = stub(Tokenizer(level="word"), ["a"])
    path = written(tmp_path, "a <unk>\n")
    expected = sum(known(loaded, ["a", "<unk>"]))
    for on_unknown in ("unk", "error", "skip"):
        scorer = Scorer(loaded, on_unknown=on_unknown)
        assert sentences_of(scorer, path) == [(pytest.approx(expected), 3, 1, "a <unk>")]
        assert scorer.summary.unknown_tokens == 1


def test_eos_cannot_be_forged(tmp_path: Path) -> None:
    loaded = stub(Tokenizer(level="word"), ["a"])
    found = tokens_of(Scorer(loaded), written(tmp_path, "<eos>\n"))
    assert [(token.symbol, token.unknown) for token in found] == [("<eos>", True), ("<eos>", False)]


@pytest.mark.parametrize(
    ("header", "text", "options", "warnings"),
    [
        ({"corpus": {"unknowns": 0}}, "?\n?\n", {}, [UNLEARNT]),
        ({"corpus": {"unknowns": 0}}, "a\n", {}, []),
        ({"corpus": {"unknowns": 0}}, "?\n", {"on_unknown": "skip"}, []),
        ({"corpus": {"unknowns": 3}}, "?\n", {}, []),
        ({"corpus": {}}, "?\n", {}, []),
        ({"corpus": "x"}, "?\n", {}, []),
        ({}, "?\n", {}, []),
    ],
)
def test_an_unlearnt_unknown_is_said_once(
    tmp_path: Path, header: dict[str, Any], text: str, options: dict[str, str], warnings: list[str]
) -> None:
    told: list[str] = []
    scorer = Scorer(stub(header=header), warn=told.append, **options)
    sentences_of(scorer, written(tmp_path, text))
    assert told == warnings


# ---- sequences ----


def expected_of_corpus(loaded: LoadedModel, path: str) -> tuple[int, int, float]:
    """Sequences, tokens and log probability of a text, cut by the code that cuts training texts."""
    whole, _ = corpus.load([path], loaded.tokenizer, vocabulary=loaded.vocabulary)
    symbols = [loaded.vocabulary.symbol(token_id) for token_id in whole.tokens.tolist()]
    sequences: list[list[str]] = [[]]
    for symbol in symbols:
        if symbol == "<eos>":
            sequences.append([])
        else:
            sequences[-1].append(symbol)
    return len(sequences) - 1, whole.tokens.size, sum(sum(known(loaded, each)) for each in sequences[:-1])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text("ab? \n\r\u0301e", min_size=1, max_size=40),
    level=st.sampled_from(["char", "word", "byte"]),
    sequence=st.sampled_from(["paragraph", "file"]),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 5)),
)
def test_a_corpus_is_cut_as_for_training(
    tmp_path: Path, text: str, level: str, sequence: str, sizes: tuple[int, int, int]
) -> None:
    loaded = stub(Tokenizer.from_options(level, sequence))
    path = written(tmp_path, text)
    if not text.strip():
        return  # refused as training text
    expected = expected_of_corpus(loaded, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlm.text.readers.BLOCK_BYTES", sizes[0])
        patch.setattr(scoring_batches, "WINDOW_CHARACTERS", sizes[1])
        patch.setattr(scoring_batches, "STEPS", sizes[2])
        summary = score_corpus(loaded, path)
    assert (summary.sentences, summary.tokens) == expected[:2]
    assert summary.log_prob_nats == pytest.approx(expected[2], abs=1e-9)
    raw = text if level == "byte" else text.replace("\r\n", "\n").replace("\r", "\n")
    size = len(raw.encode()) if level == "byte" else len(raw)
    lines = raw.split("\n") if not raw.endswith("\n") else raw[:-1].split("\n")
    if sequence == "file":
        assert summary.characters == size + (not raw.endswith("\n"))
        assert summary.words == len(raw.split())
    elif level != "byte":
        assert summary.characters == sum(len(line) + 1 for line in lines if line.strip())


def test_a_model_of_lines_gives_one_summary_in_all_ways(tmp_path: Path) -> None:
    path = written(tmp_path, "ab\n\n \nb?b\n")
    by_sentence, by_token = Scorer(stub()), Scorer(stub())
    sentences_of(by_sentence, path)
    tokens_of(by_token, path)
    assert by_sentence.summary == by_token.summary == score_corpus(stub(), path)


@pytest.mark.parametrize("sequence", ["paragraph", "file"])
def test_other_models_score_lines_by_themselves_too(tmp_path: Path, sequence: str) -> None:
    path = written(tmp_path, "ab\n\nb\na\n")
    assert sentences_of(Scorer(stub(Tokenizer(sequence=sequence))), path) == sentences_of(Scorer(stub()), path)


# ---- whatever the batch ----


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.text("ab ?", max_size=12), max_size=20),
    sizes=st.fixed_dictionaries(
        {
            "WINDOW_CHARACTERS": st.integers(1, 30),
            "LANES": st.integers(1, 7),
            "STEPS": st.integers(1, 7),
            "PASS_FLOATS": st.integers(1, 400),
        }
    ),
    on_unknown=st.sampled_from(["unk", "skip"]),
)
def test_no_size_of_the_batches_shows(tmp_path: Path, lines: list[str], sizes: dict[str, int], on_unknown: str) -> None:
    loaded = stub()
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(scoring_batches, name, size)
        path = written(tmp_path, "".join(line + "\n" for line in lines))
        found = sentences_of(Scorer(loaded, on_unknown=on_unknown), path)
    kept = [line.replace("?", "") if on_unknown == "skip" else line for line in lines]
    assert [sentence.text for sentence in found] == lines
    expected = [sum(known(loaded, line)) for line in kept]
    assert [sentence.log_prob_nats for sentence in found] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", ["char", "word"])
@pytest.mark.parametrize("longest", [9, 130, 2000])
def test_hardly_anything_is_computed_besides_the_tokens(tmp_path: Path, level: str, longest: int) -> None:
    loaded = stub(Tokenizer.from_options(level), "ab ")
    rng = random.Random(0)
    lines = ["".join(rng.choices("ab ", k=rng.choice([3, 5, longest]))) for _ in range(400_000 // (longest + 8))]
    model: Any = loaded.model
    summary = score_corpus(loaded, written(tmp_path, "\n".join(lines)))
    assert summary.tokens <= model.steps < 1.02 * summary.tokens


@given(
    lines=st.lists(st.text("ab ?", max_size=30), min_size=1, max_size=40),
    characters=st.integers(1, 50),
    block=st.integers(1, 200),
)
def test_windows_are_the_text_in_pieces_of_about_the_size_asked_for(
    lines: list[str], characters: int, block: int
) -> None:
    raw = "".join(line + "\n" for line in lines).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlm.text.readers.BLOCK_BYTES", block)
        patch.setattr(scoring_batches, "WINDOW_CHARACTERS", characters)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
        windows = list(line_windows("-", "utf-8"))
    assert list(itertools.chain(*windows)) == lines
    longest = 1 + max(map(len, lines))
    assert all(0 < sum(len(line) + 1 for line in window) <= 1.5 * characters + longest for window in windows)


@pytest.fixture(scope="module")
def real_lines() -> list[str]:
    rng = random.Random(0)
    lengths = [rng.randint(0, 40) for _ in range(300)] + [1500, 0, 400]
    lines = ["".join(rng.choices("abcdefghij ?", k=length)) for length in lengths]
    rng.shuffle(lines)
    return lines


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_real_model_scores_a_line_the_same_in_any_company(
    tmp_path: Path, real_lines: list[str], cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.npz"
    write_tiny_model(path, "abcdefghij ", cell=cell, size=24, sharpness=20.0)
    text = written(tmp_path, "\n".join(real_lines) + "\n")
    whole = sentences_of(Scorer(load_model(path, threads=1)), text)
    by_text = dict(zip(real_lines, whole, strict=True))
    assert [sentence.text for sentence in whole] == real_lines
    assert len({sentence.log_prob_nats for sentence in whole}) > 250

    # Alone, step by step.
    loaded = load_model(path, threads=1)
    for line in real_lines[:20]:
        state, last, nats = loaded.model.zero_state(1), loaded.vocabulary.start_id, 0.0
        for token_id in [*loaded.vocabulary.encode_characters(line).tolist(), EOS_ID]:
            state, log_probs = loaded.model.step(state, np.array([last], np.int32))
            nats, last = nats + log_probs[0, token_id], token_id
        assert by_text[line].log_prob_nats == pytest.approx(nats, abs=1e-5)

    # With two threads, even where the work would be too little for them; in other batches; in another order.
    monkeypatch.setattr("charlm.models.inference.SMALL_WORK", 0)
    assert sentences_of(Scorer(load_model(path, threads=2)), text) == whole
    sizes = (
        {"LANES": 1},
        {"LANES": 5, "STEPS": 7},
        {"WINDOW_CHARACTERS": 60},
        {"WINDOW_CHARACTERS": 100, "PASS_FLOATS": 999},
    )
    for settings_ in sizes:
        with monkeypatch.context() as patch:
            for name, size in settings_.items():
                patch.setattr(scoring_batches, name, size)
            assert sentences_of(Scorer(loaded), text) == whole
    shuffled = random.Random(1).sample(real_lines, len(real_lines))
    assert sentences_of(Scorer(loaded), written(tmp_path, "\n".join(shuffled))) == [by_text[line] for line in shuffled]


def test_a_whole_file_scores_the_same_in_any_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.npz"
    write_tiny_model(path, "ab \n", Tokenizer(sequence="file"), sharpness=20.0)
    text = written(tmp_path, "".join(random.Random(0).choices("ab \n", k=3000)))
    loaded = load_model(path, threads=1)
    whole = score_corpus(loaded, text)
    assert (whole.sentences, whole.tokens) == (1, 3001)
    monkeypatch.setattr("charlm.text.readers.BLOCK_BYTES", 100)
    monkeypatch.setattr(scoring_batches, "STEPS", 33)
    assert score_corpus(loaded, text).log_prob_nats == pytest.approx(whole.log_prob_nats, abs=1e-9)


# ---- damaged texts ----


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.text("aé", max_size=6), max_size=6),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    damage=st.sampled_from([b"\xff", b"\xc3", b"\0", b"\xed\xa0\x80"]),
    start=st.sampled_from(["", "a", "é"]),
    rest=st.sampled_from([b"", b"\n", b"a\nb\n", b"\xff\n"]),
    mark=st.booleans(),
    block=st.integers(1, 12),
)
def test_the_lines_before_damage_come_before_the_error(
    tmp_path: Path,
    before: list[str],
    end: str,
    damage: bytes,
    start: str,
    rest: bytes,
    mark: bool,
    block: int,
) -> None:
    text = ("\ufeff" * mark + "".join(line + end for line in before) + start).encode()
    if text[-1:] == b"\r" and rest[:1] == b"\n":
        rest = b""
    windows = Scorer(stub(symbols="aé")).sentences(written(tmp_path, text + damage + rest))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlm.text.readers.BLOCK_BYTES", block)
        found = [row for window in until_error(windows, r"not UTF-8|NUL byte") for row in sentence_rows(window)]
    assert [sentence.text for sentence in found] == before


def test_a_gzip_file_cut_short_gives_its_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.readers.BLOCK_BYTES", 1000)
    lines = ["ab" * (number % 30) for number in range(2000)]
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode())[:-12])
    windows = until_error(Scorer(stub()).sentences(str(path)), "cut short")
    found = [row for window in windows for row in sentence_rows(window)]
    assert len(found) > 1000
    assert [sentence.text for sentence in found] == lines[: len(found)]
