import gzip
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import InputError
from charlm.text.examples import LabelledText, Pair, Sentence, read_labelled, read_pairs, read_sentences
from tests.pipe import Pipe

READERS: list[Callable[..., Iterator[Any]]] = [read_labelled, read_pairs, read_sentences]
EXAMPLE = "Åse\tvar\n"  # one for each of the readers

fields = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]), max_size=6)
names = st.text("abÅé日-", min_size=1, max_size=4)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples") / "text"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "corpus.tsv"
        path.write_text(text, encoding="utf-8", newline="")
        return str(path)

    return write


def failure(examples: Iterator[Any], path: str) -> tuple[list[Any], str]:
    """The examples before an error, and its message without the file's name, which must come first."""
    found = []
    with pytest.raises(InputError) as caught:  # noqa: PT012
        for example in examples:
            found.append(example)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return found, message.removeprefix(f"{path}: ")


def test_labelled_texts(write: Callable[[str], str]) -> None:
    path = write("Irish\tAodh\r\n\n \t \nOld Norse \tÅse\tvar\n  A\u030a\t\nx\t a ")
    assert list(read_labelled(path)) == [
        LabelledText(1, "Irish", "Aodh"),
        LabelledText(4, "Old Norse", "Åse\tvar"),
        LabelledText(5, "Å", ""),
        LabelledText(6, "x", " a "),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Aodh", "line 3 has no tab; write label<TAB>text"),
        ("Irish Aodh", "line 3 has no tab; write label<TAB>text"),
        ("\tAodh", "line 3 has no label before its tab; write label<TAB>text"),
        ("  \u3000\tAodh", "line 3 has no label before its tab; write label<TAB>text"),
        (
            "x" * 1001 + "\tAodh",
            "line 3 has 1,001 characters before its tab, a label has 1,000 at the most; write label<TAB>text",
        ),
    ],
)
def test_faulty_labelled_texts(write: Callable[[str], str], line: str, message: str) -> None:
    path = write(f"Irish\tx\n\n{line}\nIrish\ty\n")
    assert failure(read_labelled(path), path) == ([LabelledText(1, "Irish", "x")], message)


def test_pairs(write: Callable[[str], str]) -> None:
    path = write("abîme\ta b i m\n\nx\t\n\ty\n\t\n")
    assert list(read_pairs(path)) == [Pair(1, "abîme", "a b i m"), Pair(3, "x", ""), Pair(4, "", "y")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one", "line 2 has no tab; write source<TAB>target"),
        ("one\t1\tI", "line 2 has 2 tabs; write source<TAB>target"),
    ],
)
def test_faulty_pairs(write: Callable[[str], str], line: str, message: str) -> None:
    path = write(f"two\t2\n{line}\n")
    assert failure(read_pairs(path), path) == ([Pair(1, "two", "2")], message)


def test_sentences(write: Callable[[str], str]) -> None:
    path = write(
        "-DOCSTART- -X- O\n\nEU NNP  B-ORG\nrejects VBZ O\n\n"
        " \t\nwait\u00a0here UH O\n-DOCSTART- -X- O\nPeter NNP B-PER"
    )
    assert list(read_sentences(path)) == [
        Sentence(3, ("EU", "rejects"), ("B-ORG", "O")),
        Sentence(7, ("wait\u00a0here",), ("O",)),
        Sentence(9, ("Peter",), ("B-PER",)),
    ]
    assert [sentence.tags for sentence in read_sentences(path, tag_column=2)] == [("NNP", "VBZ"), ("UH",), ("NNP",)]
    assert [sentence.tokens for sentence in read_sentences(path, token_column=2, tag_column=None)] == [
        ("NNP", "VBZ"), ("UH",), ("NNP",),
    ]  # fmt: skip
    assert {sentence.tags for sentence in read_sentences(path, tag_column=None)} == {()}


def test_columns_between_tabs(write: Callable[[str], str]) -> None:
    """A blank does not separate where tabs do, and a comment sign is a token."""
    path = write("New York\tx\tB-LOC \n#\t\tO\n")
    assert list(read_sentences(path)) == [Sentence(1, ("New York", "#"), ("B-LOC", "O"))]


def test_tokens_alone(write: Callable[[str], str]) -> None:
    path = write("to\nbe\n\n\nor\n")
    assert [sentence.tokens for sentence in read_sentences(path, tag_column=None)] == [("to", "be"), ("or",)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("word", "line 3 has 1 column, but line 1 has 2; every token needs as many"),
        ("a b O", "line 3 has 3 columns, but line 1 has 2; "),
        ("\tO", "line 3 has a tag without a token; write the token before it"),
        (" \tO", "line 3 has a tag without a token; "),
        ("word\t", "line 3 has a token without a tag; write O for none"),
        ("word\t" + "x" * 1001, "line 3 has a tag of 1,001 characters, 1,000 are allowed; choose another column"),
    ],
)
def test_faulty_rows(write: Callable[[str], str], line: str, message: str) -> None:
    path = write(f"a\tO\n\n{line}\n")
    before, found = failure(read_sentences(path), path)
    assert before == [Sentence(1, ("a",), ("O",))]
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tag_column": 4}, "line 2 has only 3 columns, so no column 4; choose another"),
        ({"token_column": 5, "tag_column": None}, "line 2 has only 3 columns, so no column 5; choose another"),
        ({"token_column": 3}, "line 2 has its token and its tag both in column 3; give a file of token and tag"),
        ({"token_column": 0}, "line 2 has its token and its tag both in column 3; give a file of token and tag"),
    ],
)
def test_columns_that_are_not_there(write: Callable[[str], str], columns: dict[str, Any], message: str) -> None:
    path = write("\nEU NNP B-ORG\n")
    before, found = failure(read_sentences(path, **columns), path)
    assert before == []
    assert found.startswith(message)


