import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import UsageError
from charlm.text.tokenizer import LEVELS, NORMALIZATIONS, SEQUENCES, Tokenizer

TRICKY = ["\n", " ", "\t", "\u00a0", "\u2028", "\x1c", "\u0301", "é", "Σ", "İ", "ﬁ", "👩‍👩‍👧", "한", "ß", "a", "<unk>"]
texts = st.one_of(st.text(), st.lists(st.sampled_from(TRICKY)).map("".join))


def every_tokenizer() -> list[Tokenizer]:
    texts = [
        Tokenizer(level, sequence, normalize, lowercase)
        for level, sequence, normalize, lowercase in itertools.product(
            ("char", "word"), SEQUENCES, NORMALIZATIONS, (False, True)
        )
    ]
    return texts + [Tokenizer("byte", sequence, "none") for sequence in SEQUENCES]


def test_characters_are_code_points() -> None:
    assert Tokenizer(normalize="none").tokens("e\u0301👩‍👧") == ["e", "\u0301", "👩", "\u200d", "👧"]
    assert Tokenizer().tokens("e\u0301") == ["é"]


def test_words() -> None:
    text = " the  cat\n\n sat \tdown\n"
    assert Tokenizer("word").tokens(text) == ["the", "cat", "sat", "down"]
    for sequence in ("paragraph", "file"):
        tokenizer = Tokenizer("word", sequence)
        tokens = tokenizer.tokens(text)
        assert tokens == ["the", "cat", "\n", "\n", "sat", "down", "\n"]
        assert tokenizer.join(tokens) == "the cat\n\nsat down\n"


def test_normal_forms() -> None:
    assert Tokenizer(normalize="nfkc").clean("ﬁ①") == "fi1"
    assert Tokenizer(normalize="nfc").clean("ﬁ①") == "ﬁ①"
    assert Tokenizer(lowercase=True).clean("ÀΣΣ") == "àσς"
    assert Tokenizer(normalize="none").clean("A\u0300") == "A\u0300"


def test_options_not_given_have_defaults() -> None:
    assert Tokenizer.from_options() == Tokenizer("char", "line", "nfc", False)
    assert Tokenizer.from_options("word", "file", "nfkc", True) == Tokenizer("word", "file", "nfkc", True)
    assert Tokenizer.from_options("byte") == Tokenizer("byte", "file", "none", False)
    assert Tokenizer.from_options("byte", "line") == Tokenizer("byte", "line", "none", False)


@pytest.mark.parametrize("options", [{"normalize": "nfc"}, {"lowercase": True}])
def test_bytes_stay_as_they_are(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--level byte"):
        Tokenizer.from_options("byte", **options)


@pytest.mark.parametrize("name", ["level", "sequence", "normalize"])
def test_unknown_choice(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name} odd: choose one of"):
        Tokenizer(**{name: "odd"})


def test_encoding() -> None:
    assert [Tokenizer.from_options(level).encoding for level in LEVELS] == ["utf-8", "utf-8", "latin-1"]


def test_what_can_be_a_token() -> None:
    word = Tokenizer("word")
    assert [word.can_yield(t) for t in ("cat", "\n", "a b", " ", "", "a\n")] == [1, 1, 0, 0, 0, 0]
    assert [Tokenizer().can_yield(t) for t in ("a", "ab", "", "Ω")] == [1, 0, 0, 1]
    assert [Tokenizer.from_options("byte").can_yield(t) for t in ("\xff", "Ω")] == [1, 0]


def test_blank_tokens() -> None:
    assert [Tokenizer().is_space(t) for t in (" ", "\u00a0", "\n", "a")] == [1, 1, 1, 0]
    assert not Tokenizer.from_options("byte").is_space("\xa0")  # a part of many a letter in UTF-8


def test_json_round_trip() -> None:
    for tokenizer in every_tokenizer():
        assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer


@pytest.mark.parametrize(
    "change",
    [
        {"level": "morpheme"},
        {"level": 1},
        {"level": None},
        {"level": ["char"]},
        {"level": "byte"},
        {"lowercase": 0},
        {"lowercase": "yes"},
        {"extra": 1},
    ],
)
def test_json_is_strict(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the tokenizer"):
        Tokenizer.from_json({**Tokenizer().to_json(), **change})


@pytest.mark.parametrize("value", [None, [], "char", {}, {"level": "char"}])
def test_json_is_complete(value: object) -> None:
    with pytest.raises(ValueError, match="the tokenizer does not have the keys"):
        Tokenizer.from_json(value)


@given(texts)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    for tokenizer in every_tokenizer():
        clean = tokenizer.clean(text)
        assert tokenizer.clean(clean) == clean
        if tokenizer.normalize != "none":
            form = tokenizer.normalize.upper()
            assert unicodedata.is_normalized(form, clean)  # type: ignore[arg-type]


@given(texts)
def test_cleaning_leaves_lines_apart(text: str) -> None:
    """What the readers rely on: a text can be cleaned line by line."""
    for tokenizer in every_tokenizer():
        assert tokenizer.clean(text) == "\n".join(tokenizer.clean(line) for line in text.split("\n"))


@given(texts)
def test_join_undoes_tokens(text: str) -> None:
    for tokenizer in every_tokenizer():
        if tokenizer.level == "byte":
            text = text.encode("utf-8", "surrogatepass").decode("latin-1")
        tokens = tokenizer.tokens(text)
        joined = tokenizer.join(tokens)
        assert tokenizer.tokens(joined) == tokens
        if tokenizer.level != "word":
            assert joined == tokenizer.clean(text)
        elif tokenizer.sequence == "line":
            assert joined == " ".join(tokenizer.clean(text).split())
        else:
            lines = tokenizer.clean(text).split("\n")
            assert joined == "\n".join(" ".join(line.split()) for line in lines)
        assert all(map(tokenizer.can_yield, tokens))


@given(st.binary())
def test_bytes_survive(data: bytes) -> None:
    tokenizer = Tokenizer.from_options("byte")
    text = data.decode(tokenizer.encoding)
    assert tokenizer.join(tokenizer.tokens(text)).encode(tokenizer.encoding) == data
