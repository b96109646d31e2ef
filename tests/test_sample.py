"""Sampling and beam search against models whose probabilities are known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CheckpointError, InputError, UsageError
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.workflows.decoding import SIDE_BY_SIDE, Start, beam_search
from charlm.workflows.sample import ATTEMPTS, Joiner, Piece, Sample, SampleOptions, read_prompt, sample
from tests.stub_model import StubModel, vocabulary_of

LINE, PARAGRAPH, FILE = (Tokenizer(sequence=sequence) for sequence in ("line", "paragraph", "file"))
ABC = vocabulary_of("abc")

# Columns <unk>, <eos>, a, b, c; rows the token before, the last one the start.
BIGRAM = StubModel(
    [
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.1, 0.2, 0.1, 0.5, 0.1],
        [0.1, 0.3, 0.2, 0.1, 0.3],
        [0.3, 0.4, 0.1, 0.1, 0.1],
        [0.2, 0.1, 0.4, 0.2, 0.1],
    ]
)
START = 5


def random_table(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    weights = np.random.default_rng(seed).exponential(size=shape) ** 2
    return weights / weights.sum(-1, keepdims=True)


def run(model: StubModel = BIGRAM, tokenizer: Tokenizer = LINE, **options: Any) -> list[Sample]:
    events = sample(model, vocabulary_of("abc"), tokenizer, SampleOptions(**options))
    return [event for event in events if isinstance(event, Sample)]


def log_prob(model: StubModel, ids: list[int]) -> float:
    """By the definition: the product over the tokens, each given those before it."""
    context = [model.size, model.size]
    total = 0.0
    for token in ids:
        row = model.table[context[-1]] if model.table.ndim == 2 else model.table[context[-2], context[-1]]
        total += math.log(row[token])
        context.append(token)
    return total


# ---- whole samples ----


def test_sampled_sequences_have_the_frequencies_of_the_model() -> None:
    trigram = StubModel(random_table(6, 6, 5, seed=2))
    count = 6000
    found: dict[str, int] = {}
    for one in run(trigram, count=count, seed=11, max_length=2, allow_unk=True):
        name = one.text + ("." if one.ended == "eos" else "")
        found[name] = found.get(name, 0) + 1
    symbols = ["<unk>", "", "a", "b", "c"]
    chi_squared, cells = 0.0, 0
    not_empty = 1 - math.exp(log_prob(trigram, [EOS_ID]))  # a sample is never empty
    assert "." not in found
    for length in range(1, 3):
        for ids in itertools.product((0, 2, 3, 4), repeat=length):
            ends = [EOS_ID] if length < 2 else []
            expected = count * math.exp(log_prob(trigram, [*ids, *ends])) / not_empty
            name = "".join(symbols[i] for i in ids) + ("." if ends else "")
            if expected > 5:
                chi_squared += (found.get(name, 0) - expected) ** 2 / expected
                cells += 1
    assert cells > 10
    assert chi_squared < cells + 3.1 * (2 * cells) ** 0.5


@pytest.mark.parametrize("prompt", ["", "ab", "c"])
@pytest.mark.parametrize("changes", [{}, {"temperature": 0.5}, {"top_k": 2}, {"allow_unk": True}])
def test_log_prob_is_that_of_the_whole_text_under_the_unchanged_model(prompt: str, changes: dict[str, Any]) -> None:
    trigram = StubModel(random_table(6, 6, 5, seed=4))
    for one in run(trigram, count=80, seed=1, prompt=prompt, max_length=5, **changes):
        ids = [{"<unk>": 0, "a": 2, "b": 3, "c": 4}[token] for token in one.tokens]
        ends = [EOS_ID] if one.ended == "eos" else []
        assert one.log_prob_nats == pytest.approx(log_prob(trigram, ids + ends), abs=1e-12)
        assert one.prompt_log_prob_nats == pytest.approx(log_prob(trigram, ids[: len(prompt)]), abs=1e-12)
        assert one.text == "".join(one.tokens)
        assert one.text.startswith(prompt)
        assert one.prompt_tokens == len(prompt)
        assert len(ids) - len(prompt) == 5 if one.ended == "length" else len(ids) - len(prompt) < 5


def test_the_unknown_is_drawn_only_if_allowed() -> None:
    assert not any("<unk>" in one.text for one in run(count=300, seed=0))
    assert any("<unk>" in one.text for one in run(count=300, seed=0, allow_unk=True))


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    trigram = StubModel(random_table(6, 6, 5, seed=4) * 0.9 + 0.02)
    texts = [one.text for one in run(trigram, count=3 * SIDE_BY_SIDE, seed=7)]
    assert [one.text for one in run(trigram, count=5, seed=7)] == texts[:5]
    assert [one.text for one in run(trigram, count=1, seed=7)] == texts[:1]
    assert [one.text for one in run(trigram, count=3 * SIDE_BY_SIDE, seed=8)] != texts
    assert len(set(texts)) > 20


def test_samples_come_in_order_and_finished_rows_cost_nothing() -> None:
    model = StubModel(BIGRAM.table)
    samples = run(model, count=500, seed=1, max_length=9)
    assert [one.index for one in samples] == list(range(500))
    # The start once; then every drawn token but the last of a sample that the length ended.
    assert model.steps == 1 + sum(len(one.tokens) - (one.ended == "length") for one in samples)


def test_greedy_takes_the_likeliest_each_time() -> None:
    (one,) = run(greedy=True)
    assert (one.text, one.ended) == ("ab", "eos")  # a .4, b .5, then <eos> and c with .3 each: the smaller id
    assert one.log_prob_nats == pytest.approx(math.log(0.4 * 0.5 * 0.3))
    (one,) = run(greedy=True, max_length=1)
    assert (one.text, one.ended) == ("a", "length")
    (one,) = run(greedy=True, prompt="c")
    assert (one.text, one.ended) == ("c", "eos")


def test_pieces_of_a_single_sample_are_its_text() -> None:
    for seed in range(20):
        events = list(sample(BIGRAM, ABC, LINE, SampleOptions(seed=seed, prompt="ab")))
        assert isinstance(events[-1], Sample)
        assert "".join(event.text for event in events[:-1] if isinstance(event, Piece)) == events[-1].text
        assert events[0] == Piece("ab")
    assert len(list(sample(BIGRAM, ABC, LINE, SampleOptions(seed=1, count=3)))) == 3


@pytest.mark.parametrize(
    ("tokenizer", "length"),
    [(LINE, 1000), (PARAGRAPH, 1000), (FILE, 500), (Tokenizer("word", "file"), 100), (Tokenizer("word"), 1000)],
)
def test_the_length_without_an_option(tokenizer: Tokenizer, length: int) -> None:
    endless = StubModel(np.tile([0, 0, 0.5, 0.5, 0], (6, 1)))
    (one,) = run(endless, tokenizer, seed=0)
    assert (len(one.tokens), one.ended) == (length, "length")


# ---- beam search ----


def every_sequence(model: StubModel, max_length: int, allow_unk: bool) -> list[tuple[float, list[int]]]:
    letters = [i for i in range(model.size) if i != EOS_ID and (allow_unk or i != UNK_ID)]
    found = [
        (log_prob(model, [*ids, EOS_ID]), list(ids))
        for length in range(max_length + 1)
        for ids in itertools.product(letters, repeat=length)
    ]
    return sorted(found, reverse=True)


def start_of(model: StubModel) -> Start:
    return Start(*model.step(model.zero_state(1), np.array([model.size], dtype=np.int32)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(6, 5), (6, 6, 5)])
@pytest.mark.parametrize("allow_unk", [False, True])
def test_a_wide_beam_is_exact(seed: int, shape: tuple[int, ...], allow_unk: bool) -> None:
    model = StubModel(random_table(*shape, seed=seed))
    expected = every_sequence(model, 4, allow_unk)[:12]
    found = beam_search(model, start_of(model), width=4**4, best=12, max_length=4, allow_unk=allow_unk)
    assert [one.ids for one in found] == [ids for _, ids in expected]
    assert [one.log_prob_nats for one in found] == pytest.approx([nats for nats, _ in expected], abs=1e-12)
    assert all(one.is_finished for one in found)


def test_a_beam_that_may_not_end_has_the_likeliest_text_of_that_length() -> None:
    model = StubModel(random_table(6, 6, 5, seed=9))
    expected = sorted((log_prob(model, list(ids)), list(ids)) for ids in itertools.product((2, 3, 4), repeat=5))[::-1]
    found = beam_search(model, start_of(model), width=3**5, best=7, max_length=5, can_end=False)
    assert [one.ids for one in found] == [ids for _, ids in expected[:7]]
    assert [one.log_prob_nats for one in found] == pytest.approx([nats for nats, _ in expected[:7]], abs=1e-12)
    assert not any(one.is_finished for one in found)


def test_a_wider_beam_finds_what_greed_misses() -> None:
    # a .4, then nothing is likely; c .3 ends for sure.
    model = StubModel(
        [[0.2] * 5] * 2 + [[0, 0.3, 0.3, 0.2, 0.2], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0.1, 0.4, 0.2, 0.3]]
    )
    assert run(model, greedy=True)[0].text != "c"
    (one,) = run(model, beam=3)
    assert (one.text, one.ended, one.log_prob_nats) == ("c", "eos", pytest.approx(math.log(0.3)))
    texts = [one.text for one in run(model, beam=8, count=4)]
    assert texts == ["c", "b", "a", "ab"]  # .3, .2, .4 * .3, then .4 * .2; the empty text, .1, is left out


def test_a_beam_stops_when_nothing_can_improve() -> None:
    model = StubModel(np.tile([0, 0.9, 0.05, 0.03, 0.02], (6, 1)))
    (one,) = run(model, beam=20)
    assert one.text == "a"
    assert model.steps <= 1 + 3


def test_a_beam_with_nothing_finished_gives_what_the_length_cut() -> None:
    endless = StubModel(np.tile([0, 0, 0.5, 0.3, 0.2], (6, 1)))
    samples = run(endless, beam=4, count=2, max_length=3)
    assert [(one.text, one.ended) for one in samples] == [("aaa", "length"), ("aab", "length")]


def test_a_beam_of_a_whole_file_does_not_end_it() -> None:
    model = StubModel(np.tile([0, 0.9, 0.05, 0.03, 0.02], (6, 1)))
    (one,) = run(model, FILE, beam=3, max_length=6, prompt="b")
    assert (one.text, one.ended) == ("baaaaaa", "length")


def test_a_beam_continues_the_prompt() -> None:
    model = StubModel(random_table(6, 6, 5, seed=1))
    expected = [nats for nats, ids in every_sequence(model, 4, False) if ids[:2] == [3, 4]]
    samples = run(model, beam=200, count=5, prompt="bc", max_length=2)
    assert [one.log_prob_nats for one in samples] == pytest.approx(expected[:5], abs=1e-12)
    assert all(one.text.startswith("bc") for one in samples)


# ---- prompts ----


def prompt_of(
    text: str, symbols: str | list[str] = "abc é", tokenizer: Tokenizer = LINE, **options: Any
) -> tuple[list[int], list[str]]:
    prompt = read_prompt(SampleOptions(prompt=text, **options), vocabulary_of(list(symbols)), tokenizer)
    return prompt.ids.tolist(), prompt.tokens


def test_a_prompt_is_cleaned_as_the_corpus_was() -> None:
    assert prompt_of("cab") == ([4, 2, 3], ["c", "a", "b"])
    assert prompt_of("ae\u0301") == ([2, 6], ["a", "é"])
    assert prompt_of("ABC", tokenizer=Tokenizer(lowercase=True))[0] == [2, 3, 4]
    assert prompt_of("", tokenizer=LINE) == ([], [])


@pytest.mark.parametrize(
    ("text", "tokenizer", "what"),
    [
        ("abx", LINE, "'x' (U+0078, LATIN SMALL LETTER X) at line 1, column 3"),
        ("é\U0001f600", LINE, "'😀' (U+1F600, GRINNING FACE) at line 1, column 2"),
        ("a\u0308b", Tokenizer(normalize="none"), r"'\u0308' (U+0308, COMBINING DIAERESIS) at line 1, column 2"),
        ("a\u0323", LINE, "'ạ' (U+1EA1, LATIN SMALL LETTER A WITH DOT BELOW) at line 1, column 1"),
        ("a\udce9", LINE, r"'\udce9' (U+DCE9) at line 1, column 2"),
        ("a\x1b", LINE, r"'\x1b' (U+001B) at line 1, column 2"),
        ("é", Tokenizer("byte", normalize="none"), "byte 0xc3 at line 1, column 1"),
        ("e\u0301x", Tokenizer(), "'x' (U+0078, LATIN SMALL LETTER X) at line 1, column 3"),
        ("ab\n ax", FILE, r"'\n' (U+000A) at line 1, column 3"),
    ],
)
def test_an_unknown_symbol_is_named_and_placed(text: str, tokenizer: Tokenizer, what: str) -> None:
    with pytest.raises(InputError) as caught:
        prompt_of(text, tokenizer=tokenizer)
    assert str(caught.value).startswith(f"prompt: {what} is not in the model's vocabulary; ")
    assert "--on-unknown" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_word_is_named_and_placed() -> None:
    words = ["the", "cat", "\n"]
    with pytest.raises(InputError, match="the word 'dog' at line 2, column 6 "):
        prompt_of("the cat\n the dog", words, Tokenizer("word", "file"))
    with pytest.raises(InputError, match="the word 'dog' at line 1, column 7 "):
        prompt_of("the   dog", words, Tokenizer("word"))
    assert prompt_of("the <unk>", words, Tokenizer("word")) == ([2, 0], ["the", "<unk>"])


def test_unknown_symbols_can_be_unk_or_skipped() -> None:
    assert prompt_of("a😀\u0301b", on_unknown="unk") == ([2, 0, 0, 3], ["a", "😀", "\u0301", "b"])
    assert prompt_of("a😀\u0301b", on_unknown="skip") == ([2, 3], ["a", "b"])
    assert prompt_of("\udce9a", on_unknown="unk") == ([0, 2], ["?", "a"])
    assert prompt_of("😀", on_unknown="skip") == ([], [])
    (one,) = run(prompt="a😀", on_unknown="unk", seed=1)
    assert one.text.startswith("a😀")
    assert one.prompt_log_prob_nats == pytest.approx(math.log(0.4 * 0.1))


def test_a_prompt_of_two_lines_does_not_fit_a_model_of_lines() -> None:
    with pytest.raises(InputError, match="more than one line"):
        prompt_of("a\nb", "ab")


def test_a_prompt_file_loses_what_ends_a_sequence(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("ab\n\n")

    def tokens(tokenizer: Tokenizer, symbols: str = "ab\n") -> list[str]:
        return read_prompt(SampleOptions(prompt_file=str(path)), vocabulary_of(symbols), tokenizer).tokens

    assert tokens(LINE) == ["a", "b"]
    assert tokens(PARAGRAPH) == ["a", "b", "\n"], "the paragraph goes on with another line"
    assert tokens(FILE) == ["a", "b", "\n", "\n"]
    path.write_text("ab")
    assert tokens(LINE) == tokens(PARAGRAPH) == tokens(FILE) == ["a", "b"]
    path.write_bytes(b"\xff\n")
    assert tokens(Tokenizer("byte", "file", "none"), "\xff\n") == ["\xff", "\n"]
    path.write_bytes(b"")
    assert tokens(LINE) == []


def test_a_long_prompt_is_read_whole() -> None:
    trigram = StubModel(random_table(6, 6, 5, seed=4))
    text = "".join(np.random.default_rng(0).choice(list("abc"), 1000))
    (one,) = run(trigram, prompt=text, seed=2)
    ids = ["abc".index(letter) + 2 for letter in text]
    assert one.prompt_log_prob_nats == pytest.approx(log_prob(trigram, ids), abs=1e-8)


# ---- words ----


@given(st.lists(st.sampled_from(["the", "cat", ",", "\n", "a"])), st.sampled_from(["line", "paragraph", "file"]))
def test_joining_token_by_token_is_joining(tokens: list[str], sequence: str) -> None:
    tokenizer = Tokenizer("word", sequence)
    joiner = Joiner(tokenizer)
    assert "".join(map(joiner.add, tokens)) == tokenizer.join(tokens)


def test_words_are_joined_as_in_their_corpus() -> None:
    vocabulary = vocabulary_of(["the", "cat", "\n"])
    # the -> cat -> newline -> the ...
    cycle = StubModel([[0, 0, 1, 0, 0]] * 2 + [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]])
    options = SampleOptions(prompt="the", max_length=5, seed=0)
    *pieces, one = sample(cycle, vocabulary, Tokenizer("word", "file"), options)
    assert isinstance(one, Sample)
    assert one.text == "the cat\nthe cat\n"
    assert [piece.text for piece in pieces if isinstance(piece, Piece)] == ["the", " cat", "\n", "the", " cat", "\n"]


# ---- novelty ----


def test_novel_samples_do_not_stand_in_the_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    known = {"a", "ab", "abc", "b", "c", "ba", "xyz"}
    corpus.write_text("".join(f"{line}\n" for line in sorted(known)))
    plain = run(count=200, seed=3)
    assert known & {one.text for one in plain}
    novel = run(count=200, seed=3, novel=str(corpus))
    assert not known & {one.text for one in novel}
    assert [one.index for one in novel] == list(range(200))
    assert sum(one.refused or 0 for one in novel) >= sum(one.text in known for one in plain)
    for one, other in zip(plain, novel, strict=True):
        assert one.refused is None
        assert (other.refused == 0) == (one.text not in known)
        assert other.refused or one.text == other.text
    assert run(count=9, seed=3, novel=str(corpus)) == novel[:9]


def test_novel_compares_the_prompt_with_what_follows(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("ab\nabc\n")
    samples = run(count=100, seed=3, novel=str(corpus), prompt="a")
    assert not {"ab", "abc"} & {one.text for one in samples}
    assert "a" in {one.text for one in samples}


def test_novel_paragraphs(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a\nb\n\nb\n")
    vocabulary = vocabulary_of("ab\n")
    model = StubModel([[0, 0.2, 0.4, 0.3, 0.1]] * 2 + [[0, 0.4, 0, 0, 0.6], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]] * 1
                      + [[0, 0, 0.5, 0.5, 0]])  # fmt: skip
    options = SampleOptions(count=50, seed=1, novel=str(corpus))
    texts = {one.text for one in sample(model, vocabulary, PARAGRAPH, options)}
    assert texts == {"a"}  # a, "a\nb" and b are all that it writes


def test_a_model_that_knows_nothing_else_is_an_error_in_its_turn(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a\n")
    only_a = StubModel([[0, 1, 0, 0, 0]] * 5 + [[0, 0, 1, 0, 0]])
    with pytest.raises(InputError, match=f"holds all {ATTEMPTS} draws of sample 1; raise --temperature"):
        run(only_a, count=5, novel=str(corpus))
    assert only_a.steps <= 1 + 5 * ATTEMPTS


def test_novel_is_for_lines_and_paragraphs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whole files"):
        run(tokenizer=FILE, novel=str(tmp_path / "corpus.txt"))
    with pytest.raises(InputError, match="no such file"):
        run(novel=str(tmp_path / "corpus.txt"))


def test_probabilities_that_are_no_numbers_are_an_error() -> None:
    broken = StubModel(BIGRAM.table)
    broken._log_table[:] = np.nan
    for options in ({"seed": 1}, {"greedy": True}, {"beam": 3}, {"seed": 1, "allow_unk": True, "top_k": 2}):
        with pytest.raises(CheckpointError, match="NaN"):
            run(broken, **options)


# ---- options ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"greedy": True, "temperature": 1.0}, "--greedy and --temperature"),
        ({"greedy": True, "top_k": 3}, "--greedy and --top-k"),
        ({"greedy": True, "top_p": 0.5}, "--greedy and --top-p"),
        ({"greedy": True, "beam": 3}, "--greedy and --beam"),
        ({"greedy": True, "novel": "x"}, "--greedy and --novel"),
        ({"greedy": True, "count": 2}, "always finds the same"),
        ({"beam": 3, "temperature": 0.5}, "--beam and --temperature"),
        ({"beam": 3, "top_k": 3}, "--beam and --top-k"),
        ({"beam": 3, "top_p": 0.3}, "--beam and --top-p"),
        ({"beam": 3, "novel": "x"}, "--beam and --novel"),
        ({"beam": 3, "count": 4}, "use --beam 4"),
        ({"prompt": "", "prompt_file": "x"}, "--prompt and --prompt-file"),
        ({"temperature": 0.0}, "--greedy"),
        ({"temperature": -1.0}, "above 0"),
        ({"temperature": math.nan}, "above 0"),
        ({"temperature": math.inf}, "finite"),
        ({"top_p": 0.0}, "--top-p 0"),
        ({"top_p": 1.1}, "--top-p 1.1"),
        ({"top_p": math.nan}, "--top-p nan"),
        ({"top_k": 0}, "--top-k 0"),
        ({"count": 0}, "-n 0"),
        ({"max_length": 0}, "--max-length 0"),
        ({"beam": 0}, "--beam 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        SampleOptions(**options)
    assert message in str(caught.value)


def test_without_a_seed_each_run_has_its_own() -> None:
    assert SampleOptions().seed != SampleOptions().seed
