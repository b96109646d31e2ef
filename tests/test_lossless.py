"""A file of bytes comes back as it was by every way through charlm, and a text in NFC at the level of characters."""

from __future__ import annotations

import contextlib
import gzip
import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.cli.main import main
from charlm.errors import InputError
from charlm.text import readers, spool, token_file
from charlm.text.corpus import Corpus, load
from charlm.text.readers import TOKENS_MAGIC
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, Vocabulary
from charlm.workflows.model_files import LoadedModel
from charlm.workflows.model_tokens import read_tokens
from charlm.workflows.score import Scorer
from tests.faults.text_cases import Case, plain
from tests.stub_model import write_tiny_model

BYTES = Tokenizer("byte", "file", "none")
EVERY_BYTE = Vocabulary.from_symbols(["<unk>", "<eos>", *map(chr, range(256))])
texts = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lossless")


@pytest.fixture(scope="module")
def loaded(scratch: Path) -> LoadedModel:
    from charlm.workflows.model_files import load_model

    write_tiny_model(scratch / "bytes.npz", [chr(i) for i in range(256)], BYTES)
    return load_model(scratch / "bytes.npz", 1)


@contextlib.contextmanager
def small_blocks(size: int) -> Iterable[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_BYTES", size)
        patch.setattr(spool, "BLOCK_TOKENS", size)
        yield


def spelt(corpora: Iterable[Corpus]) -> str:
    """What ids spell, without the ends of sequences."""
    symbols = [corpus.vocabulary.symbols[i] for corpus in corpora for i in corpus.tokens.tolist() if i != EOS_ID]
    return "".join(symbols)


def is_plain(data: bytes) -> bool:
    """Whether it is no token file. hypothesis draws what it finds in charlm, the first bytes of these too."""
    return not data.startswith(TOKENS_MAGIC)


# But for what is a token file, and what is packed and called so.
FILES = [one for one in plain(0, 0) if one.data and one.suffix != ".gz" and is_plain(one.data)]
SPECIAL = [b"\x1f\x8b\x08\0abc", b"\n", b" \t\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n\r", b"PK\x03\x04"]


@settings(deadline=None, max_examples=60)
@given(data=st.binary(min_size=1).filter(is_plain), block=st.integers(1, 9), fraction=st.sampled_from([0.0, 0.3]))
@example(data=gzip.compress(b"text", mtime=0), block=9, fraction=0.0)
def test_bytes_through_tokenize_and_the_readers_of_train_score_and_gradients(
    scratch: Path, loaded: LoadedModel, data: bytes, block: int, fraction: float
) -> None:
    path, stored = scratch / "data", scratch / "data.tokens"
    path.write_bytes(data)
    with small_blocks(block):
        corpus, _ = load([str(path)], BYTES)
        token_file.write(str(stored), corpus)
        assert spelt([token_file.read(str(stored))]).encode("latin-1") == data
        with contextlib.suppress(InputError):  # too short to be divided
            train, valid = load([str(path)], BYTES, valid_frac=fraction, vocabulary=EVERY_BYTE)
            assert spelt([train, valid] if valid else [train]).encode("latin-1") == data
        ids = read_tokens(str(path), loaded, "error")
        assert "".join(EVERY_BYTE.symbols[i] for i in ids.tolist() if i != EOS_ID).encode("latin-1") == data
        tokens = [symbol for part in Scorer(loaded).tokens(str(path)) for symbol in part.symbols]
        lines = "".join("\n" if symbol == "<eos>" else symbol for symbol in tokens).encode("latin-1")
        assert lines == data + b"\n" * (not data.endswith(b"\n"))


@pytest.mark.parametrize("data", SPECIAL)
def test_files_that_look_like_something_else_are_bytes_all_the_same(scratch: Path, data: bytes) -> None:
    (scratch / "data").write_bytes(data)
    assert spelt([load([str(scratch / "data")], BYTES)[0]]).encode("latin-1") == data


def test_what_is_packed_is_unpacked_by_its_name_alone(scratch: Path) -> None:
    packed = gzip.compress(b"text\xff", mtime=0)
    (scratch / "data.gz").write_bytes(packed)
    assert spelt([load([str(scratch / "data.gz")], BYTES)[0]]) == "text\xff"
    (scratch / "data").write_bytes(packed)
    with pytest.raises(InputError, match=r"data: is packed with gzip; unpack it with gunzip, or let its name end in"):
        load([str(scratch / "data")], Tokenizer())


def test_nothing_is_no_text(scratch: Path) -> None:
    (scratch / "data").write_bytes(b"")
    with pytest.raises(InputError, match="empty; there is nothing to read"):
        load([str(scratch / "data")], BYTES)


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_hostile_texts_through_the_commands(scratch: Path, case: Case) -> None:
    path = scratch / "case"
    path.write_bytes(case.data)
    run = CliRunner().invoke(main, ["tokenize", str(path), "--level", "byte", "-o", str(scratch / "case.tokens")])
    assert run.exit_code == 0, run.stderr
    assert spelt([token_file.read(str(scratch / "case.tokens"))]).encode("latin-1") == case.data


@settings(deadline=None, max_examples=60)
@given(text=texts, form=st.sampled_from(["none", "nfc"]), block=st.integers(1, 9))
def test_characters_are_lossless_but_for_their_normal_form(scratch: Path, text: str, form: str, block: int) -> None:
    text = unicodedata.normalize("NFC", text)
    (scratch / "text").write_bytes(text.encode())
    with small_blocks(block):
        try:
            corpus, _ = load([str(scratch / "text")], Tokenizer("char", "file", form))
        except InputError as error:
            assert not text.strip() or text.startswith("\ufeff"), error  # noqa: PT017
            return
    assert spelt([corpus]) == text.removeprefix("\ufeff")


def test_a_sample_of_bytes_is_a_file_of_bytes(scratch: Path, loaded: LoadedModel) -> None:
    arguments = ["sample", str(scratch / "bytes.npz"), "--seed", "1", "--max-length", "300", "--threads", "1"]
    (one,) = [json.loads(line) for line in CliRunner().invoke(main, [*arguments, "--json"]).stdout.splitlines()]
    assert CliRunner().invoke(main, arguments).stdout_bytes == one["text"].encode("latin-1")
