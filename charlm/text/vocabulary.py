"""The dictionary: which token has which id, the same for the same text everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from charlm.text.pieces import take

UNK_ID = 0
EOS_ID = 1
UNK = "<unk>"
EOS = "<eos>"
SPECIAL = (UNK, EOS)

CODE_POINTS = 0x110000
# Characters of a symbol. What is longer is no word but a line without blanks; a model could write it a thousand times.
LONGEST_SYMBOL = 1000


def code_points(text: str) -> NDArray[np.uint8] | NDArray[np.uint32]:
    """The code points of a text, (len(text),), uint8 when all are ASCII, else uint32. Not writable."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    # A prompt from the command line may hold lone surrogates, which are unknown symbols rather than an error.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@dataclass(frozen=True)
class Vocabulary:
    """Symbols and their ids: 0 is ``<unk>``, 1 is ``<eos>``.

    Args:
        symbols: each id's symbol, beginning with the two special ones.

    Raises:
        ValueError: the special symbols are not in place, or a symbol is empty, very long or there twice.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.symbols[:2] != SPECIAL:
            raise ValueError(f"a vocabulary begins with {UNK} and {EOS}")
        if len(self._index) != self.size or "" in self._index:
            raise ValueError("the vocabulary holds a symbol twice, or an empty one")
        if (longest := max(map(len, self.symbols))) > LONGEST_SYMBOL:
            raise ValueError(f"the vocabulary holds a symbol of {longest:,} characters, {LONGEST_SYMBOL:,} are allowed")

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], min_count: int = 1, size: int | None = None) -> Vocabulary:
        """The symbols by falling count, ties by code point.

        Args:
            counts: how often each token was seen. The words ``<unk>`` and ``<eos>`` in a text get no symbol of
                their own: one is the unknown symbol, the other must not forge the end of a sequence.
            min_count: tokens seen less often are left out; so are those longer than ``LONGEST_SYMBOL``.
            size: the most symbols to have, the two special ones included; None for no limit.
        """
        kept = [
            token
            for token, count in counts.items()
            if count >= min_count and token not in SPECIAL and len(token) <= LONGEST_SYMBOL
        ]
        kept.sort(key=lambda token: (-counts[token], token))
        if size is not None:
            kept = kept[: max(size - len(SPECIAL), 0)]
        return cls((*SPECIAL, *kept))

    @classmethod
    def from_symbols(cls, symbols: object) -> Vocabulary:
        """A vocabulary from a file's list of symbols.

        Raises:
            ValueError: not a list of distinct, non-empty strings that begins with the two special ones.
        """
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise ValueError("the vocabulary is not a list of strings")
        return cls(tuple(symbols))

    @property
    def size(self) -> int:
        """V, the number of symbols, the two special ones included."""
        return len(self.symbols)

    @property
    def start_id(self) -> int:
        """V: the id of the zero vector, the first input of each sequence and never a target."""
        return len(self.symbols)

    def symbol(self, token_id: int) -> str:
        """The symbol of an id; IndexError if there is none, as for ``start_id``."""
        if token_id < 0:
            raise IndexError(f"no symbol has the id {token_id}")
        return self.symbols[token_id]

    def ids(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """Each token's id, (len(tokens),); 0 for one that is not in the vocabulary, and for the word ``<eos>``."""
        known = self._index
        ids = np.fromiter((known.get(token, UNK_ID) for token in tokens), dtype=np.int32, count=len(tokens))
        ids[ids == EOS_ID] = UNK_ID
        return ids

    def encode_characters(self, text: str) -> NDArray[np.int32]:
        """Each code point's id, (len(text),); 0 for one that is not in the vocabulary."""
        return take(self._table, code_points(text))

    @cached_property
    def sha256(self) -> str:
        """A fingerprint of symbols and ids, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.symbols).encode("ascii")).hexdigest()

    @cached_property
    def _index(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        """Code point to id, (0x110000,)."""
        table = np.full(CODE_POINTS, UNK_ID, dtype=np.int32)
        for number, symbol in enumerate(self.symbols):
            if len(symbol) == 1:
                table[ord(symbol)] = number
        return table
