"""Pairs of texts as ids: a source that is read whole, and a target that is made of it, each with its vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from charlm.errors import InputError
from charlm.text.buckets import Rows
from charlm.text.examples import Pair, read_pairs
from charlm.text.inputs import Inputs, OfInputs
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, SPECIAL, UNK_ID, Vocabulary
from charlm.text.whole import Examples, hold_out, read_whole


@dataclass(frozen=True)
class Side:
    """How one side's texts are cut, and which tokens are known."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary

    @classmethod
    def from_texts(cls, texts: Iterable[str], tokenizer: Tokenizer, min_count: int, vocab_size: int | None) -> Side:
        """The tokens seen ``min_count`` times or more, ``vocab_size`` at the most."""
        counts = Counter(token for text in texts for token in tokenizer.tokens(text))
        return cls(tokenizer, Vocabulary.from_counts(counts, min_count, vocab_size))

    def rows(self, texts: Iterable[str]) -> Rows:
        """The ids of each text, closed by EOS."""
        end = np.array([EOS_ID], dtype=np.int32)
        return Rows.of_sequences(
            [np.concatenate([self.vocabulary.ids(self.tokenizer.tokens(text)), end]) for text in texts]
        )


@dataclass(frozen=True)
class PairCounts:
    """What a corpus of pairs holds; tokens without the ends of sequences."""

    pairs: int
    source_tokens: int
    target_tokens: int
    source_unknowns: int
    target_unknowns: int


@dataclass(frozen=True, eq=False)
class PairCorpus(OfInputs):
    """Pairs as ids, each sequence closed by EOS.

    Attributes:
        sources, targets: of each pair.
        pairs: as they were read.
        places: where each stands.
    """

    sources: Rows
    targets: Rows
    source: Side
    target: Side
    pairs: list[Pair]
    places: list[str]
    counts: PairCounts
    inputs: Inputs

    @property
    def size(self) -> int:
        """The number of target tokens, EOS included."""
        return int(self.targets.ids.size)


def load_pairs(
    paths: Sequence[str],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    *,
    min_counts: tuple[int, int] = (1, 1),
    vocab_size: int | None = None,
    sides: tuple[Side, Side] | None = None,
    valid_frac: float = 0.0,
    valid_paths: Sequence[str] | None = None,
) -> tuple[PairCorpus, PairCorpus | None]:
    """Read pairs for training and perhaps for validation; both vocabularies come from the former.

    Args:
        paths: files of ``source<TAB>target`` lines.
        source_tokenizer, target_tokenizer: how to cut either side.
        min_counts: tokens of either side that are seen less often in the training part are unknown.
        vocab_size: the most tokens of either side to know, the two special ones included; None for no limit.
        sides: to be used instead of those of the text.
        valid_frac: the fraction of pairs to hold out, every so manieth.
        valid_paths: files for validation.

    Raises:
        InputError: an input is at fault, or a side has no tokens.
        UsageError: a fraction outside its range.
    """
    train, valid = hold_out(read_whole(paths, read_pairs), 0.0 if valid_paths else valid_frac)
    if valid_paths:
        valid = read_whole(valid_paths, read_pairs)
    if sides is None:
        source = Side.from_texts((pair.source for pair in train.examples), source_tokenizer, min_counts[0], vocab_size)
        target = Side.from_texts((pair.target for pair in train.examples), target_tokenizer, min_counts[1], vocab_size)
        for side, name in ((source, "source"), (target, "target")):
            if side.vocabulary.size == len(SPECIAL):
                raise InputError(
                    f"{train.names[0]}: no token of the {name} side is left for its vocabulary; lower --min-count or "
                    "raise --vocab-size"
                )
        sides = source, target
    return _numbered(train, sides), None if valid is None else _numbered(valid, sides)


def _numbered(part: Examples[Pair], sides: tuple[Side, Side]) -> PairCorpus:
    source, target = sides
    sources, targets = source.rows(pair.source for pair in part.examples), target.rows(p.target for p in part.examples)
    count = len(part.examples)
    counts = PairCounts(
        pairs=count,
        source_tokens=int(sources.ids.size) - count,
        target_tokens=int(targets.ids.size) - count,
        source_unknowns=int(np.count_nonzero(sources.ids == UNK_ID)),
        target_unknowns=int(np.count_nonzero(targets.ids == UNK_ID)),
    )
    return PairCorpus(sources, targets, source, target, part.examples, part.places, counts, part.inputs)
