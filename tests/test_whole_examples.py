"""Tagged sentences and pairs as ids: what is known comes from the training part, and rows say what was read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from charlm.errors import InputError, UsageError
from charlm.text.pairs import PairCorpus, load_pairs
from charlm.text.tagged import UNSEEN_TAG, Lexicon, TaggedCorpus, load_tagged
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, UNK_ID

WORDS, CHARACTERS = Tokenizer("word"), Tokenizer("char")
CONLL = "Tom B-person\nsaw O\nRome B-place\n\nsaw O\nTom B-person\n\nRome B-place\nsaw O\nAnn B-person\n"
PAIRS = "ab\tx y\ncab\tz x y\n\nb\ty\nabb\tx y y\n"


def write(path: Path, text: str) -> list[str]:
    path.write_bytes(text.encode())
    return [str(path)]


def rows(ids: np.ndarray, ends: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, ends[:-1])]


def spelt(corpus: TaggedCorpus) -> list[list[tuple[str, str]]]:
    """Each token by its characters, and its tag."""
    characters = corpus.tokens.characters
    spellings = [
        "".join(corpus.lexicon.characters.symbols[i] for i in part) for part in rows(characters.ids, characters.ends)
    ]
    tokens, tags = corpus.tokens.rows, corpus.tags
    return [
        [(spellings[i], corpus.labels.names[tag]) for i, tag in zip(*pair, strict=True)]
        for pair in zip(rows(tokens.ids, tokens.ends), rows(tags.ids, tags.ends), strict=True)
    ]


def test_sentences_keep_tokens_and_tags(tmp_path: Path) -> None:
    corpus, valid = load_tagged(write(tmp_path / "a.conll", CONLL * 2), WORDS)
    assert valid is None
    assert spelt(corpus)[:2] == [
        [("Tom", "B-person"), ("saw", "O"), ("Rome", "B-place")],
        [("saw", "O"), ("Tom", "B-person")],
    ]
    assert len(spelt(corpus)) == 5  # the third and the fourth are not parted by a blank line
    assert corpus.tokens.word_ids.size == 4  # a spelling counts once
    assert (corpus.counts.sentences, corpus.counts.tokens, corpus.counts.spellings) == (5, 16, 4)
    assert corpus.labels.names == ("B-person", "O", "B-place")
    assert corpus.sha256 == hashlib.sha256((CONLL * 2).encode()).hexdigest()
    assert corpus.places[1].endswith("a.conll: line 5")


def test_rare_words_and_characters_are_unknown(tmp_path: Path) -> None:
    corpus, _ = load_tagged(write(tmp_path / "a.conll", CONLL), WORDS, min_count=2)
    assert "Ann" not in corpus.lexicon.words.symbols
    assert "A" not in corpus.lexicon.characters.symbols
    assert corpus.counts.unknowns == 1
    last = corpus.tokens.rows.ids[-1]
    assert corpus.tokens.word_ids[last] == UNK_ID


def test_small_letters_are_for_words_alone(tmp_path: Path) -> None:
    text = "TOM A\ntom A\n\nTom B\n"
    corpus, _ = load_tagged(write(tmp_path / "a.conll", text), Tokenizer("word", lowercase=True))
    assert len(set(corpus.tokens.word_ids.tolist())) == 1
    assert corpus.tokens.word_ids.size == 3
    assert "T" in corpus.lexicon.characters.symbols


def test_what_is_held_out_teaches_nothing(tmp_path: Path) -> None:
    train, valid = load_tagged(write(tmp_path / "a.conll", CONLL), WORDS, valid_frac=0.34)
    assert valid is not None
    assert (train.counts.sentences, valid.counts.sentences) == (2, 1)
    assert train.lexicon is valid.lexicon
    assert "Ann" not in train.lexicon.words.symbols
    assert valid.tags.ids.tolist()[:2] == [train.labels.find("B-place"), train.labels.find("O")]


def test_a_tag_never_seen_is_no_target(tmp_path: Path) -> None:
    other = write(tmp_path / "b.conll", "Tom B-person\nX I-ship\n")
    train, valid = load_tagged(write(tmp_path / "a.conll", CONLL), WORDS, valid_paths=other)
    assert valid is not None
    assert valid.tags.ids.tolist() == [train.labels.find("B-person"), UNSEEN_TAG]


def test_a_tag_that_given_labels_lack_is_no_mistake_of_a_model(tmp_path: Path) -> None:
    known, _ = load_tagged(write(tmp_path / "a.conll", CONLL), WORDS)
    other = write(tmp_path / "b.conll", "Tom B-person\n\nX I-ship\n")
    with pytest.raises(InputError, match=r"b\.conll: line 3: the tag 'I-ship' is unknown to the model"):
        load_tagged(other, WORDS, lexicon=known.lexicon, labels=known.labels)


def test_a_lexicon_that_is_given(tmp_path: Path) -> None:
    lexicon = Lexicon.from_sentences([["a", "b"], ["a"]], WORDS, 1, 3)
    assert lexicon.words.symbols[2:] == ("a",)
    corpus, _ = load_tagged(write(tmp_path / "a.conll", "a X\nb Y\n"), WORDS, lexicon=lexicon)
    assert corpus.tokens.word_ids.tolist() == [2, UNK_ID]


def texts(corpus: PairCorpus) -> list[tuple[str, str]]:
    sides = []
    for side, part in ((corpus.source, corpus.sources), (corpus.target, corpus.targets)):
        sequences = rows(part.ids, part.ends)
        assert all(sequence[-1] == EOS_ID for sequence in sequences)
        symbols = side.vocabulary.symbols
        sides.append([side.tokenizer.join([symbols[i] for i in sequence[:-1]]) for sequence in sequences])
    return list(zip(*sides, strict=True))


def test_pairs_keep_both_sides(tmp_path: Path) -> None:
    corpus, valid = load_pairs(write(tmp_path / "a.tsv", PAIRS), CHARACTERS, WORDS)
    assert valid is None
    assert texts(corpus) == [("ab", "x y"), ("cab", "z x y"), ("b", "y"), ("abb", "x y y")]
    assert corpus.source.vocabulary.symbols[2:] == ("b", "a", "c")
    assert corpus.target.vocabulary.symbols[2:] == ("y", "x", "z")
    counts = corpus.counts
    assert (counts.pairs, counts.source_tokens, counts.target_tokens, counts.source_unknowns) == (4, 9, 9, 0)
    assert corpus.places[2].endswith("a.tsv: line 4")


def test_pairs_held_out(tmp_path: Path) -> None:
    train, valid = load_pairs(write(tmp_path / "a.tsv", PAIRS), CHARACTERS, WORDS, valid_frac=0.25)
    assert valid is not None
    assert (train.counts.pairs, valid.counts.pairs) == (3, 1)
    assert valid.source is train.source


def test_each_side_has_its_own_least_count(tmp_path: Path) -> None:
    corpus, _ = load_pairs(write(tmp_path / "a.tsv", PAIRS), CHARACTERS, WORDS, min_counts=(1, 2))
    assert (corpus.counts.source_unknowns, corpus.counts.target_unknowns) == (0, 1)


def test_the_size_of_the_vocabulary_bounds_both_sides(tmp_path: Path) -> None:
    corpus, _ = load_pairs(write(tmp_path / "a.tsv", PAIRS), CHARACTERS, WORDS, vocab_size=3)
    assert (corpus.source.vocabulary.size, corpus.target.vocabulary.size) == (3, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a b\n", "line 1 has no tab"), ("\n \n", "blank lines"), ("a\tb\tc\n", "2 tabs")],
)
def test_bad_pairs(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_pairs(write(tmp_path / "a.tsv", text), CHARACTERS, WORDS)


def test_a_side_without_tokens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target side"):
        load_pairs(write(tmp_path / "a.tsv", "a\t\nb\t\n"), CHARACTERS, WORDS)


def test_too_few_to_hold_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few"):
        load_pairs(write(tmp_path / "a.tsv", "a\tb\n"), CHARACTERS, WORDS, valid_frac=0.1)


def test_standard_input_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only once"):
        load_pairs(["-", "-"], CHARACTERS, WORDS)
