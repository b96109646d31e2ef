"""Texts or a token file become a corpus, and a second one for validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from charlm.errors import InputError, UsageError
from charlm.text import token_file
from charlm.text.draft import Draft, draft_texts
from charlm.text.label_column import LabelColumn
from charlm.text.labels import Labels
from charlm.text.records import Corpus, Counts, Tally
from charlm.text.split import (
    Parts,
    exact_fraction,
    held_stratified,
    split_evenly,
    split_marked,
    split_tail,
    tail_train_tokens,
)
from charlm.text.spool import Spool, array_blocks, token_dtype
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, LONGEST_SYMBOL, SPECIAL, Vocabulary
from charlm.wording import counted

__all__ = ["Corpus", "Counts", "load"]


def load(
    paths: Sequence[str],
    tokenizer: Tokenizer,
    *,
    min_count: int = 1,
    vocab_size: int | None = None,
    vocabulary: Vocabulary | None = None,
    valid_frac: float = 0.0,
    valid_paths: Sequence[str] | None = None,
    on_bytes: Callable[[int], object] | None = None,
    labelled: bool = False,
    labels: Labels | None = None,
    seed: int = 0,
) -> tuple[Corpus, Corpus | None]:
    """Read texts, or one token file, for training and perhaps for validation.

    The vocabulary, and the labels, come from the training part alone.

    Args:
        paths: the texts, in order; ``-`` is standard input, ``.gz`` is unpacked. Or one token file, whose own
            tokenizer and vocabulary are used.
        tokenizer: how to cut the texts.
        min_count: tokens seen less often in the training part are unknown.
        vocab_size: the most symbols to have, the two special ones included; None for no limit.
        vocabulary: to be used instead of one made from the text; the two limits above then mean nothing.
        valid_frac: the fraction to hold out, 0 to below 1. Of lines or paragraphs, sequence i is held out if
            floor((i + 1) f) > floor(i f), which spreads them evenly; of files the tail is, so that
            floor(n (1 - f)) of n tokens train. Of labelled lines the same share of every label is, at random: see
            ``held_stratified``.
        valid_paths: texts, or one token file, for validation.
        on_bytes: called with the number of bytes (unpacked) that were read since the last call.
        labelled: the lines are ``label<TAB>text``; each is a sequence, also one whose text is nothing.
        labels: to be used instead of labels made from the text.
        seed: which labelled lines are held out.

    Returns:
        The training corpus, and the validation corpus if one was asked for.

    Raises:
        InputError: a text or token file is missing, damaged, empty or blank, or a part would hold nothing; a line
            lacks its label, or has one that the training part, or ``labels``, lacks.
        UsageError: both kinds of validation are asked for, or a fraction outside its range, or labels of sequences
            that are not lines of characters or words.
    """
    fraction = exact_fraction(valid_frac)
    if fraction and valid_paths:
        raise UsageError("--valid and --valid-frac exclude each other; leave out one")
    stored = _token_file_among(paths, labelled)
    if stored is not None:
        if vocabulary is not None and (vocabulary, tokenizer) != (stored.vocabulary, stored.tokenizer):
            raise InputError(
                f"{stored.names[0]}: made with another vocabulary or tokenizer; "
                "make it anew with charlm tokenize --vocab"
            )
        train, valid = _split_stored(stored, fraction)
    else:
        draft = draft_texts(paths, tokenizer, on_bytes, labelled=labelled, any_level=vocabulary is None)
        train, valid = _finish(draft, fraction, min_count, vocab_size, vocabulary, labels, seed)
    if valid_paths:
        valid = _load_validation(valid_paths, train, on_bytes)
    return train, valid


def _load_validation(paths: Sequence[str], train: Corpus, on_bytes: Callable[[int], object] | None) -> Corpus:
    """Texts or a token file, by the training part's tokenizer and vocabulary."""
    labelled = train.labels is not None
    stored = _token_file_among(paths, labelled)
    if stored is None:
        draft = draft_texts(paths, train.tokenizer, on_bytes, labelled=labelled)
        return _finish(draft, Fraction(0), 1, None, train.vocabulary, train.labels)[0]
    if (stored.vocabulary, stored.tokenizer) != (train.vocabulary, train.tokenizer):
        raise InputError(
            f"{stored.names[0]}: made with another vocabulary or tokenizer than the training text; give the "
            "validation text itself, or make the file anew with charlm tokenize --vocab"
        )
    return stored


def _token_file_among(paths: Sequence[str], labelled: bool) -> Corpus | None:
    """The token file if ``paths`` is one, None if they are texts."""
    found = [path for path in paths if token_file.is_token_file(path)]
    if found and labelled:
        raise InputError(f"{found[0]}: a token file, which holds no labels; give the text of label<TAB>text lines")
    if found and len(paths) > 1:
        raise InputError(f"{found[0]}: a token file is a corpus of its own; give it alone")
    return token_file.read(found[0]) if found else None


