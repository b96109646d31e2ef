import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.text.vocabulary import EOS, EOS_ID, UNK, UNK_ID, Vocabulary, code_points


def characters(text: str) -> Vocabulary:
    return Vocabulary.from_counts({c: text.count(c) for c in text})


def test_order_is_by_count_then_code_point() -> None:
    vocabulary = Vocabulary.from_counts({"b": 2, "a": 2, "z": 9, "é": 2, "Z": 1})
    assert vocabulary.symbols == (UNK, EOS, "z", "a", "b", "é", "Z")
    assert (vocabulary.size, vocabulary.start_id) == (7, 7)


def test_min_count_and_size_drop_the_rare() -> None:
    counts = {"a": 5, "b": 4, "c": 3, "d": 1}
    assert Vocabulary.from_counts(counts, min_count=3).symbols == (UNK, EOS, "a", "b", "c")
    assert Vocabulary.from_counts(counts, size=4).symbols == (UNK, EOS, "a", "b")
    assert Vocabulary.from_counts(counts, min_count=4, size=9).size == 4
    assert Vocabulary.from_counts(counts, size=2).size == 2


def test_special_words_of_a_text_get_no_id_of_their_own() -> None:
    vocabulary = Vocabulary.from_counts({UNK: 100, EOS: 100, "a": 1})
    assert vocabulary.symbols == (UNK, EOS, "a")
    assert vocabulary.ids([UNK, EOS, "a", "new"]).tolist() == [UNK_ID, UNK_ID, 2, UNK_ID]


def test_ids_are_int32_also_of_nothing() -> None:
    vocabulary = characters("ab")
    for ids in (vocabulary.ids([]), vocabulary.ids(["a"]), vocabulary.encode_characters("")):
        assert ids.dtype == np.int32
        assert ids.ndim == 1


def test_encode_characters_takes_any_code_point() -> None:
    vocabulary = characters("aé😀\n")
    text = "a😀\n\ud800\U0010ffffé\0"
    assert vocabulary.encode_characters(text).tolist() == vocabulary.ids(list(text)).tolist()
    assert vocabulary.encode_characters(text)[3] == UNK_ID


def test_encode_characters_ignores_longer_symbols() -> None:
    assert Vocabulary.from_symbols([UNK, EOS, "ab", "b"]).encode_characters("ab").tolist() == [0, 3]


def test_symbol() -> None:
    vocabulary = characters("ab")
    assert [vocabulary.symbol(i) for i in range(4)] == [UNK, EOS, "a", "b"]
    assert vocabulary.symbol(EOS_ID) == EOS
    for outside in (-1, vocabulary.start_id):
        with pytest.raises(IndexError):
            vocabulary.symbol(outside)


@pytest.mark.parametrize(
    "symbols",
    [
        *(None, {}, "ab", [], [UNK], (UNK, EOS)),
        *([EOS, UNK], ["a", "b"], [UNK, EOS, "a", "a"], [UNK, EOS, UNK], [UNK, EOS, ""], [UNK, EOS, 3]),
    ],
)
def test_from_symbols_refuses(symbols: object) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary.from_symbols(symbols)


def test_equality_and_fingerprint() -> None:
    assert characters("aab") == Vocabulary.from_symbols([UNK, EOS, "a", "b"])
    assert characters("aab").sha256 == Vocabulary.from_symbols([UNK, EOS, "a", "b"]).sha256
    assert characters("aab") != characters("abb")
    assert characters("aab").sha256 != characters("abb").sha256
    # Symbols that would be equal if they were only strung together.
    assert Vocabulary((UNK, EOS, "ab", "c")).sha256 != Vocabulary((UNK, EOS, "a", "bc")).sha256


def test_immutable() -> None:
    with pytest.raises(AttributeError):
        characters("a").symbols = ()  # type: ignore[misc]


@given(st.text())
def test_encode_then_decode(text: str) -> None:
    vocabulary = characters(text)
    ids = vocabulary.encode_characters(text)
    assert "".join(map(vocabulary.symbol, ids.tolist())) == text
    assert np.array_equal(ids, vocabulary.ids(list(text)))
    assert not np.isin(ids, [UNK_ID, EOS_ID]).any()


@given(st.text(st.characters(codec=None)))
def test_code_points(text: str) -> None:
    assert code_points(text).tolist() == [ord(c) for c in text]
