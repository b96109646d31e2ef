import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import InputError, OutputError
from charlm.text import token_file
from charlm.text.corpus import Corpus, load
from charlm.text.readers import TOKENS_MAGIC
from charlm.text.token_file import is_token_file, read
from charlm.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text("naïve café 😀\n" * 40, encoding="utf-8")
    return load([str(path)], Tokenizer("word"), min_count=1)[0]


@pytest.fixture(scope="module")
def stored(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "text.tokens"
    token_file.write(str(path), corpus)
    return path


def changed(stored: Path, **changes: Any) -> bytes:
    """The file with another header, well formed otherwise."""
    _, line, _ = stored.read_bytes().split(b"\n", 2)
    header = json.loads(line)
    ids = stored.read_bytes()[-header["length"] :]
    for name, value in changes.items():
        if value is ...:
            del header[name]
        else:
            header[name] = value
    head = TOKENS_MAGIC + json.dumps(header).encode() + b"\n"
    return head + b"\0" * (-len(head) % 64) + ids


def failure(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_round_trip(corpus: Corpus, stored: Path) -> None:
    again = read(str(stored))
    assert isinstance(again.tokens, np.memmap)
    assert np.array_equal(again.tokens, corpus.tokens)
    assert again.tokens.dtype == corpus.tokens.dtype
    assert (again.vocabulary, again.tokenizer) == (corpus.vocabulary, corpus.tokenizer)
    assert (again.counts, again.sha256) == (corpus.counts, corpus.sha256)
    assert again.names == [str(stored)]


def test_layout(corpus: Corpus, stored: Path) -> None:
    data = stored.read_bytes()
    magic, line, _ = data.split(b"\n", 2)
    assert magic == b"\x93charlm-tokens"
    header = json.loads(line)
    assert (header["format"], header["schema"], header["dtype"]) == ("charlm-tokens", 1, "uint8")
    assert header["length"] == corpus.tokens.size
    assert (len(data) - header["length"]) % 64 == 0
    assert data.endswith(corpus.tokens.tobytes())
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]  # nothing beside it


@pytest.mark.parametrize("types", [300, 70_000])
def test_wide_ids_are_little_endian(tmp_path: Path, types: int) -> None:
    text = tmp_path / "text"
    text.write_text(" ".join(f"w{number}" for number in range(types)))
    corpus, _ = load([str(text)], Tokenizer("word"))
    path = tmp_path / "out"
    token_file.write(str(path), corpus)
    dtype = "<u2" if types == 300 else "<i4"
    assert path.read_bytes().endswith(corpus.tokens.astype(dtype).tobytes())
    assert np.array_equal(read(str(path)).tokens, corpus.tokens)


def test_part_of_a_split_text(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("abcdefghij")
    train, _ = load([str(text)], Tokenizer("char", "file"), valid_frac=0.5)
    token_file.write(str(tmp_path / "out"), train)
    assert read(str(tmp_path / "out")).counts == train.counts


def test_is_token_file(stored: Path, tmp_path: Path) -> None:
    assert is_token_file(str(stored))
    text = tmp_path / "text"
    text.write_bytes(TOKENS_MAGIC[1:] + b"{}")
    for other in (str(text), "-", str(tmp_path), str(tmp_path / "none"), os.devnull):
        assert not is_token_file(other)


def test_every_cut_is_noticed(stored: Path, tmp_path: Path) -> None:
    data = stored.read_bytes()
    for size in range(len(data)):
        failure(tmp_path / "cut", data[:size])
    assert "longer than it says" in failure(tmp_path / "long", data + b"\1")
    assert "cut short" in failure(tmp_path / "cut", data[:-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2, "charlm": "9.0"}, "written by charlm 9.0 in a newer form (2, not 1); update charlm"),
        ({"schema": ...}, "does not say its schema"),
        ({"schema": True}, "does not say its schema"),
        ({"format": "charlm-model"}, "another format"),
        ({"symbols": ["a", "b"]}, "a vocabulary begins with"),
        ({"symbols": ["<unk>", "<eos>", "a"]}, "an id that its vocabulary lacks"),
        ({"tokenizer": {"level": "word"}}, "the tokenizer does not have the keys"),
        ({"counts": {"sequences": 1}}, "counts are incomplete"),
        ({"counts": None}, "counts are not numbers"),
        ({"length": ...}, "header is incomplete"),
        ({"length": -1}, "header is incomplete"),
        ({"length": 10**30}, "cut short"),
        ({"sha256": 5}, "header is incomplete"),
        ({"dtype": "uint16"}, "another type"),
        ({"dtype": "object"}, "another type"),
    ],
)
def test_wrong_headers(stored: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in failure(tmp_path / "file", changed(stored, **changes))


def test_counts_and_ids_must_agree(stored: Path, tmp_path: Path) -> None:
    data = bytearray(stored.read_bytes())
    data[-1] = 2  # the last EOS becomes a word
    assert "not those that it counted" in failure(tmp_path / "file", bytes(data))


@pytest.mark.parametrize("head", [b"[]", b"{", b"\xff\xff", b"[" * 100_000, b"NaN", b'{"format": "charlm-tokens"'])
def test_not_json(tmp_path: Path, head: bytes) -> None:
    failure(tmp_path / "file", TOKENS_MAGIC + head + b"\n")


def test_header_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "HEADER_LIMIT_BYTES", 1000)
    assert "header does not end" in failure(tmp_path / "file", TOKENS_MAGIC + b"x" * 2000 + b"\n")


@settings(deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_changed_byte_is_harmless(stored: Path, place: int, value: int) -> None:
    data = bytearray(stored.read_bytes())
    data[place % len(data)] = value
    path = stored.parent / "changed"
    path.write_bytes(data)
    try:
        assert read(str(path)).tokens.max() < 5
    except InputError as error:
        message = str(error)
        assert "\n" not in message
    finally:
        path.unlink()


def test_places_that_cannot_be_written(corpus: Corpus, tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none" / "x", "there is no folder"),
        (tmp_path, "is a folder"),
        (Path(os.devnull), "not a plain file"),
    ):
        with pytest.raises(OutputError, match=message):
            token_file.write(str(path), corpus)
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_old_file(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        token_file.write(str(path), corpus)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed(corpus: Corpus, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    token_file.write(str(link), corpus)
    assert link.is_symlink()
    assert is_token_file(str(target))
