import pytest

from charlm.text.tokenizer import Tokenizer
from charlm.text.unknown import column, unknown_message

CHARACTERS = Tokenizer()
WORDS = Tokenizer("word", "file")
BYTES = Tokenizer("byte", normalize="none")


@pytest.mark.parametrize(
    ("token", "tokenizer", "what"),
    [
        ("x", CHARACTERS, "'x' (U+0078, LATIN SMALL LETTER X)"),
        ("\u0308", CHARACTERS, r"'\u0308' (U+0308, COMBINING DIAERESIS)"),
        ("\x1b", CHARACTERS, r"'\x1b' (U+001B)"),
        ("dog", WORDS, "the word 'dog'"),
        ("а", WORDS, "the word 'а' (U+0430, CYRILLIC SMALL LETTER A)"),
        ("\u0301e", WORDS, r"the word '\u0301e'"),
        ("\n", WORDS, r"'\n' (U+000A)"),
        ("\n", BYTES, "byte 0x0a"),
        ("é", BYTES, "byte 0xe9"),
    ],
)
def test_a_message_names_and_places_the_token(token: str, tokenizer: Tokenizer, what: str) -> None:
    assert unknown_message("text", token, 3, 5, tokenizer) == (
        f"text: {what} at line 3, column 5 is not in the model's vocabulary; leave it out, or use --on-unknown skip "
        "or unk"
    )


def test_a_column_counts_the_characters_before_cleaning() -> None:
    line = "e\u0301e\u0301x"
    assert [column(line, index, CHARACTERS) for index in range(3)] == [1, 3, 5]
    assert column(line, 2, Tokenizer(normalize="none")) == 3
    assert column("İx", 2, Tokenizer(lowercase=True, normalize="none")) == 2  # a small letter of two code points
    assert column(" é e\u0301  x", 2, WORDS) == 8
