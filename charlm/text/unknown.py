"""What an error says of a token that is not in a model's vocabulary: which it is, where it stands, what to do."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right

from charlm.text.tokenizer import NEWLINE, Tokenizer

LONGEST_QUOTE = 60  # characters


def quoted(text: str) -> str:
    """A text in quotes for a message, what cannot be seen in it as an escape; shortened if it is long."""
    more = len(text) - LONGEST_QUOTE
    return repr(text[:LONGEST_QUOTE]) + (f" and {more:,} more characters" if more > 0 else "")


def unknown_message(source: str, token: str, line: int, column: int, tokenizer: Tokenizer) -> str:
    """The message, one line.

    Args:
        source: what the text is called.
        token: not in the vocabulary.
        line: where it stands, from 1.
        column: where in the line, in characters from 1.
        tokenizer: the model's.
    """
    return (
        f"{source}: {_describe(token, tokenizer.level)} at line {line}, column {column} is not in the model's "
        "vocabulary; leave it out, or use --on-unknown skip or unk"
    )


def _describe(token: str, level: str) -> str:
    if level == "byte":
        return f"byte 0x{ord(token):02x}"
    # A mark would join the quote before it.
    shown = ascii(token) if unicodedata.category(token[0]).startswith("M") else quoted(token)
    if level == "word" and token != NEWLINE:
        shown = f"the word {shown}"
    if len(token) > 1:
        return shown
    name = unicodedata.name(token, "")
    return f"{shown} (U+{ord(token):04X}{', ' if name else ''}{name})"


def column(line: str, index: int, tokenizer: Tokenizer) -> int:
    """Where a line's token number ``index`` begins in the line as it was given, in characters from 1."""
    cleaned = tokenizer.clean(line)
    if tokenizer.level == "word":
        starts = [match.start() for match in re.finditer(r"\S+", cleaned)]
        index = starts[index] if index < len(starts) else len(cleaned)
    if cleaned == line:
        return index + 1
    # One after the longest beginning of the line that, cleaned, does not reach the token.
    return bisect_right(range(1, len(line) + 1), index, key=lambda size: len(tokenizer.clean(line[:size]))) + 1
