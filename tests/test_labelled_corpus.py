"""Texts of ``label<TAB>text`` lines as a corpus: a stream like any other, and a label for each sequence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import InputError, UsageError
from charlm.text import readers, spool, token_file
from charlm.text.batches import Batches
from charlm.text.corpus import Corpus, load
from charlm.text.labels import Labels
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS, EOS_ID, UNK, Vocabulary

LINES = Tokenizer()
NAMES = "Irish\tAodh\n\nGreek\tEos\r\nIrish\t\n \t\nIrish\tOna\n"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labelled") / "names.tsv"


def write(path: Path, text: str) -> list[str]:
    path.write_bytes(text.encode())
    return [str(path)]


def examples(corpus: Corpus | None) -> list[tuple[str, str]]:
    """Label and text of each sequence."""
    assert corpus is not None
    assert corpus.labels is not None
    assert corpus.label_ids is not None
    assert corpus.label_ids.dtype == np.int32
    parts = np.split(corpus.tokens, np.flatnonzero(corpus.tokens == EOS_ID) + 1)[:-1]
    texts = [corpus.tokenizer.join([corpus.vocabulary.symbol(number) for number in part[:-1]]) for part in parts]
    return [(corpus.labels.names[label], text) for label, text in zip(corpus.label_ids, texts, strict=True)]


def test_a_stream_and_its_labels(tmp_path: Path) -> None:
    train, valid = load(write(tmp_path / "names.tsv", NAMES), LINES, labelled=True)
    assert valid is None
    assert examples(train) == [("Irish", "Aodh"), ("Greek", "Eos"), ("Irish", ""), ("Irish", "Ona")]
    assert train.labels == Labels(("Irish", "Greek"))
    # The labels' letters are no part of the text.
    assert train.vocabulary.symbols == (UNK, EOS, "o", "A", "E", "O", "a", "d", "h", "n", "s")
    assert train.sha256 == hashlib.sha256(NAMES.encode()).hexdigest()
    assert (train.counts.sequences, train.counts.tokens, train.counts.blank_lines) == (4, 10, 2)
    assert train.first_inputs is not None
    assert train.first_inputs.dtype == np.int32
    assert train.first_inputs.tolist() == [12, 13, 12, 12]  # V is 11; V itself is the zero vector
    assert train.label_counts == (3, 1)


def test_without_labels_the_zero_vector_begins(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path / "names.tsv", NAMES), LINES)
    assert (train.labels, train.label_ids, train.first_inputs, train.label_counts) == (None, None, None, ())


def test_words(tmp_path: Path) -> None:
    paths = write(tmp_path / "x.tsv", "good\ta  fine\tday\nbad \tRain\n")
    train, _ = load(paths, Tokenizer("word", lowercase=True), labelled=True)
    assert examples(train) == [("good", "a fine day"), ("bad", "rain")]


def test_several_files_and_their_lines(tmp_path: Path) -> None:
    paths = write(tmp_path / "a", "x\t1\n") + write(tmp_path / "b", "y\t2")
    train, _ = load(paths, LINES, labelled=True)
    assert examples(train) == [("x", "1"), ("y", "2")]
    write(tmp_path / "b", "y\t2\n\nno tab\n")
    with pytest.raises(InputError, match=r"b: line 3 has no tab; write label<TAB>text$"):
        load(paths, LINES, labelled=True)


def test_the_batches_of_a_labelled_corpus(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path / "names.tsv", NAMES), LINES, labelled=True)
    batches = Batches(
        train.tokens, vocabulary_size=train.vocabulary.size, streams=2, bptt=20, shuffle=True, seed=0,
        first_inputs=train.first_inputs,
    )  # fmt: skip
    (chunk,) = batches.chunks(0)
    begins = chunk.inputs > train.vocabulary.size
    firsts = [train.vocabulary.symbol(number) for number in chunk.targets[begins].tolist()]
    assert sorted(zip(chunk.inputs[begins].tolist(), firsts, strict=True)) == [
        (12, EOS),
        (12, "A"),
        (12, "O"),
        (13, "E"),
    ]


def test_the_part_held_out_is_stratified(tmp_path: Path) -> None:
    text = "".join(f"{'ABC'[number % 3]}\t{number}\n" for number in range(300)) + "rare\tx\n"
    paths = write(tmp_path / "names.tsv", text)
    train, valid = load(paths, LINES, labelled=True, valid_frac=0.1)
    assert sorted(examples(train) + examples(valid)) == sorted(tuple(line.split("\t")) for line in text.splitlines())
    held = [label for label, _ in examples(valid)]
    assert {label: held.count(label) for label in "ABC"} == {"A": 10, "B": 10, "C": 10}
    assert train.labels is not None
    assert valid is not None
    assert valid.labels == train.labels
    assert valid.label_ids is not None
    assert train.labels.missing(valid.label_ids) == ["rare"]
    assert "x" in train.vocabulary.symbols
    assert examples(load(paths, LINES, labelled=True, valid_frac=0.1)[1]) == examples(valid)
    assert examples(load(paths, LINES, labelled=True, valid_frac=0.1, seed=1)[1]) != examples(valid)


def test_too_few_to_hold_any_out(tmp_path: Path) -> None:
    paths = write(tmp_path / "names.tsv", "a\tx\nb\ty\n")
    with pytest.raises(InputError, match=r"2 sequences, too few to hold out 0\.5 of them; raise --valid-frac"):
        load(paths, LINES, labelled=True, valid_frac=0.5)


def test_validation_has_the_labels_of_the_training_text(tmp_path: Path) -> None:
    paths = write(tmp_path / "a", "x\t1\ny\t2\nx\t3\n")
    valid = write(tmp_path / "b", "y\t1\n")
    assert examples(load(paths, LINES, labelled=True, valid_paths=valid)[1]) == [("y", "1")]
    write(tmp_path / "b", "y\t1\n\nz\t1\nz\t2\n")
    with pytest.raises(InputError, match=r"b: line 3: the label 'z' is unknown to the model; it knows x, y$"):
        load(paths, LINES, labelled=True, valid_paths=valid)


def test_labels_that_a_model_brings(tmp_path: Path) -> None:
    labels, letters = Labels(("z", "y", "x")), Vocabulary((UNK, EOS, "1", "2"))
    paths = write(tmp_path / "a", "x\t1\ny\t2\n")
    train, _ = load(paths, LINES, labelled=True, vocabulary=letters, labels=labels)
    assert train.labels == labels
    assert examples(train) == [("x", "1"), ("y", "2")]
    with pytest.raises(InputError, match=r"a: line 2: the label 'y' is unknown"):
        load(paths, LINES, labelled=True, labels=Labels(("x",)))


@pytest.mark.parametrize(
    "tokenizer", [Tokenizer("char", "file"), Tokenizer("word", "paragraph"), Tokenizer("byte", "line", "none")]
)
def test_labels_belong_to_lines_of_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="one sequence a line, of characters or words; leave out --sequence, --level"):
        load(write(tmp_path / "a", "x\t1\n"), tokenizer, labelled=True)


def test_a_token_file_holds_no_labels(tmp_path: Path) -> None:
    paths, tokens = write(tmp_path / "a", "x\t1\n"), str(tmp_path / "tokens")
    token_file.write(tokens, load(paths, LINES)[0])
    with pytest.raises(InputError, match="a token file, which holds no labels; give the text"):
        load([tokens], LINES, labelled=True)
    with pytest.raises(InputError, match="a token file, which holds no labels; give the text"):
        load(paths, LINES, labelled=True, valid_paths=[tokens])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; there is nothing to read"),
        ("\n \n", "nothing but blank lines"),
        ("x\t\n", "1 line with a label and no text after the tab; write label<TAB>text"),
        ("x\t\ny\t\n\n", "2 lines with a label and no text"),
        ("x\t1\n\t2\n", "line 2 has no label before its tab"),
    ],
)
def test_bad_input(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / "a", text), LINES, labelled=True)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x\t1\nx\t\xff\n")
    with pytest.raises(
        InputError, match=r"not UTF-8: byte 0xff at offset 6, line 2; convert it with iconv[^-]*-f"
    ) as caught:
        load([str(tmp_path / "a")], LINES, labelled=True)
    assert "--level" not in str(caught.value)


def test_long_sequences(tmp_path: Path) -> None:
    train, _ = load(write(tmp_path / "a", f"x\t\ny\t{'ab ' * 5000}\n"), Tokenizer("word"), labelled=True)
    assert train.counts.tokens == 5000
    assert examples(train)[0] == ("x", "")


lines = st.tuples(st.sampled_from(["a", "b", "cc", "é"]), st.text("xyé \t", max_size=5))


@given(rows=st.lists(st.one_of(lines, st.just(("", ""))), max_size=30), block=st.integers(1, 12), held=st.booleans())
def test_any_lines(scratch: Path, rows: list[tuple[str, str]], block: int, held: bool) -> None:
    """Whatever the blocks: every line with its label, none lost, also where a part is held out."""
    rows = [*rows, ("a", "x"), ("a", "y"), ("a", "z")]
    scratch.write_bytes("".join(f"{label}\t{text}\n" if label else " \n" for label, text in rows).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_BYTES", block)
        patch.setattr(spool, "BLOCK_TOKENS", block)
        letters = Vocabulary((UNK, EOS, *"xyzé \t"))
        train, valid = load([str(scratch)], LINES, labelled=True, vocabulary=letters, valid_frac=0.5 if held else 0.0)
    expected = [row for row in rows if row[0]]
    assert train.counts.blank_lines == len(rows) - len(expected)
    if held:
        assert sorted(examples(train) + examples(valid)) == sorted(expected)
    else:
        assert valid is None
        assert examples(train) == expected
