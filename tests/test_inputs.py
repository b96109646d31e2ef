"""What a corpus was made of: names, lengths and digests, found while it is read."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
from pathlib import Path

import pytest

from charlm.text import token_file
from charlm.text.corpus import load
from charlm.text.examples import read_pairs
from charlm.text.inputs import Input, Witness
from charlm.text.tokenizer import Tokenizer
from charlm.text.whole import hold_out, read_whole

ONE, TWO = b"b\ta\r\n\n", "\ufeffé\tb\nc\td".encode()  # what is read away counts too


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one").write_bytes(ONE)
    Path("two").write_bytes(TWO)
    Path("two.gz").write_bytes(gzip.compress(TWO))


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("second", ["two", "two.gz"])
def test_each_file_and_all_of_them(second: str) -> None:
    expected = [Input("one", len(ONE), sha256(ONE)), Input(second, len(TWO), sha256(TWO))]
    for corpus in (*load(["one", second], Tokenizer()), read_whole(["one", second], read_pairs)):
        if corpus is not None:
            assert list(corpus.inputs.files) == expected
            assert corpus.sha256 == sha256(ONE + TWO)
            assert corpus.names == ["one", second]


@pytest.mark.usefixtures("files")
def test_both_parts_of_a_split_are_of_all_inputs() -> None:
    train, valid = load(["one", "two"], Tokenizer(), valid_frac=0.5)
    assert valid is not None
    assert train.inputs == valid.inputs
    part, held = hold_out(read_whole(["one", "two"], read_pairs), 0.4)
    assert held is not None
    assert part.inputs == held.inputs


@pytest.mark.usefixtures("files")
def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TWO)))
    assert load(["-"], Tokenizer())[0].inputs.files == (Input("standard input", len(TWO), sha256(TWO)),)


@pytest.mark.usefixtures("files")
def test_a_token_file_is_one_of_its_own_and_stands_for_its_text() -> None:
    corpus, _ = load(["one", "two"], Tokenizer())
    token_file.write("tokens", corpus)
    again, held = load(["tokens"], Tokenizer(), valid_frac=0.5)
    data = Path("tokens").read_bytes()
    assert again.inputs.files == (Input("tokens", len(data), sha256(data)),)
    assert again.sha256 == sha256(ONE + TWO)
    assert held is not None
    assert held.inputs == again.inputs


def test_blocks_do_not_matter() -> None:
    whole, parts = Witness(), Witness()
    for witness, size in ((whole, 99), (parts, 1)):
        for path, data in (("a", ONE), ("b", b""), ("c", TWO)):
            for start in range(0, len(data), size):
                witness.read(data[start : start + size])
            witness.end(path)
    assert whole.inputs == parts.inputs
    assert whole.inputs.files[1] == Input("b", 0, sha256(b""))