def test_a_file_without_tags(write: Callable[[str], str]) -> None:
    path = write("to\nbe\n")
    _, message = failure(read_sentences(path), path)
    assert message.startswith("line 1 has its token and its tag both in column 1; ")


@pytest.mark.parametrize("reader", READERS)
def test_invalid_utf8(tmp_path: Path, reader: Callable[..., Iterator[Any]]) -> None:
    path = tmp_path / "latin.tsv"
    path.write_bytes(EXAMPLE.encode() + b"\ncaf\xe9\tx\n")
    before, message = failure(reader(str(path)), str(path))
    assert len(before) == 1
    assert "not UTF-8: byte 0xe9 at offset 13, line 3; convert it with iconv" in message
    assert "--level" not in message  # these files are texts, whatever the level


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("data", "remedy"), [(b"a\tb\0\n", "give a text file"), (b"\xff\xfea\0", "iconv -f UTF-16")])
def test_what_is_no_text(tmp_path: Path, reader: Callable[..., Iterator[Any]], data: bytes, remedy: str) -> None:
    path = tmp_path / "binary"
    path.write_bytes(data)
    _, message = failure(reader(str(path)), str(path))
    assert remedy in message
    assert "--level" not in message


@pytest.mark.parametrize("reader", READERS)
def test_gzip_standard_input_and_observer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[..., Iterator[Any]]
) -> None:
    path = tmp_path / "corpus.tsv.gz"
    path.write_bytes(gzip.compress(EXAMPLE.encode()))
    seen: list[bytes] = []
    (example,) = reader(str(path), observe=seen.append)
    assert example.line == 1
    assert b"".join(seen) == EXAMPLE.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(EXAMPLE.encode())))
    assert list(reader("-")) == [example]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\t\xff")))
    with pytest.raises(InputError, match=r"^standard input: not UTF-8"):
        list(reader("-"))


@pytest.mark.parametrize("reader", READERS)
def test_nothing_to_read(write: Callable[[str], str], reader: Callable[..., Iterator[Any]]) -> None:
    assert list(reader(write(""))) == []
    assert list(reader(write("\n \n\t\n"))) == []


@pytest.mark.parametrize("reader", READERS)
def test_examples_of_a_pipe_are_not_held_back(
    monkeypatch: pytest.MonkeyPatch, reader: Callable[..., Iterator[Any]]
) -> None:
    pipe = Pipe(b"x\ty\n\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))
    examples = reader("-")
    assert [next(examples).line, pipe.asked, next(examples).line, pipe.asked] == [1, 1, 3, 2]


def test_long_and_empty_sequences(write: Callable[[str], str]) -> None:
    words = [f"w{number}" for number in range(5000)]
    (sentence,) = read_sentences(write("".join(f"{word}\tO\n" for word in words)))
    assert sentence.tokens == tuple(words)
    assert len(sentence.tags) == 5000
    path = write(f"x\t\nx\t{' '.join(words)}\n")
    assert [example.text for example in read_labelled(path)] == ["", " ".join(words)]
    assert [pair.target for pair in read_pairs(path)] == ["", " ".join(words)]


@given(rows=st.lists(st.tuples(names, fields, fields)), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_was_written_is_read(scratch: Path, rows: list[tuple[str, str, str]], end: str) -> None:
    scratch.write_bytes("".join(f"{name}\t{text}{end}" for name, text, _ in rows).encode())
    labelled = [(example.line, example.label, example.text) for example in read_labelled(str(scratch))]
    assert labelled == [(number, name, text) for number, (name, text, _) in enumerate(rows, start=1)]
    pairs = [(pair.line, pair.source, pair.target) for pair in read_pairs(str(scratch))]
    assert pairs == labelled


@given(
    sentences=st.lists(st.lists(st.tuples(names, names), min_size=1)),
    gap=st.sampled_from(["\n", "\n\n", " \t\n", "-DOCSTART-\tO\n", "-DOCSTART-\n\n"]),
    separator=st.sampled_from(["\t", " ", "  ", "\tX\t"]),
)
def test_sentences_that_were_written_are_read(
    scratch: Path, sentences: list[list[tuple[str, str]]], gap: str, separator: str
) -> None:
    text = gap.join("".join(f"{token}{separator}{tag}\n" for token, tag in sentence) for sentence in sentences)
    scratch.write_bytes(text.encode())
    found = list(read_sentences(str(scratch)))
    assert [list(zip(sentence.tokens, sentence.tags, strict=True)) for sentence in found] == sentences
    lines = text.split("\n")
    for sentence in found:
        for number, token in enumerate(sentence.tokens, start=sentence.line):
            assert re.split("[\t ]", lines[number - 1])[0] == token
