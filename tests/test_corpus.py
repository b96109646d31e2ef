import gzip
import hashlib
import io
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.errors import CharlmError, InputError, UsageError
from charlm.text import readers, spool, token_file
from charlm.text.corpus import Corpus, Counts, load
from charlm.text.split import split_tail
from charlm.text.tokenizer import SEQUENCES, Tokenizer
from charlm.text.vocabulary import EOS, EOS_ID, UNK, UNK_ID, Vocabulary

LINES = Tokenizer()
ALPHABET = ["a", "b", "é", "e\u0301", " ", "\t", "\n", "\n\n", " \n", "\r\n", "\u00a0", "😀", "<unk>", "<eos>", "Σ"]
lines_and_blanks = st.lists(st.sampled_from(ALPHABET), max_size=60).map("".join)
tokenizers = st.sampled_from(
    [Tokenizer(level, sequence) for level in ("char", "word") for sequence in SEQUENCES]
    + [Tokenizer("word", "line", "nfkc", True)]
    + [Tokenizer("byte", sequence, "none") for sequence in SEQUENCES]
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "text"


@pytest.fixture
def text(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "text"


def write(path: Path, text: str) -> list[str]:
    path.write_bytes(text.encode())
    return [str(path)]


def sequences(corpus: Corpus) -> list[list[str]]:
    """The tokens of each sequence; a last one without EOS too."""
    found: list[list[str]] = [[]]
    for number in corpus.tokens.tolist():
        if number == EOS_ID:
            found.append([])
        else:
            found[-1].append(corpus.vocabulary.symbol(number))
    return found if found[-1] else found[:-1]


def reference_sequences(data: bytes, tokenizer: Tokenizer) -> list[list[str]]:
    """Sequences by the definition, one line after another."""
    text = data.decode(tokenizer.encoding)
    if tokenizer.level != "byte":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if tokenizer.sequence == "file":
        return [tokenizer.tokens(text)]
    groups: list[list[str]] = [[]]
    for line in text.split("\n"):
        if all(map(tokenizer.is_space, line)):
            groups.append([])
        elif tokenizer.sequence == "line":
            groups.append([line])
        else:
            groups[-1].append(line)
    return [tokenizer.tokens("\n".join(group)) for group in groups if group]


def test_names(text: Path) -> None:
    train, valid = load(write(text, "ann\nbo\n\n \nanna"), LINES)
    assert valid is None
    assert train.vocabulary.symbols == (UNK, EOS, "n", "a", "b", "o")
    assert train.tokens.tolist() == [3, 2, 2, 1, 4, 5, 1, 3, 2, 2, 3, 1]
    assert train.tokens.dtype == np.uint8
    assert train.counts == Counts(sequences=3, tokens=9, types=4, unknowns=0, characters=9, words=3, blank_lines=2)
    assert train.sha256 == hashlib.sha256(b"ann\nbo\n\n \nanna").hexdigest()
    assert train.names == [str(text)]
    assert train.tokenizer == LINES


def test_paragraphs(text: Path) -> None:
    paths = write(text, "\n\none\n two \n\n \t\nthree\n\n\n")
    train, _ = load(paths, Tokenizer("char", "paragraph"))
    assert ["".join(s) for s in sequences(train)] == ["one\n two ", "three"]
    assert train.counts.blank_lines == 6
    train, _ = load(paths, Tokenizer("word", "paragraph"))
    assert sequences(train) == [["one", "\n", "two"], ["three"]]
    assert (train.counts.words, train.counts.tokens, train.counts.characters) == (3, 4, len("one\ntwothree"))


def test_files_keep_every_newline(tmp_path: Path) -> None:
    paths = write(tmp_path / "a", "\n\none\n\n") + write(tmp_path / "b", "two")
    train, _ = load(paths, Tokenizer("char", "file"))
    assert ["".join(s) for s in sequences(train)] == ["\n\none\n\n", "two"]
    assert (train.counts.characters, train.counts.words) == (10, 2)
    train, _ = load(paths, Tokenizer("word", "file"))
    assert sequences(train) == [["\n", "\n", "one", "\n", "\n"], ["two"]]


def test_sequences_end_with_their_file(tmp_path: Path) -> None:
    paths = write(tmp_path / "a", "no newline") + write(tmp_path / "b", "at the end")
    for sequence in SEQUENCES:
        assert load(paths, Tokenizer("word", sequence))[0].counts.sequences == 2


def test_words_and_special_words(text: Path) -> None:
    paths = write(text, "a <eos> b  <unk>\na a\n")
    train, _ = load(paths, Tokenizer("word"))
    assert train.vocabulary.symbols == (UNK, EOS, "a", "b")
    assert train.tokens.tolist() == [2, UNK_ID, 3, UNK_ID, EOS_ID, 2, 2, EOS_ID]
    assert train.counts == Counts(
        sequences=2, tokens=6, types=4, unknowns=2, characters=len("a <eos> b <unk>") + len("a a"), words=6
    )


def test_bytes_are_lossless(text: Path) -> None:
    data = bytes(range(256)) * 3 + b"\r\n\n\xef\xbb\xbf"
    text.write_bytes(data)
    train, _ = load([str(text)], Tokenizer.from_options("byte"))
    symbols = [train.vocabulary.symbol(i) for i in train.tokens[:-1].tolist()]
    assert "".join(symbols).encode("latin-1") == data
    assert train.tokens.dtype == np.uint16  # 256 bytes and two specials
    assert train.counts.characters == len(data)


def test_min_count_and_vocab_size(text: Path) -> None:
    paths = write(text, "aaabbc")
    train, _ = load(paths, LINES, min_count=2)
    assert train.vocabulary.symbols == (UNK, EOS, "a", "b")
    assert train.tokens.tolist() == [2, 2, 2, 3, 3, UNK_ID, EOS_ID]
    assert (train.counts.types, train.counts.unknowns) == (3, 1)
    assert load(paths, LINES, vocab_size=3)[0].vocabulary.symbols == (UNK, EOS, "a")
    with pytest.raises(InputError, match="lower --min-count"):
        load(paths, LINES, min_count=4)


def test_given_vocabulary(text: Path) -> None:
    vocabulary = Vocabulary((UNK, EOS, "x", "a"))
    train, _ = load(write(text, "axb"), LINES, vocabulary=vocabulary, min_count=99)
    assert train.vocabulary is vocabulary
    assert train.tokens.tolist() == [3, 2, UNK_ID, EOS_ID]


def test_dtype_follows_the_vocabulary(text: Path) -> None:
    for types, dtype in ((254, np.uint8), (255, np.uint16), (65534, np.uint16), (65535, np.int32)):
        train, _ = load(write(text, " ".join(f"w{i}" for i in range(types))), Tokenizer("word"))
        assert train.vocabulary.size == types + 2
        assert train.tokens.dtype == dtype
        assert train.tokens.max() == types + 1


def test_vocabulary_comes_from_the_training_part(text: Path) -> None:
    train, valid = load(write(text, "ab\nab\nxb\nab"), LINES, valid_frac=0.34)
    assert valid is not None
    assert sequences(valid) == [[UNK, "b"]]
    assert train.vocabulary.symbols == valid.vocabulary.symbols == (UNK, EOS, "a", "b")
    assert valid.counts.unknown_rate == 0.5
    train, valid = load(write(text, "aaaaaaaax"), Tokenizer("char", "file"), valid_frac=0.1)
    assert train.vocabulary.symbols == (UNK, EOS, "a")


@pytest.mark.parametrize("fraction", [0.1, 0.05, 0.29, 0.5, 0.9, 0.999, 1e-3])
@pytest.mark.parametrize("sequence", ["line", "paragraph"])
def test_held_out_sequences_are_spread(text: Path, fraction: float, sequence: str) -> None:
    names = [str(number) for number in range(3000)]
    paths = write(text, "\n\n".join(names))
    digits = Vocabulary((UNK, EOS, *"0123456789"))
    train, valid = load(paths, Tokenizer("char", sequence), valid_frac=fraction, vocabulary=digits)
    f = Fraction(str(fraction))
    held = {i for i in range(3000) if floor((i + 1) * f) > floor(i * f)}
    assert valid is not None
    assert ["".join(s) for s in sequences(valid)] == [n for i, n in enumerate(names) if i in held]
    assert ["".join(s) for s in sequences(train)] == [n for i, n in enumerate(names) if i not in held]
    assert len(held) == floor(3000 * f)


@pytest.mark.parametrize(("count", "fraction", "expected"), [(1_115_394, 0.1, 1_003_854), (1000, 0.29, 710)])
def test_held_out_tail(text: Path, count: int, fraction: float, expected: int) -> None:
    content = "".join(chr(97 + i % 23) for i in range(count))
    train, valid = load(write(text, content), Tokenizer("char", "file"), valid_frac=fraction)
    assert valid is not None
    assert (train.counts.tokens, valid.counts.tokens) == (expected, count - expected)
    assert train.tokens.size == expected  # the text goes on: no EOS
    assert valid.tokens.size == count - expected + 1
    assert "".join(sequences(train)[0] + sequences(valid)[0]) == content
    assert train.counts.sequences == valid.counts.sequences == 1


def test_tail_of_several_files(tmp_path: Path) -> None:
    paths = write(tmp_path / "a", "abcd") + write(tmp_path / "b", "efgh") + write(tmp_path / "c", "ij")
    parts = {}
    for fraction in (0.6, 0.5, 0.2, 0.1):
        train, valid = load(paths, Tokenizer("char", "file"), valid_frac=fraction)
        assert valid is not None
        parts[fraction] = ["".join(s) for s in sequences(train)], len(sequences(valid)), train.tokens[-1] == EOS_ID
    assert parts[0.6] == (["abcd"], 2, True)  # the cut is at a border, which belongs to what it ends
    assert parts[0.5] == (["abcd", "e"], 2, False)
    assert parts[0.2] == (["abcd", "efgh"], 1, True)
    assert parts[0.1] == (["abcd", "efgh", "i"], 1, False)


@pytest.mark.parametrize("block", [1, 2, 3, 5, 100])
def test_tail_does_not_depend_on_blocks(block: int) -> None:
    ids = np.array([2, 3, 4, EOS_ID, 5, 6, EOS_ID, 7, EOS_ID])
    for tokens, cut in ((1, 1), (2, 2), (3, 4), (4, 5), (5, 7)):
        parts = split_tail((ids[i : i + block] for i in range(0, ids.size, block)), tokens)
        train, valid = (np.concatenate(part).tolist() for part in zip(*parts, strict=True))
        assert (train, valid) == (ids[:cut].tolist(), ids[cut:].tolist())


def test_validation_texts(tmp_path: Path) -> None:
    train, valid = load(write(tmp_path / "a", "ab\n"), LINES, valid_paths=write(tmp_path / "b", "\nbc\n"))
    assert valid is not None
    assert valid.tokens.tolist() == [3, UNK_ID, EOS_ID]
    assert valid.vocabulary is train.vocabulary
    assert (train.names, valid.names) == ([str(tmp_path / "a")], [str(tmp_path / "b")])
    assert valid.counts.blank_lines == 1


def test_two_kinds_of_validation(text: Path) -> None:
    paths = write(text, "ab\n" * 9)
    with pytest.raises(UsageError, match="leave out one"):
        load(paths, LINES, valid_frac=0.5, valid_paths=paths)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan"), 1e-9, 1 - 1e-9])
def test_impossible_fraction(text: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="--valid-frac"):
        load(write(text, "ab\n" * 9), LINES, valid_frac=fraction)


@pytest.mark.parametrize(("content", "sequence"), [("a\nb\nc\n", "line"), ("a", "file"), ("a\n\nb", "paragraph")])
def test_nothing_left_to_validate(text: Path, content: str, sequence: str) -> None:
    with pytest.raises(InputError, match=r"too (few|short) to hold out"):
        load(write(text, content), Tokenizer("char", sequence), valid_frac=0.1 if sequence != "file" else 0.9)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\xef\xbb\xbf", "empty"), (b"\n \n\t\r\n", "nothing but blank"), (b"\xff", "not UTF-8")],
)
def test_unusable_text(text: Path, content: bytes, message: str) -> None:
    good = write(text.with_name("good"), "good")
    text.write_bytes(content)
    for sequence in SEQUENCES:
        for level in ("char", "word"):
            with pytest.raises(InputError, match=message) as caught:
                load([*good, str(text)], Tokenizer(level, sequence))
            assert str(text) in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        load([*good, str(text) + "x"], LINES)


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\ncd\n")))
    train, valid = load(["-"], LINES, valid_frac=0.5)
    assert valid is not None
    assert (train.counts.tokens, valid.counts.tokens, train.names) == (2, 2, ["standard input"])
    with pytest.raises(UsageError, match="only once"):
        load(["-", "-"], LINES)


def test_gzip_and_fingerprint(text: Path) -> None:
    paths = write(text, "some\ntext\n")
    packed = text.with_name("text.gz")
    packed.write_bytes(gzip.compress(b"some\ntext\n"))
    plain, _ = load(paths, LINES)
    unpacked, _ = load([str(packed)], LINES)
    assert plain.tokens.tolist() == unpacked.tokens.tolist()
    assert plain.sha256 == unpacked.sha256
    both, _ = load([*paths, str(packed)], LINES)
    assert both.sha256 == hashlib.sha256(b"some\ntext\nsome\ntext\n").hexdigest()


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    seen: list[int] = []
    paths = write(tmp_path / "a", "ab\r\n" * 500_000)
    load(paths, LINES, valid_paths=write(tmp_path / "b", "ab"), on_bytes=seen.append)
    assert sum(seen) == 2_000_002
    assert len(seen) > 2


def test_large_corpora_leave_memory(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "".join(f"{number}\n" for number in range(2000))
    paths = write(text, content)
    expected, expected_valid = load(paths, LINES, valid_frac=0.1)
    monkeypatch.setattr(spool, "MEMORY_BYTES", 500)
    monkeypatch.setattr(spool, "BLOCK_TOKENS", 100)
    monkeypatch.setattr(readers, "BLOCK_BYTES", 64)
    train, valid = load(paths, LINES, valid_frac=0.1)
    assert isinstance(train.tokens, np.memmap)
    assert valid is not None
    assert expected_valid is not None
    for corpus, wanted in ((train, expected), (valid, expected_valid)):
        assert np.array_equal(corpus.tokens, wanted.tokens)
        assert corpus.counts == wanted.counts
        spool.release_pages(corpus.tokens)
        assert np.array_equal(np.concatenate(list(spool.array_blocks(corpus.tokens))), wanted.tokens)
    with pytest.raises(ValueError, match="read-only"):
        train.tokens[0] = 0


def test_full_temporary_folder(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.write", full)
    with pytest.raises(InputError, match="No space left on device"):
        load(write(text, "ab"), LINES)


def test_one_long_line(text: Path) -> None:
    paths = write(text, "aé" * 2_500_000)
    train, _ = load(paths, LINES)
    assert train.counts.tokens == 5_000_000
    assert train.tokens[:3].tolist() == [2, 3, 2]
    with pytest.raises(InputError, match=r"a word of more than 1,000 characters is: is --level char meant\?"):
        load(paths, Tokenizer("word"))


def test_a_word_that_is_far_too_long_is_unknown(text: Path) -> None:
    train, _ = load(write(text, f"a {'x' * 1001} {'y' * 1000}\n"), Tokenizer("word"))
    assert train.vocabulary.symbols[2:] == ("a", "y" * 1000)
    assert (train.counts.tokens, train.counts.types, train.counts.unknowns) == (3, 3, 1)


def test_token_file_stands_for_its_text(text: Path) -> None:
    paths = write(text, "".join(f"line {number % 7}\n" for number in range(50)))
    for tokenizer in (LINES, Tokenizer("word"), Tokenizer("char", "file"), Tokenizer("word", "file")):
        whole, _ = load(paths, tokenizer)
        stored = str(text) + ".tokens"
        token_file.write(stored, whole)
        again, none = load([stored], Tokenizer.from_options("byte"))
        assert none is None
        assert (again.counts, again.sha256, again.tokenizer) == (whole.counts, whole.sha256, tokenizer)
        for part, wanted in zip(
            load([stored], LINES, valid_frac=0.3),
            load(paths, tokenizer, valid_frac=0.3, vocabulary=whole.vocabulary),
            strict=True,
        ):
            assert part is not None
            assert wanted is not None
            assert np.array_equal(part.tokens, wanted.tokens)
            assert part.counts == wanted.counts


def test_split_token_file_shares_out_the_letters_of_unknown_words(text: Path) -> None:
    paths = write(text, "the the\nlongword the\n" * 10)
    whole, _ = load(paths, Tokenizer("word"), vocab_size=3)
    stored = str(text) + ".tokens"
    token_file.write(stored, whole)
    train, valid = load([stored], LINES, valid_frac=0.5)
    assert valid is not None
    assert train.counts.unknowns + valid.counts.unknowns == 10
    assert train.counts.characters + valid.counts.characters == whole.counts.characters == 190
    assert valid.counts.characters == 95


def test_token_file_misused(tmp_path: Path) -> None:
    paths = write(tmp_path / "text", "ab\nba\n")
    stored, other = str(tmp_path / "a.tokens"), str(tmp_path / "b.tokens")
    train, _ = load(paths, LINES)
    token_file.write(stored, train)
    token_file.write(other, load(write(tmp_path / "b", "bc"), LINES)[0])
    with pytest.raises(InputError, match="give it alone"):
        load([*paths, stored], LINES)
    with pytest.raises(InputError, match="another vocabulary"):
        load([stored], LINES, vocabulary=Vocabulary((UNK, EOS, "z")))
    with pytest.raises(InputError, match="another vocabulary or tokenizer"):
        load(paths, LINES, valid_paths=[other])
    again, valid = load([stored], LINES, vocabulary=train.vocabulary, valid_paths=[stored])
    assert valid is not None
    assert valid.tokens.tolist() == again.tokens.tolist() == train.tokens.tolist()


@settings(deadline=None, max_examples=200)
@given(text=lines_and_blanks, tokenizer=tokenizers, block=st.integers(1, 12), final=st.sampled_from(["", "\n", "x"]))
@example(text="<unk>", tokenizer=Tokenizer("word", "file"), block=12, final="\n")  # the newline can be learnt
@example(text="<unk>", tokenizer=Tokenizer("word"), block=12, final="\n")
def test_any_text_against_the_definition(
    scratch: Path, text: str, tokenizer: Tokenizer, block: int, final: str
) -> None:
    data = (text + final).encode()
    scratch.write_bytes(data)
    expected = reference_sequences(data, tokenizer)
    flat = [t for s in expected for t in s]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_BYTES", block)
        patch.setattr(spool, "BLOCK_TOKENS", block)
        # Nothing but blank lines, which only of a file of bytes are something; or no token that could have a symbol.
        is_any_file = (tokenizer.level, tokenizer.sequence) == ("byte", "file")
        if (all(map(tokenizer.is_space, flat)) and not (is_any_file and flat)) or {UNK, EOS}.issuperset(flat):
            with pytest.raises(InputError):
                load([str(scratch)], tokenizer)
            return
        train, _ = load([str(scratch)], tokenizer)
    vocabulary = Vocabulary.from_counts({t: flat.count(t) for t in flat})
    assert vocabulary == train.vocabulary
    assert train.tokens.tolist() == [i for s in expected for i in [*vocabulary.ids(s).tolist(), EOS_ID]]
    spelt = [tokenizer.join(s) for s in expected]
    word_pattern = re.compile(r"\S+", re.ASCII if tokenizer.level == "byte" else 0)
    assert train.counts == Counts(
        sequences=len(expected),
        tokens=len(flat),
        types=len(set(flat)),
        unknowns=sum(t in (UNK, EOS) for t in flat) if tokenizer.level == "word" else 0,
        characters=sum(map(len, spelt)),
        words=sum(len(word_pattern.findall(s)) for s in spelt),
        blank_lines=train.counts.blank_lines,
    )


@settings(deadline=None)
@given(data=st.binary(), tokenizer=tokenizers)
def test_any_bytes_fail_only_as_they_should(scratch: Path, data: bytes, tokenizer: Tokenizer) -> None:
    scratch.write_bytes(data)
    try:
        load([str(scratch)], tokenizer, valid_frac=0.5)
    except CharlmError as error:
        message = str(error)
        assert "\n" not in message


@settings(deadline=None)
@given(text=lines_and_blanks, tokenizer=tokenizers, block=st.integers(1, 12), fraction=st.floats(0.01, 0.99))
def test_any_split_is_complete(scratch: Path, text: str, tokenizer: Tokenizer, block: int, fraction: float) -> None:
    scratch.write_bytes((text + "end\n\nend\n\nend").encode())
    vocabulary = load([str(scratch)], tokenizer)[0].vocabulary
    whole, _ = load([str(scratch)], tokenizer, vocabulary=vocabulary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_BYTES", block)
        patch.setattr(spool, "BLOCK_TOKENS", block)
        try:
            train, valid = load([str(scratch)], tokenizer, vocabulary=vocabulary, valid_frac=fraction)
        except InputError:
            assert whole.counts.sequences * fraction < 1 or whole.counts.tokens * (1 - fraction) < 1
            return
    assert valid is not None
    assert train.counts.tokens + valid.counts.tokens == whole.counts.tokens
    if tokenizer.sequence == "file":
        assert np.concatenate([train.tokens, valid.tokens]).tolist() == whole.tokens.tolist()
    else:
        assert sorted(sequences(train) + sequences(valid)) == sorted(sequences(whole))
