"""Feed bytes to everything that reads a file: arbitrary ones, pieces of text, and good files with something changed.

    python -m tests.faults.fuzz_readers [--fuzz-examples N] [--seed N] [--only NAME ...]

Each reader either reads a file or raises one of charlm's errors, in one line that names the file. Hypothesis makes the
bytes, and the smallest example of what goes wrong. Without a seed each run is another; tests/test_fuzz_readers.py runs
a few examples of each, the same each time.
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from charlm import checkpoint
from charlm.errors import CharlmError
from charlm.text import token_file
from charlm.text.corpus import load
from charlm.text.examples import read_labelled, read_pairs, read_sentences
from charlm.text.pairs import load_pairs
from charlm.text.readers import read_blocks, read_lines
from charlm.text.tagged import load_tagged
from charlm.text.tokenizer import Tokenizer
from charlm.workflows.model_files import check_weights
from charlm.workflows.task_names import task_of
from charlm.workflows.tokenize import TextOptions, read_vocabulary
from charlm.workflows.trained import CONFIGS
from tests.faults.hostile_mutations import OF_MODELS, OF_TOKENS, Mutation
from tests.stub_model import write_tiny_model

EXAMPLES = 2000
TEXT = "ab c\nc\tab b\n\nA\tB\nword O\nnaïve\t😀\r\nx\ty\n".encode()
PIECES = (
    b"\n", b"\r", b"\r\n", b"\t", b" ", b"a", b"B", b"O", b"\xc3\xa9", b"\xc3", b"\xa9", b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80", b"\xc0\x80", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\x1b[31m", b"\xe2\x80\xae", b"\xe2\x80\xa8",
    b"\x85", b"\x1c", b"\x1f", b"<unk>", b"<eos>", b"-DOCSTART-", b"\\n", b"ab c", b"\n\n", b"word " * 300,
    b"x" * 1100, b"e\xcc\x81",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Attributes:
        read: reads the file of this path, all of it.
        good: a file that it reads.
        suffix: of the file's name.
        mutations: ways to change the good file, besides those of any bytes.
    """

    read: Callable[[str], object]
    good: bytes
    suffix: str = ""
    mutations: tuple[Mutation, ...] = ()


def _model(path: str) -> None:
    """As every command that takes a model reads it, but for the copying of the weights."""
    loaded = checkpoint.load(path)
    config = CONFIGS[task_of(loaded.header, path)](loaded.header, path)
    checkpoint.check_arrays(loaded.arrays, config.shapes(), path)
    check_weights(loaded.arrays, path)
    assert all(np.isfinite(array).all() for array in loaded.arrays.values())


def _tokens(path: str) -> None:
    corpus = token_file.read(path)
    assert isinstance(corpus.tokens, np.memmap)
    assert int(corpus.tokens.max()) < corpus.vocabulary.size


def _drain(read: Callable[..., Iterator[Any]], **options: Any) -> Callable[[str], None]:
    def drain(path: str) -> None:
        for _ in read(path, **options):
            pass

    return drain


def _corpus(path: str, tokenizer: Tokenizer, **options: Any) -> None:
    corpus, _ = load([path], tokenizer, **options)
    assert int(corpus.tokens.max()) < corpus.vocabulary.size
    assert corpus.counts.tokens == corpus.tokens.size - np.count_nonzero(corpus.tokens == 1)


