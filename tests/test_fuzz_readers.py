"""A few examples of `tests.faults.fuzz_readers` for each reader, packed texts, and token files as large as texts."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from charlm.errors import InputError
from charlm.text import readers as text_readers
from charlm.text import token_file
from charlm.text.corpus import load
from charlm.text.examples import read_pairs
from charlm.text.inputs import Inputs
from charlm.text.readers import read_blocks
from charlm.text.records import Corpus, Counts
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, Vocabulary
from tests.faults.fuzz_readers import Reader, fuzz, readers, try_file

EXAMPLES = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def every(folder: Path) -> dict[str, Reader]:
    return readers(folder)


def test_good_files_are_read(every: dict[str, Reader], folder: Path) -> None:
    for reader in every.values():
        path = folder / f"good{reader.suffix}"
        path.write_bytes(reader.good)
        reader.read(str(path))


def test_examples(every: dict[str, Reader], folder: Path) -> None:
    for name, reader in every.items():
        fuzz(name, reader, folder, EXAMPLES, steady=True)


@pytest.mark.parametrize(
    "fault",
    [ValueError("at 7"), InputError("damaged"), InputError("PATH: one\ntwo"), InputError("PATH" + "x" * 5000)],
)
def test_a_planted_fault_is_found(every: dict[str, Reader], folder: Path, fault: Exception) -> None:
    def read(path: str) -> None:
        if b"\t" in Path(path).read_bytes():
            raise type(fault)(str(fault).replace("PATH", path))

    planted = Reader(read, every["lines"].good)
    with pytest.raises(ValueError if isinstance(fault, ValueError) else AssertionError):
        fuzz("planted", planted, folder, 60, steady=True)
    try_file(planted, b"nothing to find", folder / "harmless")


# ---- packed texts ----


def drained(path: Path, **options: object) -> int:
    return sum(len(block) for block in read_blocks(str(path), **options))  # type: ignore[arg-type]


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_readers, "LARGE_BYTES", 1 << 20)


BOMB = "unpacks to more than 100 times its size, which no text does; if it is one, unpack it first"


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("unit", [b"x", b"a\n", b" ", b"\n", b"\0"])
def test_a_bomb_is_refused_before_it_has_unpacked(tmp_path: Path, unit: bytes, encoding: str) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(unit * (2**24 // len(unit))))
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        drained(path, encoding=encoding)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value) == f"{path}: {BOMB}" or (unit, encoding) == (b"\0", "utf-8")  # binary, it says at once
    assert peak < 12 * 2**20


@pytest.mark.usefixtures("small_limit")
def test_a_bomb_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"a\tb\n" * 2**20))
    with pytest.raises(InputError, match="100 times its size"):
        for _ in read_pairs(str(path)):
            pass


@pytest.mark.usefixtures("small_limit")
def test_what_text_packs_to_is_read(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    text = b"".join(b"the %d th line of a log, always alike\n" % n for n in draw.integers(0, 99, 30_000).tolist())
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(text))
    assert len(text) > 2**20
    assert drained(path) == len(text)
    many = tmp_path / "members.gz"  # each packed by itself
    many.write_bytes(gzip.compress(b"a line of text\n" * 9) * 8000)
    assert drained(many) == 1_080_000


def test_a_small_file_may_unpack_to_anything(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(b"x" * 10**6))
    assert drained(path) == 10**6


# ---- token files ----


def test_reading_a_token_file_takes_no_more_memory_than_a_block(tmp_path: Path) -> None:
    tokens = np.full(24 << 20, 2, np.uint8)
    tokens[-1] = EOS_ID
    vocabulary = Vocabulary(("<unk>", "<eos>", "a"))
    counts = Counts(1, tokens.size - 1, 1, 0, tokens.size - 1, 1)
    path = tmp_path / "long.tokens"
    token_file.write(str(path), Corpus(tokens, vocabulary, Tokenizer(), counts, Inputs((), "")))
    del tokens
    tracemalloc.start()
    corpus, _ = load([str(path)], Tokenizer())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(corpus.tokens, np.memmap)
    assert corpus.size == 24 << 20
    assert peak < 4 << 20