def _split_stored(stored: Corpus, fraction: Fraction) -> tuple[Corpus, Corpus | None]:
    """A token file as it is, or split by the rules for texts."""
    if not fraction:
        return stored, None
    counts = stored.counts
    draft = Draft(
        blocks=lambda: array_blocks(stored.tokens),
        symbols=list(stored.vocabulary.symbols),
        tokens=counts.tokens,
        tokenizer=stored.tokenizer,
        blank_lines=counts.blank_lines,
        inputs=stored.inputs,
    )
    train, valid = _finish(draft, fraction, 1, None, stored.vocabulary)
    if valid is not None and stored.tokenizer.level == "word" and counts.unknowns:
        # The file does not say how long its unknown words were: share out what it says of the whole.
        letters = round(counts.characters * valid.counts.tokens / counts.tokens)
        valid = replace(valid, counts=replace(valid.counts, characters=letters))
        train = replace(train, counts=replace(train.counts, characters=counts.characters - letters))
    return train, valid


def _finish(
    draft: Draft,
    fraction: Fraction,
    min_count: int,
    vocab_size: int | None,
    vocabulary: Vocabulary | None,
    labels: Labels | None = None,
    seed: int = 0,
) -> tuple[Corpus, Corpus | None]:
    """Split a draft, make the vocabulary and the labels if there are none, give the tokens their final ids."""
    held = None if draft.labels is None else held_stratified(draft.labels.numbers, fraction, seed)
    tallies = [Tally(draft.symbols, draft.tokenizer) for _ in range(2)]
    for parts in _divide(draft, fraction, held):
        for tally, part in zip(tallies, parts, strict=True):
            tally.add(part)
    if fraction and not tallies[1].counts.any():
        raise InputError(
            f"{draft.names[0]}: {counted(int(tallies[0].counts[EOS_ID]), 'sequence')}, too few to hold out "
            f"{float(fraction):g} of them; raise --valid-frac, give --valid, or hold nothing out with --valid-frac 0"
        )
    if vocabulary is None:
        vocabulary = _vocabulary(draft, tallies[0].counts, min_count, vocab_size)

    final_ids = vocabulary.ids(draft.symbols)
    final_ids[EOS_ID] = EOS_ID
    table = final_ids.astype(token_dtype(vocabulary.size))
    spools = Spool(), Spool()
    for parts in _divide(draft, fraction, held):
        for spool, part in zip(spools, parts, strict=True):
            spool.append(table[part], vocabulary.size)
    train, valid = (
        Corpus(
            tokens=spool.array(vocabulary.size),
            vocabulary=vocabulary,
            tokenizer=draft.tokenizer,
            counts=tally.result(final_ids, blank_lines),
            inputs=draft.inputs,
        )
        for spool, tally, blank_lines in zip(spools, tallies, (draft.blank_lines, 0), strict=True)
    )
    if draft.labels is not None and held is not None:
        train, valid = _with_labels(train, valid, draft.labels, labels, held)
    return train, valid if fraction else None


def _with_labels(
    train: Corpus, valid: Corpus, column: LabelColumn, labels: Labels | None, held: NDArray[np.bool_]
) -> tuple[Corpus, Corpus]:
    """The two parts of a draft with the labels of their sequences."""
    numbers = column.numbers
    if labels is None:
        labels = Labels.from_counts(column.counts(numbers[~held]))
    parts = zip((train, valid), (~held, held), strict=True)
    train, valid = (
        replace(part, labels=labels, label_ids=column.final_ids(numbers[chosen], labels)) for part, chosen in parts
    )
    return train, valid


def _divide(draft: Draft, fraction: Fraction, held: NDArray[np.bool_] | None) -> Parts:
    """The draft's stream in blocks, each as its training and its validation part.

    Args:
        draft: the text.
        fraction: of it, to be held out.
        held: which sequences are, (sequences,); None if the sequence's number or its place decides.
    """
    if not fraction:
        return ((block, block[:0]) for block in draft.blocks())
    if held is not None:
        return split_marked(draft.blocks(), held)
    if draft.tokenizer.sequence == "file":
        return split_tail(draft.blocks(), tail_train_tokens(draft.tokens, fraction))
    return split_evenly(draft.blocks(), fraction)


def _vocabulary(draft: Draft, counts: NDArray[np.int64], min_count: int, vocab_size: int | None) -> Vocabulary:
    """The vocabulary of the tokens counted, which are those of the training part."""
    frequent = np.flatnonzero(counts >= max(min_count, 1)).tolist()  # of words, most are rare
    seen = {draft.symbols[number]: int(counts[number]) for number in frequent if number != EOS_ID}
    vocabulary = Vocabulary.from_counts(seen, min_count, vocab_size)
    if vocabulary.size == len(SPECIAL):
        is_long = any(len(symbol) > LONGEST_SYMBOL for symbol in seen)
        remedy = (
            f"a word of more than {LONGEST_SYMBOL:,} characters is: is --level char meant?"
            if is_long
            else ("lower --min-count or raise --vocab-size")
        )
        raise InputError(f"{draft.names[0]}: no token is left for the vocabulary, all would be unknown; {remedy}")
    return vocabulary