def readers(folder: Path) -> dict[str, Reader]:
    """All of them, by name; ``folder`` is for the making of good files."""
    model, tokens, text = folder / "model.npz", folder / "text.tokens", folder / "good.txt"
    write_tiny_model(model, "abc", labels={"A": 2, "B": 1})
    text.write_bytes(TEXT)
    token_file.write(str(tokens), load([str(text)], Tokenizer())[0])
    list_of_symbols = b"a\nb\n\xc3\xa9\n\\n\n"
    words = Tokenizer("word")
    found = {
        "model": Reader(_model, model.read_bytes(), mutations=OF_MODELS),
        "token file": Reader(_tokens, tokens.read_bytes(), mutations=OF_TOKENS),
        "blocks": Reader(_drain(read_blocks), TEXT),
        "lines": Reader(_drain(read_lines), TEXT),
        "bytes": Reader(_drain(read_blocks, encoding="latin-1", whole_lines=False), TEXT),
        "labelled lines": Reader(_drain(read_labelled), b"A\tab\nB\tb c\n"),
        "pairs": Reader(_drain(read_pairs), b"a b\tc\nd\te\n"),
        "columns": Reader(_drain(read_sentences), b"a O\nb I-x\n\nc O\n"),
        "corpus of lines": Reader(partial(_corpus, tokenizer=Tokenizer()), TEXT),
        "corpus of words": Reader(partial(_corpus, tokenizer=words, valid_frac=0.3), TEXT),
        "corpus of paragraphs": Reader(partial(_corpus, tokenizer=Tokenizer("char", "paragraph", "nfkc", True)), TEXT),
        "corpus of a file": Reader(partial(_corpus, tokenizer=Tokenizer("word", "file")), TEXT),
        "corpus of bytes": Reader(partial(_corpus, tokenizer=Tokenizer("byte", "file", "none")), TEXT),
        "labelled corpus": Reader(partial(_corpus, tokenizer=Tokenizer(), labelled=True), b"A\tab\nB\tb c\n"),
        "corpus of pairs": Reader(lambda path: load_pairs([path], Tokenizer(), words), b"a b\tc\nd\te\n"),
        "tagged corpus": Reader(lambda path: load_tagged([path], words), b"a O\nb I-x\n\nc O\n"),
        "vocabulary": Reader(lambda path: read_vocabulary(path, TextOptions()), list_of_symbols),
        "vocabulary of words": Reader(lambda path: read_vocabulary(path, TextOptions(level="word")), list_of_symbols),
    }
    packed = ("blocks", "bytes", "pairs", "corpus of lines")
    return found | {
        f"{name}, gzip": Reader(found[name].read, gzip.compress(found[name].good, mtime=0), ".gz") for name in packed
    }


@st.composite
def _changed(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with pieces cut out, put in, or written over."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(data)))
        size = draw(st.one_of(st.just(0), st.integers(0, 12), st.just(len(data))))
        data[first : first + size] = draw(st.one_of(st.binary(max_size=8), st.sampled_from(PIECES), st.just(good)))
    return bytes(data)


def files_for(reader: Reader) -> st.SearchStrategy[bytes]:
    """What to give it."""
    texts = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)
    kinds = [st.binary(), texts, _changed(reader.good)]
    if reader.suffix == ".gz":
        kinds += [texts.map(gzip.compress), texts.map(lambda text: gzip.compress(text)[:-5])]
        kinds += [st.tuples(texts, texts).map(lambda both: b"".join(map(gzip.compress, both)))]
    if reader.mutations:
        made = st.tuples(st.sampled_from(reader.mutations), st.integers(0, 2**32).map(random.Random))
        kinds.append(made.map(lambda one: one[0](reader.good, one[1])[0]))
    return st.one_of(kinds)


def try_file(reader: Reader, data: bytes, path: Path) -> None:
    """AssertionError, or whatever else it raises, if the reader does not do what it should."""
    path.write_bytes(data)
    try:
        reader.read(str(path))
    except CharlmError as error:
        message = str(error)
        assert str(path) in message, message
        assert len(message.splitlines()) == 1, message
        assert len(message) < 3000, f"{len(message)} characters"


def fuzz(
    name: str, reader: Reader, folder: Path, examples: int, *, seed: int | None = None, steady: bool = False
) -> None:
    """Try so many examples; raises what the smallest of those that go wrong raises.

    Args:
        seed: of the examples. steady: they are the same each time.
    """
    path = folder / f"{name.replace(' ', '-')}{reader.suffix}"

    @settings(
        max_examples=examples, deadline=None, derandomize=steady, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(data=files_for(reader))
    def try_it(data: bytes) -> None:
        try_file(reader, data, path)

    (try_it if seed is None else seeded(seed)(try_it))()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuzz-examples", type=int, default=EXAMPLES, help=f"of each reader (default: {EXAMPLES})")
    parser.add_argument("--seed", type=int, help="of the examples (default: another each time)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these readers alone")
    options = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory(prefix="charlm-fuzz-") as scratch:
        folder = Path(scratch)
        every = readers(folder)
        for name in options.only or every:
            begin = time.perf_counter()
            try:
                fuzz(name, every[name], folder, options.fuzz_examples, seed=options.seed)
                told = "nothing found"
            except Exception as error:
                faults += 1
                told = f"FAULT {type(error).__name__}: {error} {' '.join(getattr(error, '__notes__', ()))}"
            print(
                f"{name:24}{options.fuzz_examples:>8,} examples{time.perf_counter() - begin:>8.1f} s  {told}",
                flush=True,
            )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
