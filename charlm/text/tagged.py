"""Tagged sentences as ids: of each token its spelling and its tag; of each spelling its word and its characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from charlm.text.buckets import Rows
from charlm.text.examples import LAST, Sentence, read_sentences
from charlm.text.inputs import Inputs, OfInputs
from charlm.text.labels import Labels
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import UNK_ID, Vocabulary
from charlm.text.whole import Examples, hold_out, read_whole

UNSEEN_TAG = -1
CHARACTER_MIN_COUNT = 2  # characters seen once teach the model the unknown one


@dataclass(frozen=True)
class TaggedCounts:
    """What a corpus of sentences holds; ``unknowns`` are tokens whose word is not in the vocabulary."""

    sentences: int
    tokens: int
    spellings: int
    unknowns: int

    @property
    def unknown_rate(self) -> float:
        """Unknown tokens to all tokens, 0 to 1."""
        return self.unknowns / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, eq=False)
class Lexicon:
    """What gives tokens their ids.

    Attributes:
        tokenizer: of words; how they are normalised, and whether letters become small in words (in characters never).
        words, characters: what is known of either.
    """

    tokenizer: Tokenizer
    words: Vocabulary
    characters: Vocabulary

    @classmethod
    def from_sentences(
        cls, sentences: Iterable[Sequence[str]], tokenizer: Tokenizer, min_count: int, vocab_size: int | None
    ) -> Lexicon:
        """The words seen ``min_count`` times or more, ``vocab_size`` at the most, and the characters."""
        tokens = Counter(token for sentence in sentences for token in sentence)
        words: Counter[str] = Counter()
        characters: Counter[str] = Counter()
        for token, count in tokens.items():
            words[tokenizer.clean(token)] += count
            for character in _shape(tokenizer).clean(token):
                characters[character] += count
        return cls(
            tokenizer,
            Vocabulary.from_counts(words, min_count, vocab_size),
            Vocabulary.from_counts(characters, CHARACTER_MIN_COUNT),
        )


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of sentences.

    Attributes:
        rows: of each sentence, its tokens by their number in ``spellings``.
        word_ids: (U,), of each spelling.
        characters: of each spelling, its characters' ids.
    """

    rows: Rows
    word_ids: NDArray[np.int32]
    characters: Rows


def number_tokens(sentences: Iterable[Sequence[str]], lexicon: Lexicon) -> Tokens:
    """Give the tokens of sentences, each of which has at least one, their ids."""
    numbers: dict[str, int] = {}
    rows = [
        np.array([numbers.setdefault(token, len(numbers)) for token in sentence], dtype=np.int32)
        for sentence in sentences
    ]
    spellings = list(numbers)
    shape = _shape(lexicon.tokenizer)
    return Tokens(
        Rows.of_sequences(rows),
        lexicon.words.ids([lexicon.tokenizer.clean(spelling) for spelling in spellings]),
        Rows.of_sequences([lexicon.characters.ids(list(shape.clean(spelling))) for spelling in spellings]),
    )


@dataclass(frozen=True, eq=False)
class TaggedCorpus(OfInputs):
    """Sentences as ids.

    Attributes:
        tags: of each token its tag's id, in the order of ``tokens.rows``; -1 for one that ``labels`` lacks.
        sentences: as they were read.
        places: where each begins.
    """

    tokens: Tokens
    tags: Rows
    lexicon: Lexicon
    labels: Labels
    sentences: list[Sentence]
    places: list[str]
    counts: TaggedCounts
    inputs: Inputs

    @property
    def size(self) -> int:
        """The number of tokens."""
        return int(self.tags.ids.size)


def load_tagged(
    paths: Sequence[str],
    tokenizer: Tokenizer,
    *,
    token_column: int = 1,
    tag_column: int = LAST,
    min_count: int = 1,
    vocab_size: int | None = None,
    lexicon: Lexicon | None = None,
    labels: Labels | None = None,
    valid_frac: float = 0.0,
    valid_paths: Sequence[str] | None = None,
) -> tuple[TaggedCorpus, TaggedCorpus | None]:
    """Read sentences for training and perhaps for validation; words, characters and tags come from the former.

    Args:
        paths: files of CoNLL columns; see ``examples.read_sentences``, also for the columns.
        tokenizer: of words.
        min_count: words seen less often in the training part are unknown.
        vocab_size: the most words to know, the two special ones included; None for no limit.
        lexicon, labels: to be used instead of those of the text.
        valid_frac: the fraction of sentences to hold out, every so manieth.
        valid_paths: files for validation.

    Raises:
        InputError: an input is at fault, or the training part has a tag that ``labels`` lacks.
        UsageError: a fraction outside its range.
    """
    read = partial(read_sentences, token_column=token_column, tag_column=tag_column)
    train, valid = hold_out(read_whole(paths, read), 0.0 if valid_paths else valid_frac)
    if valid_paths:
        valid = read_whole(valid_paths, read)
    lexicon = lexicon or Lexicon.from_sentences(
        (example.tokens for example in train.examples), tokenizer, min_count, vocab_size
    )
    if labels is not None:
        for sentence, place in zip(train.examples, train.places, strict=True):
            for tag in sentence.tags:
                labels.require(tag, place, "tag")
    labels = labels or Labels.from_counts(Counter(tag for example in train.examples for tag in example.tags))
    return _numbered(train, lexicon, labels), None if valid is None else _numbered(valid, lexicon, labels)


def _numbered(part: Examples[Sentence], lexicon: Lexicon, labels: Labels) -> TaggedCorpus:
    tokens = number_tokens((example.tokens for example in part.examples), lexicon)
    tags = [
        np.array([_tag_id(tag, labels) for tag in example.tags], dtype=np.int32) for example in part.examples
    ]  # fmt: skip
    counts = TaggedCounts(
        sentences=len(part.examples),
        tokens=int(tokens.rows.ids.size),
        spellings=int(tokens.word_ids.size),
        unknowns=int(np.count_nonzero(tokens.word_ids[tokens.rows.ids] == UNK_ID)),
    )
    return TaggedCorpus(
        tokens, Rows.of_sequences(tags), lexicon, labels, part.examples, part.places, counts, part.inputs
    )


def _tag_id(tag: str, labels: Labels) -> int:
    found = labels.find(tag)
    return UNSEEN_TAG if found is None else found


def _shape(tokenizer: Tokenizer) -> Tokenizer:
    """How a spelling's characters are cleaned: as words, but a capital stays one, for it tells a name."""
    return Tokenizer("word", "line", tokenizer.normalize)
