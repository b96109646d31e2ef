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
        return Vocabulary.from_symbols(symbols), Tokenizer.from_json(header.get(f"{key}tokenizer"))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}; {checkpoint.REPLACE}") from error


def saved_labels(header: dict[str, Any], path: str | Path) -> Labels:
    """The labels of a checkpoint's header.

    Raises:
        CheckpointError: they are missing or malformed.
    """
    try:
        return Labels.from_names(checkpoint.require(header, "labels", list, path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {checkpoint.REPLACE}") from error


def lexicon(header: dict[str, Any], path: str | Path) -> Lexicon:
    """The words and characters of a tagger's header.

    Raises:
        CheckpointError: they are missing or malformed.
    """
    words, tokenizer = text_side(header, path)
    try:
        characters = Vocabulary.from_symbols(checkpoint.require(header, "characters", list, path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; {checkpoint.REPLACE}") from error
    return Lexicon(tokenizer, words, characters)
