r"""A corpus in one file, to be read again without reading the text.

\x93charlm-tokens\n     no text begins so: the first byte is not UTF-8
{...}\n                 the header, JSON in ASCII on one line
zero bytes              up to a multiple of 64
ids                     uint8, uint16 or int32, little-endian, mapped into memory when read
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from typing import Any

import numpy as np

from charlm import __version__, files
from charlm.errors import InputError
from charlm.text.inputs import Input, Inputs
from charlm.text.readers import STDIN, TOKENS_MAGIC
from charlm.text.records import Corpus, Counts
from charlm.text.spool import Ids, array_blocks, token_dtype
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, UNK_ID, Vocabulary

FORMAT = "charlm-tokens"
SCHEMA = 1
ALIGNMENT_BYTES = 64
HEADER_LIMIT_BYTES = 1 << 28  # ten million words

LARGEST_COUNT = 2**53  # up to here a float holds every integer

REMEDY = "make it anew with charlm tokenize -o"


def is_token_file(path: str) -> bool:
    """Whether a file begins like a token file; False for ``-`` and for one that cannot be read."""
    if path == STDIN or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(TOKENS_MAGIC)) == TOKENS_MAGIC
    except OSError:
        return False


def write(path: str, corpus: Corpus) -> None:
    """Write a corpus, which is there whole or not at all: see ``charlm.files``.

    Raises:
        OutputError: the file cannot be written; the old one is untouched.
    """
    header = {
        "format": FORMAT,
        "schema": SCHEMA,
        "charlm": __version__,
        "tokenizer": corpus.tokenizer.to_json(),
        "counts": asdict(corpus.counts),
        "names": corpus.names,
        "sha256": corpus.sha256,
        "dtype": token_dtype(corpus.vocabulary.size).name,
        "length": corpus.tokens.size,
        "symbols": corpus.vocabulary.symbols,
    }
    head = TOKENS_MAGIC + json.dumps(header).encode("ascii") + b"\n"
    with files.replacing(path) as file:
        file.write(head.ljust(_aligned(len(head)), b"\0"))
        for block in array_blocks(corpus.tokens):
            file.write(block.astype(block.dtype.newbyteorder("<"), copy=False).data)


def read(path: str) -> Corpus:
    """Map a token file into memory, once its header and all its ids are found to be right.

    Raises:
        InputError: it is no token file, from a newer charlm, cut short, or damaged.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(TOKENS_MAGIC)) != TOKENS_MAGIC:
                raise InputError(f"{path}: not a token file; {REMEDY}")
            line = file.readline(HEADER_LIMIT_BYTES)
            start = _aligned(file.tell())
            digest = hashlib.sha256(TOKENS_MAGIC + line + file.read(start - file.tell()))
            length_bytes = file.seek(0, os.SEEK_END) - start
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not line.endswith(b"\n"):
        raise InputError(f"{path}: damaged, its header does not end; {REMEDY}")
    try:
        header = json.loads(line)
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("the header is of another format")
        schema = header.get("schema")
        if type(schema) is not int or schema < 1:
            raise ValueError("the header does not say its schema")
        if schema > SCHEMA:
            raise InputError(
                f"{path}: written by charlm {header.get('charlm')} in a newer form ({schema}, not {SCHEMA}); "
                "update charlm"
            )
        return _corpus(path, header, start, length_bytes, digest)
    except (ValueError, RecursionError) as error:
        is_syntax = isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
        what = "its header is not JSON" if is_syntax else error
        raise InputError(f"{path}: damaged, {what}; {REMEDY}") from None


def _corpus(path: str, header: dict[str, Any], start: int, length_bytes: int, digest: Any) -> Corpus:
    """The corpus that the header describes; ValueError, half a line, for what is wrong with it.

    Args:
        digest: of what stands before the ids.
    """
    vocabulary = Vocabulary.from_symbols(header.get("symbols"))
    tokenizer = Tokenizer.from_json(header.get("tokenizer"))
    tokenizer.check_symbols(vocabulary.symbols)
    counts = header.get("counts")
    length = header.get("length")
    sha256 = header.get("sha256")
    dtype = token_dtype(vocabulary.size)
    if not isinstance(counts, dict) or not all(type(n) is int and 0 <= n <= LARGEST_COUNT for n in counts.values()):
        raise ValueError("its counts are not numbers")
    if set(counts) != set(Counts.__dataclass_fields__):
        raise ValueError("its counts are incomplete")
    if not isinstance(sha256, str) or type(length) is not int or length <= 0:
        raise ValueError("its header is incomplete")
    if header.get("dtype") != dtype.name:
        raise ValueError("its ids have another type than its vocabulary asks for")
    if length_bytes != length * dtype.itemsize:
        state = "cut short" if length_bytes < length * dtype.itemsize else "longer than it says"
        raise ValueError(f"the file is {state}")
    tokens: Ids = np.memmap(path, dtype=dtype.newbyteorder("<"), mode="r", offset=start, shape=(length,))
    _check_ids(tokens, vocabulary.size, counts, digest)
    itself = Input(path, start + length_bytes, digest.hexdigest())
    return Corpus(tokens, vocabulary, tokenizer, Counts(**counts), Inputs((itself,), sha256))


def _check_ids(tokens: Ids, size: int, counts: dict[str, int], digest: Any) -> None:
    """ValueError if the ids are not those that were counted; they are hashed on the way."""
    ends = unknowns = 0
    for block in array_blocks(tokens):
        if int(block.max()) >= size or int(block.min()) < 0:
            raise ValueError("it holds an id that its vocabulary lacks")
        digest.update(block.view(np.uint8))
        ends += int(np.count_nonzero(block == EOS_ID))
        unknowns += int(np.count_nonzero(block == UNK_ID))
    # The training part of a text that was split may end within a sequence.
    is_open = counts["sequences"] - ends
    if is_open not in (0, 1) or (counts["tokens"], counts["unknowns"]) != (tokens.size - ends, unknowns):
        raise ValueError("its ids are not those that it counted")


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
