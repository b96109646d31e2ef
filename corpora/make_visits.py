"""Write visits.conll: sentences about people and places, a token and its tag a line, a blank line after each sentence.

    Mary	B-person
    Harinson	I-person
    left	O
    Port	B-place
    Verdenmouth	I-place
    .	O

The sentences come from the grammar below. A symbol in capitals is rewritten as one of its choices, drawn evenly;
PERSON, SURNAME and PLACE become names; everything else is a word. Surnames and places are put together from parts, so
that there are always names that were never seen. Neither spelling nor neighbours tell all: some people are named after
places, every sentence begins with a capital, and `we remember Garaford` may be either.

Usage: python make_visits.py    writes visits.conll beside itself.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

SENTENCES = 1500
SEED = 1
OUTSIDE = "O"


def _parts(text: str) -> list[str]:
    return text.split()


GRAMMAR: dict[str, list[str]] = {
    "SENTENCE": [
        "PERSON MOVED to PLACE WHEN .",
        "PERSON LEFT PLACE WHEN .",
        "PERSON and PERSON MOVED from PLACE to PLACE .",
        "PERSON met PERSON in PLACE .",
        "PERSON SAID that PLACE was ADJECTIVE .",
        "the TITLE , SURNAME , SAID nothing .",
        "the NOUN in PLACE was ADJECTIVE WHEN .",
        "the NOUN from PLACE to PLACE is ADJECTIVE .",
        "PLACE is ADJECTIVE and far from PLACE .",
        "in PLACE , PERSON LEFT the NOUN .",
        "MANY remember PLACE .",
        "MANY remember SURNAME .",
        "WHEN , PERSON SAID that the TITLE was ADJECTIVE .",
        "MANY MOVED home WHEN .",
    ],
    "MOVED": ["drove", "walked", "went", "travelled"],
    "LEFT": ["left", "liked", "sold", "painted"],
    "SAID": ["said", "wrote", "thought"],
    "WHEN": ["yesterday", "last week", "in spring", "on market day"],
    "TITLE": ["doctor", "farmer", "judge", "teacher"],
    "NOUN": ["bridge", "mill", "road", "river", "church"],
    "ADJECTIVE": ["cold", "old", "quiet", "small", "beautiful"],
    "MANY": ["we", "many", "some of us"],
}
GIVEN_NAMES = _parts(
    "Ada Ben Carl Dora Edith Frank Grace Henry Ida Jack Kate Leo Mary Ned Olive Paul Rose Sam Tom Una Vera Will"
)
FIRST_PARTS = _parts("Al Bal Cal Dal El Fal Gar Har Kel Lan Mar Nor Or Pel Ros Sal Thor Ul Ver Win")
SECOND_PARTS = ["", *_parts("a an ber den er i in le ling mer ne o ra ver")]
SURNAME_ENDINGS = _parts("er ing man son well wright")
PLACE_ENDINGS = _parts("bridge bury by field ford ham ley mouth ton wick")
PLACE_BEGINNINGS = ["New", "Old", "Port", "Upper"]
NAMED_AFTER_A_PLACE = 0.25  # of the surnames
TWO_WORDS = 0.3  # of the places
GIVEN_NAME_ALONE = 0.4  # of the persons

Token = tuple[str, str]  # and its tag


def pick(rng: random.Random, parts: Sequence[str]) -> str:
    """Draw evenly. `random.Random.random` draws the same numbers in every version of Python."""
    return parts[int(rng.random() * len(parts))]


def make_word(rng: random.Random, endings: Sequence[str]) -> str:
    """Draw the three parts of a surname, or of a place's name."""
    return pick(rng, FIRST_PARTS) + pick(rng, SECOND_PARTS) + pick(rng, endings)


def make_surname(rng: random.Random) -> str:
    """Draw a surname."""
    return make_word(rng, PLACE_ENDINGS if rng.random() < NAMED_AFTER_A_PLACE else SURNAME_ENDINGS)


def make_name(rng: random.Random, symbol: str) -> list[str]:
    """Draw the words of a name."""
    if symbol == "SURNAME":
        return [make_surname(rng)]
    if symbol == "PERSON":
        given = pick(rng, GIVEN_NAMES)
        return [given] if rng.random() < GIVEN_NAME_ALONE else [given, make_surname(rng)]
    place = make_word(rng, PLACE_ENDINGS)
    return [pick(rng, PLACE_BEGINNINGS), place] if rng.random() < TWO_WORDS else [place]


def generate(rng: random.Random, symbol: str) -> Iterator[Token]:
    """Yield the words of a random rewriting of `symbol` with their tags."""
    if symbol in GRAMMAR:
        for part in pick(rng, GRAMMAR[symbol]).split():
            yield from generate(rng, part)
    elif symbol.isupper():
        kind = "place" if symbol == "PLACE" else "person"
        for number, word in enumerate(make_name(rng, symbol)):
            yield word, f"{'I' if number else 'B'}-{kind}"
    else:
        yield symbol, OUTSIDE


def make_sentence(rng: random.Random) -> list[Token]:
    """Draw a sentence; its first letter is a capital."""
    (word, tag), *rest = generate(rng, "SENTENCE")
    return [(word[0].upper() + word[1:], tag), *rest]


def make_text(count: int = SENTENCES, seed: int = SEED) -> str:
    """Draw sentences."""
    rng = random.Random(seed)
    sentences = (make_sentence(rng) for _ in range(count))
    return "".join("".join(f"{word}\t{tag}\n" for word, tag in sentence) + "\n" for sentence in sentences)


if __name__ == "__main__":
    Path(__file__).with_name("visits.conll").write_text(make_text(), encoding="ascii", newline="\n")
