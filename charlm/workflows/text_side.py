"""The text side of a checkpoint: its vocabulary and its tokenizer, without the model and its engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charlm import checkpoint
from charlm.errors import CheckpointError
from charlm.text.labels import Labels
from charlm.text.tagged import Lexicon
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import Vocabulary


def text_side(header: dict[str, Any], path: str | Path, key: str = "") -> tuple[Vocabulary, Tokenizer]:
    """The vocabulary and the tokenizer of a checkpoint's header.

    Args:
        key: what their names begin with, if there are several.

    Raises:
        CheckpointError: they are missing or malformed.
    """
    symbols = checkpoint.require(header, f"{key}vocabulary", list, path)
    try:
        vocabulary, tokenizer = Vocabulary.from_symbols(symbols), Tokenizer.from_json(header.get(f"{key}tokenizer"))
        tokenizer.check_symbols(vocabulary.symbols)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {checkpoint.REPLACE}") from error
    return vocabulary, tokenizer


def saved_labels(header: dict[str, Any], path: str | Path) -> Labels:
    """The labels of a checkpoint's header.

    Raises:
        CheckpointError: they are missing or malformed.
    """
    try:
        return Labels.from_names(checkpoint.require(header, "labels", list, path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {checkpoint.REPLACE}") from error


def text_record(header: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """How a checkpoint's text was read and split: options by their names, None for one that was not given.

    Raises:
        CheckpointError: there is no such record, or an option is not what it can be.
    """
    record = checkpoint.require(header, "text", dict, path)
    for name, most in (("min_count", 2**53), ("vocab_size", 2**53), ("token_column", 1000), ("tag_column", 1000)):
        value = record.get(name)
        if value is not None and (type(value) is not int or not 0 <= value <= most):
            raise CheckpointError(f"{path}: its {name} is {value!r:.40}; {checkpoint.REPLACE}")
    fraction = record.get("valid_frac")
    if fraction is not None and (type(fraction) not in (int, float) or not 0 <= fraction < 1):
        raise CheckpointError(f"{path}: its valid_frac is {fraction!r:.40}; {checkpoint.REPLACE}")
    return record


def lexicon(header: dict[str, Any], path: str | Path) -> Lexicon:
    """The words and characters of a tagger's header.

    Raises:
        CheckpointError: they are missing or malformed.
    """
    words, tokenizer = text_side(header, path)
    try:
        characters = Vocabulary.from_symbols(checkpoint.require(header, "characters", list, path))
        tokenizer.check_symbols(characters.symbols)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {checkpoint.REPLACE}") from error
    return Lexicon(tokenizer, words, characters)
